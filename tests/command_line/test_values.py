import argparse

import pytest

from tgmm_jax.command_line import values


@pytest.mark.parametrize(
  ("read", "text", "expected"),
  [
    (values.integer(1), "3", 3),
    (values.integer(0, 5), "5", 5),
    (values.number(0.0), "1e-3", 1e-3),
    (values.components, "auto", "auto"),
    (values.components, "7", 7),
    (values.columns, "x, 2", ["x", "2"]),
    (values.columns, '"a,b",c', ["a,b", "c"]),
  ],
)
def test_values_that_can_be(read, text, expected):
  assert read(text) == expected


@pytest.mark.parametrize(
  ("read", "texts", "message"),
  [
    (values.integer(1), ("0", "1.0", "", "9" * 5000), "an integer of at least"),
    (values.integer(0, 5), ("6", "-1", "x"), "an integer from 0 to 5"),
    (values.number(0.0), ("-1", "nan", "inf", "x"), "a number of at least 0"),
    (values.components, ("0", "-1", "three"), "of at least 1, or auto"),
    (values.columns, ("", ",", "a,,b"), "names or numbers of columns"),
  ],
)
def test_values_that_cannot_be(read, texts, message):
  for text in texts:
    if text == "9" * 5000 and message.startswith("an integer of"):
      message = "is '999"  # more digits than Python reads
    with pytest.raises(argparse.ArgumentTypeError, match=message) as caught:
      read(text)
    assert len(str(caught.value)) < 120
