"""An experiment that only says which processes do it, or how one fails."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import jax
import ml_collections
import numpy as np

from experiments.runner import fields, processes
from tgmm_jax.evaluation import evaluator
from tgmm_jax.training import hosts, interrupts, run_folder

_LISTENS = "0A"  # the state in Linux' tables of sockets


def get_config():
  return ml_collections.ConfigDict(
    {
      "variant": "",
      "seed": 0,
      "only": "",
      "does": "",
      "start": fields.start_config(),
    }
  )


def sweep(config):
  del config
  return [{"only": "first"}, {"only": "second"}]


def experiment(config, workdir):
  return _Experiment(config, pathlib.Path(workdir))


class _Experiment:
  def __init__(self, config, workdir):
    self._config = config
    self._workdir = workdir

  def run(self, mode):
    del mode
    with contextlib.ExitStack() as stack:
      stop = stack.enter_context(interrupts.StopRequest())
      if not self._config.only:
        stack.enter_context(run_folder.lock(self._workdir))
      processes.check_one_folder(self._workdir)
      run_folder.make(self._workdir)
      getattr(self, f"_{self._config.does or 'join'}")(stop)

  def _join(self, stop):
    """Says who it is, where it listens, what it scores, and when it saves."""
    del stop
    name = f"{self._config.only}{jax.process_index()} of {jax.process_count()}"
    called = []
    values = evaluator.measure(
      scored(), on_contender=lambda *own: called.append(own), is_shared=True
    )
    content = {
      "called": called,
      "values": as_lists(values),
      "listens": listening(),
      "saves_at": saves_at() if hosts.is_several() else None,
    }
    (self._workdir / name).write_text(json.dumps(content))

  def _hang(self, stop):
    """The second stands still, until somebody kills it at last."""
    del stop
    if not hosts.is_first():
      kill = f"sleep 40; kill -KILL {os.getpid()}"
      subprocess.Popen(["sh", "-c", kill])
      os.kill(os.getpid(), signal.SIGSTOP)
    hosts.gather(None)

  def _fail(self, stop):
    """The second has an error, and the first waits for it."""
    del stop
    if not hosts.is_first():
      raise ValueError("seconds is 1, takes 2")
    hosts.gather(None)

  def _break(self, stop):
    """The second has an error in the code, the first waits in a collective."""
    del stop
    everywhere = jax.make_mesh((jax.device_count(),), ("all",))
    if not hosts.is_first():
      raise ZeroDivisionError("of nothing")
    whole = jax.make_array_from_callback(
      (jax.device_count(),),
      jax.NamedSharding(everywhere, jax.P("all")),
      lambda index: np.ones(1, np.float32),
    )
    jax.jit(jax.numpy.sum)(whole).block_until_ready()

  def _evaluate(self, stop):
    """The first is at work for ever; the second is done, and gets a signal."""
    with stop.at_once("the evaluation"):
      if hosts.is_first():
        time.sleep(1e6)
      os.kill(os.getpid(), signal.SIGTERM)

  def _disks(self, stop):
    """Each has a folder of its own."""
    del stop
    own = self._workdir / str(jax.process_index())
    own.mkdir()
    processes._MOST_SECONDS_UNSEEN = 0.5
    processes.check_one_folder(own)


def listening():
  """The addresses at which this process listens, as Linux writes them."""
  own, found = set(), []
  for link in pathlib.Path("/proc/self/fd").glob("*"):
    with contextlib.suppress(OSError):  # that of the folder itself is closed
      own |= set(re.findall(r"^socket:\[(\d+)\]$", os.readlink(link)))
  for table in pathlib.Path("/proc/self/net").glob("tcp*"):
    for line in table.read_text().splitlines()[1:]:
      _, address, _, state, *_, inode = line.split()[:10]
      if state == _LISTENS and inode in own:
        found.append(address)
  return found


def saves_at():
  """The poll at which to save; the first asks, and polls twice as often."""
  if hosts.is_first():
    hosts.ask(hosts.SAVE)
  for number in range(1, 100_000):
    hosts.poll()
    if hosts.take(hosts.SAVE):
      return number
    time.sleep(0.01 if hosts.is_first() else 0.02)


def scored():
  """Three contenders at two places, one of them with two answers."""

  def contender(*factors):
    return lambda key, problems: {
      f"times {factor}": {"sum": factor * problems, "square": problems**2}
      for factor in factors
    }

  return evaluator.Evaluator(
    contenders={"a": contender(1), "b": contender(3, 2), "c": contender(5)},
    problems={
      place: lambda place=place: [
        (None, np.arange(3.0) + place),
        (None, np.arange(2.0)),
      ]
      for place in (10, 20)
    },
    rows=lambda place, values: [],
  )


def as_lists(values):
  """By place as JSON has it; with the order of the series."""
  return [
    [place, series, metric, array.tolist()]
    for place, by_series in values.items()
    for series, by_metric in by_series.items()
    for metric, array in by_metric.items()
  ]
