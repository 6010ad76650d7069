"""Updates that are not finite are skipped, counted, and do no harm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tgmm_jax.models import factory, tgmm
from tgmm_jax.tasks import mixtures
from tgmm_jax.training import optim, sharding
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import mixtures as mixture_learner

_NAN_STEP, _INF_STEP, _LAST_GOOD_STEP, _NUM_STEPS = 2, 4, 6, 9


@pytest.fixture(scope="module")
def states():
  """The states before step 0, 1, ..., with faults put in.

  A batch has a NaN, a later one an inf, and from some step on the optimiser's
  update overflows though loss and gradient are finite.
  """
  config = train_step.TrainConfig(
    num_steps=20, steps_per_call=1, checkpoint_every=1
  )
  law = mixtures.TaskConfig(
    dim=2, num_components=(2, 3), min_points=8, max_points=8
  )
  model = factory.build(
    tgmm.TGMMConfig(
      dim=2,
      num_components=(2, 3),
      width=8,
      num_layers=1,
      num_heads=1,
      embedding_width=4,
    )
  )
  learner = mixture_learner.make(
    model, mixture_learner.MixtureTraining(tasks=(law,), batch_sizes=(4,))
  )
  patch = pytest.MonkeyPatch()
  sample, make = learner.sample, optim.make

  def sample_with_faults(key, data):
    examples = sample(key, data)
    points = examples.problems.points
    for step, value in ((_NAN_STEP, jnp.nan), (_INF_STEP, jnp.inf)):
      is_step = jnp.array_equal(
        jax.random.key_data(key),
        jax.random.key_data(
          jax.random.fold_in(
            train_step._stream(config.seed, train_step._TASKS), step
          )
        ),
      )
      points = points.at[1, 3, 0].set(
        jnp.where(is_step, value, points[1, 3, 0])
      )
    problems = examples.problems._replace(points=points)
    return examples._replace(problems=problems)

  def make_with_faults(*args):
    # Skipped updates do not count: two were by then.
    last = _LAST_GOOD_STEP - 2
    overflow = optax.scale_by_schedule(
      lambda count: jnp.where(count > last, 3e38, 1.0)
    )
    return optax.chain(make(*args), overflow, optax.scale(1e6))

  with patch.context() as patched:
    patched.setattr(optim, "make", make_with_faults)
    faulty = learner._replace(sample=sample_with_faults)
    state = train_step.init_state(faulty, config)
    step = jax.jit(
      train_step.make_train_step(faulty, config, sharding.make_mesh(1))
    )
    states = [state]
    for _ in range(_NUM_STEPS):
      state, scalars = step(state, ())
      states.append(state)
      if len(states) - 2 >= _LAST_GOOD_STEP:
        assert np.isfinite(scalars["loss"])
        assert np.isfinite(scalars["grad_norm"])
  return jax.device_get(states)


def _bits(state):
  return [
    leaf.tobytes() for leaf in jax.tree.leaves((state.params, state.opt_state))
  ]


def test_bad_updates_change_no_bit_and_good_ones_go_on(states):
  bad = {_NAN_STEP, _INF_STEP, *range(_LAST_GOOD_STEP + 1, _NUM_STEPS)}
  for step in range(_NUM_STEPS):
    is_same = _bits(states[step]) == _bits(states[step + 1])
    assert is_same == (step in bad), f"step {step}"
    assert states[step + 1].step == step + 1


def test_skipped_updates_are_counted(states):
  num_last = _NUM_STEPS - _LAST_GOOD_STEP - 1
  in_row = [int(state.num_skipped_in_row) for state in states[1:]]
  assert in_row == [0, 0, 1, 0, 1, 0, 0, *range(1, num_last + 1)]
  assert states[-1].num_skipped == 2 + num_last


def test_state_is_always_finite(states):
  for state in states:
    for leaf in jax.tree.leaves(state):
      assert np.all(np.isfinite(leaf))
