"""The experiments with spectra: their configs, their data and one whole run."""

import dataclasses
import functools
import importlib
import operator
import pathlib
import struct

import jax
import numpy as np
import pytest

from experiments.spectra import config as spectrum_config
from experiments.spectra import figures as spectrum_figures
from experiments.spectra import kind as spectrum_kind
from tgmm_jax.evaluation import results
from tgmm_jax.tasks import images, spectra
from tgmm_jax.training import step as train_step

FOLDER = pathlib.Path(spectrum_config.__file__).parents[1]
EXPERIMENTS = {
  path.stem: importlib.import_module(f"experiments.{path.stem}")
  for path in sorted(FOLDER.glob("pca_*.py"))
}
VARIANTS = ("", "quick", "smoke")


def runs_of(name, variant):
  config = EXPERIMENTS[name].get_config(variant)
  return {run.name: run for run in spectrum_config.make_runs(config)}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_config_is_whole(name, variant):
  module = EXPERIMENTS[name]
  config = module.get_config(variant)
  assert config.variant == variant
  assert config.title
  assert config.question.endswith("?")
  runs = runs_of(name, variant)
  elements = [element["only"] for element in module.sweep(config)]
  assert elements == sorted(runs)
  # Points of one curve, which the table would refuse to have twice.
  places = [
    (spectrum_config.study_of(run), run.x)
    for run in runs.values()
    if run.varies
  ]
  assert len(set(places)) == len(places)
  for run in runs.values():
    assert run.varies in ("", *spectrum_figures.VARIABLES)
    field = getattr(run.model, run.varies or "dim")
    assert run.x == (field if run.varies else 0.0)
    law = run.problems
    assert (law.dim, law.num_targets) == (run.model.dim, run.model.num_targets)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_variant_that_does_not_exist(name):
  with pytest.raises(ValueError, match="variant is 'fast', takes one of quick"):
    EXPERIMENTS[name].get_config("fast")


def sizes(run):
  law = run.problems
  num_points = getattr(law, "num_points", None) or law.max_points
  return law.dim, num_points, law.num_targets


def test_papers_settings():
  runs = runs_of("pca_eigenvalues", "")
  assert sizes(runs["top10"]) == (20, 50, 10)
  for run in runs.values():
    assert run.batch_size == 64
    assert run.train.num_steps == 100_000
    assert run.train.optimizer.learning_rate == 1e-3
    assert run.train.optimizer.weight_decay == 0.0
    assert (run.model.width, run.model.num_heads) == (64, 2)
    assert isinstance(run.problems, spectra.CovarianceConfig)
  assert runs["top10"].model.num_layers == 3
  over_dim = [run for run in runs.values() if run.varies == "dim"]
  assert {sizes(run)[1] for run in over_dim} == {10}


