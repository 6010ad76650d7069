"""Errors of the means with outliers: plain EM, noise component, t components.

  python -m experiments.studies.outlier_errors

prints the table of docs/outliers.md: the paper's tasks at d = 2, as they are,
and with 10% of the points uniform on a box three times as wide as that of the
means.
"""

import sys

import jax
import numpy as np

from tgmm_jax import metrics, types
from tgmm_jax.solvers import em
from tgmm_jax.tasks import mixtures

NUM_TASKS = 1280
_LAWS = {
  "no outliers": mixtures.TaskConfig(2, min_points=128),
  "10% outliers": mixtures.TaskConfig(
    2, min_points=128, shift=0.1, shift_kind="outliers"
  ),
}
_COLUMNS = ("fit", *_LAWS)


def fits(task: types.TaskBatch) -> dict[str, types.SolverResult]:
  """Every fit of every task, from one start."""
  options = {
    "sample_weight": task.sample_weight,
    "max_components": task.mixture.weights.shape[1],
  }
  given = jax.random.key(1), task.points, task.num_components
  return {
    "plain": em.fit_batch(*given, **options),
    "noise component": em.noise.fit_batch(*given, **options).result,
    "t components": em.student.fit_batch(*given, **options).result,
  }


def errors(num_tasks: int) -> dict[str, dict[str, np.ndarray]]:
  """`l2_error [B]` of each fit, by law."""
  found = {}
  for law, config in _LAWS.items():
    task = mixtures.sample_batch(jax.random.key(7), config, num_tasks)
    found[law] = {
      name: np.asarray(
        jax.vmap(metrics.l2_error)(
          result.mixture.means, task.mixture.means, task.num_components
        )
      )
      for name, result in fits(task).items()
    }
  return found


def table(found: dict[str, dict[str, np.ndarray]]) -> str:
  """Means and standard errors, in Markdown."""
  lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
  for name in next(iter(found.values())):
    cells = [name]
    for own in found.values():
      error = np.std(own[name]) / np.sqrt(own[name].size)
      cells.append(f"{np.mean(own[name]):.2f} ± {error:.2f}")
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)


def main() -> None:
  """Prints the table."""
  sys.stdout.write(table(errors(NUM_TASKS)) + "\n")


if __name__ == "__main__":
  main()
