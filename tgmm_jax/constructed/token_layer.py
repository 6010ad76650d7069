"""Layers that multiply within a token: attention that sees its own token alone.

A score is a product of two rows, a value a third: an attention layer
multiplies what no MLP could without an approximation. That a token attends to
itself alone takes its number in binary (slot `c`): with n bits the mask is
2 n rows, 0 for the token itself and below every score for all others.
"""

from collections.abc import Sequence

import numpy as np

from tgmm_jax.constructed import blueprint, piecewise_linear


class TokenLayer(blueprint.LayerBuilder):
  """A `LayerBuilder` with products within a token; needs slots `c`, `one`."""

  def __init__(self, slots: blueprint.Slots, barrier: float):
    """Starts a layer that changes nothing.

    Args:
      slots: of the residual stream.
      barrier: what no score passes.
    """
    super().__init__(slots)
    self.barrier = barrier

  def product(
    self,
    name: str,
    factor: blueprint.Rows,
    reads: blueprint.Rows,
    writes: blueprint.Rows,
    *,
    only: np.ndarray | None = None,
    is_signed: bool = True,
  ) -> None:
    """Adds a token's `factor` times what it reads to what it writes: exact.

    Args:
      name: of the head, or of two.
      factor: `[1, D]`.
      reads: `[S, D]`.
      writes: `[S, D]`.
      only: `[1, D]`, a flag of the tokens in which it happens; None for all.
      is_signed: whether the factor may be negative, which takes two heads.
    """
    self._within(name, ["one"], [factor], reads, writes, only, is_signed)

  def dot(
    self,
    name: str,
    left: blueprint.Rows,
    right: blueprint.Rows,
    writes: blueprint.Rows,
    *,
    is_signed: bool = True,
  ) -> None:
    """Adds the inner product of two slots of a token to a row of it: exact.

    Args:
      name: of the head, or of two.
      left: `[R, D]`.
      right: `[R, D]`.
      writes: `[1, D]`.
      is_signed: whether it may be negative.
    """
    self._within(name, [left], [right], "one", writes, None, is_signed)

  def forget(self, name: str, slot: blueprint.Rows) -> None:
    """Takes a slot off itself, before other heads add to it.

    An MLP would add `new - old`, which is rounded to the size of the old.
    """
    rows = self._rows(slot)
    self._within(name, ["one"], ["one"], -rows, rows, None, False)

  def gated(
    self, name: str, source: np.ndarray, target: np.ndarray, flag: np.ndarray
  ) -> None:
    """Adds rows whose entries are at most 1 where a flag is 1, by the MLP.

    Args:
      name: of the block.
      source: `[n, D]`.
      target: `[n, D]`.
      flag: `[1, D]`.
    """
    gate = 2.0 * (self.slots.select("one") - flag)
    self.units(name, source - gate, target)
    self.units(name, -source - gate, -target)

  def apply_curve(
    self,
    name: str,
    source: str,
    curve: tuple[piecewise_linear.Curve, float],
    target: str,
    flag: np.ndarray,
  ) -> None:
    """Adds a curve with its constant of one row to another where a flag is 1.

    Args:
      name: of the block.
      source: a slot of one row, 0 where the flag is.
      curve: as `piecewise_linear.power_geometric` gives it.
      target: a slot of one row.
      flag: `[1, D]`.
    """
    select = self.slots.select
    self.curve(name, select(source), curve[0], select(target), one=flag)
    self.units(name, flag, curve[1] * select(target))

  def _within(
    self,
    name: str,
    keys: Sequence[blueprint.Rows],
    queries: Sequence[blueprint.Rows],
    reads: blueprint.Rows,
    writes: blueprint.Rows,
    only: np.ndarray | None,
    is_signed: bool,
  ) -> None:
    code, one = self.slots.select("c"), self.slots.select("one")
    mask_keys = [code, one - code]
    mask_queries = [-self.barrier * (one - code), -self.barrier * code]
    if only is not None:
      mask_keys.append(one)
      mask_queries.append(-self.barrier * (one - only))
    if is_signed:
      self.signed_heads(
        name,
        keys=keys,
        queries=queries,
        reads=reads,
        writes=writes,
        masks=(mask_keys, mask_queries),
      )
    else:
      self.head(
        name,
        keys=[*keys, *mask_keys],
        queries=[*queries, *mask_queries],
        reads=reads,
        writes=writes,
      )
