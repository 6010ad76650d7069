"""The studies of the constructed networks, as a user runs them."""

import html
import math

import numpy as np
import pytest

from experiments import constructed
from experiments.studies.constructed import em as constructed_em
from experiments.studies.constructed import em_truth as constructed_truth
from experiments.studies.constructed import (
  spectral as constructed_spectral,
)
from tgmm_jax.evaluation import results

VARIANTS = constructed.VARIANTS


@pytest.fixture(scope="module")
def run(start, tmp_path_factory):
  """The work folder of constructed.py:smoke, and how its process ended."""
  workdir = tmp_path_factory.mktemp("constructed") / "run"
  ended = start(
    "--config=experiments/constructed.py:smoke", f"--workdir={workdir}"
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  return workdir, ended


def curves_of(workdir, study, metric):
  rows = results.read_csv(workdir / "curves.csv", results.CurveRow)
  found = {}
  for row in rows:
    if (row.study, row.metric) == (study, metric):
      found.setdefault(row.series, {})[row.x] = row.value
  return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_study_has_its_settings_and_an_element_of_the_sweep(variant):
  config = constructed.get_config(variant)
  assert set(config.studies) == set(constructed.STUDIES)
  done = [element["only"] for element in constructed.sweep(config)]
  assert sorted(done) == sorted(constructed.STUDIES)


def test_variant_and_values_that_do_not_exist(tmp_path):
  with pytest.raises(ValueError, match="variant is 'fast', takes one of quick"):
    constructed.get_config("fast")
  config = constructed.get_config("smoke")
  config.only = "tensors"
  with pytest.raises(ValueError, match="config.only is 'tensors', takes ''"):
    constructed.experiment(config, tmp_path / "run")
  config = constructed.get_config("smoke")
  with config.ignore_type():
    config.studies.power.ratios = (0.5, "0.7")
  with pytest.raises(ValueError, match=r"config.studies.power.ratios is \(0.5"):
    constructed.experiment(config, tmp_path / "run")
  assert not list(tmp_path.iterdir())


def test_bound_is_fitted_to_a_curve_of_its_own_form():
  # a beta^L + eps / (1 - beta), by hand.
  assert constructed_em.bound((3.0, 0.5, 0.01), 2) == pytest.approx(0.77)
  truth = (3.0, 0.6, 1e-4)
  distances = np.array([constructed_em.bound(truth, s) for s in range(30)])
  np.testing.assert_allclose(
    constructed_em.fit_bound(distances), truth, rtol=1e-3
  )


def test_rates_and_orders_are_those_of_curves_that_have_them():
  generator = np.random.default_rng(0)
  steps = np.arange(30)
  curves = np.stack([0.5**steps, 3.0 * 0.8**steps, 0.5**steps + 1e-6])
  found = constructed_truth.rates(curves)
  np.testing.assert_allclose(found, [0.5, 0.8, 0.5], rtol=0.02)
  counts = np.array([64, 256, 1024])
  floors = (
    2.0 * counts[:, None] ** -0.5 * np.exp(0.1 * generator.normal(size=(3, 40)))
  )
  middle, low, high = constructed_truth.order(counts, floors, generator)
  assert low < 0.5 < high
  assert middle == pytest.approx(0.5, abs=0.05)
  values = np.append(generator.normal(size=400), np.nan)
  middle, low, high = constructed_truth.interval(values, generator)
  # 1.65 standard errors of a median, sqrt(pi / 2 / 400), each way.
  assert high - low == pytest.approx(2 * 1.645 * 0.0627, rel=0.4)
  assert low <= middle <= high


def test_means_are_as_far_from_each_other_as_was_asked_for():
  for cell in ((2, 5, 3.0), (8, 3, 4.0)):
    cell = constructed_truth.Cell(*cell)
    points, truth, _ = constructed_truth.draw_problems(0, cell, 4, 2)
    assert points.shape == (2, 4, cell.dim)
    apart = np.linalg.norm(
      truth.means[0][:, None] - truth.means[0][None], axis=-1
    )
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_allclose(apart.min(axis=1), cell.separation, rtol=1e-5)


def test_problems_have_the_spectrum_that_was_asked_for():
  settings = constructed.get_config("smoke").studies.power
  points, vectors = constructed_spectral.spectral_problems(
    np.random.default_rng(0), settings, 0.5
  )
  np.testing.assert_allclose(points.mean(axis=1), 0.0, atol=1e-6)
  for problem, own in zip(points, vectors, strict=True):
    covariance = np.cov(problem.T, ddof=0)
    values, found = np.linalg.eigh(covariance)
    np.testing.assert_allclose(values[::-1], [1.0, 0.5, 0.25], rtol=1e-4)
    cosine = np.abs(np.sum(found[:, ::-1] * own, axis=0))
    np.testing.assert_allclose(cosine, 1.0, atol=1e-5)


@pytest.mark.slow
def test_folder_table_and_page(run):
  workdir, ended = run
  names = {path.name for path in workdir.iterdir()}
  assert names == set(constructed.STUDIES) | {
    *("config.json", "versions.json", "results.csv", "curves.csv"),
    *("duration.json", "figures", "report.html", "report.json", ".lock"),
  }
  page = (workdir / "report.html").read_text()
  assert "missing" not in page.split("</style>")[1]
  for study in constructed.STUDIES.values():
    if study.draw or study.tabulate:
      assert html.escape(study.title) in page
  drawn = {path.stem for path in (workdir / "figures").glob("*.png")}
  wanted = {n for n, study in constructed.STUDIES.items() if study.draw}
  assert drawn == wanted
  assert "constructed/em" in ended.stdout
  table = {row.solver for row in results.read_csv(workdir / "results.csv")}
  assert table >= {"constructed/em", "constructed/spectral", "em/oracle"}
  assert "constructed/two-classes" in table


@pytest.mark.slow
def test_networks_are_near_their_algorithms(run):
  workdir, _ = run
  means = curves_of(workdir, "em_distance", "means, 95th percentile")
  for series, curve in means.items():
    assert 0 < min(curve.values()) <= max(curve.values()) < 1.0, series
  largest = curves_of(workdir, "spectral_equality", "largest, in range")
  assert largest["K = 2, N = 32"][3.0] < 1e-9
  error = curves_of(workdir, "tensor", "error of the direction, largest")
  assert max(error["float64"].values()) < 1e-12
  assert 1e-9 < max(error["float32"].values()) < 1e-4
  curves = curves_of(workdir, "power", "1 - |cos|, median")
  own, predicted = curves["ratio 0.5"], curves["ratio 0.5 (predicted)"]
  for step in range(1, 11):
    assert own[step] == pytest.approx(predicted[step], rel=1e-6)
  at_tau = curves_of(
    workdir, "power", "1 - |cos| at the predicted tau, largest"
  )
  assert max(at_tau["ratio 0.5"].values()) < 1e-6
  rate = curves_of(workdir, "two_classes", "error")["Phi(-|mu|) (Bayes)"]
  assert rate[2.0] == pytest.approx(0.5 * math.erfc(2.0 / math.sqrt(2.0)))


@pytest.mark.slow
def test_what_is_measured_is_not_measured_again(run, start):
  workdir, _ = run
  before = (workdir / "curves.csv").read_bytes()
  flags = ("--config=experiments/constructed.py:smoke", f"--workdir={workdir}")
  # One study alone, by the sweep, and of other settings: the rest stays.
  config = constructed.get_config("smoke")
  index = constructed.sweep(config).index({"only": "sizes"})
  ended = start(*flags, f"--sweep_index={index}")
  assert ended.returncode == 0, ended.stderr[-3000:]
  assert "sizes is measured" in ended.stderr
  ended = start(*flags, "--mode=report")
  assert ended.returncode == 0, ended.stderr[-3000:]
  assert (workdir / "curves.csv").read_bytes() == before
  ended = start(*flags, "--mode=report", "--config.studies.sizes.num_steps=4")
  assert ended.returncode == 0, ended.stderr[-3000:]
  # Rows of other settings are no answer: they are missing, not shown.
  page = (workdir / "report.html").read_text()
  assert "Sizes of the networks: missing" in page
  rows = results.read_csv(workdir / "curves.csv", results.CurveRow)
  assert not [row for row in rows if row.study == "sizes"]
