"""How weights are written: named slots of a state, heads and units of a layer.

Everything is NumPy in float64; `primitives.build` makes a network of it.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from tgmm_jax.constructed import piecewise_linear

# Rows `[?, D]`, or the name of a slot for its rows of the identity.
Rows = str | np.ndarray


@dataclasses.dataclass(frozen=True)
class Slots:
  """Named rows of the residual stream.

  Attributes:
    sizes: names and numbers of rows, in order.
  """

  sizes: tuple[tuple[str, int], ...]

  @classmethod
  def of(cls, **sizes: int) -> "Slots":
    """`Slots.of(x=32, one=1)`: rows 0 to 31 are x, row 32 is one."""
    return cls(tuple(sizes.items()))

  @property
  def width(self) -> int:
    """D."""
    return sum(size for _, size in self.sizes)

  def __getitem__(self, name: str) -> slice:
    """Rows of a slot in a state."""
    start = 0
    for other, size in self.sizes:
      if other == name:
        return slice(start, start + size)
      start += size
    names = [other for other, _ in self.sizes]
    raise KeyError(f"slot is {name!r}, takes one of {names}")

  def size(self, name: str) -> int:
    """Number of rows of a slot."""
    rows = self[name]
    return rows.stop - rows.start

  def select(self, name: str, index: int | slice | None = None) -> np.ndarray:
    """Rows of the identity, `[size, D]`; with an index one row or some.

    Args:
      name: of the slot.
      index: of one row or a slice of rows within the slot, or None for all.
    """
    rows = np.eye(self.width)[self[name]]
    if index is None:
      return rows
    return rows[index : index + 1] if isinstance(index, int) else rows[index]

  def read(self, state: jax.Array, name: str) -> jax.Array:
    """What a slot holds, `[..., size, T]`, of states `[..., D, T]`."""
    return state[..., self[name], :]


class LayerBuilder:
  """Collects the named heads and units of one layer.

  Rows are given in terms of slots: `slots.select("g") - slots.select("one")`;
  heads take the name of a slot as well, `"g"` for `slots.select("g")`.
  """

  def __init__(self, slots: Slots):
    """Starts a layer that changes nothing."""
    self.slots = slots
    self.heads = {}
    self.groups = {}

  def head(
    self,
    name: str,
    *,
    keys: Sequence[Rows],
    queries: Sequence[Rows],
    reads: Rows,
    writes: Rows,
  ) -> None:
    """Adds a head: `writes^T reads H` weighted by `(keys H)^T queries H`.

    Args:
      name: of the block.
      keys: `[?, D]` each; stacked to `[R, D]`.
      queries: `[?, D]` each, as many rows in all.
      reads: `[S, D]`.
      writes: `[S, D]`, selects the rows that are written.
    """
    keys = np.concatenate([self._rows(part) for part in keys])
    queries = np.concatenate([self._rows(part) for part in queries])
    reads, writes = self._rows(reads), self._rows(writes)
    self._check(name, "queries", queries, keys)
    self._check(name, "writes", writes, reads)
    self.heads[name] = (keys, queries, reads, writes.T)

  def signed_heads(
    self,
    name: str,
    *,
    keys: Sequence[Rows],
    queries: Sequence[Rows],
    reads: Rows,
    writes: Rows,
    masks: tuple[Sequence[Rows], Sequence[Rows]] = ((), ()),
  ) -> None:
    """Two ReLU heads, `name.plus` and `name.minus`: an exact product.

    `relu(z) - relu(-z) = z` for the score z of keys and queries. A mask (rows
    of keys, rows of queries) is added to both scores and not negated.
    """
    for suffix, sign in (("plus", 1.0), ("minus", -1.0)):
      self.head(
        f"{name}.{suffix}",
        keys=[*keys, *masks[0]],
        queries=[*(sign * self._rows(rows) for rows in queries), *masks[1]],
        reads=sign * self._rows(reads),
        writes=writes,
      )

  def units(self, name: str, inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Adds units `outputs^T relu(inputs H)`; the same name adds to a block.

    Args:
      name: of the block; units of one block must be added in succession.
      inputs: `[F, D]`.
      outputs: `[F, D]`.
    """
    self._check(name, "outputs", outputs, inputs)
    self.groups.setdefault(name, []).append((inputs, outputs))

  def linear(self, name: str, inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Adds `outputs^T inputs H` by two units a row: exact."""
    self.units(name, inputs, outputs)
    self.units(name, -inputs, -outputs)

  def move(self, name: str, source: str, target: str) -> None:
    """Adds slot `source` to slot `target` and sets `source` to 0."""
    rows = self.slots.select(source)
    self.linear(name, rows, self.slots.select(target) - rows)

  def clear(self, name: str, *slots: str, is_positive: bool = False) -> None:
    """Sets slots to 0.

    Args:
      name: of the block.
      *slots: their names.
      is_positive: whether they are known not to be negative: half the units.
    """
    for slot in slots:
      rows = self.slots.select(slot)
      (self.units if is_positive else self.linear)(name, rows, -rows)

  def curve(
    self,
    name: str,
    inputs: np.ndarray,
    curve: piecewise_linear.Curve,
    outputs: np.ndarray,
    *,
    one: np.ndarray | None = None,
    gate: np.ndarray | None = None,
  ) -> None:
    """Adds a curve, without its offset, of each row of inputs to the outputs.

    Args:
      name: of the block.
      inputs: `[n, D]`.
      curve: the function.
      outputs: `[n, D]`.
      one: `[1, D]`, the row that holds 1 where the function applies; the slot
        `one` if None. Where it holds 0, knots are 0.
      gate: `[1, D]` or `[n, D]`, subtracted in every unit: where it is large
        the function is 0.
    """
    one = self.slots.select("one") if one is None else one
    gate = np.zeros_like(inputs) if gate is None else gate
    for knot, coefficient in zip(curve.knots, curve.coefficients, strict=True):
      self.units(
        name,
        curve.sign * (inputs - knot * one) - gate,
        coefficient * outputs,
      )

  def _rows(self, rows):
    return self.slots.select(rows) if isinstance(rows, str) else rows

  def _check(self, name, what, rows, others):
    if rows.shape != others.shape or rows.shape[1:] != (self.slots.width,):
      raise ValueError(
        f"{what} of {name!r} is {rows.shape}, takes {others.shape} with width"
        f" {self.slots.width}"
      )
