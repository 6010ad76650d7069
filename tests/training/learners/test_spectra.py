"""What the training loop knows of networks that answer with a spectrum."""

import dataclasses
import functools
import re

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.models import factory, set_transformer
from tgmm_jax.tasks import images, spectra
from tgmm_jax.tasks.images import projection
from tgmm_jax.tasks.images import sources as image_sources
from tgmm_jax.training import optim, sharding
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import spectra as spectrum_learner

LAW = spectra.CovarianceConfig(dim=3, num_targets=2, min_points=5, max_points=7)
IMAGES = images.ImageConfig(dim=3, num_points=7, num_targets=2)
NETWORK = set_transformer.SetTransformerConfig(
  dim=3, num_targets=2, num_points=7, width=8, num_layers=1
)
NUM_IMAGES = 5000
TRAINING = train_step.TrainConfig(
  num_steps=60,
  steps_per_call=20,
  checkpoint_every=60,
  optimizer=optim.OptimizerConfig(learning_rate=1e-2),
)


def network(loss, **changes):
  answer = spectrum_learner.LOSSES[loss][1]
  return factory.build_set(
    dataclasses.replace(NETWORK, answer=answer, **changes)
  )


@functools.cache
def problems():
  draw = jax.jit(spectra.sample_batch, static_argnums=(1, 2))
  return draw(jax.random.key(0), LAW, 4)


@functools.cache
def split(test_pixel=None):
  """The training split, with test images of which one pixel may be another."""
  generator = np.random.default_rng(0)
  pixels = generator.normal(size=(NUM_IMAGES, 5))
  test = generator.normal(size=(20, 5))
  if test_pixel is not None:
    test[3, 2] = test_pixel
  return projection.project(
    image_sources.Images(pixels, None), image_sources.Images(test, None), 3
  ).train


def on_images(loss="eigenvalues", data=None):
  return spectrum_learner.make_on_images(
    network(loss), loss, data or split(), IMAGES, batch_size=4
  )


@functools.cache
def image_training():
  """The learner and its compiled call."""
  learner = on_images()
  call = train_step.make_train_call(learner, TRAINING, sharding.make_mesh(1))
  return learner, call


def start(learner):
  """The first state, on the device where the call leaves the next ones."""
  init = functools.partial(train_step.init_state, learner, TRAINING)
  place = sharding.replicated(sharding.make_mesh(1))
  return jax.jit(init, out_shardings=place)()


# By hand, of one problem in float64.


def eigenvalue_loss(answer, values, vectors):
  del vectors
  return np.mean(((answer - values) / values) ** 2)


def eigenvector_loss(answer, values, vectors):
  del values
  lengths = np.linalg.norm(answer, axis=0) * np.linalg.norm(vectors, axis=0)
  return np.mean(1.0 - np.abs(np.sum(answer * vectors, axis=0)) / lengths)


def subspace_loss(answer, values, vectors):
  del values
  return 0.5 * np.sum((answer @ answer.T - vectors @ vectors.T) ** 2)


BY_HAND = {
  "eigenvalues": eigenvalue_loss,
  "eigenvectors": eigenvector_loss,
  "subspace": subspace_loss,
}


def by_hand(loss, index, answer):
  """With NumPy's truth, of the points that are there."""
  is_point = np.asarray(problems().sample_weight[index]) > 0
  points = np.float64(problems().points[index])[is_point]
  values, vectors = np.linalg.eigh(np.cov(points.T))
  values, vectors = values[::-1][:2], vectors[:, ::-1][:, :2]
  return BY_HAND[loss](np.float64(answer), values, vectors)


@pytest.mark.parametrize("loss", spectrum_learner.LOSSES)
def test_loss_of_a_problem_is_the_one_by_hand(loss):
  shape = (2,) if loss == "eigenvalues" else (3, 2)
  loss_of_one = spectrum_learner.LOSSES[loss][0]
  answers = np.random.default_rng(0).normal(size=(4, *shape))
  actual = jax.jit(jax.vmap(loss_of_one))(np.float32(answers), problems())
  expected = [by_hand(loss, *pair) for pair in enumerate(answers)]
  np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_loss_of_a_batch_is_the_mean_of_its_problems():
  model = network("subspace")
  learner = spectrum_learner.make(model, "subspace", LAW, batch_size=4)

  @jax.jit
  def answer_and_compare(batch):
    params = learner.init(jax.random.key(1))
    answers = model.apply(params, batch.points, batch.sample_weight)
    return answers, learner.loss(params, batch)

  answers, (actual, scalars) = answer_and_compare(problems())
  assert scalars == {}
  expected = [by_hand("subspace", *pair) for pair in enumerate(answers)]
  np.testing.assert_allclose(actual, np.mean(expected), rtol=1e-4)


@pytest.mark.parametrize("loss", ["eigenvectors", "subspace"])
def test_sign_of_a_true_vector_does_not_matter(loss):
  batch = jax.tree.map(lambda leaf: leaf[0], problems())
  answer = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), "f4")
  flipped = batch._replace(eigenvectors=batch.eigenvectors * jnp.array([-1, 1]))
  loss_of_one = spectrum_learner.LOSSES[loss][0]
  expected = loss_of_one(answer, batch)
  assert expected > 0.05
  np.testing.assert_allclose(loss_of_one(answer, flipped), expected, rtol=1e-6)


