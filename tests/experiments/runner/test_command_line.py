"""Every bad input is one line on stderr and status 1, before any work."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from experiments import rq1
from experiments.runner import command_line, fields
from tgmm_jax.training import run_folder

ROOT = pathlib.Path(__file__).parents[3]
SMOKE = "--config=experiments/rq1.py:smoke"

# By name: the command line, and what its error says of what was given and of
# what is taken.
BAD = {
  "no config": ([], "--config is missing", "rq1.py:quick"),
  "empty config": (["--config="], "--config is ''", "Python file"),
  "config without value": (["--config"], "value", "--config"),
  "no such file": (
    ["--config=experiments/none.py"],
    "--config is 'experiments/none.py'",
    "takes a Python file that exists",
  ),
  "no such file with an override": (
    ["--config=experiments/none.py:quick", "--config.seed=1"],
    "--config is 'experiments/none.py:quick'",
    "takes a Python file that exists",
  ),
  "no Python file": (
    ["--config=file"],
    "--config is 'file'",
    "takes a Python file that exists",
  ),
  "no such variant": (
    ["--config=experiments/rq1.py:fast"],
    "variant is 'fast'",
    "released, released_mask, pretrained, quick, smoke",
  ),
  "unknown key": ([SMOKE, "--config.typo=1"], "--config.typo is", "takes"),
  "unknown key, near": (
    [SMOKE, "--config.num_devcies=1"],
    "--config.num_devcies is",
    "--config.num_devices",
  ),
  "unknown key in a run": (
    [SMOKE, "--config.runs.refiner.lerning_rate=1"],
    "--config.runs.refiner.lerning_rate is",
    "--config.runs.refiner.optimizer.learning_rate",
  ),
  "unknown key two levels down": (
    [SMOKE, "--config.runs.refiner.optimizer.lerning_rate=1"],
    "--config.runs.refiner.optimizer.lerning_rate is",
    "--config.runs.refiner.optimizer.learning_rate",
  ),
  "unknown run": (
    [SMOKE, "--config.runs.refner.num_steps=5"],
    "--config.runs.refner.num_steps is",
    "--config.runs.refiner.num_steps",
  ),
  "key at another place": (
    [SMOKE, "--config.learning_rate=1"],
    "--config.learning_rate is",
    "--config.runs.refiner.optimizer.learning_rate",
  ),
  "key below a number": (
    [SMOKE, "--config.seed.x=1"],
    "--config.seed.x is",
    "--config.seed",
  ),
  "run with a dash": (
    [SMOKE, "--config.runs.tgmm-d2.num_steps=5"],
    "--config.runs.tgmm-d2.num_steps is",
    "--config.runs['tgmm-d2'].num_steps",
  ),
  "unknown flag": ([SMOKE, "--wrokdir=x"], "'wrokdir'", "workdir ?"),
  "argument": ([SMOKE, "stray"], "['stray']", "takes flags only"),
  "float for int": ([SMOKE, "--config.seed=0.5"], "seed=0.5", "int"),
  "word for float": (
    [SMOKE, "--config.runs.refiner.stage_weight=x"],
    "stage_weight=x",
    "float",
  ),
  "word for bool": (
    [SMOKE, "--config.evaluation.with_baselines=maybe"],
    "with_baselines=maybe",
    "oolean",
  ),
  "number for a group": ([SMOKE, "--config.runs=3"], "runs=3", "dict"),
  "code for a tuple": (
    [SMOKE, "--config.tasks.num_components=__import__('os')"],
    "__import__('os')",
    "takes tuple as in (2, 3, 4, 5)",
  ),
  "strings for numbers": (
    [SMOKE, "--config.tasks.num_components=('2', '3')"],
    "config.tasks.num_components is ('2', '3')",
    "takes tuple as in (2, 3, 4, 5)",
  ),
  "no K": (
    [SMOKE, "--config.tasks.num_components=()"],
    "num_components is empty",
    "takes at least one K >= 1",
  ),
  "no K in the cells": (
    [SMOKE, "--config.evaluation.num_components=()"],
    "config.evaluation: num_components is empty",
    "takes at least one value",
  ),
  "K above the model's": (
    [SMOKE, "--config.evaluation.num_components=(2, 7)"],
    "config.evaluation.num_components is (2, 7)",
    "takes a subset of config.tasks.num_components = (2, 3)",
  ),
  "N < 1": (
    [SMOKE, "--config.tasks.min_points=0"],
    "config.tasks: min_points, max_points are 0, 32",
    "takes 1 <= min_points",
  ),
  "N < 1 in the cells": (
    [SMOKE, "--config.evaluation.num_points=(0,)"],
    "config.evaluation: min_points, max_points are 0, 0",
    "takes 1 <= min_points",
  ),
  "d < 1": (
    [SMOKE, "--config.runs.refiner.dims=(0, 2)"],
    "config.runs.refiner.dims is (0, 2)",
    "takes integers d >= 1",
  ),
  "negative learning rate": (
    [SMOKE, "--config.runs.refiner.optimizer.learning_rate=-1"],
    "config.runs.refiner.optimizer: learning_rate is -1.0",
    "takes a finite number > 0",
  ),
  "learning rate nan": (
    [SMOKE, "--config.runs.refiner.optimizer.learning_rate=nan"],
    "learning_rate is nan",
    "takes a finite number > 0",
  ),
  "learning rate inf": (
    [SMOKE, "--config.runs.refiner.optimizer.learning_rate=inf"],
    "learning_rate is inf",
    "takes a finite number > 0",
  ),
  "negative steps": (
    [SMOKE, "--config.runs.refiner.num_steps=-5"],
    "config.runs.refiner: num_steps is -5",
    "takes a positive multiple of steps_per_call = 5",
  ),
  "batch of 0": (
    [SMOKE, "--config.runs.refiner.batch_sizes=(0, 8)"],
    "config.runs.refiner: batch_sizes is (0, 8)",
    "takes numbers >= 1",
  ),
  "seed of 70 bits": (
    [SMOKE, f"--config.seed={2**70}"],
    f"seed is {2**70}",
    "takes 0 to 2**32 - 1",
  ),
  "devices that do not divide the batch": (
    [SMOKE, "--config.num_devices=3"],
    "config.runs.refiner: batch_size is 16",
    "takes a multiple of the mesh's 3 devices",
  ),
  "more devices than there are": (
    [SMOKE, "--config.num_devices=9"],
    "config: num_devices is 9",
    "takes 0 (all) to 8",
  ),
  "unknown run to do": (
    [SMOKE, "--config.only=none"],
    "config.only is 'none'",
    "['refiner', 'tgmm-d2', 'baselines']",
  ),
  "empty workdir": ([SMOKE, "--workdir="], "--workdir is empty", "a folder"),
  "bucket as workdir": (
    [SMOKE, "--workdir=gs://bucket/run"],
    "--workdir is 'gs://bucket/run'",
    "a bucket has to be mounted",
  ),
  "bucket to restore": (
    [SMOKE, "--config.restore_dir=gs://bucket/run"],
    "config.restore_dir is 'gs://bucket/run'",
    "takes a folder of a file system",
  ),
  "no time to wait": (
    [SMOKE, "--config.start.heartbeat_timeout=0"],
    "config.start.heartbeat_timeout is 0",
    "at least 1 second",
  ),
  "negative time to a save": (
    [SMOKE, "--config.start.save_minutes=-1.0"],
    "config.start.save_minutes is -1.0",
    "takes >= 0",
  ),
  "workdir is a file": (
    [SMOKE, "--workdir=file"],
    "file cannot be written",
    "File exists",
  ),
  "workdir of another config": (
    [SMOKE, "--workdir=other"],
    "other holds another config's run: seed is 1 there and 0 here",
    "give another workdir",
  ),
  "sweep index": ([SMOKE, "--sweep_index=3"], "is 3", "takes 0 to 2"),
  "negative sweep index": ([SMOKE, "--sweep_index=-1"], "-1", "takes 0 to 2"),
  "word for sweep index": ([SMOKE, "--sweep_index=x"], "=x", "int"),
  "unknown mode": (
    [SMOKE, "--mode=dance"],
    "--mode=dance",
    "train_and_evaluate|train|evaluate|report",
  ),
  "evaluation of nothing": (
    [SMOKE, "--mode=evaluate"],
    "runs/rq1-smoke/refiner/checkpoints",
    "holds no checkpoint",
  ),
  "report of nothing": (
    [SMOKE, "--mode=report"],
    "--workdir is 'runs/rq1-smoke'",
    "takes the folder of a run",
  ),
  "restore_dir of nothing": (
    [SMOKE, "--config.restore_dir=none"],
    "config.restore_dir is 'none'",
    "takes the folder of an earlier run",
  ),
}


@pytest.fixture(scope="session")
def results(tmp_path_factory):
  """By name of the case, what its start did."""
  folder = tmp_path_factory.mktemp("starts")
  (folder / "experiments").symlink_to(ROOT / "experiments")
  (folder / "file").write_text("a file")
  broken = "def get_config():\n  return [].nothing\n"
  (folder / "broken.py").write_text(broken)
  cases = {name: arguments for name, (arguments, *_) in BAD.items()}
  cases["broken file"] = ["--config=broken.py", "--config.seed=1"]
  config = rq1.get_config("smoke")
  config.seed = 1
  run_folder.check_identity(folder / "other", fields.identity(config))
  before = (folder / "other" / "config.json").read_bytes()
  ended = subprocess.run(
    [sys.executable, pathlib.Path(__file__).parent / "start_many.py"],
    cwd=folder,
    env=os.environ
    | {
      "JAX_PLATFORMS": "cpu",
      "PYTHONPATH": str(ROOT),
      "JAX_NUM_CPU_DEVICES": "8",
    },
    input=json.dumps(list(cases.values())),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert ended.returncode == 0, ended.stderr
  assert (folder / "file").read_text() == "a file"
  assert (folder / "other" / "config.json").read_bytes() == before
  shutil.rmtree(folder)
  return dict(zip(cases, json.loads(ended.stdout), strict=True))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_before_any_work(results, name):
  _, given, takes = BAD[name]
  result = results[name]
  assert result["status"] == 1, result["stderr"]
  *warnings, error = result["stderr"].splitlines()
  assert not warnings
  assert error.startswith("error: ")
  assert given in error
  assert takes in error
  assert result["num_compiled"] == 0
  assert result["left"] == []


def test_a_mistake_in_a_config_file_is_not_taken_for_a_bad_flag(results):
  result = results["broken file"]
  assert result["status"] == 99
  assert "'list' object has no attribute 'nothing'" in result["stderr"]


def test_module_of_a_config_flag():
  module = command_line.load_module(pathlib.Path("experiments/rq1.py"))
  assert module.get_config("quick").variant == "quick"
