"""Tiles of points that are seen alike: fits as with a factor for each point."""

import functools

import jax
import numpy as np
import pytest

from tests.solvers.em import observed
from tests.solvers.em import problems as em_problems
from tgmm_jax.solvers import em
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em import tiles

KEY = jax.random.key(0)


def form_of(covariance_type):
  return em_options.Form(covariance_type, 3, None, 1, False, False, True)


def inputs_of(points, weight=None):
  return em_starts.Inputs(KEY, points, 3, weight, None)


def test_tiles_hold_each_point_that_counts_once_and_are_seen_alike():
  points, weight = observed.holed_points(200)
  weight[7] = 0.0
  points[7] = np.inf
  found, form = tiles.arrange(inputs_of(points, weight), form_of("full"))
  size = form.tile_size
  assert size > 1
  assert found.points.shape[0] % size == 0
  is_seen = ~np.isnan(found.points.reshape(-1, size, 3))
  np.testing.assert_array_equal(
    is_seen, np.repeat(is_seen[:, :1], size, axis=1)
  )
  is_point = found.sample_weight > 0
  own = np.delete(np.c_[points, weight], [5, 7], axis=0)
  other = np.c_[found.points, found.sample_weight][is_point]
  order = [np.lexsort(np.nan_to_num(rows).T) for rows in (own, other)]
  np.testing.assert_array_equal(own[order[0]], other[order[1]])


def test_what_needs_no_tiles_has_none():
  points, weight = observed.holed_points(200)
  complete = np.nan_to_num(points)
  _, form = tiles.arrange(inputs_of(complete, weight), form_of("full"))
  assert not form.takes_holes
  # A hole where the weight is 0 is none.
  only = np.where(np.isnan(points).any(axis=1), 0.0, weight)
  _, form = tiles.arrange(inputs_of(points, only), form_of("full"))
  assert not form.takes_holes
  found, form = tiles.arrange(inputs_of(points, weight), form_of("diag"))
  assert form.takes_holes
  assert found.points is points


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.usefixtures("x64")
def test_a_fit_in_tiles_and_blocks_is_that_point_by_point(
  covariance_type, monkeypatch
):
  points, weight = observed.holed_points(150)
  fit = functools.partial(
    em.fit,
    KEY,
    points,
    3,
    covariance_type=covariance_type,
    sample_weight=weight,
    init=em_problems.start_of_long_clusters(covariance_type),
    missing="observed",
    max_iter=10,
    tol=0.0,
  )
  monkeypatch.setattr(tiles, "_SIZES", (1,))
  expected = fit()
  monkeypatch.setattr(tiles, "_SIZES", (8,))
  monkeypatch.setattr("tgmm_jax.solvers.em.observations._BLOCK_SIZE", 1000)
  found = fit()
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
