"""Metrics of a run as JSON lines, and as TensorBoard events beside them.

`metrics.jsonl` has one object per line and holds nothing but functions of the
config and the seed, so a run that was killed and resumed leaves the same bytes
as one that never stopped. Speeds and times are no such functions: they go to
`timing.jsonl`. Figures and reports read these files, never the events.

Numbers that are not finite are the strings "NaN", "Infinity" and "-Infinity":
every line is strict JSON, and `float` takes each back.
"""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from tgmm_jax.training import files, run_folder


class MetricWriter:
  """Appends scalars to a run's folder; only process 0 writes.

  Nothing is created or changed before the first `write` or `truncate`. Use it
  as a context manager, or call `close`.
  """

  def __init__(self, folder: str | os.PathLike):
    """Sets the folder; it is made by the first `write`.

    Args:
      folder: of the run; an older run's lines in it are appended to.
    """
    self._folder = pathlib.Path(folder)
    self._is_writer = jax.process_index() == 0
    self._files = {}
    self._events = None
    self._last_step = None
    self._purge_step = None

  def write(
    self,
    step: int,
    scalars: Mapping[str, object],
    *,
    timing: Mapping[str, object] | None = None,
  ) -> None:
    """Writes one line, and flushes it.

    Args:
      step: more than that of every line so far.
      scalars: by name, numbers or arrays with one element.
      timing: speeds and times, for `timing.jsonl`.

    Raises:
      ValueError: the step is not a later one (after a restore call `truncate`
        first), a value is no scalar, or a name is "step".
    """
    if not self._is_writer:
      return
    step = int(step)
    numbers = {run_folder.METRICS: _to_numbers(scalars)}
    if timing:
      numbers[run_folder.TIMING] = _to_numbers(timing)
    if self._events is None:
      self._open()
    if self._last_step is not None and step <= self._last_step:
      raise ValueError(
        f"step is {step}, takes more than {self._last_step}, the last one in "
        f"{self._folder / run_folder.METRICS}"
      )
    self._last_step = step
    for name, values in numbers.items():
      self._append(name, step, values)
      prefix = "timing/" if name == run_folder.TIMING else ""
      for key, value in values.items():
        with _naming(self._events.path):
          self._events.add_scalar(prefix + key, value, step)

  def truncate(self, step: int) -> int:
    """Drops what a run wrote after the step that it was restored to.

    Lines that do not parse go too: a kill tears the last one.

    Args:
      step: the restored step; lines of later steps are dropped.

    Returns:
      The number of lines dropped from `metrics.jsonl`.
    """
    if not self._is_writer:
      return 0
    self.close()
    self._purge_step = int(step) + 1
    self._last_step, num_dropped = _keep_lines(
      self._folder / run_folder.METRICS, int(step)
    )
    _keep_lines(self._folder / run_folder.TIMING, int(step))
    return num_dropped

  def close(self) -> None:
    """Closes the files; a later `write` opens them again.

    Raises:
      OSError: what is left cannot be written; all are closed nevertheless.
    """
    opened = {self._folder / name: file for name, file in self._files.items()}
    if self._events is not None:
      opened[self._events.path] = self._events
    self._files, self._events = {}, None
    with contextlib.ExitStack() as stack:
      for path, file in opened.items():
        stack.enter_context(_naming(path))
        stack.callback(file.close)

  def __enter__(self) -> "MetricWriter":
    """Returns itself."""
    return self

  def __exit__(self, *error) -> None:
    """Closes the files."""
    self.close()

  def _open(self):
    # Here, not on top: it takes seconds where PyTorch is installed, since it
    # imports that too, and only one process needs it.
    from tgmm_jax.training import event_files

    self._folder.mkdir(parents=True, exist_ok=True)
    # A torn last line would swallow the next one.
    self._last_step, _ = _keep_lines(
      self._folder / run_folder.METRICS, math.inf
    )
    _keep_lines(self._folder / run_folder.TIMING, math.inf)
    # TensorBoard then hides what the events before the restore have later.
    self._events = event_files.EventFile(
      self._folder, purge_step=self._purge_step
    )

  def _append(self, name, step, values):
    if name not in self._files:
      self._files[name] = open(self._folder / name, "a", encoding="utf-8")
    line = {"step": step} | {
      key: _to_json(value) for key, value in values.items()
    }
    # In one call, so that a kill tears at most the last line.
    with _naming(self._folder / name):
      self._files[name].write(json.dumps(line, allow_nan=False) + "\n")
      self._files[name].flush()


