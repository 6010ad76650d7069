"""An experiment that only says which processes do it, or how one fails."""

import contextlib
import os
import pathlib
import time

import jax
import ml_collections

from experiments.runner import fields, processes
from tgmm_jax.training import hosts, interrupts, run_folder


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
    del stop
    name = f"{self._config.only}{jax.process_index()} of {jax.process_count()}"
    (self._workdir / name).touch()

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
    with jax.set_mesh(everywhere):
      whole = jax.make_array_from_callback(
        (jax.device_count(),),
        jax.NamedSharding(everywhere, jax.P("all")),
        lambda index: jax.numpy.ones(1),
      )
      jax.jit(jax.numpy.sum)(whole).block_until_ready()

  def _evaluate(self, stop):
    """The first is at work for long, the second waits and gets the signal."""
    (self._workdir / f"at work {hosts.is_first()}").touch()
    with stop.at_once("the evaluation"):
      if hosts.is_first():
        time.sleep(60)
      hosts.gather(os.getpid())
