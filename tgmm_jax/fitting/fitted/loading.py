"""`tgmm_jax.load`: a saved fit, or a trained network."""

import os
import pathlib
from typing import Any

from tgmm_jax import pretrained, types
from tgmm_jax.fitting import saved
from tgmm_jax.fitting.fitted.record import Fit


def load(name_or_path: str | os.PathLike, **options: Any) -> Fit | types.Solver:
  """Reads a saved fit, or a trained network as a solver.

  Args:
    name_or_path: the path of a fit that `Fit.save` or the command line has
      written (`.safetensors` or `.json`), the name of a shipped network (see
      `pretrained.available`), or the path of a network's card.
    **options: of `pretrained.load`, for networks.

  Raises:
    SavedFitError: a file that is damaged, of a newer version, or no fit.
    PretrainedError: there is no such network, or it cannot be used.
    ValueError: options with a fit.
  """
  path = pathlib.Path(name_or_path)
  is_file = path.suffix.lower() in saved.SUFFIXES and path.is_file()
  if not is_file or saved.is_card(path):
    return pretrained.load(name_or_path, **options)
  if options:
    raise ValueError(
      f"{next(iter(options))} is given, takes none with {path}: it is a fit"
    )
  return load_fit(path)


def load_fit(path: str | os.PathLike) -> Fit:
  """Reads a saved fit.

  Args:
    path: ends in `.safetensors` or `.json`.

  Raises:
    SavedFitError: a file that is damaged, of a newer version, or no fit.
    ValueError: another suffix.
    OSError: the file cannot be read.
  """
  arrays, static = saved.read(path)
  mixture = types.Mixture(
    arrays.pop("weights"), arrays.pop("means"), arrays.pop("covariances", None)
  )
  return Fit(mixture=mixture, **arrays, **static)
