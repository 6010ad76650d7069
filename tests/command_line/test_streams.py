import logging
import sys

from tgmm_jax.command_line import streams
from tgmm_jax.fitting import progress


def test_lines_of_long_fits_are_shown_while_a_command_fits(capsys):
  logger = logging.getLogger(progress.__name__)
  with streams.progress():
    logger.info("fitting: 2 s so far")
  logger.info("not shown")
  assert capsys.readouterr().err == "fitting: 2 s so far\n"
  assert not logger.handlers


def test_a_dash_is_standard_input():
  assert streams.source("-") is sys.stdin.buffer
  assert streams.source("./-") == "./-"
