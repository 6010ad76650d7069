"""What `first_fit` times in a process of its own.

  python -m experiments.benchmarks.first_fit_parts tgmm_jax calls

Peers are imported where they are used: each process has what it measures and
nothing else. What was measured is a line of JSON at the end.
"""

import importlib
import json
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

NUM_STARTS = 10
_CENTRES = np.array(
  [[0.0, 0.0, 0.0, 0.0], [8.0, 0.0, 0.0, 4.0], [0.0, 8.0, 4.0, 0.0]]
)
# As `tgmm_jax.fit` looks for K.
_ALWAYS, _PATIENCE, _MOST_COMPONENTS = 5, 2, 20
_MODULES = {
  "tgmm_jax": "tgmm_jax.fitting.fits",
  "scikit-learn": "sklearn.mixture",
}
_STATUS = pathlib.Path("/proc/self/status")
_MAPS = pathlib.Path("/proc/self/maps")


class Table(NamedTuple):
  """What somebody might have.

  Attributes:
    points: `[N, d]`.
    num_components: K, or "auto".
  """

  points: np.ndarray
  num_components: int | str


def clusters(num_points: int) -> np.ndarray:
  """Three clear clusters in d = 4."""
  generator = np.random.default_rng(num_points)
  labels = np.arange(num_points) % len(_CENTRES)
  return _CENTRES[labels] + generator.normal(size=(num_points, 4))


def tables(count: int, seed: int = 0) -> Iterator[Table]:
  """Tables of N = 50 to 5,000, d = 1 to 20, K = 1 to 9, half of them "auto".

  Args:
    count: how many.
    seed: of all of them.
  """
  generator = np.random.default_rng(seed)
  for _ in range(count):
    num_points = round(np.exp(generator.uniform(np.log(50), np.log(5000))))
    dim, num_components = generator.integers(1, [21, 10])
    centres = generator.normal(size=(num_components, dim)) * 5.0
    labels = generator.integers(num_components, size=num_points)
    points = centres[labels] + generator.normal(size=(num_points, dim))
    units = 10.0 ** generator.uniform(-3.0, 3.0, size=dim)
    is_auto = generator.random() < 0.5
    yield Table(points * units, "auto" if is_auto else int(num_components))


def _fit_ours(points, num_components):
  import tgmm_jax

  return tgmm_jax.fit(points, num_components)


def _fit_sklearn(points, num_components):
  """The most likely of some starts; for "auto" the best K by BIC."""
  from sklearn import mixture

  def fit(size):
    found = mixture.GaussianMixture(
      size, n_init=NUM_STARTS, tol=1e-6, max_iter=500, random_state=0
    )
    return found.fit(points)

  if num_components != "auto":
    return fit(num_components)
  fits, values = [], []
  for size in range(1, _MOST_COMPONENTS + 1):
    fits.append(fit(size))
    values.append(fits[-1].bic(points))
    best = int(np.argmin(values))
    if size >= _ALWAYS and best + 1 <= size - _PATIENCE:
      break
  return fits[best]


FITS = {"tgmm_jax": _fit_ours, "scikit-learn": _fit_sklearn}


def _seconds(call: Callable[..., Any], *args: Any) -> float:
  begin = time.perf_counter()
  call(*args)
  return time.perf_counter() - begin


def calls(program: str) -> dict[str, float]:
  """Seconds of one fit after another."""
  fit = FITS[program]
  return {
    "first": _seconds(fit, clusters(150), 3),
    "another N": _seconds(fit, clusters(151), 3),
    "new size": _seconds(fit, clusters(600), 3),
    "auto": _seconds(fit, clusters(150), "auto"),
  }


def estimator(program: str) -> dict[str, float]:
  """Seconds of the first fit of a `GaussianMixture`."""
  if program == "tgmm_jax":
    from tgmm_jax import GaussianMixture
  else:
    from sklearn.mixture import GaussianMixture
  own = GaussianMixture(3, random_state=0)
  return {"estimator": _seconds(own.fit, clusters(150))}


def file(program: str, path: str, num_components: str) -> dict[str, float]:
  """What the command line does, as a script of a few lines would."""
  import pandas as pd

  if num_components != "auto":
    num_components = int(num_components)
  FITS[program](pd.read_csv(path).to_numpy(), num_components)
  return {}


def many(program: str, count: str) -> dict[str, float | None]:
  """All tables in one process: time, memory, maps, and what went wrong."""
  num_failed, begin = 0, time.perf_counter()
  for table in tables(int(count)):
    try:
      FITS[program](*table)
    except Exception as error:  # Counted: the others go on.
      num_failed += 1
      sys.stderr.write(f"{table.points.shape}: {error}\n")
  return {
    "seconds": time.perf_counter() - begin,
    "bytes": _peak_bytes(),
    "maps": len(_MAPS.read_text().splitlines()) if _MAPS.exists() else None,
    "failed": num_failed,
  }


def _peak_bytes():
  """The most memory that this process has had, where Linux tells it.

  That of `getrusage` may be the parent's.
  """
  if not _STATUS.exists():
    return None
  for line in _STATUS.read_text().splitlines():
    name, value = line.split(":", 1)
    if name == "VmHWM":
      return 1024 * int(value.split()[0])
  return None


PARTS = {"calls": calls, "estimator": estimator, "file": file, "many": many}


def main(program: str, part: str, *args: str) -> None:
  """Measures one part; the last line of the output is JSON."""
  warnings.simplefilter("ignore")
  begin = time.perf_counter()
  # With what it brings along: the time of imports is not that of a fit.
  importlib.import_module(_MODULES[program])
  seconds = {"import": time.perf_counter() - begin}
  measured = seconds | PARTS[part](program, *args)
  sys.stdout.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
  main(*sys.argv[1:])
