"""What people have as numbers, at every door: fitted as such, or refused."""

import functools
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

import tgmm_jax
from tests import tables_of_any_kind as tables
from tgmm_jax.solvers import checks, em, selection
from tgmm_jax.training import sharding

KEY = jax.random.key(0)
POINTS = tables.points_of()
WEIGHT = np.arange(1.0, 25.0)
FULL = {"covariance_type": "full"}


def fit(points, **options):
  return tgmm_jax.fit(points, 2, **options).mixture.means


def fit_batch(points, sample_weight=None):
  weight = None if sample_weight is None else [sample_weight]
  found = em.fit_batch(KEY, [points], 2, sample_weight=weight, **FULL)
  return found.mixture.means[0]


def select(points, sample_weight=None):
  weight = None if sample_weight is None else [sample_weight]
  found = selection.select(KEY, [points], (2,), sample_weight=weight, **FULL)
  return found.result.mixture.means[0]


def fit_sharded(points, **options):
  mesh = sharding.make_mesh()
  found = em.fit_sharded(KEY, points, 2, mesh=mesh, **FULL, **options)
  return found.mixture.means


def fit_stream(points, sample_weight=None):
  block = points if sample_weight is None else (points, sample_weight)
  return em.fit_stream(KEY, [block], 2, block_size=10, **FULL).mixture.means


def estimator(points, **options):
  found = tgmm_jax.GaussianMixture(2, random_state=0).fit(points, **options)
  # Methods are doors as well.
  assert np.bincount(found.predict(points)).tolist() == [12, 12]
  return found.means_


# The door, and what it calls the points.
DOORS = {
  "fit": (fit, "points"),
  "fit_batch": (fit_batch, "points"),
  "select": (select, "points"),
  "fit_sharded": (fit_sharded, "points"),
  "fit_stream": (fit_stream, "block 0"),
  "GaussianMixture": (estimator, "X"),
}


@functools.cache
def expected(name, dtype, is_weighted=False):
  options = {"sample_weight": WEIGHT} if is_weighted else {}
  found = np.asarray(DOORS[name][0](POINTS.astype(dtype), **options))
  assert np.abs(np.sort(found[:, 0]) - [20.0, 90.0]).max() < 5.0
  return found


@pytest.mark.parametrize("kind", tables.KINDS)
@pytest.mark.parametrize("name", DOORS)
def test_every_kind_of_points_is_fitted_as_its_numbers(name, kind):
  given = tables.KINDS[kind](POINTS)
  dtype = checks.numbers_of("points", given, ("N", "d")).dtype
  np.testing.assert_allclose(
    DOORS[name][0](given), expected(name, dtype), rtol=1e-6
  )


