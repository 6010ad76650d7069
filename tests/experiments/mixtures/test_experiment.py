"""What a run leaves in its folder, read from outside."""

import dataclasses
import html.parser
import json
import math

import pytest

from experiments import mixtures, rq1
from experiments.mixtures import kind as mixture_kind
from experiments.runner import fields
from tgmm_jax import pretrained
from tgmm_jax.training import run_folder

pytestmark = pytest.mark.slow

COLUMNS = "solver,dim,num_components,num_points,shift,shift_kind,metric,mean"
COLUMNS += ",standard_error,count,failures"
SOLVERS = {"tgmm", "tgmm+em5", "refiner", "refiner+em5", "refiner-x8+em5"}
SOLVERS |= {"em/normal", "em/random_points", "em/ward", "em/k-means++"}
SOLVERS |= {"em/oracle"}
SOLVERS |= {"em/k-means++-x10", "em/k-means++-x10-projected"}
SOLVERS |= {"spectral", "spectral+em", "spectral/estimated", "labels"}


class Page(html.parser.HTMLParser):
  """Collects what a page would load, and its text."""

  def __init__(self, text):
    super().__init__()
    self.loaded = []
    self.text = ""
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    for name, value in attrs:
      if name in ("src", "href", "srcset", "data", "action", "poster"):
        self.loaded.append((tag, name, value))

  def handle_data(self, data):
    self.text += data


@pytest.fixture(scope="module")
def workdir(smoke):
  return smoke[0]


@pytest.fixture(scope="module")
def config():
  """The config of the run as JSON."""
  return json.loads(json.dumps(fields.identity(rq1.get_config("smoke"))))


def read_json(path):
  return json.loads(path.read_text())


