"""Each refusal: its type, and a line that says what was given and is taken."""

import types as standard_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from tgmm_jax.solvers import checks


def refused(function, *arguments, **options):
  """The message, which is one line."""
  with pytest.raises(ValueError, match=".") as caught:
    function(*arguments, **options)
  assert type(caught.value) is ValueError
  message = str(caught.value)
  assert "\n" not in message
  return message


KNOWN = ("full", "diag")


def test_name():
  checks.name("covariance_type", "diag", KNOWN)
  message = refused(checks.name, "covariance_type", "round", KNOWN)
  assert message == "covariance_type is 'round', takes 'full', 'diag'"
  message = refused(checks.name, "init", "a", KNOWN, "or a Mixture")
  assert message == "init is 'a', takes 'full', 'diag' or a Mixture"


@pytest.mark.parametrize(
  "value", [None, 3, ["full"], np.array(["full"]), b"full"]
)
def test_a_name_of_another_type(value):
  assert "init is " in refused(checks.name, "init", value, KNOWN)


def test_a_long_value_is_cut():
  message = refused(checks.name, "init", "x" * 500, KNOWN)
  assert len(message) < 110
  assert "xxx..., takes" in message


@pytest.mark.parametrize(
  "value", [1, 7, np.int32(3), np.uint8(3), np.array(3), np.int64(7)]
)
def test_integers_are_taken(value):
  checks.integer("num_components", value, lowest=1, highest=7)
  checks.integer("num_components", jnp.asarray(value), lowest=1, highest=7)


@pytest.mark.parametrize(
  "value",
  [0, -1, 8, 2.0, 2.5, np.float32(2.0), "3", None, True, np.bool_(True)]
  + [np.array([3]), np.array(2.0), np.array(True), np.nan, 3j, jnp.ones(2)],
)
def test_other_integers_are_refused(value):
  message = refused(
    checks.integer, "num_components", value, lowest=1, highest=7
  )
  assert message.startswith("num_components is ")
  assert message.endswith(", takes an integer from 1 to 7")


def test_integers_without_bounds():
  checks.integer("max_iter", 10**12, lowest=0)
  checks.integer("num_components", -3)
  message = refused(checks.integer, "num_components", 2.5)
  assert message == "num_components is 2.5, takes an integer"
  message = refused(checks.integer, "max_iter", -1, lowest=0)
  assert message == "max_iter is -1, takes an integer >= 0"


@pytest.mark.parametrize(
  "value", [0, 0.0, 1e-7, 5, np.float32(2.0), np.int64(2), np.array(0.5)]
)
def test_numbers_are_taken(value):
  checks.number("tol", value, lowest=0.0)
  checks.number("tol", jnp.asarray(value), lowest=0.0)


@pytest.mark.parametrize(
  "value",
  [-1e-9, -1, np.nan, np.inf, -np.inf, "0.1", None, True, np.bool_(True)]
  + [np.array([0.5]), np.array(np.nan), np.array(True), np.array("a"), 1j]
  + [np.array(1j), [1.0]],
)
def test_other_numbers_are_refused(value):
  message = refused(checks.number, "tol", value, lowest=0.0)
  assert message.startswith("tol is ")
  assert message.endswith(", takes a number >= 0")


def test_what_is_traced_is_taken_as_it_is():
  @jax.jit
  def function(value, weight):
    checks.integer("max_iter", value, lowest=0)
    checks.number("tol", value, lowest=0.0)
    batch = checks.batch(
      weight[..., None] * jnp.nan,
      value,
      sample_weight=weight,
      max_components=3,
    )
    assert batch.max_components == 3
    assert batch.num_components.shape == (2,)
    return batch.points, batch.sample_weight

  points, _ = function(-7, -jnp.ones((2, 5)))
  assert np.all(np.isnan(points))


AXES = ("B", "N", "d")
TAKES = "takes real numbers of shape [B, N, d]"


