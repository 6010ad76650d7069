import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.models import factory, set_transformer
from tgmm_jax.tasks import images, mixtures, spectra
from tgmm_jax.tasks.images import projection
from tgmm_jax.tasks.images import sources as image_sources
from tgmm_jax.training.learners import labels as label_learner

NETWORK = set_transformer.SetTransformerConfig(
  dim=2, answer="labels", num_targets=2, width=8, num_layers=1, num_points=6
)
TWO = spectra.TwoClassConfig(dim=2, min_points=4, max_points=6)
THREE = mixtures.TaskConfig(
  dim=2, num_components=(3,), min_points=4, max_points=6
)


def by_hand(logits, truth, weights):
  """Least weighted cross-entropy over all namings, in NumPy."""
  logits = np.asarray(logits, np.float64)
  shares = np.exp(logits - logits.max(-1, keepdims=True))
  shares /= shares.sum(-1, keepdims=True)
  rows = np.arange(len(truth))
  return min(
    -np.sum(weights * np.log(shares[rows, np.array(names)[truth]]))
    for names in itertools.permutations(range(logits.shape[1]))
  ) / np.sum(weights)


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_loss_is_the_least_of_all_namings(num_classes):
  rng = np.random.default_rng(num_classes)
  loss = jax.jit(label_learner.matched_cross_entropy)
  for _ in range(8):
    logits = 3.0 * rng.normal(size=(12, num_classes))
    truth = rng.integers(0, num_classes, 12)
    weights = rng.uniform(0.5, 2.0, 12)
    found = loss(jnp.float32(logits), truth, sample_weight=jnp.float32(weights))
    expected = by_hand(logits, truth, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for names in itertools.permutations(range(num_classes)):
      renamed = loss(
        jnp.float32(logits),
        np.array(names)[truth],
        sample_weight=jnp.float32(weights),
      )
      np.testing.assert_allclose(renamed, found, rtol=1e-5)
  equal = loss(jnp.zeros((12, num_classes)), truth, sample_weight=jnp.ones(12))
  np.testing.assert_allclose(equal, np.log(num_classes), rtol=1e-6)


def test_gradient_is_that_of_the_cross_entropy_under_the_best_naming():
  logits = jnp.array([[2.0, -1.0], [1.0, 0.5], [-1.0, 1.0]])
  truth = np.array([1, 1, 0])
  gradient = jax.jit(jax.grad(label_learner.matched_cross_entropy))(
    logits, truth, sample_weight=jnp.ones(3)
  )
  # Class 1 is best called 0: softmax minus one-hot of the names, over N.
  shares = jax.nn.softmax(logits)
  expected = (shares - np.eye(2)[1 - truth]) / 3
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_padding_has_no_say():
  rng = np.random.default_rng(0)
  logits, truth = rng.normal(size=(8, 3)), rng.integers(0, 3, 8)
  weights = np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32)
  value_and_grad = jax.jit(
    jax.value_and_grad(label_learner.matched_cross_entropy)
  )
  alone, _ = value_and_grad(logits[:5], truth[:5], sample_weight=weights[:5])
  for bad, label in ((1e30, 2), (np.nan, -1), (np.inf, 0)):
    logits[5:], truth[5:] = bad, label
    value, gradient = value_and_grad(logits, truth, sample_weight=weights)
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    np.testing.assert_array_equal(gradient[5:], 0.0)
    assert np.all(np.isfinite(gradient))


