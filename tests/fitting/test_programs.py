"""Tables of similar size share compiled programs."""

import jax
import numpy as np
import pytest

import tgmm_jax
from tests.compile_counts import compiled
from tgmm_jax.fitting import sizes
from tgmm_jax.solvers.execution import programs

# Of one size.
MOST_PROGRAMS = 6


def table(num_points, dim=2, seed=0):
  """Two groups."""
  generator = np.random.default_rng(seed)
  groups = np.arange(num_points) % 2
  return 9.0 * groups[:, None] + generator.normal(size=(num_points, dim))


@pytest.fixture(scope="module", autouse=True)
def scraps():
  """What a process compiles once, whatever is fitted first."""
  tgmm_jax.fit(table(9, dim=1), 2)


@pytest.fixture(autouse=True)
def fresh(scraps):
  """Gives up whatever other tests have compiled."""
  jax.clear_caches()


def test_the_count_counts():
  with compiled() as counts:
    for size in (3, 4, 3):
      jax.jit(jax.numpy.square)(np.ones(size))
  assert len(counts) == 2


def test_twenty_sizes_within_one_share_their_programs():
  with compiled() as counts:
    tgmm_jax.fit(table(sizes.num_rows_for(1)), 2)
  # A network's and that of EM, and few others.
  assert 2 <= len(counts) <= MOST_PROGRAMS
  with compiled() as counts:
    for num_points in np.linspace(5, 127, 20).astype(int):
      tgmm_jax.fit(table(num_points), 2)
  # Nothing at all, not even outside of these.
  assert not counts


def test_a_found_number_and_a_given_one_share_their_programs():
  with compiled() as counts:
    found = tgmm_jax.fit(table(100), max_components=5)
  assert found.candidates == (1, 2, 3, 4, 5)
  assert 2 <= len(counts) <= MOST_PROGRAMS
  with compiled() as counts:
    for number in range(1, 6):
      tgmm_jax.fit(table(90), number)
  assert not counts


def test_weights_options_and_seeds_are_no_programs():
  points = table(60)
  tgmm_jax.fit(points, 2)
  with compiled() as counts:
    tgmm_jax.fit(points, 2, sample_weight=np.arange(1.0, 61.0))
    tgmm_jax.fit(points, 2, seed=5, tol=1e-3, max_iter=7)
    tgmm_jax.fit(points[::2], 2, sample_weight=np.arange(30) % 3)
  assert not counts


@pytest.mark.parametrize("covariance_type", ["unit", "diag", "full"])
def test_several_d_share_the_program_of_em(covariance_type):
  options = {"covariance_type": covariance_type}
  tgmm_jax.fit(table(60, dim=11), 7, **options)
  with compiled() as counts:
    for dim in (9, 10, 12):
      found = tgmm_jax.fit(table(80, dim=dim), 7, **options)
      assert found.mixture.means.shape == (7, dim)
  assert not counts


def test_the_program_that_was_not_needed_for_longest_is_given_up():
  double = programs.quick(
    lambda array, *, factor: factor * array, most_programs=2
  )

  def count(size, factor=2.0):
    with compiled() as counts:
      found = double(np.ones(size), factor=factor)
    np.testing.assert_array_equal(found, np.full(size, factor))
    assert double.size() <= 2
    return len(counts)

  assert [count(3), count(4), count(3)] == [1, 1, 0]
  # That of four numbers goes, not that of three.
  assert [count(5), count(3), count(4)] == [1, 0, 1]
  assert [count(4, 3.0), count(4), count(3)] == [1, 0, 1]


@pytest.mark.slow
def test_thirty_tables_make_no_more_programs_than_there_are_sizes():
  numbers = np.unique(np.geomspace(20, 2000, 30).astype(int))
  assert len(numbers) == 30
  num_sizes = len({sizes.num_rows_for(number) for number in numbers})
  with compiled() as counts:
    for seed, number in enumerate(numbers):
      tgmm_jax.fit(table(number, seed=seed), 2)
  assert 2 * num_sizes - 1 <= len(counts) <= MOST_PROGRAMS * num_sizes


@pytest.mark.slow
def test_batches_of_any_number_share_their_programs():
  problems = np.stack([table(40, seed=seed) for seed in range(20)])
  tgmm_jax.fit(problems[:2], 2)
  with compiled() as counts:
    for count in (3, 9, 16, 20):
      assert tgmm_jax.fit(problems[:count], 2).labels.shape == (count, 40)
  assert not counts
