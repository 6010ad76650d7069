import logging
import threading
import time

import pytest

from tgmm_jax.fitting import progress


@pytest.fixture
def lines(monkeypatch, caplog):
  """What is logged; seconds are hundredths."""
  monkeypatch.setattr(progress, "_FIRST", 0.1)
  caplog.set_level(logging.INFO, logger="tgmm_jax.fitting.progress")
  return lambda: [record.getMessage() for record in caplog.records]


def test_what_is_short_says_nothing(lines):
  with progress.reported("fit of 3 points"):
    pass
  time.sleep(0.2)
  assert lines() == []


def test_what_takes_long_says_so_less_and_less_often(lines):
  with progress.reported("fit of 3 points"):
    progress.step("EM")
    time.sleep(0.15)
    progress.step("labels")
    time.sleep(0.5)
  time.sleep(0.3)
  assert [line.split(":")[0] for line in lines()] == [
    "fit of 3 points, EM",
    "fit of 3 points, labels",
    "fit of 3 points, labels",
  ]


def fail_slowly():
  with progress.reported("outer"), progress.reported("inner"):
    time.sleep(0.15)
    raise ValueError("wrong")


def test_an_error_ends_it_and_the_outer_one_is_said(lines):
  with pytest.raises(ValueError, match="wrong"):
    fail_slowly()
  time.sleep(0.3)
  assert lines() == ["outer: 0 s so far"]
  progress.step("nothing is under way")


def test_nobody_listens_nobody_speaks(monkeypatch):
  logging.getLogger("tgmm_jax.fitting.progress").setLevel("WARNING")
  before = threading.active_count()
  with progress.reported("fit"):
    assert threading.active_count() == before
  logging.getLogger("tgmm_jax.fitting.progress").setLevel("NOTSET")
