"""Which shipped network proposes for which problems."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from tgmm_jax import pretrained

if TYPE_CHECKING:
  from tgmm_jax.models import factory

# The networks that propose for a type: the first that covers d and K.
_NETWORKS = {
  "unit": ("unit",),
  "tied_spherical": ("tied_spherical", "unit"),
  "spherical": ("unit",),
  "diag": ("diag", "unit"),
  "tied": ("full", "unit"),
  "full": ("full", "unit"),
}


def network_for(
  dim: int,
  num_components: Sequence[int],
  *,
  covariance_type: str,
) -> str | None:
  """The shipped network that proposes for such problems; None where none does.

  Args:
    dim: d.
    num_components: all K of a batch.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  cards = pretrained.available()
  for name in _NETWORKS[covariance_type]:
    card = cards.get(name)
    if (
      card is not None
      and (card.max_dim is None or dim <= card.max_dim)
      and set(num_components) <= set(card.num_components)
    ):
      return name
  return None


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
def card_of(name: str) -> "pretrained.Card":
  """The card of a shipped network, read once."""
  return pretrained.available()[name]


@functools.cache
def loaded(name: str) -> "tuple[pretrained.Card, factory.Params]":
  """Card and parameters of a shipped network, read once."""
  card, params = pretrained.load_params(name)
  return card, jax.tree.map(jnp.asarray, params)