def test_quick_has_the_problems_that_have_to_be_reached():
  assert sizes(runs_of("pca_eigenvalues", "quick")["top3"]) == (10, 50, 3)
  if "pca_eigenvectors" in EXPERIMENTS:
    top1 = runs_of("pca_eigenvectors", "quick")["top1"]
    assert sizes(top1) == (5, 20, 1)
    assert top1.loss == "eigenvectors"
  if "pca_subspace" in EXPERIMENTS:
    runs = runs_of("pca_subspace", "quick").values()
    assert sorted(sizes(run)[2] for run in runs) == [1, 2, 3, 4]
    assert {run.loss for run in runs} == {"subspace"}
  if "pca_real" in EXPERIMENTS:
    runs = runs_of("pca_real", "quick").values()
    assert {run.problems.source for run in runs} == {"idx", "mnist-5000"}
    assert {run.loss for run in runs} == {"eigenvalues", "subspace"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_small_run_can_be_trained(name):
  """Shapes only; on images too, where they need no folder."""
  for run in runs_of(name, "smoke").values():
    learner = spectrum_kind.learner_of(run)
    state = train_step.abstract_state(learner, run.train)
    examples = jax.eval_shape(learner.sample, jax.random.key(0), learner.data)
    assert examples.points.shape[0] == run.batch_size
    loss, scalars = jax.eval_shape(learner.loss, state.params, examples)
    assert (loss.shape, scalars) == ((), {})


# Values that are refused.

REFUSED = {
  "runs.top3.num_targets": (11, "num_targets is 11, takes 1 ... 10 for dim"),
  "runs.top3.num_points": (3, "num_targets is 3, takes 1 ... 2 for dim 10"),
  "runs.top3.loss": ("values", "loss is 'values', takes one of ['eigenvalues'"),
  "runs.top3.source": ("cifar", "source is 'cifar', takes one of ('idx',"),
  "runs.top3.varies": ("width", "varies is 'width', takes '' or one of ('dim'"),
  "runs.top3.spectrum": ("flat", "spectrum is 'flat', takes one of ('random'"),
  "runs.top3.ratio": (1.0, "ratio is 1.0, takes a number in (0, 1)"),
  "runs.top3.dim": ("10", "dim is '10', takes int as in 20"),
  "runs.top3.num_steps": (30, "num_steps is 30, takes a positive multiple of"),
  "runs.top3.model.attention": (
    "linear",
    "attention is 'linear', takes one of ('softmax', 'relu', 'relu/N')",
  ),
  "runs.top3.model.width": (63, "width is 63, takes a multiple of num_heads"),
  "runs.top3.model.readout": ("mean", "readout is 'mean', takes one of"),
  "runs.top3.model.has_norm": (1, "has_norm is 1, takes bool as in True"),
  "runs.top3.optimizer.schedule": ("step", "schedule is 'step', takes"),
  "evaluation.num_instances": (1, "num_instances is 1, takes at least 2"),
  "evaluation.num_steps": ((0, 1), "num_steps is (0, 1), takes integers >= 1"),
  "evaluation.seed": (2**32, "seed is 4294967296, takes 0 to 2**32 - 1"),
  "runs.top3.batch_size": (0, "batch_size is 0, takes an integer >= 1"),
  "runs.dim5.dim": (20, "dim5 has dim = 20, takes a value that config.runs.d"),
  "images.test_share": ("0.2", "test_share is '0.2', takes float as in 0.2"),
  "only": ("top4", "only is 'top4', takes '' or one of"),
}


@pytest.mark.parametrize("field", REFUSED)
def test_one_line_names_the_field(field, tmp_path):
  value, message = REFUSED[field]
  config = EXPERIMENTS["pca_eigenvalues"].get_config("quick")
  *path, last = field.split(".")
  with config.ignore_type():
    functools.reduce(operator.getitem, path, config)[last] = value
  with pytest.raises(ValueError, match="config") as error:
    spectrum_kind.experiment(config, tmp_path / "run")
  text = str(error.value)
  assert "\n" not in text
  assert text.startswith("config.")
  assert message in text
  # Where the value is: the field itself, or its run, before the message.
  assert ".".join(path) in text
  assert not list(tmp_path.iterdir())


# Images.


def write_idx(path, array):
  header = bytes([0, 0, 8, array.ndim])
  header += struct.pack(f">{array.ndim}I", *array.shape)
  path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_images(folder, *, test_seed=1, num_test=15):
  """30 images of 4 x 3 pixels for training, and others for testing."""
  for name, seed, size in (("train", 0, 30), ("t10k", test_seed, num_test)):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (size, 4, 3))
    write_idx(folder / f"{name}-images-idx3-ubyte", pixels)
    labels = generator.integers(0, 2, size)
    write_idx(folder / f"{name}-labels-idx1-ubyte", labels)
  return folder


def image_run(folder, **changes):
  config = EXPERIMENTS["pca_eigenvalues"].get_config("smoke")
  config.images.folder = str(folder)
  run = config.runs.top3
  run.source = "idx"
  run.update({"dim": 3, "num_points": 8, "num_targets": 2} | changes)
  (found,) = (
    run for run in spectrum_config.make_runs(config) if run.name == "top3"
  )
  return found


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"dim": 13}, "dim is 13, takes 1 ... 12, the pixels of an image"),
    ({"num_points": 31}, "num_points is 31, takes at most the 30 images of"),
    ({"num_points": 16}, "takes at most the 15 images of the test split"),
  ],
)
def test_images_that_are_too_small_or_too_few(tmp_path, changes, message):
  run = image_run(write_images(tmp_path), **changes)
  with pytest.raises(ValueError, match=message) as error:
    spectrum_kind.learner_of(run)
  assert "\n" not in str(error.value)


def test_folder_that_is_missing(tmp_path):
  run = image_run(tmp_path / "nothing")
  with pytest.raises(FileNotFoundError, match="nothing") as error:
    spectrum_kind.learner_of(run)
  assert "\n" not in str(error.value)


