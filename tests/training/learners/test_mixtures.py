import dataclasses
import itertools

import jax
import numpy as np
import pytest

from tgmm_jax.models import factory, refiner, tgmm
from tgmm_jax.tasks import mixtures
from tgmm_jax.training import losses
from tgmm_jax.training.learners import mixtures as mixture_learner

COUNTS = (2, 3)


def law(dim):
  return mixtures.TaskConfig(
    dim=dim, num_components=COUNTS, min_points=8, max_points=16
  )


def anisotropic(dim):
  return dataclasses.replace(law(dim), covariance_type="diag")


def training(**changes):
  defaults = {"tasks": (law(2),), "batch_sizes": (4,)}
  return mixture_learner.MixtureTraining(**{**defaults, **changes})


def small_tgmm(**changes):
  return tgmm.TGMMConfig(
    dim=2,
    num_components=COUNTS,
    width=8,
    num_layers=1,
    num_heads=2,
    embedding_width=8,
    **{"is_causal": True, "max_points": 16, "pooling": "released", **changes},
  )


def small_refiner():
  return factory.build(
    refiner.RefinerConfig(
      num_components=COUNTS, rank=2, width=8, num_layers=2, num_heads=2
    )
  )


@pytest.fixture(scope="module")
def mixed():
  """Parameters of a refiner, and a batch of four tasks in R^2, two in R^3."""
  model = small_refiner()

  @jax.jit
  def make():
    params = model.init(jax.random.key(1))
    examples = mixture_learner.sample_examples(
      jax.random.key(3), model, (law(2), law(3)), (4, 2)
    )
    return params, examples

  return model, *make()


@pytest.mark.slow
def test_batch_mixes_dimensions(mixed):
  _, _, (problems, targets) = mixed
  np.testing.assert_array_equal(problems.dim, [2, 2, 2, 2, 3, 3])
  assert set(np.asarray(problems.num_components)) <= set(COUNTS)
  points = np.asarray(problems.points)
  assert len(np.unique(points.reshape(6, -1), axis=0)) == 6
  for index in range(6):
    # In the network's coordinates too, points lie around the true means with
    # variance 1, or less where the frame drops a direction.
    is_point = np.asarray(problems.sample_weight[index]) > 0
    count = int(problems.num_components[index])
    means = np.asarray(targets.means[index, :count])
    difference = points[index][is_point][:, None] - means
    assert (difference**2).sum(-1).min(-1).mean() < 3.5


@pytest.mark.slow
def test_loss_and_error_of_a_batch_are_those_of_its_tasks(mixed):
  model, params, examples = mixed
  make = mixture_learner.make_loss(model, "matched", 0.25)
  loss, errors = jax.jit(make)(params, examples)
  apply = jax.jit(model.apply)
  total = 0.0
  for index in range(6):
    problem, target = jax.tree.map(lambda leaf, i=index: leaf[i], examples)
    prediction = apply(params, problem)
    first, last = (
      losses.matched(
        jax.tree.map(lambda leaf, s=stage: leaf[s], prediction), target, problem
      )
      for stage in range(2)
    )
    total += last + 0.25 * first
    count = int(problem.num_components)
    means = np.asarray(prediction.means[-1, :count])
    truth = np.asarray(target.means[:count])
    best = min(
      ((means - truth[list(order)]) ** 2).sum()
      for order in itertools.permutations(range(count))
    )
    expected = best / count / float(problem.dim)
    np.testing.assert_allclose(errors[index], expected, rtol=1e-4)
  np.testing.assert_allclose(loss, total / 6, rtol=1e-5)


@pytest.mark.slow
def test_logged_errors_are_of_their_dimension(mixed):
  model, params, examples = mixed
  learner = mixture_learner.make(
    model, training(tasks=(law(2), law(3)), batch_sizes=(4, 2))
  )
  assert learner.batch_size == 6
  _, errors = jax.jit(mixture_learner.make_loss(model, "matched", 0.3))(
    params, examples
  )
  _, scalars = jax.jit(learner.loss)(params, examples)
  assert scalars.keys() == {"l2_error/d2", "l2_error/d3"}
  np.testing.assert_allclose(scalars["l2_error/d2"], np.mean(errors[:4]))
  np.testing.assert_allclose(scalars["l2_error/d3"], np.mean(errors[4:]))


