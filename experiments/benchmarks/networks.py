"""Times the shipped networks: the view, the forward pass, the whole answer.

  python -m experiments.benchmarks.networks

Milliseconds for a task and view, in a batch of 1,280 tasks with N = 128 and
K = 5: drawing the view (a frame of the points, a small eigenproblem), the
network alone, and the solver that `pretrained.load` gives, likelihood included.
Each is the median of repeated calls after compilation, in which they take
turns. FLOP/s count the network's matrix products, against the best rate of one
2048 x 2048 product.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import rich.console
import rich.table
from absl import app

from experiments.benchmarks import timing, train_step
from tgmm_jax import pretrained, types
from tgmm_jax.models import factory
from tgmm_jax.tasks import mixtures

_NUM_TASKS, _NUM_POINTS, _NUM_COMPONENTS = 1280, 128, 5
_DIMS = (2, 8, 128)
# Tasks in a block: its arrays stay in the caches.
_BLOCK = 64


def sample(dim: int) -> types.TaskBatch:
  """The tasks, isotropic: what a network is told of them costs the same."""
  law = mixtures.TaskConfig(
    dim=dim,
    num_components=(_NUM_COMPONENTS,),
    min_points=_NUM_POINTS,
    max_points=_NUM_POINTS,
  )
  draw = jax.jit(mixtures.sample_batch, static_argnums=(1, 2))
  return draw(jax.random.key(0), law, _NUM_TASKS)


def pieces(
  card: pretrained.Card, params: factory.Params, batch: types.TaskBatch
) -> tuple[dict[str, Callable[[], None]], float]:
  """What is timed, by its heading, and FLOPs of one forward pass."""
  model = factory.build(card.config)
  solve = factory.solver(model, params, knows_origin=False)
  keys = jax.random.split(jax.random.key(1), _NUM_TASKS)
  inputs = (keys, batch.points, batch.sample_weight, batch.num_components)

  def encode(inputs):
    key, points, weight, count = inputs
    return model.encode(key, points, count, sample_weight=weight)[0]

  def answer(inputs):
    key, points, weight, count = inputs
    return solve(key, points, count, sample_weight=weight)

  def in_blocks(function):
    call = jax.jit(lambda x: jax.lax.map(function, x, batch_size=_BLOCK))
    return call

  problems = jax.block_until_ready(in_blocks(encode)(inputs))
  blocks = jax.tree.map(
    lambda leaf: leaf.reshape(-1, _BLOCK, *leaf.shape[1:]), problems
  )

  def forward(problem):
    return model.apply(params, problem)

  # The network takes a block whole, which is faster than under `vmap`.
  network = jax.jit(lambda x: jax.lax.map(forward, x))
  one = jax.tree.map(lambda leaf: leaf[0], problems)
  flops = train_step.product_flops(jax.make_jaxpr(forward)(one).jaxpr)
  calls = {
    "view": (in_blocks(encode), inputs),
    "network": (network, blocks),
    "answer": (in_blocks(answer), inputs),
  }
  return {
    name: lambda call=call, x=x: jax.block_until_ready(call(x))
    for name, (call, x) in calls.items()
  }, flops


def main(argv):
  """Measures all networks and prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f"arguments are {argv[1:]}, takes flags only")
  console = rich.console.Console()
  console.print(timing.describe(("flax",)), highlight=False)
  peak = timing.matmul_rate("float32")
  table = rich.table.Table(
    "network", "d", title="Milliseconds for a task and view"
  )
  for heading in ("view", "network", "answer", "GFLOP/s", "matmul GFLOP/s"):
    table.add_column(heading, justify="right")
  for name in pretrained.available():
    card, params = pretrained.load_params(name)
    params = jax.tree.map(jnp.asarray, params)
    for dim in _DIMS:
      if card.max_dim is not None and dim > card.max_dim:
        continue
      functions, flops = pieces(card, params, sample(dim))
      seconds = timing.median_seconds(functions, timing.REPEATS.value)
      each = {part: total / _NUM_TASKS for part, total in seconds.items()}
      table.add_row(
        name,
        str(dim),
        *(f"{1e3 * value:.3f}" for value in each.values()),
        f"{flops / each['network'] / 1e9:,.0f}",
        f"{peak / 1e9:,.0f}",
      )
  console.print(table)


if __name__ == "__main__":
  app.run(main)
