"""Times the train step, beside the machine's matmul rate and PyTorch.

  python -m experiments.benchmarks.train_step

Each time is the median of repeated calls after compilation, in which the
variants take turns. FLOP/s count matrix products only, from the shapes of the
step's own products (attention included; what is masked counts in full),
against the best rate of one 2048 x 2048 product in the same dtype. The
sampler's share is its time alone over that of a step; at d = 2 it costs most.
With torch and transformers installed (extra `bench`), the released variant of
the paper's network (`rq1.py:released`) is timed in both, after a check
that the same weights and tasks give the same loss. PyTorch is spared the
sampling and gets the fused form of GPT-2's gelu.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import rich.console
import rich.table
from absl import app

from experiments import rq1
from experiments.benchmarks import timing
from experiments.mixtures import config as mixture_config
from tgmm_jax.models import factory
from tgmm_jax.training import sharding
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import learner
from tgmm_jax.training.learners import mixtures as mixture_learner

_PEER_PACKAGES = ("torch", "transformers")


class Case(NamedTuple):
  """One network at one size."""

  name: str
  model: factory.Model
  tasks: mixture_learner.MixtureTraining
  config: train_step.TrainConfig

  @property
  def learner(self) -> learner.Learner:
    """What the train step knows of it."""
    return mixture_learner.make(self.model, self.tasks)


def make_case(
  name: str, run: mixture_config.MixtureRun, steps_per_call: int
) -> Case:
  """A case from an experiment's run."""
  config = dataclasses.replace(
    run.train,
    steps_per_call=steps_per_call,
    num_steps=steps_per_call,
    checkpoint_every=steps_per_call,
  )
  return Case(name, factory.build(run.model), run.tasks, config)


def paper_cases() -> tuple[Case, Case, Case]:
  """The paper's network, its released variant, and the quick refiner."""
  # One step takes a second on a CPU; elsewhere dispatch must not show.
  steps = 2 if jax.default_backend() == "cpu" else 20
  runs = {
    (variant, run.name): run
    for variant in ("", "released", "quick")
    for run in mixture_config.make_plan(rq1.get_config(variant)).runs
  }
  refiner = runs["quick", "refiner"]
  return (
    make_case("tgmm, paper's size, d = 2", runs["", "tgmm-d2"], steps),
    make_case("as released, 256 tasks", runs["released", "tgmm-d2"], steps),
    make_case("refiner, quick", refiner, refiner.train.steps_per_call),
  )


def product_flops(jaxpr: jax.extend.core.Jaxpr) -> float:
  """FLOPs of all matrix products of a jaxpr; a `while_loop` counts once."""
  total = 0.0
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      left, right = (variable.aval.shape for variable in equation.invars)
      (contracting, _), (batch, _) = equation.params["dimension_numbers"]
      shared = math.prod(left[axis] for axis in (*contracting, *batch))
      total += 2.0 * math.prod(left) * math.prod(right) / shared
      continue
    times = equation.params.get("length", 1)
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      total += times * product_flops(inner)
  return total


def step_flops(case: Case, mesh: jax.sharding.Mesh) -> float:
  """FLOPs of the products of one train step of all devices."""
  step = train_step.make_train_step(case.learner, case.config, mesh)
  state = train_step.abstract_state(case.learner, case.config)
  return product_flops(jax.make_jaxpr(step)(state, ()).jaxpr)


def make_steps(case: Case, mesh: jax.sharding.Mesh) -> Callable[[], None]:
  """A function that makes `steps_per_call` train steps."""
  call = train_step.make_train_call(case.learner, case.config, mesh)
  state = jax.jit(lambda: train_step.init_state(case.learner, case.config))()
  state = jax.device_put(state, sharding.replicated(mesh))

  def run():
    nonlocal state
    state, scalars = call(state, ())
    jax.block_until_ready(scalars)

  return run


def make_sampling(case: Case) -> Callable[[], None]:
  """A function that draws the tasks of `steps_per_call` steps."""

  def draw(step):
    key = jax.random.fold_in(jax.random.key(0), step)
    examples = case.learner.sample(key, ())
    # Something of everything, lest the compiler drop it.
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(examples))

  steps = jnp.arange(case.config.steps_per_call)
  call = jax.jit(lambda: jax.lax.map(draw, steps))
  return lambda: jax.block_until_ready(call())


def measure(case: Case, mesh: jax.sharding.Mesh, repeats: int) -> list[str]:
  """The row of the table for a case."""
  seconds = timing.median_seconds(
    {
      "step": make_steps(case, mesh),
      "sampler": make_sampling(case),
    },
    repeats,
  )
  step = seconds["step"] / case.config.steps_per_call
  num_tasks = case.learner.batch_size
  rate = step_flops(case, mesh) / step
  peak = timing.matmul_rate(case.model.config.compute_dtype) * mesh.size
  return [
    case.name,
    f"{1.0 / step:.3g}",
    f"{num_tasks / step:,.0f}",
    f"{rate / 1e9:,.0f}",
    f"{peak / 1e9:,.0f}",
    f"{rate / peak:.0%}",
    f"{seconds['sampler'] / seconds['step']:.2%}",
  ]


def compare(case: Case, mesh: jax.sharding.Mesh, repeats: int) -> str:
  """One line: the time of a step of ours and of PyTorch's, and their ratio."""
  # Imported here: the extra `bench` may not be installed.
  from experiments.benchmarks import torch_peer

  peer = torch_peer.Peer(case.model, case.tasks, case.config.optimizer)
  ours, theirs = peer.losses()
  if not math.isclose(ours, theirs, rel_tol=1e-4):
    raise ValueError(f"losses of the two networks are {ours} and {theirs}")
  seconds = timing.median_seconds(
    {"ours": make_steps(case, mesh), "theirs": peer.step}, repeats
  )
  step = seconds["ours"] / case.config.steps_per_call
  ratio = seconds["theirs"] / step
  return (
    f"{case.name}, one step: ours {step:.3f} s (with sampling), PyTorch"
    f" {seconds['theirs']:.3f} s; ours is {ratio:.2f} times as fast"
    f" (loss at the same weights {ours:.6f}, {theirs:.6f})"
  )


def main(argv):
  """Measures all cases and prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f"arguments are {argv[1:]}, takes flags only")
  console = rich.console.Console()
  console.print(
    timing.describe(("flax", "optax", *_PEER_PACKAGES)), highlight=False
  )
  mesh = sharding.make_mesh()
  paper, released, refiner = paper_cases()
  table = rich.table.Table("network", title="Train step")
  for heading in (
    "steps/s",
    "tasks/s",
    "GFLOP/s",
    "matmul GFLOP/s",
    "share",
    "sampler",
  ):
    table.add_column(heading, justify="right")
  for case in (paper, released, refiner):
    table.add_row(*measure(case, mesh, timing.REPEATS.value))
  console.print(table)
  if jax.default_backend() != "cpu":
    console.print("PyTorch is compared on CPU only")
  elif all(timing.is_installed(name) for name in _PEER_PACKAGES):
    console.print(
      compare(released, mesh, timing.REPEATS.value), highlight=False
    )
  else:
    console.print("PyTorch: install the extra `bench` to compare")


if __name__ == "__main__":
  app.run(main)