WEIGHTS = {
  kind: lambda weight, kind=kind: tables.KINDS[kind](weight[:, None])[:, 0]
  for kind in (">f8", "int64", "uint8", "float16", "objects", "JAX", "no mask")
} | {
  "list": lambda weight: weight.tolist(),
  "series": lambda weight: tables.frame(np.c_[weight, weight])["width"],
  "series of Int64": lambda weight: tables.KINDS["frame of Int64"](
    np.c_[weight, weight]
  )["width"],
  "Polars": lambda weight: tables.polars_frame(np.c_[weight, weight])["width"],
  "Arrow": lambda weight: tables.arrow_table(np.c_[weight, weight])["width"],
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name", DOORS)
def test_every_kind_of_weights_is_taken_as_its_numbers(name, kind):
  with warnings.catch_warnings():
    # JAX warns where it should cast to what it has not.
    warnings.filterwarnings("error", "Explicitly requested dtype")
    found = DOORS[name][0](POINTS, sample_weight=WEIGHTS[kind](WEIGHT))
  np.testing.assert_allclose(found, expected(name, float, True), rtol=1e-6)


def message_of(door, *arguments, **options):
  with pytest.raises(ValueError, match=".") as caught:
    door(*arguments, **options)
  message = str(caught.value)
  assert "\n" not in message
  return message


@pytest.mark.parametrize("kind", tables.REFUSED)
@pytest.mark.parametrize("name", DOORS)
def test_what_has_no_numbers_is_refused_by_name(name, kind):
  make, what = tables.REFUSED[kind]
  door, argument = DOORS[name]
  given = make(POINTS)
  message = message_of(door, given)
  if name in ("fit_batch", "select"):
    # Of a list the index of the problem comes first.
    assert message.startswith("points ")
    return
  assert message.startswith(f"{argument} ")
  with pytest.raises(ValueError, match=what):
    door(given)


@pytest.mark.parametrize("kind", ["text", "dates", "complex", "masked", "None"])
@pytest.mark.parametrize("name", DOORS)
def test_weights_without_numbers_are_refused_by_name(name, kind):
  make = {"None": lambda weight: [None] * 24}.get(kind, tables.REFUSED[kind][0])
  message = message_of(DOORS[name][0], POINTS, sample_weight=make(WEIGHT))
  assert message.startswith(("sample_weight ", "block 0's weight "))


SERIES = tables.frame(POINTS)["length"]


@pytest.mark.parametrize(
  ("name", "takes"),
  [
    ("fit", r"points has shape \(24,\), takes \[N, d\]: for one column points"),
    ("fit_batch", r"points has shape \(1, 24\), takes \[B, N, d\]: for one p"),
    ("select", r"points has shape \(1, 24\), takes \[B, N, d\]: for one prob"),
    ("fit_sharded", r"points has shape \(24,\), takes \[N, d\]: for one colu"),
    ("fit_stream", r"block 0 has shape \(24,\), takes \[n, d\]"),
    ("GaussianMixture", r"X has shape \(24,\), takes \[N, d\]. Reshape"),
  ],
)
def test_a_vector_is_refused_with_the_axes_of_the_door(name, takes):
  for given in (POINTS[:, 0], WEIGHT.astype(object), SERIES):
    with pytest.raises(ValueError, match=f"^{takes}") as caught:
      DOORS[name][0](given)
    assert "\n" not in str(caught.value)


def test_the_hint_for_a_vector_works():
  message = message_of(fit, POINTS[:, 0])
  assert message.endswith("for one column points[:, None]")
  message = message_of(fit, SERIES)
  assert message.endswith("for one column points.to_frame()")
  np.testing.assert_array_equal(fit(SERIES.to_frame()), fit(POINTS[:, :1]))


def test_fit_speaks_of_one_problem_where_it_is_given_one():
  for given, what in (
    (POINTS[:0], r"\(0, 2\), takes \[N, d\]$"),
    (POINTS[:, :0], r"\(24, 0\), takes \[N, d\]$"),
    (3.0, r"\(\), takes \[N, d\]$"),
    (POINTS[None, None], r"\(1, 1, 24, 2\), takes \[N, d\], or \[B, N, d\]"),
  ):
    with pytest.raises(ValueError, match=f"^points has shape {what}"):
      fit(given)
  message = message_of(fit, POINTS, sample_weight=WEIGHT[1:])
  assert message.startswith("sample_weight has shape (23,), takes (24,) for")
  message = message_of(fit, POINTS, sample_weight=WEIGHT[:, None])
  assert message.endswith("[N]: of one column np.ravel(sample_weight)")


def test_a_batch_of_frames_is_a_batch():
  frames = [tables.frame(POINTS), tables.frame(POINTS[::-1])]
  found = tgmm_jax.fit(frames, 2)
  assert found.mixture.means.shape == (2, 2, 2)
  np.testing.assert_allclose(found.mixture.means[0], fit(POINTS), rtol=1e-6)


def test_blocks_may_be_frames():
  given = tables.frame(POINTS)
  frames = [given.iloc[:7], given.iloc[7:]]
  whole = fit_stream(POINTS)
  for blocks in (frames, lambda: iter(frames), [given], (*frames, given[:0])):
    found = em.fit_stream(KEY, blocks, 2, block_size=10, **FULL)
    np.testing.assert_allclose(
      np.sort(found.mixture.means, axis=0), np.sort(whole, axis=0), rtol=1e-4
    )


@pytest.mark.parametrize(
  "kind", ["frame", "frame of Int64", "Polars", "Arrow", "structured"]
)
def test_the_estimator_keeps_the_names_of_columns(kind):
  given = tables.KINDS[kind](POINTS)
  found = tgmm_jax.GaussianMixture(2, random_state=0).fit(given)
  assert found.n_features_in_ == 2
  if kind == "structured":
    assert not hasattr(found, "feature_names_in_")
    return
  assert found.feature_names_in_.tolist() == tables.NAMES
  found.predict(given)
  other = tables.frame(POINTS[:, ::-1]).rename(
    columns={"length": "width", "width": "length"}
  )
  with pytest.raises(ValueError, match="feature names should match"):
    found.predict(other)
  with pytest.warns(UserWarning, match="not have valid feature names"):
    found.predict(POINTS)


_FORKED = """
import multiprocessing
import numpy as np
import tgmm_jax
from tgmm_jax import GaussianMixture

POINTS = np.random.default_rng(0).normal(size=(30, 2))

def message(door):
  try:
    door()
  except RuntimeError as error:
    return str(error)

def ask(index):
  estimator = GaussianMixture(1)
  doors = lambda: tgmm_jax.fit(POINTS, 1), lambda: estimator.fit(POINTS)
  return message(doors[index])

if __name__ == "__main__":
  GaussianMixture(1).fit(POINTS)
  with multiprocessing.get_context("fork").Pool(1) as pool:
    for text in pool.map(ask, range(2)):
      print(text)
"""


@pytest.mark.slow
def test_a_forked_process_is_refused_in_one_line():
  found = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", _FORKED],
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )
  first, second = found.stdout.splitlines()
  assert first == second
  assert first.startswith("this process was forked from one that has used JAX")
