import dataclasses
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.models import factory, refiner, tgmm
from tgmm_jax.tasks import mixtures
from tgmm_jax.training import optim, sharding
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import mixtures as mixture_learner

COUNTS = (2, 3)


def law(dim):
  return mixtures.TaskConfig(
    dim=dim, num_components=COUNTS, min_points=8, max_points=16
  )


def anisotropic(dim):
  return dataclasses.replace(law(dim), covariance_type="diag")


def learner_of(model, **changes):
  defaults = {"tasks": (law(2),), "batch_sizes": (4,)}
  return mixture_learner.make(
    model, mixture_learner.MixtureTraining(**{**defaults, **changes})
  )


def config_of(**changes):
  defaults = {
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


def make_call(config, learner):
  return train_step.make_train_call(learner, config, sharding.make_mesh(1))


def start(config, learner):
  state = jax.jit(lambda: train_step.init_state(learner, config))()
  return jax.device_put(state, sharding.replicated(sharding.make_mesh(1)))


@pytest.fixture(scope="module")
def steps():
  """A compiled single step, and the states and scalars of the first three."""
  learner, config = learner_of(small_tgmm()), config_of()
  mesh = sharding.make_mesh(1)
  step = jax.jit(train_step.make_train_step(learner, config, mesh))
  states, scalars = [start(config, learner)], []
  for _ in range(config.steps_per_call):
    state, of_step = step(states[-1], ())
    states.append(state)
    scalars.append(of_step)
  return step, states, scalars


def test_call_is_its_steps_compiled_once_with_donated_state(steps):
  _, states, step_scalars = steps
  config = config_of()
  call = make_call(config, learner_of(small_tgmm()))
  state = jax.tree.map(jnp.array, states[0])
  for number in (1, 2, 3):
    before = state
    state, scalars = call(before, ())
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
  again = step(states[0], ())[1]
  assert again["loss"] == scalars[0]["loss"]
  later = states[0]._replace(step=jnp.asarray(7, jnp.int32))
  assert step(later, ())[1]["loss"] != scalars[0]["loss"]


def test_every_step_changes_every_parameter(steps):
  _, states, _ = steps
  for before, after in itertools.pairwise(states):
    moved = jax.tree.map(lambda a, b: np.any(a != b), before, after)
    assert all(jax.tree.leaves(moved.params))


@pytest.mark.slow
def test_tasks_and_parameters_are_the_seeds(steps):
  _, states, scalars = steps
  config, learner = config_of(seed=1), learner_of(small_tgmm())
  other = start(config, learner)
  same = jax.tree.map(np.array_equal, other.params, states[0].params)
  assert not all(jax.tree.leaves(same))
  mesh = sharding.make_mesh(1)
  step = jax.jit(train_step.make_train_step(learner, config, mesh))
  assert step(states[0], ())[1]["loss"] != scalars[0]["loss"]


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
def test_every_loss_falls_on_a_batch_that_stays(build, loss, falls_by):
  config = config_of(steps_per_call=60, num_steps=60, checkpoint_every=60)
  tasks = anisotropic(2) if build is small_refiner_of_scales else law(2)
  learner = learner_of(build(), tasks=(tasks,), loss=loss)
  sample = learner.sample
  learner = learner._replace(
    sample=lambda key, data: sample(jax.random.key(0), data)
  )
  state, scalars = make_call(config, learner)(start(config, learner), ())
  values = np.asarray(scalars["loss"])
  assert np.all(np.isfinite(values))
  assert values[-1] < values[0] - falls_by
  assert int(state.num_skipped) == 0


def test_batch_that_the_devices_cannot_share():
  mesh, learner = sharding.make_mesh(1), learner_of(small_tgmm())
  devices = type("Mesh", (), {"shape": {sharding.DATA: 8}})
  with pytest.raises(ValueError, match="batch_size is 4, takes a multiple"):
    train_step.make_train_step(learner, config_of(), devices)
  train_step.make_train_step(learner, config_of(), mesh)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"steps_per_call": 0}, "steps_per_call is 0, takes >= 1"),
    ({"num_steps": 61}, "num_steps is 61, takes a positive multiple of"),
    ({"num_steps": 0}, "num_steps is 0, takes a positive multiple of"),
    ({"checkpoint_every": 4}, "checkpoint_every is 4, takes a positive"),
    ({"seed": -1}, "seed is -1, takes 0 to"),
    ({"seed": 2**32}, "seed is 4294967296, takes 0 to"),
    ({"max_skipped_in_row": 0}, "max_skipped_in_row is 0, takes >= 1"),
    ({"state_sharding": "fsdp"}, "state_sharding is 'fsdp', takes one of"),
  ],
)
def test_config_refuses(change, message):
  with pytest.raises(ValueError, match=message):
    config_of(**change)
