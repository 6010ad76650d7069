"""The experiments with clustering, as a user runs them."""

import itertools

import numpy as np
import pytest

from experiments import clustering, clustering_real
from experiments.labels import config as label_config
from tgmm_jax.evaluation import labels as label_evaluation
from tgmm_jax.evaluation import results
from tgmm_jax.training.learners import labels as label_learner

COMMON = {"transformer", "spectral", "k-means", "random labels"}
STARTS = {"em/k-means++", "em/k-means++-x10"}


def run_smoke(start, name, tmp_path):
  """The page of a :smoke run, and its accuracies by study, series and x."""
  workdir = tmp_path / "run"
  ended = start(f"--config=experiments/{name}.py:smoke", f"--workdir={workdir}")
  assert ended.returncode == 0, ended.stderr[-3000:]
  page = (workdir / "report.html").read_text().split("</style>")[1]
  assert "missing" not in page
  assert "not measured" not in page
  rows = results.read_csv(workdir / "curves.csv", results.CurveRow)
  table = {}
  for row in rows:
    if row.metric == label_evaluation.METRIC:
      assert 0.0 <= row.value <= 1.0
      assert row.failures == 0
      curves = table.setdefault(row.study, {})
      curves.setdefault(row.series, {})[row.x] = row.value
  drawn = {path.stem for path in (workdir / "figures").glob("*.png")}
  return rows, table, drawn


@pytest.mark.slow
def test_every_curve_of_mixtures(start, tmp_path):
  _, table, drawn = run_smoke(start, "clustering", tmp_path)
  assert drawn == {"two_class", "mixtures", "learning_curves"}
  two, several = table["d10-n50"], table["k3-d2-n50"]
  limits = {"true parameters (Bayes)", "Phi(|mu|) (Bayes)"}
  assert set(two) == COMMON | STARTS | limits | {"constructed"}
  assert set(several) == COMMON | STARTS | {"true parameters (Bayes)"}
  assert all(set(curve) == {1.0, 3.0} for curve in two.values())
  assert all(set(curve) == {2.0, 5.0} for curve in several.values())
  assert two["Phi(|mu|) (Bayes)"][3.0] == pytest.approx(0.99865, abs=1e-5)


@pytest.mark.slow
def test_every_pair_of_images(start, tmp_path):
  rows, table, drawn = run_smoke(start, "clustering_real", tmp_path)
  assert drawn == {"by_pair", "learning_curves"}
  limit = label_evaluation.CLASS_MOMENTS
  every = COMMON | {"constructed", limit}
  every |= {f"em/{kind}-x10" for kind in ("tied", "diag", "full")}
  assert set(table["digits"]) == set(table["digits by pair"]) == every
  assert set(table["digits"]["k-means"]) == {12.0}
  for curve in table["digits by pair"].values():
    assert sorted(curve) == list(range(1, 46))
  ordered = [table["digits by pair"][limit][x] for x in range(1, 46)]
  assert ordered == sorted(ordered)
  # One problem each here: the mean of the pairs is that of all problems.
  assert np.mean(ordered) == pytest.approx(table["digits"][limit][12.0])
  named = {}
  for row in rows:
    if row.metric == "class":
      named.setdefault(row.x, {})[row.series] = row.value
  pairs = {(pair["first"], pair["second"]) for pair in named.values()}
  assert pairs == set(itertools.combinations(range(10), 2))


@pytest.mark.parametrize("variant", clustering.VARIANTS)
def test_problems_are_those_that_the_names_say(variant):
  config = clustering.get_config(variant)
  for run in label_config.make_runs(config):
    is_two = run.source == label_config.TWO_CLASSES
    assert run.model.num_targets == (2 if is_two else int(run.name[1]))
    laws = [*run.problems, *run.tests.values()]
    for law in laws:
      assert label_learner.num_classes_of(law) == run.model.num_targets
      if variant != "smoke":
        sizes = f"d{law.dim}-n{law.max_points}"
        assert run.name.endswith(sizes)
    if is_two:
      for x, law in run.tests.items():
        assert law.min_separation == law.max_separation == x
      assert tuple(run.tests) == config.evaluation.separations
      (trained,) = run.problems
      assert (trained.min_separation, trained.max_separation) == (0.5, 4.0)
    else:
      assert [law.mean_range for law in run.tests.values()] == list(run.tests)
      assert tuple(run.tests) == config.evaluation.mean_ranges


def test_images_are_real_ones_and_of_pairs():
  for variant in ("", "quick"):
    config = clustering_real.get_config(variant)
    runs = {run.name: run for run in label_config.make_runs(config)}
    sources = {name: run.problems.source for name, run in runs.items()}
    assert sources == {"fashion": "idx", "mnist": "mnist-5000"}
    for run in runs.values():
      assert run.problems.has_pairs
      assert (run.problems.dim, run.problems.num_points) == (10, 50)


ERRORS = {
  "source": ({"source": "cifar"}, r"runs.d10-n50.source is 'cifar', takes one"),
  "K of two classes": (
    {"num_classes": 3},
    r"runs.d10-n50.num_classes is 3, takes 2 for the source 'two-class'",
  ),
  "separation": ({"min_separation": 5.0}, r"runs.d10-n50: min_separation, max"),
  "type": ({"num_points": 50.0}, r"runs.d10-n50.num_points is 50.0, takes int"),
  "heads": ({"model.num_heads": 3}, r"runs.d10-n50.model: width is 8, takes a"),
  "batch": (
    {"source": "mixtures", "num_classes": 3, "mean_ranges": (1.0, 2.0, 3.0)},
    r"runs.d10-n50: batch_size is 8, takes a multiple of the number of laws, 3",
  ),
  "no range": (
    {"source": "mixtures", "num_classes": 3, "mean_ranges": ()},
    r"runs.d10-n50: batch_size is 8, takes a multiple of the number of laws, 0",
  ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_runs_that_are_refused(name, tmp_path):
  changes, message = ERRORS[name]
  config = clustering.get_config("smoke")
  run = config.runs["d10-n50"]
  with config.ignore_type():
    run.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=message) as error:
    clustering.experiment(config, tmp_path / "run")
  assert "\n" not in str(error.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_instances": 1}, "num_instances is 1, takes at least 2"),
    ({"separations": ()}, r"separations is \(\), takes different numbers"),
    ({"mean_ranges": (2.0, 2.0)}, r"mean_ranges is \(2.0, 2.0\), takes differ"),
    ({"separations": (-1.0,)}, r"config.evaluation: min_separation, max_sep"),
  ],
)
def test_evaluations_that_are_refused(changes, message, tmp_path):
  config = clustering.get_config("smoke")
  config.evaluation.update(changes)
  with pytest.raises(ValueError, match=message):
    clustering.experiment(config, tmp_path / "run")
