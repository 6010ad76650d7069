"""Shipped networks in a table: under what names, and in which cells."""

from typing import NamedTuple

import ml_collections
import numpy as np

from experiments.runner import fields
from tgmm_jax import pretrained

# The solver that a network for every d is in the tables.
PRETRAINED = "pretrained"
_FIELD = "config.evaluation.with_pretrained"


class Shipped(NamedTuple):
  """A shipped network that is scored.

  Attributes:
    name: as the config has it; a card's path can be one.
    solver: its name in the tables.
    card: of the network.
    dims: d of the cells that it answers.
  """

  name: str
  solver: str
  card: pretrained.Card
  dims: tuple[int, ...]


def solver_of(name: str, dims: tuple[int, ...]) -> str:
  """What a network is called in the tables.

  One for every d is `PRETRAINED`. The paper's has one for each d: they are one
  solver, `tgmm` of `tgmm-d2` and `tgmm-d8`.

  Args:
    name: of the network.
    dims: d of the tasks it was trained on.
  """
  if len(dims) > 1:
    return PRETRAINED
  (dim,) = dims
  return name.replace(f"-d{dim}", "")


def networks(config: ml_collections.ConfigDict) -> tuple[Shipped, ...]:
  """The shipped networks of a config, checked.

  Args:
    config: of an experiment with mixtures.

  Raises:
    ValueError: there is no such network, or it cannot answer the cells.
  """
  names = config.evaluation.with_pretrained
  return tuple(_shipped(config, name) for name in names.split(",") if names)


def _shipped(config, name):
  card = fields.named(_FIELD, pretrained.read_card, name)
  answered = card.config.covariance_type
  if config.tasks.covariance_type != answered:
    raise ValueError(
      f"{_FIELD} has {name!r}, takes networks for"
      f" {config.tasks.covariance_type!r} covariances, not {answered!r}"
    )
  dims = tuple(config.evaluation.dims)
  if card.min_dim == card.max_dim:
    dims = tuple(dim for dim in dims if dim == card.max_dim)
    if not dims:
      raise ValueError(
        f"{_FIELD} has {name!r}, takes networks for a d of"
        f" config.evaluation.dims = {tuple(config.evaluation.dims)}"
      )
  for dim in dims:
    fields.named(
      _FIELD,
      pretrained.check_problem,
      card,
      dim,
      np.asarray(config.evaluation.num_components),
    )
  return Shipped(name, solver_of(card.name, card.dims), card, dims)
