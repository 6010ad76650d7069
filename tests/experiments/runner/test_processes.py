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

from experiments.runner import fields, processes
from tests.experiments.runner import joined_config
from tgmm_jax.evaluation import evaluator

ROOT = pathlib.Path(__file__).parents[3]
HERE = pathlib.Path(__file__).parent
CONFIG = f"--config={HERE / 'joined_config.py'}"
NAMED = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def free_port():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def together(does, *flags):
  """Two processes of an experiment that does something of its own."""
  address = f"127.0.0.1:{free_port()}"
  flags = [f"--config.does={does}", f"--coordinator={address}", *flags]
  return [
    ([*flags, "--num_processes=2", f"--process_id={rank}"], {})
    for rank in range(2)
  ]


# By what the experiment does: the status, and the last lines of both.
ENDS = {
  "fail": (
    1,
    "error: process 1 has ended: seconds is 1, takes 2",
    "error: seconds is 1, takes 2",
  ),
  "break": (
    1,
    "error: process 1 has ended: ZeroDivisionError: of nothing",
    "ZeroDivisionError: of nothing",
  ),
  "disks": (
    1,
    "error: process 1 does not see what process 0 writes in {}/0, takes",
    "error: process 1 does not see what process 0 writes in {}/1, takes",
  ),
  "evaluate": (75, "stopped by a signal", "stopped by a signal"),
}


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
    **{name: together(name) for name in ENDS},
    "hang": together("hang", "--config.start.heartbeat_timeout=10"),
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
  return sorted(path.name for path in folder.glob("[!.]*"))


# 127.0.0.1 as Linux writes it, and as an address of IPv6.
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F")


def said(ended, name):
  """What each of them has written."""
  folder, _ = ended[name]
  return [json.loads((folder / own).read_text()) for own in did(ended, name)]


@pytest.mark.slow
def test_variables_and_flags_name_the_processes_of_one_run(ended):
  # The second has the variables of the first: its flag wins.
  assert did(ended, "named") == ["0 of 2", "1 of 2"]


@pytest.mark.slow
def test_elements_of_a_job_array_by_slurm_are_alone(ended):
  assert did(ended, "array") == ["first0 of 1", "second0 of 1"]


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


@pytest.mark.slow
def test_contenders_are_dealt_out_and_each_process_gets_all_scores(ended):
  first, second = said(ended, "named")
  alone = joined_config.as_lists(evaluator.measure(joined_config.scored()))
  # In the same order, too: rows are made of it.
  assert first["values"] == second["values"] == alone
  assert first["called"] == [[10, "a"], [10, "c"], [20, "b"]]
  assert second["called"] == [[10, "b"], [20, "a"], [20, "c"]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' tables")
def test_processes_listen_on_loopback_alone(ended):
  """The coordinator, and what the collectives are by."""
  first, second = (found["listens"] for found in said(ended, "named"))
  assert first
  for address in (*first, *second):
    assert address.partition(":")[0] in LOOPBACK
  for alone in said(ended, "array"):
    assert alone["listens"] == []


@pytest.mark.slow
def test_a_save_by_time_is_at_the_same_poll_of_all(ended):
  first, second = (found["saves_at"] for found in said(ended, "named"))
  assert first == second > 1


@pytest.mark.slow
def test_one_that_hangs_ends_the_others(ended):
  _, (first, second) = ended["hang"]
  assert second["status"] == -9  # by itself it would not have ended
  assert first["status"] not in (0, 75), first["stderr"][-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_all_end_with_a_line_where_one_does(ended, name):
  """In a collective, in an evaluation or at the start: none hangs or aborts."""
  folder, results = ended[name]
  status, *last = ENDS[name]
  for result, line in zip(results, last, strict=True):
    assert result["status"] == status, result["stderr"]
    assert line.format(folder) in result["stderr"].splitlines()[-1]
    if name != "break":  # which is an error of the code
      assert "Traceback" not in result["stderr"]
  assert not list(folder.glob(".seen*"))


@pytest.fixture
def start(monkeypatch):
  """Calls `processes.start`; returns what JAX is then asked for, or None."""
  asked = []
  monkeypatch.setattr(
    jax.distributed,
    "initialize",
    lambda *own, **options: asked.append((own, options)),
  )
  for variable in NAMED:
    monkeypatch.delenv(variable, raising=False)

  def start(arguments=(), variables=(), *, is_array_element=False):
    for variable, value in dict(variables).items():
      monkeypatch.setenv(variable, value)
    with flagsaver.flagsaver(**dict(arguments)):
      processes.start(
        is_array_element=is_array_element, timeouts=fields.Timeouts(3, 2, 1)
      )
    return asked[0] if asked else (None, {})

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
  found, options = start(
    arguments, variables, is_array_element=is_array_element
  )
  assert found == asked
  if asked:
    # It listens where it is named, and a cluster's choice is its own.
    assert options["coordinator_bind_address"] == asked[0]
    assert options["heartbeat_timeout_seconds"] == 2


def test_where_the_first_listens_can_be_said(start):
  _, options = start((), ALL | {"JAX_COORDINATOR_BIND_ADDRESS": "[::]:1"})
  assert options["coordinator_bind_address"] == "[::]:1"


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
  def initialize(*named, **options):
    raise ValueError("Number of processes must be defined.")

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  assert start() == (None, {})  # a single host
  with pytest.raises(ValueError, match="missing") as error:
    start((), {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"})
  assert str(error.value) == (
    "--num_processes is missing: other processes are named, but neither"
    " JAX_NUM_PROCESSES nor a cluster says it"
  )