@pytest.mark.parametrize(
  ("value", "dtype"),
  [
    (np.ones((2, 3, 1), np.float16), jnp.float32),
    (jnp.ones((2, 3, 1), jnp.bfloat16), jnp.float32),
    (np.ones((2, 3, 1), np.float32), jnp.float32),
    (np.ones((2, 3, 1), np.float64), jnp.float64),
    (np.ones((2, 3, 1), np.int64), jnp.float64),
    (np.ones((2, 3, 1), np.bool_), jnp.float32),
    ([[[1], [2], [3]]] * 2, jnp.float64),
    ([[[1.5], [2.0], [3.0]]] * 2, jnp.float64),
    (np.ma.masked_array(np.ones((2, 3, 1))), jnp.float64),
  ],
)
def test_arrays(value, dtype):
  found = checks.array("points", value, AXES)
  # Nothing goes to the device before the program.
  kind = jax.Array if isinstance(value, jax.Array) else np.ndarray
  assert isinstance(found, kind)
  assert found.dtype == dtype
  assert found.shape == (2, 3, 1)
  np.testing.assert_array_equal(found, np.asarray(value, np.float32))


@pytest.mark.usefixtures("x64")
def test_arrays_of_64_bits():
  for given, dtype in (
    (np.float64, jnp.float64),
    (np.float32, jnp.float32),
    (np.float16, jnp.float32),
    (np.int64, jnp.float64),
    (np.int16, jnp.float32),
  ):
    found = checks.array("points", np.ones((2, 3, 1), given), AXES)
    assert found.dtype == dtype


@pytest.mark.parametrize(
  "shape", [(), (3,), (3, 2), (0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 3, 2, 1)]
)
def test_shapes_are_refused(shape):
  for make in (np.ones, jnp.ones):
    message = refused(checks.array, "points", make(shape), AXES)
    assert message.startswith(f"points has shape {shape}, takes [B, N, d]")
    assert ("[points]" in message) == (shape == (3, 2))


def test_shapes_alone():
  checks.shape("points", jnp.ones((2, 3)), ("N", "d"))
  message = refused(checks.shape, "points", jnp.ones(3), ("N", "d"))
  expected = "points has shape (3,), takes [N, d]: for one column"
  assert message == f"{expected} points[:, None]"
  message = refused(checks.shape, "points", np.ones((0, 3)), ("N", "d"))
  assert message.startswith("points has shape (0, 3), takes")


def test_ragged_lists_are_refused():
  message = refused(checks.array, "points", [[[1.0, 2.0], [3.0]]], AXES)
  assert message == f"points is ragged, {TAKES}"


@pytest.mark.parametrize(
  ("value", "what"),
  [
    (np.ones((2, 3, 1), np.complex64), "has dtype complex64"),
    (jnp.ones((2, 3, 1), jnp.complex64), "has dtype complex64"),
    (np.full((2, 3, 1), "a"), "has dtype <U1"),
    (np.ones((2, 3, 1), "timedelta64[s]"), "has dtype timedelta64[s]"),
    (np.full((2, 3, 1), None), "has 6 missing values, the first at [0, 0, 0]"),
    (None, "is None"),
    ({"a": 1}, "is a dict"),
    (standard_types.SimpleNamespace(), "is a SimpleNamespace"),
    (jax.random.key(0), "has dtype key<fry>"),
  ],
)
def test_other_types_are_refused(value, what):
  message = refused(checks.array, "points", value, AXES)
  assert message == f"points {what}, {TAKES}"


def test_masks_and_sparse_matrices_are_refused():
  masked = np.ma.masked_array(np.ones((2, 3, 1)))
  masked[1, 1, 0] = masked[0, 2, 0] = np.ma.masked
  message = refused(checks.array, "points", masked, AXES)
  assert message.startswith("points is a masked array with 2 masked values")
  assert "sample_weight 0" in message
  for make in (scipy.sparse.csr_array, scipy.sparse.coo_matrix):
    sparse = make(np.ones((2, 3)))
    message = refused(checks.array, "points", sparse, AXES)
    assert message == f"points is a sparse {type(sparse).__name__}, {TAKES}"


POINTS = np.ones((2, 5, 3), np.float32)


