"""The study of intervals: its tasks, and the run from command to figures."""

import jax
import numpy as np
import pytest

from experiments import uncertainty
from tgmm_jax.evaluation import results


@pytest.mark.parametrize("has_heavy_tails", [False, True])
def test_tasks_are_drawn_from_the_mixture_they_come_with(has_heavy_tails):
  """Each cloud has its mean and covariance; heavy tails show in the fourth."""
  points, truth = jax.tree.map(
    np.asarray,
    uncertainty.draw_task(
      jax.random.key(0),
      60_000,
      20.0,
      covariance_type="full",
      has_heavy_tails=has_heavy_tails,
    ),
  )
  gaps = points[:, None] - truth.means
  labels = np.argmin(np.sum(gaps**2, axis=-1), axis=1)
  shares = np.bincount(labels) / len(points)
  np.testing.assert_allclose(shares, truth.weights, atol=0.01)
  for index, covariance in enumerate(truth.covariances):
    own = gaps[labels == index, index]
    np.testing.assert_allclose(own.mean(axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(own.T @ own / len(own), covariance, atol=0.12)
    own = own / np.sqrt(np.diag(covariance))
    # Of Student's t with 8 degrees of freedom 4.5, of the normal 3.
    kurtosis = np.mean(own**4)
    assert (kurtosis > 3.7) == has_heavy_tails


@pytest.mark.slow
def test_every_way_has_its_share_and_the_picture_is_drawn(start, tmp_path):
  workdir = tmp_path / "run"
  ended = start(
    "--config=experiments/uncertainty.py:smoke", f"--workdir={workdir}"
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  rows = results.read_csv(workdir / "full" / "curves.csv", results.CurveRow)
  assert {(row.series, row.metric) for row in rows} == {
    (series, metric)
    for series in uncertainty.SERIES
    for metric in uncertainty.PARTS
  }
  for row in rows:
    assert 0.0 <= row.value <= 1.0
    assert row.count == 4
  assert (workdir / "figures" / "picture.png").exists()
