"""Where EM starts: quality against time, on tasks and on point sets.

  python -m experiments.benchmarks.starts [--folder=FOLDER]

Draws by k-means++, k-means from such draws, and small clusters merged by Ward's
rule are compared, for one, three and ten starts, on tasks of the TGMM paper;
beside them one start from Ward's rule on all points (SciPy's). With `--folder`
the same on point sets with reference labels: `NAME.data.gz` beside
`NAME.labels0.gz`, `NAME.labels1.gz`, ..., in any sub-folder, 0 marking points
that do not count (the format of Gagolewski's suite, SoftwareX 20:101270, 2022).
Full covariances there; of larger sets a sample of 4,096 points, and no
labelling of more than 40 groups.
"""

import functools
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
import rich.console
import rich.table
from absl import app, flags
from scipy.cluster import hierarchy
from sklearn import metrics as sklearn_metrics

from experiments.benchmarks import timing
from tgmm_jax import gmm, metrics, types
from tgmm_jax.solvers import em
from tgmm_jax.tasks import mixtures

_FOLDER = flags.DEFINE_string("folder", "", "of point sets")
_NUM_TASKS = flags.DEFINE_integer("num_tasks", 640, "of each K", lower_bound=2)
# Ward's rule on all points, by SciPy: what `ward` is near to.
_ALL_POINTS = "ward, all points"
_WAYS = [
  (init, num_init)
  for init in ("k-means++", "k-means", "ward")
  for num_init in (1, 3, 10)
] + [(_ALL_POINTS, 1)]
_SIZES = (3, 5)
# Points and groups of a set.
_MOST_POINTS, _MOST_GROUPS = 4096, 40


def on_tasks(covariance_type: str, num_tasks: int) -> rich.table.Table:
  """Mean `l2_error` of every way to start, d = 2, and time a task.

  Args:
    covariance_type: of the law and of the fit.
    num_tasks: of each K.
  """
  law = mixtures.TaskConfig(
    dim=2, num_components=_SIZES, covariance_type=covariance_type
  )
  tasks = mixtures.sample_batch(
    jax.random.key(0), law, num_tasks * len(_SIZES), has_each_k=True
  )
  table = _table(
    f"Tasks of the TGMM paper, d = 2, {covariance_type}",
    *(f"l2_error, K = {size}" for size in _SIZES),
    "DEGENERATE",
    "ms a task",
  )
  for init, num_init in _WAYS:
    found, seconds = _timed(
      functools.partial(
        _fit_tasks, tasks, init, num_init, covariance_type=covariance_type
      )
    )
    errors = np.asarray(
      jax.vmap(metrics.l2_error)(
        found.mixture.means, tasks.mixture.means, tasks.num_components
      )
    )
    is_lost = np.asarray(found.status) == types.Status.DEGENERATE
    own = [errors[np.asarray(tasks.num_components) == size] for size in _SIZES]
    table.add_row(
      init,
      str(num_init),
      *map(_with_error, own),
      f"{is_lost.mean():.1%}",
      f"{1e3 * seconds / errors.size:.2f}",
    )
  return table


def _fit_tasks(tasks, init, num_init, *, covariance_type):
  max_components = tasks.mixture.weights.shape[1]
  if init == _ALL_POINTS:
    init = by_ward(
      [
        np.asarray(points)[np.asarray(weight) > 0]
        for points, weight in zip(
          tasks.points, tasks.sample_weight, strict=True
        )
      ],
      np.asarray(tasks.num_components),
      max_components,
    )
  return em.fit_batch(
    jax.random.key(1),
    tasks.points,
    tasks.num_components,
    sample_weight=tasks.sample_weight,
    max_components=max_components,
    covariance_type=covariance_type,
    init=init,
    num_init=num_init,
  )


def by_ward(
  problems: Sequence[np.ndarray],
  num_components: Sequence[int],
  max_components: int,
) -> types.Mixture:
  """Starts `[B, K]` at the clusters that SciPy's Ward leaves.

  Args:
    problems: B times points `[N, d]`.
    num_components: `[B]`.
    max_components: static K.
  """
  means = np.zeros((len(problems), max_components, problems[0].shape[1]))
  for own, points, size in zip(means, problems, num_components, strict=True):
    labels = hierarchy.fcluster(
      hierarchy.linkage(points, "ward"), size, "maxclust"
    )
    for index, label in enumerate(np.unique(labels)):
      own[index] = points[labels == label].mean(axis=0)
  return types.Mixture(np.ones(means.shape[:2]), means)


