"""Five steps on 1 and on 8 of 8 virtual devices; prints JSON."""

import hashlib
import json

import jax
import numpy as np

from tgmm_jax.models import factory, tgmm
from tgmm_jax.tasks import mixtures
from tgmm_jax.training import sharding
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import mixtures as mixture_learner

NUM_STEPS = 5
LAW = mixtures.TaskConfig(
  dim=2, num_components=(2, 3), min_points=8, max_points=16
)


def digest(tree):
  leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
  return hashlib.sha256(b"".join(leaves)).hexdigest()


def compare(num_devices, rule):
  mesh = sharding.make_mesh(num_devices)
  # This network reads the points as they are drawn.
  model = factory.build(
    tgmm.TGMMConfig(
      dim=2,
      num_components=(2, 3),
      width=8,
      num_layers=1,
      num_heads=2,
      embedding_width=4,
    )
  )
  learner = mixture_learner.make(
    model, mixture_learner.MixtureTraining(tasks=(LAW,), batch_sizes=(16,))
  )
  config = train_step.TrainConfig(
    num_steps=NUM_STEPS,
    steps_per_call=NUM_STEPS,
    checkpoint_every=NUM_STEPS,
    state_sharding=rule,
  )

  def draw():
    key = jax.random.fold_in(jax.random.key(4), 2)
    examples = learner.sample(key, ())
    return jax.lax.with_sharding_constraint(examples, sharding.over_tasks(mesh))

  with jax.set_mesh(mesh):
    examples = jax.jit(draw)()
    abstract = train_step.abstract_state(learner, config)
    state = jax.jit(
      lambda: train_step.init_state(learner, config),
      out_shardings=sharding.state_shardings(abstract, mesh, rule=rule),
    )()
    state, scalars = train_step.make_train_call(learner, config, mesh)(
      state, ()
    )
  (adam,) = [
    part
    for part in jax.tree.leaves(
      state.opt_state, is_leaf=lambda part: hasattr(part, "mu")
    )
    if hasattr(part, "mu")
  ]
  return {
    "tasks": digest(examples),
    "task_devices": len(examples.problems.points.sharding.device_set),
    "task_share": examples.problems.points.addressable_shards[0].data.shape[0],
    "losses": scalars["loss"].tolist(),
    "moment_size": adam.mu.size,
    "moment_share": adam.mu.addressable_shards[0].data.size,
    "num_skipped": int(state.num_skipped),
  }


if __name__ == "__main__":
  results = {
    "1": compare(1, "replicated"),
    "8": compare(8, "replicated"),
    "8 sharded": compare(8, "sharded"),
  }
  print(json.dumps(results))  # noqa: T201
