import dataclasses
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import losses, optim, sharding, train_step
from tgmm_jax.models import factory, refiner, tgmm
from tgmm_jax.tasks import mixtures

COUNTS = (2, 3)


def law(dim):
  return mixtures.TaskConfig(
    dim=dim, num_components=COUNTS, min_points=8, max_points=16
  )


def anisotropic(dim):
  return dataclasses.replace(law(dim), covariance_type="diag")


def config_of(**changes):
  defaults = {
    "tasks": (law(2),),
    "batch_sizes": (4,),
    "num_steps": 60,
    "steps_per_call": 3,
    "checkpoint_every": 30,
    "optimizer": optim.OptimizerConfig(learning_rate=1e-2),
  }
  return train_step.TrainConfig(**{**defaults, **changes})


def small_refiner():
  return factory.build(
    refiner.RefinerConfig(
      num_components=COUNTS, rank=2, width=8, num_layers=2, num_heads=2
    )
  )


def small_refiner_of_scales():
  config = dataclasses.replace(small_refiner().config, covariance_type="diag")
  return factory.build(config)


def small_tgmm():
  return factory.build(
    tgmm.TGMMConfig(
      dim=2,
      num_components=COUNTS,
      width=8,
      num_layers=1,
      num_heads=2,
      embedding_width=4,
    )
  )


def make_call(config, model):
  return train_step.make_train_call(model, config, sharding.make_mesh(1))


def start(config, model):
  state = jax.jit(lambda: train_step.init_state(model, config))()
  return jax.device_put(state, sharding.replicated(sharding.make_mesh(1)))


@pytest.fixture(scope="module")
def steps():
  """A compiled single step, and the states and scalars of the first three."""
  model, config = small_tgmm(), config_of()
  mesh = sharding.make_mesh(1)
  step = jax.jit(train_step.make_train_step(model, config, mesh))
  states, scalars = [start(config, model)], []
  for _ in range(config.steps_per_call):
    state, of_step = step(states[-1])
    states.append(state)
    scalars.append(of_step)
  return step, states, scalars


def test_call_is_its_steps_compiled_once_with_donated_state(steps):
  _, states, step_scalars = steps
  config = config_of()
  call = make_call(config, small_tgmm())
  state = jax.tree.map(jnp.array, states[0])
  for number in (1, 2, 3):
    before = state
    state, scalars = call(before)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert int(state.step) == number * config.steps_per_call
    if number == 1:
      chex.assert_trees_all_close(state, states[-1], rtol=1e-5, atol=1e-6)
      assert scalars.keys() == step_scalars[0].keys()
      for name, values in scalars.items():
        expected = [of_step[name] for of_step in step_scalars]
        np.testing.assert_allclose(values, expected, rtol=1e-5)
  assert call._cache_size() == 1


def test_tasks_are_the_steps(steps):
  step, states, scalars = steps
  again = step(states[0])[1]
  assert again["loss"] == scalars[0]["loss"]
  later = states[0]._replace(step=jnp.asarray(7, jnp.int32))
  assert step(later)[1]["loss"] != scalars[0]["loss"]


def test_every_step_changes_every_parameter(steps):
  _, states, _ = steps
  for before, after in itertools.pairwise(states):
    moved = jax.tree.map(lambda a, b: np.any(a != b), before, after)
    assert all(jax.tree.leaves(moved.params))


@pytest.mark.slow
def test_tasks_and_parameters_are_the_seeds(steps):
  _, states, scalars = steps
  config = config_of(seed=1)
  other = start(config, small_tgmm())
  same = jax.tree.map(np.array_equal, other.params, states[0].params)
  assert not all(jax.tree.leaves(same))
  mesh = sharding.make_mesh(1)
  step = jax.jit(train_step.make_train_step(small_tgmm(), config, mesh))
  assert step(states[0])[1]["loss"] != scalars[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("build", "loss", "falls_by"),
  [
    (small_tgmm, "matched", 1.0),
    (small_tgmm, "sorted", 1.0),
    (small_tgmm, "likelihood", 1.0),
    (small_refiner, "matched", 0.02),
    (small_refiner_of_scales, "matched", 1.0),
  ],
)
def test_every_loss_falls_on_a_batch_that_stays(
  build, loss, falls_by, monkeypatch
):
  model = build()
  config = config_of(
    tasks=(anisotropic(2) if build is small_refiner_of_scales else law(2),),
    loss=loss,
    steps_per_call=60,
    num_steps=60,
    checkpoint_every=60,
  )
  sample = train_step.sample_examples
  monkeypatch.setattr(
    train_step,
    "sample_examples",
    lambda key, *args: sample(jax.random.key(0), *args),
  )
  state, scalars = make_call(config, model)(start(config, model))
  values = np.asarray(scalars["loss"])
  assert np.all(np.isfinite(values))
  assert values[-1] < values[0] - falls_by
  assert int(state.num_skipped) == 0


@pytest.fixture(scope="module")
def mixed():
  """Parameters of a refiner, and a batch of four tasks in R^2, two in R^3."""
  model = small_refiner()

  @jax.jit
  def make():
    params = model.init(jax.random.key(1))
    examples = train_step.sample_examples(
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
  make = train_step.make_loss(model, "matched", 0.25)
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


def test_batch_that_the_devices_cannot_share():
  mesh = sharding.make_mesh(1)
  with pytest.raises(ValueError, match="takes one number for each"):
    config_of(batch_sizes=(3, 3))
  devices = type("Mesh", (), {"shape": {sharding.DATA: 8}})
  with pytest.raises(ValueError, match="batch_size is 4, takes a multiple"):
    train_step.make_train_step(small_tgmm(), config_of(), devices)
  train_step.make_train_step(small_tgmm(), config_of(), mesh)


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
    ({"steps_per_call": 0}, "steps_per_call is 0, takes >= 1"),
    ({"num_steps": 61}, "num_steps is 61, takes a positive multiple of"),
    ({"num_steps": 0}, "num_steps is 0, takes a positive multiple of"),
    ({"checkpoint_every": 4}, "checkpoint_every is 4, takes a positive"),
    ({"stage_weight": float("nan")}, "stage_weight is nan, takes a finite"),
    ({"stage_weight": -0.1}, "stage_weight is -0.1, takes a finite number"),
    ({"seed": -1}, "seed is -1, takes 0 to"),
    ({"seed": 2**32}, "seed is 4294967296, takes 0 to"),
    ({"max_skipped_in_row": 0}, "max_skipped_in_row is 0, takes >= 1"),
    ({"state_sharding": "fsdp"}, "state_sharding is 'fsdp', takes one of"),
  ],
)
def test_config_refuses(change, message):
  with pytest.raises(ValueError, match=message):
    config_of(**change)


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
  "more coordinates than the frame": (
    refiner.RefinerConfig(rank=2, covariance_type="diag"),
    anisotropic(3),
    "dim is 3, takes at most the network's rank = 2",
  ),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_tasks_that_a_network_cannot_answer(name):
  model, tasks, message = MISMATCHES[name]
  config = config_of(tasks=(tasks,))
  with pytest.raises(ValueError, match=message) as error:
    train_step.make_train_call(
      factory.build(model), config, sharding.make_mesh(1)
    )
  assert "\n" not in str(error.value)
