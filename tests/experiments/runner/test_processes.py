"""Which processes make one run, and that all of them do the same."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.runner import processes

ROOT = pathlib.Path(__file__).parents[3]
HERE = pathlib.Path(__file__).parent
CONFIG = f"--config={HERE / 'joined_config.py'}"
NAMED = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def free_port():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def slurm(rank, port):
  """What `srun -n 2` on one host sets for a task."""
  return {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": str(rank),
    "SLURM_LOCALID": str(rank),
    "JAX_COORDINATOR_PORT": str(port),
  }


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
  """By the name of a group, its work folder and how its processes ended."""
  folder = tmp_path_factory.mktemp("together")
  port, other = free_port(), free_port()
  named = dict(zip(NAMED, (f"127.0.0.1:{port}", "2", "0"), strict=True))
  groups = {
    "named": [([], named), (["--process_id=1"], named)],
    "seeds": [
      ([f"--config.seed={rank}"], slurm(rank, other)) for rank in range(2)
    ],
    "array": [
      ([f"--sweep_index={rank}"], slurm(rank, other)) for rank in range(2)
    ],
  }
  starts = [
    [
      ([CONFIG, f"--workdir={folder / name}", *arguments], variables)
      for arguments, variables in group
    ]
    for name, group in groups.items()
  ]
  done = subprocess.run(
    [sys.executable, HERE / "start_together.py"],
    env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    input=json.dumps(starts),
    capture_output=True,
    text=True,
    timeout=400,
  )
  assert done.returncode == 0, done.stderr
  results = json.loads(done.stdout)
  return {
    name: (folder / name, own)
    for name, own in zip(groups, results, strict=True)
  }


def did(ended, name):
  """What the experiments of a group say of their processes."""
  folder, results = ended[name]
  for result in results:
    assert result["status"] == 0, result["stderr"][-3000:]
  return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_variables_and_flags_name_the_processes_of_one_run(ended):
  # The second has the variables of the first: its flag wins.
  assert did(ended, "named") == {"0 of 2", "1 of 2"}


@pytest.mark.slow
def test_elements_of_a_job_array_by_slurm_are_alone(ended):
  assert did(ended, "array") == {"first0 of 1", "second0 of 1"}


@pytest.mark.slow
def test_processes_that_were_started_otherwise_say_how_and_do_nothing(ended):
  # Slurm's tasks have found each other without a word.
  folder, results = ended["seeds"]
  for rank, result in enumerate(results):
    assert result["status"] == 1, result["stderr"]
    lines = result["stderr"].splitlines()
    assert [line for line in lines if line.startswith("error: ")] == [
      f"error: process {1 - rank} was started otherwise than this one, process"
      f" {rank}: config.seed is {1 - rank} there and {rank} here"
    ]
    assert "Traceback" not in result["stderr"]
  assert not folder.exists()


@pytest.fixture
def start(monkeypatch):
  """Calls `processes.start`; returns what JAX is then asked for, or None."""
  asked = []
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda *own: asked.append(own)
  )
  for variable in NAMED:
    monkeypatch.delenv(variable, raising=False)

  def start(arguments=(), variables=(), *, is_array_element=False):
    for variable, value in dict(variables).items():
      monkeypatch.setenv(variable, value)
    with flagsaver.flagsaver(**dict(arguments)):
      processes.start(is_array_element=is_array_element)
    return asked[0] if asked else None

  # Programs that other tests import have flags that must be given: no parsing.
  is_parsed = flags.FLAGS.is_parsed()
  flags.FLAGS.mark_as_parsed()
  yield start
  if not is_parsed:
    flags.FLAGS.unparse_flags()


NOBODY = (None, None, None)
ALL = dict(zip(NAMED, ("a:1", "3", "2"), strict=True))
ALL_FLAGS = {"coordinator": "b:2", "num_processes": 4, "process_id": 0}


@pytest.mark.parametrize(
  ("arguments", "variables", "is_array_element", "asked"),
  [
    # Nothing is named: the cluster says it, but not to a job array.
    ((), {}, False, NOBODY),
    ((), {}, True, None),
    ((), ALL, False, ("a:1", 3, 2)),
    (ALL_FLAGS, ALL, False, ("b:2", 4, 0)),
    ({"process_id": 1}, ALL, False, ("a:1", 3, 1)),
    # An element of an array may have processes, if they are named.
    (ALL_FLAGS, {}, True, ("b:2", 4, 0)),
    ((), ALL, True, ("a:1", 3, 2)),
    # The cluster says the rest.
    ({"num_processes": 4}, {}, True, (None, 4, None)),
    ({"num_processes": 1}, ALL, False, None),
    ((), {"JAX_NUM_PROCESSES": "1"}, False, None),
    ((), dict.fromkeys(NAMED, ""), False, NOBODY),
  ],
)
def test_who_says_how_many(
  start, arguments, variables, is_array_element, asked
):
  found = start(arguments, variables, is_array_element=is_array_element)
  assert found == asked


@pytest.mark.parametrize(
  ("arguments", "variables", "message"),
  [
    ({"coordinator": "here"}, {}, "--coordinator is 'here', takes HOST:PORT"),
    (
      {"num_processes": 2},
      {"JAX_PROCESS_ID": "2"},
      "JAX_PROCESS_ID is 2, takes 0 to 1 with 2 processes",
    ),
    (
      {},
      {"JAX_NUM_PROCESSES": "two"},
      "JAX_NUM_PROCESSES is 'two', takes an integer >= 1",
    ),
    ({"process_id": -1}, {}, "--process_id is -1, takes an integer >= 0"),
  ],
)
def test_what_names_no_processes(start, arguments, variables, message):
  with pytest.raises(ValueError, match="takes") as error:
    start(arguments, variables)
  assert str(error.value) == message


def test_what_nobody_says_is_missing(start, monkeypatch):
  def initialize(*named):
    raise ValueError("Number of processes must be defined.")

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  assert start() is None  # a single host
  with pytest.raises(ValueError, match="missing") as error:
    start((), {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"})
  assert str(error.value) == (
    "--num_processes is missing: other processes are named, but neither"
    " JAX_NUM_PROCESSES nor a cluster says it"
  )
