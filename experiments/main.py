"""Runs an experiment: trains, evaluates and reports.

  python -m experiments.main --config=experiments/rq1.py:quick

The config file is Python code and is executed. Exit status: 0 done, 75 stopped
by a signal with the state saved (start again with the same command to go on),
1 anything else. Several processes can do one run: see `runner/processes.py`,
and `experiments/launch.py`, which starts them on one machine.
"""

import os
import pathlib
import sys

from absl import app, flags

from experiments.runner import (
  command_line,
  derived,
  ends,
  fields,
  processes,
  programs,
)
from tgmm_jax.training import hosts, run_folder

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run; by default runs/FILE-VARIANT."
)
_MODE = flags.DEFINE_enum(
  "mode",
  "train_and_evaluate",
  ["train_and_evaluate", "train", "evaluate", "report"],
  "What to do; report joins the results that are there.",
)
_SWEEP_INDEX = flags.DEFINE_integer(
  "sweep_index", None, "Element of the config's sweep() to do, from 0."
)


def main(argv):
  """Does what the flags say and returns the exit status."""
  del argv
  command_line.log_own_lines()
  return ends.status_of(_do)


def _do():
  question = command_line.question()
  processes.start(
    is_array_element=_SWEEP_INDEX.value is not None,
    timeouts=fields.timeouts(question.config),
  )
  _resolve(question).run(_MODE.value)


def _resolve(question):
  """The experiment of the config, with the element of the sweep."""
  config = question.config
  workdir = _WORKDIR.value
  if workdir is not None:
    run_folder.check_local(workdir, "--workdir")
  else:
    workdir = os.path.join(
      "runs", f"{question.name}-{config.variant or 'full'}"
    )
  index = _SWEEP_INDEX.value
  if hosts.is_several():
    processes.check_same(
      {
        "config": fields.identity(config),
        "mode": _MODE.value,
        "workdir": os.path.abspath(workdir),
        "sweep_index": index,
        "code": derived.code(question.module.__file__, is_shown=True),
      }
    )
  programs.keep(config, pathlib.Path(workdir))
  if index is not None:
    sweep = question.module.sweep(config)
    if not 0 <= index < len(sweep):
      raise ValueError(f"--sweep_index is {index}, takes 0 to {len(sweep) - 1}")
    config.update_from_flattened_dict(sweep[index])
  return question.module.experiment(config, workdir)


def _parse(argv):
  try:
    return command_line.parse(argv)
  except command_line.UsageError as error:
    sys.exit(ends.fail(str(error)))


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)
