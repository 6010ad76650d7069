"""Cells with a few tasks, and a solver that is told the answer."""

import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.evaluation import evaluator
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.tasks import mixtures

NUM_TASKS = 12


def cells(**changes):
  defaults = {
    "tasks": mixtures.TaskConfig(dim=2, num_components=(2, 3, 4, 5)),
    "dims": (2,),
    "num_components": (2, 3),
    "num_points": (32,),
    "num_tasks": NUM_TASKS,
    "seed": 7,
  }
  return mixture_evaluation.EvaluationConfig(**{**defaults, **changes})


def law_of(**changes):
  (law,) = cells(**changes).laws()
  return law


def evaluate(groups, law, num_tasks, seed, **options):
  """The rows of solvers in the cells of one law."""
  made = mixture_evaluation.make(groups, [law], num_tasks, seed)
  return evaluator.run(made, **options)


def truth(batch):
  """A solver that is told the answer."""
  zeros = jnp.zeros(batch.num_components.shape)
  return types.SolverResult(
    mixture=batch.mixture,
    log_likelihood=zeros,
    num_iters=zeros.astype(jnp.int32),
    status=zeros.astype(jnp.int32),
  )


def anisotropic_law(**changes):
  tasks = mixtures.TaskConfig(dim=2, covariance_type="diag")
  return law_of(tasks=tasks, **changes)
