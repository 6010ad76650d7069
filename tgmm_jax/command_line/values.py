"""Values of options, checked where they are read."""

import argparse
import csv
import math
from collections.abc import Callable


def integer(lowest: int, highest: int | None = None) -> Callable[[str], int]:
  """Reads an integer of a range.

  Args:
    lowest: the least that is taken.
    highest: the greatest, or None.

  Returns:
    `text -> int`, for `argparse`.
  """
  takes = f"an integer of at least {lowest}"
  if highest is not None:
    takes = f"an integer from {lowest} to {highest}"

  def read(text):
    try:
      value = int(text)
    except ValueError:
      value = None
    if value is None or value < lowest:
      _refuse(text, takes)
    if highest is not None and value > highest:
      _refuse(text, takes)
    return value

  return read


def number(lowest: float) -> Callable[[str], float]:
  """Reads a finite number of at least `lowest`.

  Args:
    lowest: the least that is taken.

  Returns:
    `text -> float`, for `argparse`.
  """

  def read(text):
    try:
      value = float(text)
    except ValueError:
      value = math.nan
    if not lowest <= value < math.inf:
      _refuse(text, f"a number of at least {lowest:g}")
    return value

  return read


def components(text: str) -> int | str:
  """Reads K, or "auto"."""
  if text == "auto":
    return text
  try:
    return integer(1)(text)
  except argparse.ArgumentTypeError:
    return _refuse(text, "an integer of at least 1, or auto")


def columns(text: str) -> list[str]:
  """Reads names or numbers of columns: a,b; a name with a comma in quotes."""
  (found,) = csv.reader([text], skipinitialspace=True) if text else [[]]
  found = [own.strip() for own in found]
  if not found or not all(found):
    _refuse(text, "names or numbers of columns, separated by commas")
  return found


def _refuse(text, takes):
  shown = repr(text) if len(text) <= 40 else f"{text[:37]!r}..."
  raise argparse.ArgumentTypeError(f"is {shown}, takes {takes}")
