"""Which shipped networks propose for which problems."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from tgmm_jax import pretrained

if TYPE_CHECKING:
  from tgmm_jax.models import factory

# The networks that propose for a type; they share the views. Data that are
# unlike one network's tasks are often like the other's.
_NETWORKS = {
  "unit": ("unit",),
  "tied_spherical": ("tied_spherical", "unit"),
  "spherical": ("unit",),
  "diag": ("diag", "unit"),
  "tied": ("full", "unit"),
  "full": ("full", "unit"),
}


def networks_for(
  dim: int,
  num_components: Sequence[int],
  *,
  covariance_type: str,
) -> tuple[str, ...]:
  """The shipped networks that propose for such problems.

  Args:
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    dim: d.
    num_components: all K of a batch.
  """
  cards = pretrained.available()
  names = ()
  for name in _NETWORKS[covariance_type]:
    card = cards.get(name)
    is_covered = (
      card is not None
      and (card.max_dim is None or dim <= card.max_dim)
      and set(num_components) <= set(card.num_components)
    )
    if is_covered:
      names += (name,)
  return names


def coverage(*, covariance_type: str) -> str:
  """What the networks of a type answer, in words.

  Args:
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  cards = pretrained.available()
  texts = []
  for name in _NETWORKS[covariance_type]:
    if name in cards:
      sizes, most = cards[name].num_components, cards[name].max_dim
      dims = "any d" if most is None else f"d up to {most}"
      texts.append(f"K from {min(sizes)} to {max(sizes)} and {dims} ({name})")
  return ", ".join(texts) or "nothing"


@functools.cache
def loaded(name: str) -> "tuple[pretrained.Card, factory.Params]":
  """Card and parameters of a shipped network, read once."""
  card, params = pretrained.load_params(name)
  return card, jax.tree.map(jnp.asarray, params)
