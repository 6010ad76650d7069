"""Error against time, and the fits of real data."""

import numpy as np
import pytest

from experiments import frontier, real_data
from experiments.studies import tables
from tgmm_jax.evaluation import results

pytestmark = pytest.mark.slow


def test_frontier_has_every_solver_for_one_task_and_for_a_batch(
  start, tmp_path
):
  workdir = tmp_path / "run"
  ended = start(
    "--config=experiments/frontier.py:smoke", f"--workdir={workdir}"
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  rows = results.read_csv(workdir / "curves.csv", results.CurveRow)
  studies = {row.study for row in rows}
  assert studies == {"d = 2, K = 2, one at a time", "d = 2, K = 2, 8 at once"}
  for study in studies:
    found = {}
    for row in rows:
      if row.study == study:
        found.setdefault(row.series, []).append(row)
    assert set(found) == {
      *(frontier.NETWORK, "EM, k-means++ starts", "EM, N(0, I) starts"),
      "EM, Ward starts",
      *frontier._REFERENCES,
    }
    # A point for each effort, and lines for the limits.
    for series, part in found.items():
      assert len(part) == (2 if series in frontier._REFERENCES else 1)
    for row in sum(found.values(), []):
      assert row.x > 0
      assert np.isfinite(row.value)
    # The error of a limit does not depend on the time.
    for name in frontier._REFERENCES:
      assert len({row.value for row in found[name]}) == 1
  assert (workdir / "figures" / "d2.png").exists()


def test_contenders_of_a_high_dimension():
  kinds = list(frontier.contenders(8, (1, 3), ((1, 0),)))
  assert {kind.series for kind in kinds} == {
    *("EM, Ward starts", "EM, k-means++ starts", "EM, N(0, I) starts"),
    *(frontier.NETWORK, "EM, Ward starts, projected", "spectral, then EM"),
  }


def test_fits_of_real_data(start, tmp_path):
  workdir = tmp_path / "run"
  ended = start(
    "--config=experiments/real_data.py:smoke", f"--workdir={workdir}"
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  rows = results.read_csv(workdir / "curves.csv", results.CurveRow)
  found = {(row.metric, row.series): row for row in rows}
  for metric in real_data.METRICS:
    assert {series for own, series in found if own == metric} == set(
      real_data.METHODS
    )
  # Three kinds of iris, two of which overlap.
  assert found["adjusted Rand index", "fit"].value > 0.7
  shares = [row for row in rows if row.metric == "share of splits"]
  for series in {row.series for row in shares}:
    own = [row.value for row in shares if row.series == series]
    assert sum(own) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits"])
def test_projection_and_scale_are_those_of_the_fitted_points(name):
  points, labels = tables.load(name)
  assert len(points) == len(labels)
  assert len(np.unique(labels)) <= 5
  fitted, held, (rows, own) = tables.split(name, points, 0)
  assert len(fitted) + len(held) == len(points)
  assert not set(rows) & set(own)
  np.testing.assert_allclose(fitted.mean(axis=0), 0.0, atol=1e-9)
  # What is held out may be anything: it does not enter.
  spoilt = points.copy()
  spoilt[own] = 1e6
  np.testing.assert_array_equal(tables.split(name, spoilt, 0)[0], fitted)