def test_learner_of_several_laws():
  model = factory.build_set(NETWORK)
  laws = [
    dataclasses.replace(TWO, min_separation=value, max_separation=value)
    for value in (0.0, 7.0)
  ]
  learner = label_learner.make(model, laws, 6)
  assert learner.batch_size == 6
  batch = jax.jit(learner.sample)(jax.random.key(0), learner.data)
  np.testing.assert_allclose(
    np.linalg.norm(batch.mixture.means[:, 0], axis=-1),
    [0, 0, 0, 7, 7, 7],
    rtol=1e-5,
  )
  params = learner.init(jax.random.key(1))
  loss, scalars = jax.jit(learner.loss)(params, batch)
  answers = model.apply(params, batch.points, batch.sample_weight)
  losses, shares = [], []
  for logits, truth, weight in zip(
    answers, batch.labels, batch.sample_weight, strict=True
  ):
    is_point = np.asarray(weight) > 0
    truth, logits = np.asarray(truth)[is_point], np.asarray(logits)[is_point]
    losses.append(by_hand(logits, truth, np.ones(len(truth))))
    shares.append(
      max(
        np.mean(np.array(names)[truth] == logits.argmax(-1))
        for names in itertools.permutations(range(2))
      )
    )
  np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
  assert scalars.keys() == {"accuracy"}
  np.testing.assert_allclose(scalars["accuracy"], np.mean(shares), rtol=1e-5)


def test_learner_on_images_draws_from_the_split_it_is_given():
  rng = np.random.default_rng(0)
  halves = [
    image_sources.Images(rng.normal(size=(24, 5)), np.arange(24) % 3)
    for _ in range(2)
  ]
  split = projection.project(*halves, 2).train
  config = images.ImageConfig(dim=2, num_points=6, has_pairs=True)
  learner = label_learner.make_on_images(
    factory.build_set(NETWORK), split, config, 5
  )
  batch = jax.jit(learner.sample)(jax.random.key(0), learner.data)
  assert batch.points.shape == (5, 6, 2)
  known = {tuple(point) for point in np.asarray(split.points)}
  assert {tuple(p) for p in np.asarray(batch.points).reshape(-1, 2)} <= known
  assert set(np.asarray(batch.labels).ravel()) == {0, 1}
  params = jax.eval_shape(learner.init, jax.random.key(1))
  loss, scalars = jax.eval_shape(learner.loss, params, batch)
  assert (loss.shape, scalars["accuracy"].shape) == ((), ())


ERRORS = {
  "answer": (
    {"answer": "eigenvalues"},
    TWO,
    "answer is 'eigenvalues', takes 'labels'",
  ),
  "dim": ({"dim": 3}, TWO, "dim of the network is 3, takes 2 as the problems"),
  "K": ({}, THREE, "num_targets of the network is 2, takes 3 as the problems"),
  "several K": (
    {},
    dataclasses.replace(THREE, num_components=(2, 3)),
    "takes one K and no padding for labels",
  ),
  "padding": (
    {},
    dataclasses.replace(THREE, max_components=4),
    "takes one K and no padding for labels",
  ),
  "positions": (
    {"is_causal": True, "num_points": 5},
    TWO,
    "num_points of the network is 5, takes at least the problems' 6",
  ),
  "no laws": ({}, (), "batch_size is 6, takes a multiple of .* laws, 0"),
  "unequal shares": ({}, (TWO,) * 4, "batch_size is 6, takes a multiple of"),
  "unequal N": (
    {},
    (TWO, dataclasses.replace(TWO, max_points=5)),
    r"max_points of the laws are \[5, 6\], takes one number",
  ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_laws_that_a_network_cannot_be_trained_on(name):
  changes, laws, message = ERRORS[name]
  model = factory.build_set(dataclasses.replace(NETWORK, **changes))
  with pytest.raises(ValueError, match=message) as error:
    label_learner.make(model, laws, 6)
  assert "\n" not in str(error.value)


def test_images_that_a_network_cannot_be_trained_on():
  model = factory.build_set(NETWORK)
  config = images.ImageConfig(dim=2, num_points=6)
  with pytest.raises(ValueError, match="has_pairs is False, takes True"):
    label_learner.make_on_images(model, None, config, 4)
  config = images.ImageConfig(dim=3, num_points=6, has_pairs=True)
  with pytest.raises(ValueError, match="dim of the network is 2, takes 3"):
    label_learner.make_on_images(model, None, config, 4)
