"""Fits on 1 and on 8 of 8 virtual devices, and by `em.fit`; prints JSON."""

import functools
import json
import re

import jax
import numpy as np

from tests.solvers.em import problems as em_problems
from tgmm_jax import gmm
from tgmm_jax.solvers import em
from tgmm_jax.solvers.em import sharded
from tgmm_jax.training import sharding

NUM_POINTS, NUM_COMPONENTS = 203, 3
BLOCK_SIZE = 8


def called_by(text):
  """The instructions of each computation of a compiled program, by its name."""
  computations, name = {}, None
  for line in text.splitlines():
    head = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
    if head:
      name = head.group(1)
      computations[name] = []
    elif name and "=" in line:
      computations[name].append(line)
  return computations


def reductions(computations, name):
  """All-reduces of a computation and of all that it calls: here, in loops."""
  here, in_loops = 0, 0
  for line in computations[name]:
    here += bool(re.search(r" all-reduce(-start)?\(", line))
    callees = re.findall(
      r"(?:calls|to_apply|condition|body|_computation)=%?([\w.\-]+)", line
    )
    branches = re.search(r"branch_computations=\{([^}]*)\}", line)
    if branches:
      callees += re.findall(r"[\w.\-]+", branches.group(1))
    for callee in callees:
      found = reductions(computations, callee)
      if " while(" in line:
        in_loops += sum(found)
      else:
        here, in_loops = here + found[0], in_loops + found[1]
  return here, in_loops


def loops(text):
  """For each loop that reduces: `[each time round, in loops inside]`."""
  computations = called_by(text)
  bodies = re.findall(r" while\(.*body=%?([\w.\-]+)", text)
  found = [reductions(computations, body) for body in bodies]
  return [list(one) for one in found if sum(one)]


class Spy:
  """Compiles what `fit_sharded` calls and keeps the program's text."""

  def __init__(self, function):
    self.function, self.text = function, None

  def __call__(self, *args, **options):
    compiled = self.function.lower(*args, **options).compile()
    self.text = compiled.as_text()
    return compiled(*args)


def as_lists(result):
  mixture, *rest = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), result)
  return dict(zip(result._fields, [mixture._asdict(), *rest], strict=True))


def message_of(function, *args, **options):
  try:
    function(*args, **options)
  except ValueError as error:
    return str(error)
  return "nothing raised"


def every_type(points, weight):
  """A fixed number of steps from a given start, for every type."""
  results, spy = {}, Spy(sharded._fit_sharded)
  sharded._fit_sharded, real = spy, sharded._fit_sharded
  for covariance_type in gmm.COVARIANCE_TYPES:
    options = {
      "covariance_type": covariance_type,
      "sample_weight": weight,
      "init": em_problems.start_of_long_clusters(covariance_type),
      "max_iter": 12,
      "tol": 0.0,
    }
    args = (jax.random.key(0), points, NUM_COMPONENTS)
    found = {"em": as_lists(em.fit(*args, **options))}
    result = sharded.fit_sharded(
      *args, **options, mesh=sharding.make_mesh(8), block_size=BLOCK_SIZE
    )
    found["8"] = as_lists(result)
    found["loops"] = loops(spy.text)
    found["is_replicated"] = all(
      leaf.is_fully_replicated and len(leaf.sharding.device_set) == 8
      for leaf in jax.tree.leaves(result)
    )
    results[covariance_type] = found
  sharded._fit_sharded = real
  return results


def drawn_start(points, weight):
  """From the key alone, until the fit has converged."""
  args = (jax.random.key(5), points, NUM_COMPONENTS)
  options = {"covariance_type": "diag", "sample_weight": weight, "tol": 1e-4}
  found = {"em": as_lists(em.fit(*args, **options))}
  fit = functools.partial(sharded.fit_sharded, *args, **options)
  for num_devices in (1, 8):
    found[str(num_devices)] = as_lists(
      fit(mesh=sharding.make_mesh(num_devices))
    )
  # JAX's default kind of axis, here and in the last mesh.
  explicit = jax.make_mesh((8,), ("data",))
  with jax.set_mesh(explicit):
    args = (jax.random.key(5), *args[1:])
    found["8, explicit"] = as_lists(
      sharded.fit_sharded(*args, **options, mesh=explicit)
    )
  found["4 of 4 x 2"] = as_lists(
    fit(mesh=jax.make_mesh((4, 2), ("data", "model")))
  )
  return found


def sampled_start(points, weight):
  """More points than a start is drawn from; some are sharded already."""
  points, weight = points[:200], weight[:200]
  sharded.NUM_START_POINTS = 50
  found = {}
  for num_devices in (1, 8):
    mesh = sharding.make_mesh(num_devices)
    result = sharded.fit_sharded(
      jax.random.key(6),
      jax.device_put(points, sharding.over_tasks(mesh)),
      NUM_COMPONENTS,
      mesh=mesh,
      sample_weight=weight,
      tol=1e-4,
    )
    found[str(num_devices)] = as_lists(result)
  return found


def refused(points, weight):
  """The messages of inputs that cannot be."""
  mesh = sharding.make_mesh(8)
  key = jax.random.key(0)
  poisoned = points.copy()
  poisoned[150, 1] = np.nan
  negative = weight.copy()
  negative[44] = -1.0
  fit = sharded.fit_sharded
  given = {"mesh": mesh, "sample_weight": weight}
  return {
    "nan": message_of(fit, key, poisoned, 3, **given),
    "negative": message_of(
      fit, key, points, 3, mesh=mesh, sample_weight=negative
    ),
    "no weight": message_of(
      fit, key, points, 3, mesh=mesh, sample_weight=0.0 * weight
    ),
  }


if __name__ == "__main__":
  data = em_problems.spoiled_clusters(NUM_POINTS, every=17)
  results = {
    "every type": every_type(*data),
    "drawn": drawn_start(*data),
    "refused": refused(*data),
    "sampled": sampled_start(*data),
  }
  print(json.dumps(results))  # noqa: T201
