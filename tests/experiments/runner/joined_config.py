"""An experiment that only says which processes do it."""

import pathlib

import jax
import ml_collections


def get_config():
  return ml_collections.ConfigDict({"variant": "", "seed": 0, "only": ""})


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
    self._workdir.mkdir(exist_ok=True)
    name = f"{self._config.only}{jax.process_index()} of {jax.process_count()}"
    (self._workdir / name).touch()
