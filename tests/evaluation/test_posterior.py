"""What a law allows, and means over the modes of several answers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import types
from tgmm_jax.evaluation import posterior, references
from tgmm_jax.tasks import mixtures

LAW = mixtures.TaskConfig(
  dim=2, num_components=(3,), min_points=128, max_points=128, max_components=4
)
POSSIBLE = jax.jit(posterior.is_possible, static_argnums=3)


def mixture_of(means, weights=(0.3, 0.3, 0.4)):
  padded = np.zeros((4, 2), np.float32)
  padded[:3] = means
  return types.Mixture(np.array([*weights, 0.0], np.float32), padded)


MEANS = np.array([[4.0, 0.0], [0.0, 4.0], [-3.0, -3.0]])


def test_what_the_law_draws_is_possible():
  batch = jax.jit(mixtures.sample_batch, static_argnums=(1, 2))(
    jax.random.key(0), LAW, 500
  )
  found = jax.vmap(references.label_limit)(batch).mixture
  possible = jax.vmap(functools.partial(posterior.is_possible, law=LAW))(
    found, batch.num_components, jnp.full(500, 128)
  )
  assert np.mean(possible) > 0.98


@pytest.mark.parametrize(
  ("mixture", "possible"),
  [
    (mixture_of(MEANS), True),
    # A standard error is 1 / sqrt(38) here: three are 0.48.
    (mixture_of(MEANS + np.array([[1.4, 0], [0, 0], [0, 0]])), True),
    (mixture_of(MEANS + np.array([[1.6, 0], [0, 0], [0, 0]])), False),
    (mixture_of(MEANS + np.array([[0, 0], [0, 0], [-2.6, 0]])), False),
    # The same direction, and 0.8 is 37 degrees.
    (mixture_of([[4.0, 0.1], [2.0, 0.0], [-3.0, -3.0]]), False),
    (mixture_of([[4.0, 0.0], [4.0, 1.5], [-3.0, -3.0]]), False),
    (mixture_of([[4.0, 0.0], [4.0, 4.0], [-3.0, -3.0]]), True),
    # At the origin there is no direction.
    (mixture_of([[4.0, 0.0], [0.0, 0.0], [-3.0, -3.0]]), True),
    # The least weight of three is 1 / 9.
    (mixture_of(MEANS, (0.07, 0.43, 0.5)), True),
    (mixture_of(MEANS, (0.02, 0.48, 0.5)), False),
    (mixture_of(MEANS, (0.06, 0.06, 0.88)), False),
  ],
)
def test_what_it_never_draws_is_not(mixture, possible):
  assert bool(POSSIBLE(mixture, 3, 128, LAW)) == possible


def test_padding_and_the_number_of_points_count():
  mixture = mixture_of(MEANS)
  mixture.means[3] = 90.0
  assert POSSIBLE(mixture, 3, 128, LAW)
  far = mixture_of(MEANS + np.array([[2.0, 0], [0, 0], [0, 0]]))
  assert POSSIBLE(far, 3, 16, LAW)
  assert not POSSIBLE(far, 3, 1024, LAW)


def answers(log_likelihoods, means, weights=(0.3, 0.3, 0.4), statuses=None):
  count = len(log_likelihoods)
  mixture = jax.tree.map(
    lambda *leaves: np.stack(leaves),
    *[mixture_of(own, weights) for own in means],
  )
  return types.SolverResult(
    mixture=mixture,
    log_likelihood=np.array(log_likelihoods, np.float32),
    num_iters=np.zeros(count, np.int32),
    status=np.array(statuses or [0] * count, np.int32),
  )


def test_the_likeliest_that_is_possible_is_kept():
  results = answers([-2.0, -1.0, -3.0], [MEANS, MEANS, MEANS])
  choose = jax.jit(posterior.most_likely)
  assert choose(results, np.array([True, True, True])) == 1
  assert choose(results, np.array([True, False, True])) == 0
  assert choose(results, np.array([False, False, True])) == 2
  assert choose(results, np.array([False, False, False])) == 1
  lost = answers([-2.0, -1.0], [MEANS, MEANS], statuses=[0, 4])
  assert choose(lost, np.array([True, True])) == 0


def test_the_mean_weighs_modes_by_likelihood_and_counts_each_once():
  other = MEANS + np.array([[0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
  num_points = 100
  # The second is exp(-1) times as likely; it was found three times, with its
  # components in another order.
  means = [MEANS, other[[2, 0, 1]], other[[1, 2, 0]], other]
  results = answers([-2.0, -2.01, -2.01, -2.01], means, (1 / 3, 1 / 3, 1 / 3))
  average = jax.jit(posterior.mean)(results, np.ones(4, bool), 3, num_points)
  share = np.exp(-1.0) / (1.0 + np.exp(-1.0))
  expected = (1.0 - share) * MEANS + share * other
  np.testing.assert_allclose(average.means[:3], expected, atol=1e-4)
  np.testing.assert_allclose(average.weights[:3], 1 / 3, rtol=1e-5)
  # What is not possible has no say.
  possible = np.array([True, False, False, False])
  alone = jax.jit(posterior.mean)(results, possible, 3, num_points)
  np.testing.assert_allclose(alone.means[:3], MEANS, atol=1e-5)


def test_the_volume_of_a_mode_is_laplaces():
  """A component of few points leaves its mean more room."""
  one = answers([-2.0], [MEANS], (0.2, 0.4, 0.4))
  two = answers([-2.02], [-MEANS], (0.05, 0.475, 0.475))
  both = jax.tree.map(lambda *leaves: np.concatenate(leaves), one, two)
  average = jax.jit(posterior.mean)(both, np.ones(2, bool), 3, 100)
  # At d = 2 the volume is the product of 1 / weight.
  masses = np.array([1.0 / 0.032, np.exp(-2.0) / (0.05 * 0.475**2)])
  share = masses / masses.sum()
  # -MEANS in the order that suits MEANS best.
  order = [2, 1, 0]
  candidates = [
    share[0] * MEANS + share[1] * -MEANS[list(own)]
    for own in ([2, 1, 0], [1, 2, 0], [1, 0, 2], [2, 0, 1], order)
  ]
  errors = [np.abs(average.means[:3] - c).max() for c in candidates]
  assert min(errors) < 1e-4