def test_each_k_has_its_own_batch():
  config = training(tasks=(law(2), law(3)), batch_sizes=(4, 2), has_each_k=True)
  assert config.sizes == (8, 4)
  learner = mixture_learner.make(small_refiner(), config)
  assert learner.batch_size == config.batch_size == 12
  problems, targets = jax.jit(learner.sample)(jax.random.key(0), ())
  for dim, size in ((2, 4), (3, 2)):
    counts = np.asarray(problems.num_components)[problems.dim == dim]
    assert sorted(counts) == [2] * size + [3] * size
  np.testing.assert_array_equal(
    (np.asarray(targets.weights) > 0).sum(1), problems.num_components
  )
  scalars = jax.eval_shape(
    lambda: learner.loss(learner.init(jax.random.key(1)), (problems, targets))
  )[1]
  assert scalars.keys() == {"l2_error/d2", "l2_error/d3"}


def test_readout_attends_to_padding_in_training_alone():
  model = factory.build(small_tgmm())
  faulty = factory.build(small_tgmm(has_inverted_pooling=True))
  learners = [
    mixture_learner.make(
      model, training(loss="sorted", has_inverted_pooling=is_inverted)
    )
    for is_inverted in (False, True)
  ]
  params = jax.jit(learners[1].init)(jax.random.key(0))
  examples = jax.jit(learners[1].sample)(jax.random.key(1), ())
  # One network, and the same tasks.
  for one, other in zip(
    jax.tree.leaves((params, examples)),
    jax.tree.leaves(
      (
        jax.jit(learners[0].init)(jax.random.key(0)),
        jax.jit(learners[0].sample)(jax.random.key(1), ()),
      )
    ),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)
  found = [jax.jit(own.loss)(params, examples)[0] for own in learners]
  expected = []
  for network in (model, faulty):
    predictions = jax.jit(network.apply)(params, examples.problems)
    last = jax.tree.map(lambda leaf: leaf[:, -1], predictions)
    values = [
      losses.sorted_order(
        *jax.tree.map(lambda leaf, i=index: leaf[i], (last, examples.targets)),
        jax.tree.map(lambda leaf, i=index: leaf[i], examples.problems),
      )
      for index in range(4)
    ]
    expected.append(np.mean(values))
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert abs(found[0] - found[1]) > 1e-3


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"batch_sizes": (4, 4)}, "batch_sizes is .4, 4., takes one number for"),
    ({"batch_sizes": (0,)}, "batch_sizes is .0,., takes numbers >= 1"),
    ({"tasks": (), "batch_sizes": ()}, "takes one number for each of the 0"),
    (
      {"tasks": (law(2), law(2)), "batch_sizes": (4, 4)},
      "dims is .2, 2., takes each d once",
    ),
    ({"loss": "l2"}, "loss is 'l2', takes one of .'likelihood', 'matched'"),
    ({"stage_weight": float("nan")}, "stage_weight is nan, takes a finite"),
    ({"stage_weight": -0.1}, "stage_weight is -0.1, takes a finite number"),
  ],
)
def test_training_refuses(change, message):
  with pytest.raises(ValueError, match=message):
    training(**change)


MISMATCHES = {
  "an isotropic refiner": (
    refiner.RefinerConfig(),
    anisotropic(2),
    "covariance_type of the tasks is 'diag', takes 'unit' as the network",
  ),
  "an isotropic tgmm": (
    tgmm.TGMMConfig(dim=2),
    anisotropic(2),
    "covariance_type of the tasks is 'diag', takes 'unit' as the network",
  ),
  "scales that are known": (
    tgmm.TGMMConfig(dim=2, has_scales=True),
    law(2),
    "covariance_type of the tasks is 'unit', takes 'diag' as the network",
  ),
  "more points than positions": (
    small_tgmm(max_points=15),
    law(2),
    "max_points of the tasks is 16, takes at most 15, the learned positions",
  ),
  "more coordinates than the frame": (
    refiner.RefinerConfig(rank=2, covariance_type="diag"),
    anisotropic(3),
    "dim is 3, takes at most 2 with this network",
  ),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_tasks_that_a_network_cannot_answer(name):
  model, tasks, message = MISMATCHES[name]
  with pytest.raises(ValueError, match=message) as error:
    mixture_learner.make(factory.build(model), training(tasks=(tasks,)))
  assert "\n" not in str(error.value)


def test_a_refiner_does_not_pool():
  with pytest.raises(ValueError, match="has_inverted_pooling is True, takes F"):
    mixture_learner.make(small_refiner(), training(has_inverted_pooling=True))
