"""What holds for every solver, whatever the data: one table, one row for each.

A solver is a function of one problem, `(key, points, num_components, *,
sample_weight) -> SolverResult`; a new one enters `SOLVERS`.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from tests.solvers import odd_data
from tgmm_jax import pretrained, types
from tgmm_jax.constructed import clustering
from tgmm_jax.constructed import em as constructed_em
from tgmm_jax.constructed import spectral as constructed_spectral
from tgmm_jax.models import factory
from tgmm_jax.solvers import combine, em, spectral

K = odd_data.MAX_COMPONENTS


class Entry(NamedTuple):
  """A solver, made when it is needed, and what it answers."""

  make: object
  covariance_type: str = "unit"
  # Whether all problems of a served K that can be fitted at all are. A network
  # of limited range says INVALID_INPUT of the others.
  takes_all: bool = True
  served: tuple[int, ...] = (1, 2, 3)
  # Whether points whose squares vanish are refused.
  refuses_small: bool = True


def with_components(solve, **options):
  return functools.partial(solve, max_components=K, **options)


def shipped(name):
  card, params = pretrained.load_params(name)
  return factory.solver(factory.build(card.config), params)


def constructed():
  network = constructed_em.build(odd_data.DIM, K, segments=16)
  return with_components(constructed_em.fit, network=network, num_steps=2)


SOLVERS = {
  "em": Entry(lambda: with_components(em.fit)),
  "em, given steps": Entry(lambda: with_components(em.unroll, num_steps=3)),
  "spectral": Entry(lambda: with_components(spectral.fit)),
  "spectral about the mean": Entry(
    lambda: with_components(spectral.fit, variance=None, about="mean"),
    "tied_spherical",
  ),
  "spectral, then em": Entry(
    lambda: combine.then_em(with_components(spectral.fit), max_iter=5)
  ),
  "the best of three": Entry(
    lambda: combine.best_of(with_components(em.fit), 3)
  ),
  "shipped, unit": Entry(lambda: shipped("unit"), served=(1, 2, 3, 4, 5)),
  "shipped, full": Entry(
    lambda: shipped("full"),
    "full",
    served=(1, 2, 3, 4, 5),
    refuses_small=False,
  ),
  "shipped, diag": Entry(
    lambda: shipped("diag"),
    "diag",
    served=(1, 2, 3, 4, 5),
    refuses_small=False,
  ),
  "constructed em": Entry(constructed, takes_all=False),
  "constructed spectral": Entry(
    lambda: with_components(
      constructed_spectral.fit, num_restarts=2, num_passes=1
    )
  ),
  "two classes": Entry(
    lambda: with_components(clustering.fit, num_steps=3), served=(2,)
  ),
}


@functools.cache
def solved(name):
  """All odd problems by one solver: `(names, problems, results)`."""
  entry = SOLVERS[name]
  cases = odd_data.table("float32", entry.covariance_type)
  points, weight, counts = odd_data.stack(cases, "float32")
  solve = entry.make()
  keys = jax.random.split(jax.random.key(2), len(cases))
  results = jax.jit(
    jax.vmap(
      lambda key, points, count, weight: solve(
        key, points, count, sample_weight=weight
      )
    )
  )(keys, points, counts, weight)
  return cases, jax.tree.map(np.asarray, results)


def rows(name):
  cases, results = solved(name)
  for index, (case, odd) in enumerate(cases.items()):
    yield case, odd, jax.tree.map(lambda leaf, i=index: leaf[i], results)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_parameters_are_finite_and_statuses_are_true(name):
  entry = SOLVERS[name]
  for case, odd, result in rows(name):
    try:
      odd_data.assert_sane(result)
    except AssertionError as error:
      raise AssertionError(f"{name} on {case}") from error
    is_valid = odd.is_valid and odd.num_components in entry.served
    # Here K = 4 is out of range, and points have to have a unit.
    is_valid |= case == "K = 4" and 4 in entry.served
    is_valid |= case == "too small" and not entry.refuses_small
    is_invalid = result.status == types.Status.INVALID_INPUT
    if not is_valid:
      assert is_invalid, case
    elif entry.takes_all:
      assert not is_invalid, case


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_beyond_k_nothing_is_left(name):
  for case, odd, result in rows(name):
    if result.status == types.Status.INVALID_INPUT:
      continue
    size = odd.num_components
    weights, means, _ = result.mixture
    np.testing.assert_array_equal(weights[size:], 0.0, err_msg=case)
    np.testing.assert_array_equal(means[size:], 0.0, err_msg=case)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_padding_may_hold_anything(name):
  _, results = solved(name)
  entry = SOLVERS[name]
  cases = odd_data.table("float32", entry.covariance_type)
  # The same point is left out in all three.
  places = [list(cases).index(f"{own} in padding") for own in ("nan", "-inf")]
  for place in places:
    is_finite = np.isfinite(results.log_likelihood[place])
    assert is_finite == (3 in entry.served)
