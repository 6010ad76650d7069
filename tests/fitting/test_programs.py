"""Tables of similar size share compiled programs."""

import contextlib

import jax
import numpy as np
import pytest

import tgmm_jax
from tgmm_jax.fitting import sizes

# What JAX says once for each program, compiled or read from a disk.
_EVENT = "/jax/core/compile/backend_compile_duration"
_EVENTS = []
jax.monitoring.register_event_duration_secs_listener(
  lambda event, *_, **__: _EVENTS.append(event)
)


@contextlib.contextmanager
def compiled():
  """Collects an item for each program of the body, of whatever thread."""
  first, found = len(_EVENTS), []
  yield found
  found += [event for event in _EVENTS[first:] if event == _EVENT]


# Of one size.
MOST_PROGRAMS = 6


def table(num_points, dim=2, seed=0):
  """Two groups."""
  generator = np.random.default_rng(seed)
  groups = np.arange(num_points) % 2
  return 9.0 * groups[:, None] + generator.normal(size=(num_points, dim))


@pytest.fixture(autouse=True)
def fresh():
  """Whatever other tests have compiled."""
  jax.clear_caches()


def test_the_count_counts():
  with compiled() as counts:
    for size in (3, 4, 3):
      jax.jit(jax.numpy.square)(np.ones(size))
  assert len(counts) == 2


def test_twenty_sizes_within_one_share_their_programs():
  with compiled() as counts:
    tgmm_jax.fit(table(sizes.num_rows_for(1)), 2)
  # A network's and that of EM; and some scraps, once in a process.
  assert 2 <= len(counts) <= 20 + MOST_PROGRAMS
  with compiled() as counts:
    for num_points in np.linspace(5, 127, 20).astype(int):
      tgmm_jax.fit(table(num_points), 2)
  # Nothing at all: neither of these, nor scraps from outside them.
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