def on_sets(folder: pathlib.Path) -> rich.table.Table:
  """Adjusted Rand index, best over the labellings, and log-likelihood."""
  problems = read_sets(folder)
  table = _table(
    f"{len(problems)} point sets, full covariances, K as labelled",
    "ARI",
    "median",
    "log-likelihood less best",
    "DEGENERATE",
    "s in all",
  )
  rows = [_fit_sets(problems, init, num_init) for init, num_init in _WAYS]
  best = np.max([values for _, values, _, _ in rows], axis=0)
  for (init, num_init), (scores, values, is_lost, seconds) in zip(
    _WAYS, rows, strict=True
  ):
    table.add_row(
      init,
      str(num_init),
      _with_error(scores),
      f"{np.median(scores):.3f}",
      _with_error(values - best),
      f"{np.mean(is_lost):.1%}",
      f"{seconds:.1f}",
    )
  return table


def read_sets(
  folder: pathlib.Path,
) -> list[tuple[np.ndarray, list[np.ndarray]]]:
  """Points `[N, d]` and labellings `[N]` of every set, in order of names."""
  generator, problems = np.random.default_rng(0), []
  for path in sorted(folder.rglob("*.data.gz")):
    name = path.name.removesuffix(".data.gz")
    points = np.loadtxt(path, ndmin=2)
    labellings = [
      np.loadtxt(labels, dtype=int)
      for labels in sorted(path.parent.glob(f"{name}.labels*.gz"))
    ]
    labellings = [own for own in labellings if own.max() <= _MOST_GROUPS]
    if len(points) > _MOST_POINTS:
      rows = generator.choice(len(points), _MOST_POINTS, replace=False)
      points, labellings = points[rows], [own[rows] for own in labellings]
    if labellings:
      problems.append((points, labellings))
  return problems


def _fit_sets(problems, init, num_init):
  """Scores, log-likelihoods and statuses of all sets, and seconds."""
  scores, values, is_lost, seconds = [], [], [], 0.0
  for points, labellings in problems:
    best, fits = -np.inf, {}
    for labels in labellings:
      size = int(labels.max())
      if size not in fits:
        begin = time.perf_counter()
        fits[size] = _fit_set(points, size, init, num_init)
        seconds += time.perf_counter() - begin
      own = np.asarray(
        gmm.predict(points, fits[size].mixture, covariance_type="full")
      )
      is_counted = labels > 0
      score = sklearn_metrics.adjusted_rand_score(
        labels[is_counted], own[is_counted]
      )
      best = max(best, score)
    scores.append(best)
    first = fits[int(labellings[0].max())]
    values.append(float(first.log_likelihood))
    is_lost.append(first.status == types.Status.DEGENERATE)
  # Another way shares no program with this one.
  jax.clear_caches()
  return np.array(scores), np.array(values), is_lost, seconds


def _fit_set(points, size, init, num_init):
  """Padded, so that sets share programs."""
  num_rows = max(512, 2 ** (len(points) - 1).bit_length())
  max_components = 8 * -(-size // 8)
  if init == _ALL_POINTS:
    init = by_ward([points], [size], max_components)
  weight = np.arange(num_rows) < len(points)
  found = em.fit_batch(
    jax.random.key(0),
    np.pad(points, ((0, num_rows - len(points)), (0, 0)))[None],
    size,
    sample_weight=weight[None].astype(points.dtype),
    max_components=max_components,
    covariance_type="full",
    init=init,
    num_init=num_init,
    tol=1e-6,
    max_iter=500,
  )
  return jax.tree.map(lambda leaf: np.asarray(leaf)[0], found)


def _timed(call: Callable[[], types.SolverResult]):
  """What a call says, and the seconds of a second one."""
  jax.block_until_ready(call())
  begin = time.perf_counter()
  found = jax.block_until_ready(call())
  return found, time.perf_counter() - begin


def _with_error(values):
  error = np.std(values, ddof=1) / np.sqrt(values.size)
  return f"{values.mean():.3f} ± {error:.3f}"


def _table(title, *headings):
  table = rich.table.Table("start", title=title)
  for heading in ("starts", *headings):
    table.add_column(heading, justify="right")
  return table


def main(argv):
  """Prints the tables."""
  if len(argv) > 1:
    raise app.UsageError(f"arguments are {argv[1:]}, takes flags only")
  console = rich.console.Console(width=100)
  console.print(timing.describe(("scikit-learn",)), highlight=False)
  for covariance_type in ("unit", "diag"):
    console.print(on_tasks(covariance_type, _NUM_TASKS.value))
  if _FOLDER.value:
    console.print(on_sets(pathlib.Path(_FOLDER.value)))


if __name__ == "__main__":
  app.run(main)
