import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fitting import made_fits
from tgmm_jax import types


def test_a_fit_is_a_pytree():
  fit = made_fits.one(columns=("a", "b"), candidates=(2, 3))
  doubled = jax.jit(lambda own: jax.tree.map(lambda leaf: 2 * leaf, own))(fit)
  np.testing.assert_allclose(doubled.mixture.means, 2 * fit.mixture.means)
  assert doubled.columns == ("a", "b")
  assert doubled.candidates == (2, 3)
  assert doubled.covariance_type == "full"
  leaves, structure = jax.tree.flatten(fit)
  assert not any(isinstance(leaf, str) for leaf in leaves)
  again = jax.tree.unflatten(structure, leaves)
  np.testing.assert_array_equal(again.labels, fit.labels)
  # A tree of anything else can be shown too.
  shapes = jax.eval_shape(lambda own: own, fit)
  assert "ShapeDtypeStruct" in repr(shapes)
  assert repr(jax.tree.map(lambda _: 0, fit)).startswith("Fit(")


def test_vmap_goes_over_the_problems():
  fit = made_fits.batch(count=3)
  points = jnp.ones((3, 5, 2))
  labels = jax.vmap(lambda own, points: own.predict(points))(fit, points)
  np.testing.assert_array_equal(labels, fit.predict(points))


def test_one_problem_of_a_batch_is_without_padding():
  fit = made_fits.batch("diag", count=3)
  counts = np.array([2, 3, 3], np.int32)
  fit = fit._replace(num_components=counts)
  first, last = fit[0], fit[-1]
  assert first.mixture.weights.shape == (2,)
  assert first.mixture.means.shape == (2, 2)
  assert first.mixture.covariances.shape == (2, 2)
  assert last.status == types.Status.INVALID_INPUT
  np.testing.assert_array_equal(first.labels, fit.labels[0])
  tied = made_fits.batch("tied")._replace(num_components=counts[:2])
  assert tied[0].mixture.covariances.shape == (2, 2)
  with pytest.raises(IndexError, match="index is 3, takes one of 3 problems"):
    fit[3]
  with pytest.raises(ValueError, match="only that of a batch takes an index"):
    first[0]


def test_method_is_the_name_of_where_a_fit_comes_from():
  assert str(made_fits.one().method) == "network full"
  fit = made_fits.batch(count=2)
  fit = fit._replace(method_index=np.array([1, 0], np.int32))
  assert fit.method.tolist() == ["EM", "network full"]