@contextlib.contextmanager
def _naming(path):
  """Of a full disk Python says, but not which file."""
  try:
    yield
  except OSError as error:
    if error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, str(path)) from error


def read_metrics(
  path: str | os.PathLike, *, needs: Sequence[str] = ()
) -> dict[str, np.ndarray]:
  """Reads `metrics.jsonl` or `timing.jsonl`, also of a run under way.

  Args:
    path: of the file.
    needs: names that must be there, but in a file without lines.

  Returns:
    By name `[lines]`: `step` as int64, the others as float64 with nan in lines
    that lack them. A last line without its end is left out.

  Raises:
    ValueError: another line is no object with a step and numbers, or a name is
      missing; in one line.
  """
  records = []
  for number, (line, record) in enumerate(_lines(path), 1):
    if record is None and line.endswith(b"\n"):
      raise ValueError(
        f"{path}, line {number}, is {line[:60]!r}, takes a JSON object with a "
        "step and numbers"
      )
    if record is not None:
      records.append(record)
  names = dict.fromkeys(name for record in records for name in record)
  missing = [name for name in needs if name not in names] if records else []
  if missing:
    raise ValueError(f"{path} has no {missing[0]!r} in any line")
  columns = {
    name: np.array([float(record.get(name, "nan")) for record in records])
    for name in names
  }
  return columns | {
    "step": np.array([record["step"] for record in records], np.int64)
  }


def _lines(path) -> Iterator[tuple[bytes, dict | None]]:
  """Yields each line and its object, or None where it has none."""
  with open(path, "rb") as file:
    for line in file:
      record = None
      if line.endswith(b"\n"):
        try:
          record = files.parse_object(line)
        except ValueError:
          pass
      yield line, record if _is_record(record) else None


def _is_record(record):
  """Whether it is what `write` writes: an int64 step, and numbers."""
  if record is None or type(record.get("step")) is not int:
    return False
  return 0 <= record["step"] < 2**63 and all(map(_is_number, record.values()))


def _is_number(value):
  if type(value) is int:
    return abs(value) < 2**64  # any integer of JAX
  return type(value) is float or value in ("NaN", "Infinity", "-Infinity")


def _keep_lines(path, max_step) -> tuple[int | None, int]:
  """Drops lines that don't parse or are later; (last step, number dropped)."""
  if not path.exists():
    return None, 0
  kept, last_step, num_dropped = [], None, 0
  for line, record in _lines(path):
    is_next = record is not None and (
      last_step is None or record["step"] > last_step
    )
    if is_next and record["step"] <= max_step:
      kept.append(line)
      last_step = record["step"]
    else:
      num_dropped += 1
  if num_dropped:
    files.write(path, b"".join(kept))
  return last_step, num_dropped


def _to_numbers(scalars) -> dict[str, int | float]:
  """Python numbers, sorted by name: jit returns its dicts sorted as well."""
  numbers = {}
  for name in sorted(scalars):
    if name == "step":
      raise ValueError("scalars has the name 'step', takes any other name")
    value = np.asarray(scalars[name])
    if value.size != 1:
      raise ValueError(
        f"scalars[{name!r}] has shape {value.shape}, takes one number"
      )
    # Booleans as 0 and 1; everything else, bfloat16 too, through float.
    is_integer = value.dtype.kind in "bui"
    numbers[name] = int(value.item()) if is_integer else float(value.item())
  return numbers


def _to_json(value):
  if math.isfinite(value):
    return value
  if math.isnan(value):
    return "NaN"
  return "Infinity" if value > 0 else "-Infinity"