def test_a_batch():
  points, counts, weight, most = checks.batch(POINTS, 2)
  assert points.shape == (2, 5, 3)
  np.testing.assert_array_equal(counts, [2, 2])
  np.testing.assert_array_equal(weight, np.ones((2, 5)))
  assert most == 2
  _, counts, _, most = checks.batch(POINTS, np.array([1, 4]))
  np.testing.assert_array_equal(counts, [1, 4])
  assert most == 4
  *_, most = checks.batch(
    POINTS, [1, 4], sample_weight=np.ones((2, 5)), max_components=6
  )
  assert most == 6


@pytest.mark.parametrize(
  ("num_components", "sample_weight", "max_components", "message"),
  [
    (2, np.ones((2, 4)), None, "sample_weight has shape (2, 4), takes (2, 5)"),
    (
      2,
      np.ones(5),
      None,
      "sample_weight has shape (5,), takes [B, N]: for one",
    ),
    (0, None, None, "num_components is 0, takes an integer from 1 to 5"),
    (6, None, None, "num_components is 6, takes an integer from 1 to 5"),
    (4, None, 3, "num_components is 4, takes an integer from 1 to 3"),
    (2.0, None, None, "num_components is 2.0, takes an integer from 1 to 5"),
    ([0, 0], None, 3, "num_components is 0, takes an integer from 1 to 3"),
    ([4, 9], None, 3, "num_components is 4, takes an integer from 1 to 3"),
    ([6, 6], None, 9, "num_components is 6, takes an integer from 1 to 5"),
    ([1, 2, 3], None, None, "num_components has shape (3,)"),
    ([1.0, 2.0], None, None, "num_components has shape (2,) and dtype float64"),
    ([[1, 2]], None, None, "num_components has shape (1, 2)"),
    (2, None, 0, "max_components is 0, takes an integer >= 1"),
    (2, None, 2.5, "max_components is 2.5, takes an integer >= 1"),
    (2, np.zeros((2, 5)), None, "sample_weight is zero for all of 5 points"),
    (2, -np.ones((2, 5)), None, "sample_weight is -1.0 at 0, takes finite"),
  ],
)
def test_batches_are_refused(
  num_components, sample_weight, max_components, message
):
  found = refused(
    checks.batch,
    POINTS,
    num_components,
    sample_weight=sample_weight,
    max_components=max_components,
  )
  assert found.startswith(message)


def test_one_good_problem_saves_a_batch():
  points = np.stack([POINTS[0] * np.nan, POINTS[0]])
  found, *_ = checks.batch(points, 2)
  np.testing.assert_array_equal(found, points)
  message = refused(checks.batch, points[[0, 0]], 2)
  assert message.startswith("points contains nan (first at [0, 0])")
  _, counts, *_ = checks.batch(points, [2, 2], max_components=3)
  np.testing.assert_array_equal(counts, [2, 2])
  # The good one of the points is not the good one of the counts.
  refused(checks.batch, points, [2, 9], max_components=3)


def test_a_block_may_have_no_weight():
  checks.values(POINTS[0], np.zeros(5))
  message = refused(checks.problem, POINTS[0], np.zeros(5))
  expected = "sample_weight is zero for all of 5 points, takes some above 0"
  assert message == expected


def test_bad_values_in_padding_are_no_matter():
  points = POINTS[:1].copy()
  points[0, 2] = np.nan
  weight = np.array([[1.0, 1.0, 0.0, 1.0, 1.0]])
  checks.batch(points, 2, sample_weight=weight)
  checks.problem(points[0], weight[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_problem_names_the_first_bad_value(value):
  points, weight = POINTS[0].copy(), np.ones(5)
  points[3, 1] = points[4, 0] = value
  message = refused(checks.problem, points, weight)
  expected = f"points contains {value} (first at [3, 1]), takes finite float32"
  assert message == f"{expected} numbers"
  message = refused(checks.values, points, weight, first=100)
  assert "(first at [103, 1])" in message
  weight[2] = value
  message = refused(checks.values, POINTS[0], weight, first=100)
  expected = f"sample_weight is {value} at 102, takes finite numbers >= 0"
  assert message == expected