def test_problems_are_those_of_the_law_and_of_the_key():
  model = network("eigenvalues")
  learner = spectrum_learner.make(model, "eigenvalues", LAW, batch_size=4)
  assert (learner.batch_size, learner.data) == (4, ())
  drawn = jax.jit(learner.sample)(jax.random.key(0), ())
  for one, other in zip(drawn, problems(), strict=True):
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("loss", spectrum_learner.LOSSES)
def test_loss_falls_on_a_batch_that_stays(loss):
  learner = spectrum_learner.make(network(loss), loss, LAW, batch_size=4)
  learner = learner._replace(sample=lambda key, data: data, data=problems())
  call = train_step.make_train_call(learner, TRAINING, sharding.make_mesh(1))
  state, losses = start(learner), []
  for _ in range(3):
    state, scalars = call(state, learner.data)
    losses += list(np.asarray(scalars["loss"]))
  assert losses[-1] < 0.6 * losses[0]
  assert int(state.num_skipped) == 0
  # One program serves every call.
  assert call._cache_size() == 1


# Problems made of images.


def test_images_are_drawn_from_the_split_that_is_given():
  learner, _ = image_training()
  assert learner.data is split()
  draw = jax.jit(learner.sample)
  batch = draw(jax.random.key(5), learner.data)
  assert batch.points.shape == (4, 7, 3)
  whole = np.asarray(split().points)
  for problem in np.asarray(batch.points):
    distances = np.abs(whole - problem[:, None]).max(-1).min(-1)
    assert np.all(distances == 0.0)
  # Other data give other problems: the split is no constant of the program.
  other = learner.data._replace(points=2.0 * learner.data.points)
  again = draw(jax.random.key(5), other)
  np.testing.assert_array_equal(again.points, 2.0 * batch.points)


def constants(jaxpr):
  """All arrays that a program holds, not those that it is given."""
  found = list(jaxpr.consts)
  for equation in jaxpr.jaxpr.eqns:
    for inner in jax.tree.leaves(
      list(equation.params.values()),
      is_leaf=lambda leaf: isinstance(leaf, jax.extend.core.ClosedJaxpr),
    ):
      if isinstance(inner, jax.extend.core.ClosedJaxpr):
        found += constants(inner)
  return found


def test_no_program_holds_the_images():
  learner, call = image_training()
  state = jax.eval_shape(lambda: train_step.init_state(learner, TRAINING))
  traced = call.trace(state, learner.data)
  assert all(np.size(array) < 1000 for array in constants(traced.jaxpr))
  text = traced.lower().as_text()
  assert f"tensor<{NUM_IMAGES}x3xf32>" in text
  # A constant takes at least a letter for each of its numbers.
  held = re.findall(r"dense(?:_resource)?<([^>]*)>", text)
  assert held
  assert max(map(len, held)) < NUM_IMAGES


@pytest.mark.parametrize("pixel", [np.nan, 1e6])
def test_a_poisoned_test_split_changes_no_step_and_no_parameter(pixel):
  learner, call = image_training()
  poisoned = on_images(data=split(test_pixel=pixel))
  runs = []
  for data in (learner.data, poisoned.data):
    state, scalars = call(start(learner), data)
    assert int(state.num_skipped) == 0
    runs.append((state, scalars))
  same = jax.tree.map(np.array_equal, *runs)
  assert jax.tree.all(same)
  assert np.all(np.isfinite(runs[0][1]["loss"]))
  assert call._cache_size() == 1


def test_a_poisoned_training_split_would_show():
  learner, call = image_training()
  data = learner.data._replace(points=learner.data.points * 1.5)
  one, other = (
    call(start(learner), data)[1]["loss"] for data in (learner.data, data)
  )
  assert not np.any(np.asarray(one) == np.asarray(other))


# Refusals.

MISMATCHES = {
  "loss": (
    {"loss": "values"},
    "loss is 'values', takes one of .'eigenvalues', 'eigenvectors', 'subspace'",
  ),
  "answer": (
    {"loss": "subspace"},
    "answer is 'eigenvalues', takes 'eigenvectors' for the loss 'subspace'",
  ),
  "labels": (
    {"answer": "labels"},
    "answer is 'labels', takes 'eigenvalues' for the loss 'eigenvalues'",
  ),
  "dim": ({"dim": 4}, "dim of the network is 4, takes 3 as the problems"),
  "num_targets": (
    {"num_targets": 1},
    "num_targets of the network is 1, takes 2 as the problems",
  ),
  "flat": (
    {"readout": "flat", "num_points": 8},
    "num_points of the network is 8, takes 7 as the problems",
  ),
  "positions": (
    {"is_causal": True, "num_points": 6},
    "num_points of the network is 6, takes 7 as the problems",
  ),
}


@pytest.mark.parametrize("name", MISMATCHES)
@pytest.mark.parametrize("has_images", [False, True])
def test_problems_that_a_network_does_not_fit(name, has_images):
  changes, message = MISMATCHES[name]
  changes = dict(changes)
  loss = changes.pop("loss", "eigenvalues")
  model = factory.build_set(dataclasses.replace(NETWORK, **changes))
  make = functools.partial(spectrum_learner.make, model, loss, LAW, 4)
  if has_images:
    make = functools.partial(
      spectrum_learner.make_on_images, model, loss, None, IMAGES, 4
    )
  with pytest.raises(ValueError, match=message) as error:
    make()
  assert "\n" not in str(error.value)


def test_a_pooled_network_takes_another_number_of_points():
  model = network("eigenvalues", num_points=99)
  spectrum_learner.make(model, "eigenvalues", LAW, 4)
