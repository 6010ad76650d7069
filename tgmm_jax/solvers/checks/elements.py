"""Single values among those handed over: missing ones, objects, masks."""

import decimal
import numbers
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np


class Refused(Exception):
  """What is wrong with a value, as in "has dtype object", and where.

  Attributes:
    takes: what is taken instead, where it is not the usual.
  """

  def __init__(self, what, *, place=(), column=None, takes=""):
    """Arguments are shown by `str`.

    Args:
      what: a predicate; the argument is its subject.
      place: index of the first such element.
      column: name of the column.
      takes: see above.
    """
    super().__init__(what)
    self.what, self.place, self.column = what, tuple(place), column
    self.takes = takes

  def within(self, index):
    """The same of an element of a list."""
    place = (index, *self.place) if self.place else ()
    return self._with(place=place)

  def in_column(self, name):
    """The same of a column of a frame."""
    return self._with(column=name)

  def from_row(self, first):
    """The same where the first row is that of another index."""
    place = (self.place[0] + first, *self.place[1:]) if self.place else ()
    return self._with(place=place)

  def _with(self, **changes):
    own = {"place": self.place, "column": self.column, "takes": self.takes}
    return Refused(self.what, **(own | changes))

  def __str__(self):
    """The predicate and the place."""
    place = [str(int(index)) for index in self.place]
    if self.column is not None:
      if not place:
        return f"{self.what} in column {self.column!r}"
      place.append(repr(self.column))
    return f"{self.what} at [{', '.join(place)}]" if place else self.what


def brief(value: Any) -> str:
  """What a value looks like, in one short line."""
  text = " ".join(repr(value).split())
  return text if len(text) <= 60 else f"{text[:57]}..."


def unmasked(value: np.ndarray) -> np.ndarray:
  """A plain array; refuses masked values."""
  if isinstance(value, np.ma.MaskedArray):
    mask = np.ma.getmaskarray(value)
    fields = mask.dtype.names
    masks = [mask] if fields is None else [mask[name] for name in fields]
    count = sum(int(np.sum(one)) for one in masks)
    if count:
      raise Refused(
        f"is a masked array with {count} masked values",
        takes="takes sample_weight 0 for what is missing",
      )
  return np.asarray(value)


def refuse_missing(is_missing: np.ndarray) -> None:
  """Refuses a mask that is true somewhere, and says where first."""
  count = int(np.sum(is_missing))
  if count:
    what = "has a missing value"
    if count > 1:
      what = f"has {count} missing values, the first"
    raise Refused(what, place=np.argwhere(is_missing)[0])


def as_floats(value: np.ndarray) -> np.ndarray:
  """Float64 of an array of objects that are real numbers.

  Args:
    value: of dtype object: Python's and NumPy's numbers, decimals, fractions.
  """
  kinds = {type(item) for item in value.flat}
  missing = tuple(kind for kind in kinds if _is_missing(kind))
  if missing:
    refuse_missing(_each(value, lambda item: isinstance(item, missing)))
  strange = tuple(kind for kind in kinds if not _is_number(kind))
  if strange:
    is_strange = _each(value, lambda item: type(item) in strange)
    place = np.argwhere(is_strange)[0]
    item = value[tuple(place)]
    if isinstance(item, str):
      raise Refused(f"has the text {brief(item)}", place=place)
    raise Refused(f"has a {type(item).__name__}", place=place)
  try:
    return value.astype(np.float64)
  except (OverflowError, ValueError) as error:
    # An integer beyond 1e308, a decimal that signals.
    raise Refused(f"has a number that is none of float64 ({error})") from None


def is_rounded(item: Any) -> bool:
  """Whether float64 is not the integer."""
  return isinstance(item, numbers.Integral) and int(float(item)) != item


def warn_if_rounded(argument: str, rounded: Iterable[Any]) -> None:
  """Says that float64 has not all the integers that are given.

  Args:
    argument: its name.
    rounded: the integers that float64 has not.
  """
  for first in rounded:
    warnings.warn(
      f"{argument} has integers that float64 rounds (the first is {first}):"
      " subtract an offset before",
      stacklevel=2,
    )
    return


def _each(value, is_so):
  found = [is_so(item) for item in value.flat]
  return np.array(found, bool).reshape(value.shape)


def _is_missing(kind):
  """None, and what pandas and NumPy have for it."""
  names = ("NoneType", "NAType", "NaTType", "MaskedConstant")
  return kind.__name__ in names


def _is_number(kind):
  if issubclass(kind, np.datetime64 | np.timedelta64):
    return False
  return issubclass(kind, numbers.Real | decimal.Decimal | np.bool_)