def test_other_test_images_change_nothing_that_trains(tmp_path):
  learners, splits = [], []
  for seed in (1, 2):
    folder = tmp_path / str(seed)
    folder.mkdir()
    run = image_run(write_images(folder, test_seed=seed))
    learners.append(spectrum_kind.learner_of(run))
    splits.append(spectrum_kind.prepared(run.problems).test)
  one, other = (learner.data for learner in learners)
  assert jax.tree.all(jax.tree.map(np.array_equal, one, other))
  assert not np.any(np.asarray(splits[0].points == splits[1].points))


def test_problems_are_images_of_their_own_split(tmp_path):
  run = image_run(write_images(tmp_path))
  found = spectrum_kind.prepared(run.problems)
  of_training, of_testing = spectrum_kind.samplers(run)
  assert spectrum_kind.learner_of(run).data is found.train
  for name, draw in (("train", of_training), ("test", of_testing)):
    points = np.asarray(draw(jax.random.key(0), 8).points).reshape(-1, 3)
    for split in ("train", "test"):
      rows = np.asarray(getattr(found, split).points)
      is_in = np.any(np.all(points[:, None] == rows, axis=-1), axis=-1)
      assert np.all(is_in == (split == name))


def test_images_are_read_once_for_all_runs(tmp_path):
  run = image_run(write_images(tmp_path))
  one = spectrum_kind.learner_of(run).data
  again = dataclasses.replace(run.problems)
  assert isinstance(again, images.ImageConfig)
  assert spectrum_kind.prepared(again).train is one


# Rows and figures.


def curve(study, metric, x):
  return results.mean_point(study, metric, "eigh", x, np.array([0.1, 0.2]))


def test_figures_by_target_and_over_what_varies():
  metric = "relative squared error"
  rows = [curve("top3", metric, x) for x in (1, 2, 3)]
  rows += [curve("dim5", metric, 1), curve("dim10", metric, 1)]
  rows += [curve("over dim", metric, x) for x in (5, 10)]
  found = {
    name: figure for name, figure in spectrum_figures.draw(rows).values()
  }
  assert set(found) == {"by_index", "over_dim"}
  # A single target is no curve.
  assert len(found["by_index"].axes) == 1
  assert found["over_dim"].axes[0].get_xlabel() == "d"
  for figure in found.values():
    assert all(axes.get_yscale() == "log" for axes in figure.axes)
  (figure,) = spectrum_figures.draw(
    [curve("top", "|cos|", x) for x in (1, 2)]
  ).values()
  assert figure[1].axes[0].get_yscale() == "linear"


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
  """The work folder of one run of eigenvalues, and how the process ended."""
  workdir = tmp_path_factory.mktemp("pca") / "run"
  module = EXPERIMENTS["pca_eigenvalues"]
  index = module.sweep(module.get_config("smoke")).index({"only": "dim5"})
  # One of the runs, which are the same but for sizes.
  for flag in (f"--sweep_index={index}", "--mode=report"):
    ended = start(
      "--config=experiments/pca_eigenvalues.py:smoke",
      f"--workdir={workdir}",
      flag,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
  return workdir, ended


@pytest.mark.slow
def test_smoke_run_from_the_command_to_the_page(whole):
  workdir, ended = whole
  rows = results.read_csv(workdir / "curves.csv", results.CurveRow)
  x = runs_of("pca_eigenvalues", "smoke")["dim5"].x
  values = {}
  for row in rows:
    assert (row.count, row.failures) == (32, 0)
    assert row.metric == "relative squared error"
    values.setdefault(row.study, {}).setdefault(row.series, {})[row.x] = row
  assert set(values) == {"dim5", "over dim"}
  for study, series in values.items():
    places = {1.0, 2.0} if study == "dim5" else {x}
    assert set(series) >= {"transformer", "population", "mean spectrum"}
    assert "power method, 2 steps" in series
    assert all(set(points) == places for points in series.values())
    assert all(row.value == 0.0 for row in series["eigh"].values())
    assert all(row.value > 0.0 for row in series["population"].values())
  # The point over what varies is the mean over the targets.
  for name, points in values["over dim"].items():
    parts = [row.value for row in values["dim5"][name].values()]
    assert points[x].value == pytest.approx(np.mean(parts))
  drawn = {path.stem for path in (workdir / "figures").glob("*.png")}
  assert drawn == {"by_index", "over_dim", "learning_curves"}
  page = (workdir / "report.html").read_text()
  assert "not measured yet" in page
  assert "transformer" in ended.stdout
