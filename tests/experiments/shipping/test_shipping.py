"""From a training to the files of a shipped network, and what knows the law."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import pretrained_full, pretrained_tied_spherical, prior_rules
from tgmm_jax import pretrained, types
from tgmm_jax.evaluation import results
from tgmm_jax.tasks import mixtures
from tgmm_jax.training import checkpoints, run_folder

pytestmark = pytest.mark.slow


def command(module, *flags):
  return subprocess.run(
    [sys.executable, "-m", f"experiments.shipping.{module}", *map(str, flags)],
    capture_output=True,
    text=True,
    timeout=600,
  )


@pytest.fixture(scope="module")
def released(start, tmp_path_factory):
  """A run of the network for full covariances, and the folder of its files."""
  workdir = tmp_path_factory.mktemp("full") / "run"
  config = "--config=experiments/pretrained_full.py:smoke"
  ended = start(config, f"--workdir={workdir}")
  assert ended.returncode == 0, ended.stderr[-3000:]
  output = workdir.parent / "files"
  output.mkdir()
  ended = command(
    "release",
    config,
    f"--workdir={workdir}",
    "--name=full",
    f"--evaluation={workdir}",
    f"--output={output}",
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  return workdir, output


def test_released_files_are_the_trained_network(released):
  workdir, output = released
  card, params = pretrained.load_params(output / "full")
  config = pretrained_full.get_config("smoke")
  assert card.training["num_steps"] == config.runs.refiner.num_steps == 40
  trained = checkpoints.restore(
    workdir / "refiner" / run_folder.CHECKPOINTS,
    jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params
    ),
    subtree="params",
  ).state
  jax.tree.map(np.testing.assert_array_equal, params, trained)
  assert (card.max_dim, card.dims) == (3, (2, 3))
  # In units of its own spread no coordinate is wider than 1.
  assert {limits["max_spread"] for limits in card.ranges.values()} == {1.0}
  rows = results.read_csv(workdir / "results.csv")
  table = {
    (row.solver, row.num_components, row.metric): row.mean for row in rows
  }
  assert card.metrics
  for own in card.metrics:
    cell = own["solver"], own["num_components"], own["metric"]
    assert own["mean"] == table[cell]
  law = mixtures.TaskConfig(dim=2, num_components=(3,), max_points=128)
  task = jax.jit(lambda key: mixtures.sample_task(key, law, 3))(
    jax.random.key(0)
  )
  found = jax.jit(pretrained.load(output / "full"))(
    jax.random.key(1), task.points, 3, sample_weight=task.sample_weight
  )
  assert found.mixture.covariances.shape[1:] == (2, 2)
  assert np.all(np.isfinite(found.mixture.means))


def test_the_papers_network_is_released_by_the_name_of_its_run(start, tmp_path):
  workdir = tmp_path / "run"
  config = "--config=experiments/tgmm_networks.py:smoke"
  ended = start(
    config, f"--workdir={workdir}", "--config.evaluation.with_baselines=False"
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  ended = command(
    "release",
    config,
    "--config.evaluation.with_baselines=False",
    "--run=tgmm-d2",
    "--name=tgmm-d2",
    f"--workdir={workdir}",
    f"--evaluation={workdir}",
    f"--output={tmp_path}",
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  card = pretrained.read_card(tmp_path / "tgmm-d2")
  assert card.network == "tgmm"
  assert card.title == (
    "isotropic mixtures with known variance by the paper's network, d = 2"
  )
  assert (card.min_dim, card.max_dim, card.dims) == (2, 2, (2,))
  # The other run of the table is not this network.
  assert {own["solver"] for own in card.metrics} == {"tgmm", "tgmm+em5"}


def test_card_is_held_against_the_table(released):
  workdir, output = released
  path = output / "full.json"
  flags = f"--name={path}", f"--workdir={workdir}"
  ended = command("check_card", *flags)
  assert ended.returncode == 0, ended.stderr[-3000:]
  assert " 0 farther apart" in ended.stdout
  card = json.loads(path.read_text())
  card["metrics"][0]["mean"] += 100.0
  other = output / "other" / "full.json"
  other.parent.mkdir()
  other.write_text(json.dumps(card))
  ended = command("check_card", f"--name={other}", flags[1])
  assert ended.returncode == 1
  assert " 1 farther apart" in ended.stdout


def test_one_unknown_variance_is_trained_and_scored(tmp_path):
  config = pretrained_tied_spherical.get_config("smoke")
  experiment = pretrained_tied_spherical.experiment(config, tmp_path)
  experiment.run("train_and_evaluate")
  rows = results.read_csv(tmp_path / "results.csv")
  assert {row.metric for row in rows} >= {"l2_error", "scale_error"}
  assert all(np.isfinite(row.mean) for row in rows)


def test_rules_of_the_law_are_given_to_both(tmp_path):
  config = prior_rules.get_config("smoke")
  prior_rules.experiment(config, tmp_path).run("train_and_evaluate")
  rows = results.read_csv(tmp_path / "curves.csv", results.CurveRow)
  found = {row.series: row for row in rows}
  expected = {
    f"8 {kind}, {rule}"
    for kind in (prior_rules.START, prior_rules.NETWORK)
    for rule in prior_rules.RULES
  }
  assert set(found) == expected | {prior_rules._LIMIT}
  assert all(np.isfinite(row.value) for row in rows)
  assert (tmp_path / "figures" / "rules.png").exists()


def test_each_rule_chooses_among_the_same_tries():
  law = mixtures.TaskConfig(
    dim=2, num_components=(2,), min_points=32, max_points=32
  )
  batch = jax.jit(mixtures.sample_batch, static_argnums=(1, 2))(
    jax.random.key(0), law, 3
  )
  inside = np.array([[3.0, 0.0], [0.0, 3.0]], np.float32)

  def solve(key, points, count, *, sample_weight):
    """Likelier outside of the box than inside."""
    del points, count, sample_weight
    is_outside = jax.random.bernoulli(key)
    return types.SolverResult(
      mixture=types.Mixture(
        np.full(2, 0.5, np.float32), inside * (1.0 + 2.0 * is_outside)
      ),
      log_likelihood=-1.0 + 0.5 * is_outside,
      num_iters=np.int32(0),
      status=np.int32(types.Status.CONVERGED),
    )

  answer = prior_rules._answers(solve, law, 16)
  likeliest, allowed, mean = answer(jax.random.key(1), batch)
  np.testing.assert_allclose(likeliest.means, np.stack([3.0 * inside] * 3))
  np.testing.assert_allclose(allowed.means, np.stack([inside] * 3))
  np.testing.assert_allclose(mean.means, np.stack([inside] * 3), atol=1e-5)