def test_folder_has_what_is_promised_and_nothing_else(workdir):
  assert {path.name for path in workdir.iterdir()} == {
    *("config.json", "versions.json", "results.csv", "report.html"),
    *(
      "report.json",
      "duration.json",
      "figures",
      "refiner",
      "tgmm-d2",
      "baselines",
      ".lock",
    ),
  }
  for name in ("refiner", "tgmm-d2"):
    names = {path.name for path in (workdir / name).iterdir()}
    events = {part for part in names if part.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert names - events == {
      *("checkpoints", "metrics.jsonl", "timing.jsonl", ".lock"),
      *("parameters.json", "results.csv", "measured.json"),
    }
  assert not list(workdir.rglob("*.tmp"))


def test_config_is_whole_in_the_folder_and_in_every_checkpoint(workdir, config):
  assert read_json(workdir / "config.json") == config
  found = list(workdir.glob("*/checkpoints/*/meta/metadata"))
  assert len(found) == 6
  for path in found:
    assert read_json(path)["config"] == config


def test_versions(workdir):
  versions = read_json(workdir / "versions.json")
  assert versions["platform"] == "cpu"
  for name in ("tgmm_jax", "jax", "flax", "optax", "numpy", "python"):
    assert versions[name][0].isdigit()


def test_checkpoints_are_the_last_three(workdir):
  for name in ("refiner", "tgmm-d2"):
    folder = workdir / name / run_folder.CHECKPOINTS
    steps = {int(path.parent.name) for path in folder.glob("*/commit_*")}
    assert steps == {20, 30, 40}
    assert {path.name for path in folder.iterdir()} == {"20", "30", "40"}


def test_metrics_of_training(workdir):
  for name, dims in (("refiner", (2, 3)), ("tgmm-d2", (2,))):
    text = (workdir / name / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == list(range(5, 41, 5))
    for line in lines:
      assert all(math.isfinite(value) for value in line.values())
      assert {f"l2_error/d{dim}" for dim in dims} <= line.keys()
      assert line["num_skipped"] == 0


def test_parameters_are_counted(workdir):
  counts = read_json(workdir / "tgmm-d2" / "parameters.json")
  # By hand, for D = 8, E = 128, d = 2, two K up to 3: the embedding of K, and
  # for each K three queries and a map to K weights and d means with a bias.
  assert counts["per_task"] == 2 * 128 + 2 * (3 * 8 + (8 + 1) * (3 + 2))
  assert counts["total"] == counts["shared"] + counts["per_task"]


def test_table_is_complete(workdir):
  header, *lines = (workdir / "results.csv").read_text().splitlines()
  assert header == COLUMNS
  rows = [
    dict(zip(header.split(","), line.split(","), strict=True)) for line in lines
  ]
  found = {
    (row["solver"], row["num_components"], row["metric"]) for row in rows
  }
  assert len(found) == len(rows)
  # What the tasks themselves are has a row of its own.
  assert {row["solver"] for row in rows} == SOLVERS | {"tasks"}
  expected = {
    (solver, count, metric)
    for solver in SOLVERS
    for count in ("2", "3")
    for metric in mixture_kind.METRICS
  }
  assert expected <= found
  for row in rows:
    if row["metric"] == "l2_error_as_released":
      continue  # some tasks are left out
    assert (row["dim"], row["num_points"], row["count"]) == ("2", "32", "16")
    assert math.isfinite(float(row["mean"])), row
    assert float(row["standard_error"]) >= 0
    assert 0 <= int(row["failures"]) <= 16


def test_table_is_the_parts_and_makes_sense(workdir):
  parts = []
  for name in ("refiner", "tgmm-d2", "baselines"):
    parts += (workdir / name / "results.csv").read_text().splitlines()[1:]
  whole = (workdir / "results.csv").read_text().splitlines()[1:]
  assert sorted(whole) == sorted(parts)
  errors = {}
  for line in whole:
    solver, _, count, _, _, _, metric, mean, *_ = line.split(",")
    if metric == "l2_error":
      errors[solver, count] = float(mean)
  for count in ("2", "3"):
    assert errors["labels", count] < 0.2
    assert errors["em/k-means++-x10", count] < 1.1 * errors["em/normal", count]
    assert errors["labels", count] < errors["tgmm", count]


def test_figures_are_pictures(workdir):
  folder = workdir / "figures"
  names = {path.stem for path in folder.iterdir()}
  assert names == {"error", "alignment", "front", "learning_curves"}
  for name in names:
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_page_loads_nothing_and_says_everything(workdir, config):
  text = (workdir / "report.html").read_text()
  page = Page(text)
  assert sum(tag == "img" for tag, *_ in page.loaded) >= 4
  for tag, name, value in page.loaded:
    assert value.startswith(("data:", "#")), (tag, name, value[:80])
  for part in ("http://", "https://", "url(", "@import", "<script src"):
    assert part not in text
  assert config["title"] in page.text
  assert config["question"] in page.text
  for solver in SOLVERS:
    assert solver in page.text
  assert "No planned cell is missing." in page.text
  assert read_json(workdir / "versions.json")["jax"] in page.text
  assert "40 of 40" in page.text


def test_page_shows_what_is_missing(workdir, tmp_path):
  folder = tmp_path / "run"
  (folder / "refiner").mkdir(parents=True)
  for name in ("config.json", "versions.json"):
    (folder / name).write_bytes((workdir / name).read_bytes())
  for name in ("results.csv", "measured.json", "parameters.json"):
    part = workdir / "refiner" / name
    (folder / "refiner" / name).write_bytes(part.read_bytes())
  mixtures.experiment(rq1.get_config("smoke"), folder).run("report")
  text = Page((folder / "report.html").read_text()).text
  # 3 of 16 solvers are there, for two K and the metrics of the report.
  num_missing = 13 * 2 * len(mixture_kind.METRICS)
  num_planned = 16 * 2 * len(mixture_kind.METRICS)
  assert f"{num_missing} of {num_planned} planned results are missing" in text


def test_scores_of_other_weights_are_not_kept(tmp_path, monkeypatch):
  config = rq1.get_config("pretrained")
  config.evaluation.dims = (2,)
  config.evaluation.num_components = (2,)
  config.evaluation.num_tasks = 4
  config.evaluation.with_baselines = False
  experiment = mixtures.experiment(config, tmp_path / "run")
  experiment.run("evaluate")
  table = tmp_path / "run" / "baselines" / "results.csv"
  written = table.stat().st_ino
  mixtures.experiment(config, tmp_path / "run").run("evaluate")
  assert table.stat().st_ino == written
  card = pretrained.read_card("unit")
  other = dataclasses.replace(card, sha256="0" * 64)
  monkeypatch.setattr(pretrained, "read_card", lambda name: other)
  mixtures.experiment(config, tmp_path / "run").run("evaluate")
  assert table.stat().st_ino != written


def test_config_of_another_run_leaves_the_folder_alone(workdir):
  config = rq1.get_config("smoke")
  config.runs.refiner.model.width = 16
  before = (workdir / "config.json").read_bytes()
  with pytest.raises(
    run_folder.RunFolderError, match="model.width is 8 there and 16 here"
  ):
    mixtures.experiment(config, workdir).run("report")
  assert (workdir / "config.json").read_bytes() == before
