"""Which K is named, by whom, and how the answers are scored."""

import ml_collections
import numpy as np
import pytest
import scipy.stats
from scipy import special

from experiments import num_components
from experiments.studies import tables
from experiments.studies.num_components import (
  figures as num_components_figures,
)
from experiments.studies.num_components import ways
from tgmm_jax import types
from tgmm_jax.evaluation import results

SERIES = {
  *("fit", "fit, evidence", "EM, 1 start, BIC", "scikit-learn, 1 start, BIC"),
  *("EM, 10 starts, BIC", "EM, 10 starts, BIC + log K!"),
  "EM, 10 starts, evidence",
  *("EM, 10 starts, ICL", "EM, 10 starts, AIC", "EM, 10 starts, AICc"),
}


@pytest.mark.slow
def test_every_way_names_a_number_of_components(start, tmp_path):
  workdir = tmp_path / "run"
  ended = start(
    "--config=experiments/num_components.py:smoke", f"--workdir={workdir}"
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  rows = results.read_csv(workdir / "curves.csv", results.CurveRow)
  assert {row.series for row in rows} == SERIES
  for series in SERIES:
    own = [row for row in rows if row.series == series]
    named = {
      (row.metric[-1], row.x): row.value
      for row in own
      if row.metric.startswith(num_components_figures.NAMED)
    }
    for true in "12":
      total = sum(value for (other, _), value in named.items() if other == true)
      assert total == pytest.approx(1.0)
    values = {row.metric: row for row in own}
    right = (named["1", 1.0] + named["2", 2.0]) / 2
    assert values["share right"].value == pytest.approx(right)
    # Two components apart in half of the tasks: no guessing.
    assert values["log probability of K"].value > np.log(0.2)
    assert values["share right"].count == 12
    is_timed = series == "fit" or series.endswith(", BIC")
    assert ("milliseconds" in values) == is_timed
  assert (workdir / "figures" / "diag_d2_n24.png").exists()


def test_probabilities_are_those_of_the_criterion():
  values = np.array([[10.0, 12.0, 8.0], [1.0, 2.0, 3.0], [0.0, 2.0, 0.0]])
  status = np.array([[0, 1, 0], [0, 0, 2], [2, 2, 3]])
  found = ways.probabilities(values, status)
  weights = np.exp(-values / 2)
  # A degenerate fit has no chance where there is another.
  weights[1, 2] = 0.0
  weights[2] = 1.0
  np.testing.assert_allclose(
    found, weights / weights.sum(axis=1, keepdims=True), rtol=1e-12
  )


@pytest.fixture(scope="module")
def rows():
  """Scores of three tasks; the true K are 1, 2 and 2."""
  probabilities = np.array([[0.9, 0.1], [0.25, 0.75], [1.0, 0.0]])
  means = np.zeros((3, 2, 1), np.float32)
  batch = types.TaskBatch(
    points=np.zeros((3, 7, 1)),
    sample_weight=np.ones((3, 7)),
    num_components=np.array([1, 2, 2]),
    mixture=types.Mixture(
      np.full((3, 2), 0.5),
      np.array([[0.5, 0.0], [1.0, -1.0], [9.0, 9.0]], np.float32)[..., None],
    ),
    labels=None,
  )
  return [
    row
    for series, answer in (
      ("fit", ways.Answer(probabilities, means, 2.0)),
      ("EM, 10 starts, AIC", ways.Answer(probabilities)),
    )
    for row in num_components.score(answer, batch, study="law", series=series)
  ]


def test_scores_are_those_of_the_definitions(rows):
  own = [row for row in rows if row.series == "fit"]
  values = {row.metric: row.value for row in own if row.x == 7.0}
  share = 0.01
  mixed = [(1 - share) * p + share / 2 for p in (0.9, 0.75, 0.0)]
  expected = {
    "share right": 2 / 3,
    "error of K": 1 / 3,
    "log probability of K": np.mean(np.log(mixed)),
    "Brier score": (2 * 0.1**2 + 2 * 0.25**2 + 2.0) / 3,
    "highest probability": (0.9 + 0.75 + 1.0) / 3,
    # Of the first two tasks: 0.25, and 1 for both components.
    "l2_error where right": (0.25 + 1.0) / 2,
    "milliseconds": 2.0,
  }
  assert values == pytest.approx(expected)
  named = {
    (row.metric[-1], row.x): row.value
    for row in own
    if row.metric.startswith(num_components_figures.NAMED)
  }
  assert named == {
    **{("1", 1.0): 1.0, ("1", 2.0): 0.0},
    **{("2", 1.0): 0.5, ("2", 2.0): 0.5},
  }
  reliability = {
    row.x: (row.value, row.count)
    for row in own
    if row.metric == num_components_figures.RELIABILITY
  }
  # 0.9 is the lower edge of its bin; 1 is in the last one.
  assert reliability == {0.75: (1.0, 1), 0.9: (1.0, 1), 1.0: (0.0, 1)}


def test_table_has_a_line_for_each_way_and_the_figure_leaves_some_out(rows):
  table = num_components_figures.tabulate(rows[::-1])
  assert list(table) == ["fit", "EM, 10 starts, AIC"]
  assert table["fit"]["share right"] == "0.667 ± 0.333"
  assert table["fit"]["milliseconds"] == "2"
  # 1 of the task with K = 1; 1 and 2 of those with K = 2.
  assert table["fit"]["K named, mean"] == "1.25"
  assert "milliseconds" not in table["EM, 10 starts, AIC"]
  figure = num_components_figures.draw(rows)
  titles = [axes.get_title() for axes in figure.axes]
  assert len(titles) == 2
  assert titles[0] == "fit\n66.7% right"
  shown = {text.get_text() for text in figure.axes[0].texts}
  assert shown == {"100", "50"}


def test_criteria_are_those_of_their_definitions():
  rng = np.random.default_rng(0)
  num_points, size = 9, 3
  points = rng.normal(size=(num_points, 2)).astype(np.float32)
  means = np.zeros((size, size, 2), np.float32)
  weights = np.zeros((size, size), np.float32)
  for count in (1, 2, 3):
    means[count - 1, :count] = rng.normal(size=(count, 2))
    weights[count - 1, :count] = rng.dirichlet(np.ones(count))
  settings = ml_collections.ConfigDict(
    {"covariance_type": "unit", "max_components": size}
  )
  found = ways.answers(
    np.repeat(points[None], size, axis=0),
    types.Mixture(weights, means),
    np.arange(1, size + 1),
    np.zeros(size, int),
    settings,
  )
  density = sum(
    weights[:, k, None]
    * scipy.stats.multivariate_normal(np.zeros(2)).pdf(
      points - means[:, k, None]
    )
    for k in range(size)
  )
  likelihood = np.log(density).sum(axis=1)
  count = np.array([2, 5, 8])
  half_bic = likelihood - 0.5 * count * np.log(num_points)
  expected = {
    "BIC": half_bic,
    "BIC + log K!": half_bic + np.log([1.0, 2.0, 6.0]),
    "AIC": likelihood - count,
    # n - p - 1 is 6, 3 and 0: no chance where it is 0.
    "AICc": likelihood - count - np.array([1.0, 10.0, np.inf]),
  }
  assert set(found) == {*expected, "ICL", "evidence"}
  for name, values in expected.items():
    np.testing.assert_allclose(
      found[name].probabilities[0], special.softmax(values), rtol=1e-4
    )
    best = values.argmax()
    np.testing.assert_array_equal(found[name].means[0], means[best])


def test_tables_are_scored_by_their_classes(monkeypatch):
  seen = []

  def of_network(points, settings, seed):
    seen.append((points, settings.covariance_type, seed))
    chances = np.zeros((len(points), 5))
    chances[:, 2] = 1.0
    return {"BIC": ways.Answer(chances, np.zeros(3))}

  monkeypatch.setattr(ways, "of_network", of_network)
  settings = num_components.get_config("quick").studies.real
  steps = []
  rows = num_components._measure_real(
    settings, 4, lambda *own: steps.append(own)
  )
  # 30% of 150, 178 and 569 are held out.
  last = tables.split("iris", tables.load("iris")[0], 4 + 9)[0]
  np.testing.assert_array_equal(seen[0][0][-1], last.astype(np.float32))
  assert [(points.shape, *others) for points, *others in seen] == [
    ((10, 105, 4), "full", 4),
    ((10, 125, 5), "full", 4),
    ((10, 398, 5), "full", 4),
  ]
  assert steps == [(1, 3), (2, 3), (3, 3)]
  table = num_components_figures.tabulate_studies(rows)
  assert {name: line["share right"] for name, line in table.items()} == {
    "iris: fit, BIC": "1.000",
    "wine: fit, BIC": "1.000",
    "breast_cancer: fit, BIC": "0.000",
  }
  assert {line["K named, mean"] for line in table.values()} == {"3.00"}
