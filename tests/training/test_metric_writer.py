import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from tgmm_jax.training import metric_writer

INF = float("inf")


def strict_lines(path):
  def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")

  return [
    json.loads(line, parse_constant=refuse)
    for line in path.read_text().splitlines()
  ]


def events_of(folder):
  """Reads TensorBoard's record format: length, crc, payload, crc."""
  events = []
  for path in sorted(folder.glob("events.out.tfevents.*")):
    content = path.read_bytes()
    while content:
      size = int.from_bytes(content[:8], "little")
      events.append(event_pb2.Event.FromString(content[12 : 12 + size]))
      content = content[16 + size :]
  return events


def write_run(folder, steps):
  with metric_writer.MetricWriter(folder) as writer:
    for step in steps:
      writer.write(
        step,
        {"loss": jnp.float32(1 / (1 + step)), "skipped_steps": step // 3},
        timing={"steps_per_second": 20.0 + step},
      )


def test_lines_are_strict_json_with_python_numbers(tmp_path):
  with metric_writer.MetricWriter(tmp_path / "run") as writer:
    writer.write(
      1,
      {
        "z": jnp.float32(0.1),
        "a": np.int32(3),
        "half": jnp.bfloat16(1.5),
        "flag": True,
        "one": np.ones((1, 1)),
      },
    )
    writer.write(2, {"nan": math.nan, "inf": INF, "minus": jnp.array(-INF)})
  path = tmp_path / "run" / "metrics.jsonl"
  first, second = strict_lines(path)
  assert list(first) == ["step", "a", "flag", "half", "one", "z"]
  assert first == {
    "step": 1,
    "z": float(np.float32(0.1)),
    "a": 3,
    "half": 1.5,
    "flag": 1,
    "one": 1.0,
  }
  assert isinstance(first["a"], int)
  assert second["nan"] == "NaN"
  assert (float(second["inf"]), float(second["minus"])) == (INF, -INF)


def test_each_line_is_on_disk_when_write_returns(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path)
  for step in range(3):
    writer.write(step, {"loss": 1.0}, timing={"seconds": 2.0})
    for name in ("metrics.jsonl", "timing.jsonl"):
      content = (tmp_path / name).read_bytes()
      assert content.count(b"\n") == step + 1
      assert content.endswith(b"\n")
  writer.close()


def test_nothing_is_created_before_the_first_write(tmp_path):
  with metric_writer.MetricWriter(tmp_path / "run"):
    pass
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("killed_at", [5, 7, 9])
@pytest.mark.parametrize("tail", [b"", b'{"step": 10, "lo', b"\0\0\0"])
def test_resumed_run_has_the_bytes_of_the_unbroken_one(
  tmp_path, killed_at, tail
):
  write_run(tmp_path / "whole", range(12))
  write_run(tmp_path / "killed", range(killed_at + 1))
  for name in ("metrics.jsonl", "timing.jsonl"):
    with open(tmp_path / "killed" / name, "ab") as file:
      file.write(tail)
  with metric_writer.MetricWriter(tmp_path / "killed") as writer:
    writer.truncate(5)
  write_run(tmp_path / "killed", range(6, 12))
  for name in ("metrics.jsonl", "timing.jsonl"):
    whole = (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "killed" / name).read_bytes() == whole


def test_truncate_keeps_whole_lines_around_a_damaged_one(tmp_path):
  write_run(tmp_path, range(6))
  path = tmp_path / "metrics.jsonl"
  lines = path.read_bytes().splitlines(keepends=True)
  lines[2] = b'{"step": 2, "lo\x8as": 1}\n'
  lines.insert(4, lines[1])  # an earlier step once more
  path.write_bytes(b"".join(lines) + b"{")
  writer = metric_writer.MetricWriter(tmp_path)
  assert writer.truncate(4) == 4
  assert [line["step"] for line in strict_lines(path)] == [0, 1, 3, 4]


def test_truncate_leaves_a_good_file_alone(tmp_path):
  write_run(tmp_path, range(4))
  before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
  assert metric_writer.MetricWriter(tmp_path).truncate(3) == 0
  assert {
    path: path.stat().st_mtime_ns for path in tmp_path.iterdir()
  } == before
  assert metric_writer.MetricWriter(tmp_path / "none").truncate(3) == 0


def test_write_after_a_torn_line_without_truncate(tmp_path):
  write_run(tmp_path, range(2))
  path = tmp_path / "metrics.jsonl"
  path.write_bytes(path.read_bytes() + b'{"step": 2, "lo')
  write_run(tmp_path, [2])
  assert [line["step"] for line in strict_lines(path)] == [0, 1, 2]


@pytest.mark.parametrize("step", [3, 2])
@pytest.mark.parametrize("is_same_writer", [True, False])
def test_no_step_is_written_twice(tmp_path, step, is_same_writer):
  writer = metric_writer.MetricWriter(tmp_path)
  writer.write(3, {"loss": 1.0})
  if not is_same_writer:
    writer.close()
    writer = metric_writer.MetricWriter(tmp_path)
  with pytest.raises(ValueError, match=f"step is {step}, takes more than 3"):
    writer.write(step, {"loss": 2.0})
  writer.close()
  assert len(strict_lines(tmp_path / "metrics.jsonl")) == 1


@pytest.mark.parametrize(
  ("scalars", "message"),
  [
    ({"loss": np.ones(2)}, r"'loss'.* has shape \(2,\), takes one number"),
    ({"step": 1}, "has the name 'step'"),
  ],
)
def test_bad_scalars_are_refused_before_anything_is_written(
  tmp_path, scalars, message
):
  with metric_writer.MetricWriter(tmp_path / "run") as writer:
    with pytest.raises(ValueError, match=message):
      writer.write(1, {"a": 1.0} | scalars)
  assert not (tmp_path / "run").exists()


def test_only_process_0_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  write_run(tmp_path / "run", range(3))
  writer = metric_writer.MetricWriter(tmp_path / "run")
  assert writer.truncate(0) == 0
  assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_same_numbers_and_hides_the_undone(tmp_path):
  write_run(tmp_path, range(4))
  with metric_writer.MetricWriter(tmp_path) as writer:
    writer.truncate(1)
    writer.write(2, {"loss": 7.0})
  assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
  events = events_of(tmp_path)
  values = [
    (event.step, value.tag, value.simple_value)
    for event in events
    for value in event.summary.value
  ]
  assert (3, "loss", 0.25) in values
  assert (3, "timing/steps_per_second", 23.0) in values
  assert values[-1] == (2, "loss", 7.0)
  # TensorBoard drops what earlier files have from this step on.
  starts = [event.step for event in events if event.HasField("session_log")]
  assert starts == [2]


def test_read_metrics_aligns_columns_and_gives_nan_for_what_is_absent(tmp_path):
  with metric_writer.MetricWriter(tmp_path) as writer:
    writer.write(10, {"loss": 0.5})
    writer.write(20, {"loss": math.nan, "eval/d2": 3})
    writer.write(30, {"loss": -INF})
  path = tmp_path / "metrics.jsonl"
  with open(path, "ab") as file:
    file.write(b'{"step": 40, "loss": 0.')  # being written
  columns = metric_writer.read_metrics(path)
  assert columns["step"].dtype == np.int64
  np.testing.assert_array_equal(columns["step"], [10, 20, 30])
  np.testing.assert_array_equal(columns["loss"], [0.5, np.nan, -INF])
  np.testing.assert_array_equal(columns["eval/d2"], [np.nan, 3.0, np.nan])
  assert columns.keys() == {"step", "loss", "eval/d2"}


def test_read_metrics_of_an_empty_file(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.touch()
  columns = metric_writer.read_metrics(path)
  assert columns.keys() == {"step"}
  assert columns["step"].shape == (0,)


@pytest.mark.parametrize(
  "line",
  [
    "nonsense",
    "[1]",
    '{"loss": 1.0}',
    '{"step": true}',
    '{"step": -1}',
    '{"step": 1.5}',
    f'{{"step": {10**30}}}',
    '{"step": 2, "loss": null}',
    '{"step": 2, "loss": [1]}',
    '{"step": 2, "loss": "high"}',
    f'{{"step": 2, "loss": {10**400}}}',
    '{"step": 2, "loss": ' + "[" * 100_000,
    '{"a":' * 100_000,
  ],
)
def test_read_metrics_names_a_damaged_line(tmp_path, line):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n' + line + '\n{"step": 3}\n')
  with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is") as error:
    metric_writer.read_metrics(path)
  assert "\n" not in str(error.value)
  # A run that goes on drops the line, as a torn one.
  with metric_writer.MetricWriter(tmp_path) as writer:
    assert writer.truncate(3) == 1
  assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_read_metrics_names_what_is_missing(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1, "loss": 2}\n')
  assert metric_writer.read_metrics(path, needs=("loss",))["loss"] == [2.0]
  with pytest.raises(ValueError, match=r"metrics\.jsonl has no 'speed' in any"):
    metric_writer.read_metrics(path, needs=("loss", "speed"))
