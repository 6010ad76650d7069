import functools
import json

import chex
import jax
import numpy as np
import pytest

from tgmm_jax.models import factory, tgmm
from tgmm_jax.tasks import mixtures
from tgmm_jax.training import (
  checkpoints,
  hosts,
  loop,
  optim,
  run_folder,
  sharding,
)
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import mixtures as mixture_learner

NUM_STEPS = 12


class Stop:
  """Asks to stop when it is asked for the given time; 0: never."""

  def __init__(self, at=0):
    self._at = at
    self._num_asked = 0

  def is_requested(self):
    self._num_asked += 1
    return 0 < self._at <= self._num_asked


@functools.cache
def learner():
  model = factory.build(
    tgmm.TGMMConfig(
      dim=2,
      num_components=(2, 3),
      width=8,
      num_layers=1,
      num_heads=2,
      embedding_width=4,
    )
  )
  law = mixtures.TaskConfig(
    dim=2, num_components=(2, 3), min_points=8, max_points=8
  )
  return mixture_learner.make(
    model, mixture_learner.MixtureTraining(tasks=(law,), batch_sizes=(4,))
  )


def config_of(**changes):
  defaults = {
    "num_steps": NUM_STEPS,
    "steps_per_call": 3,
    "checkpoint_every": 6,
    "optimizer": optim.OptimizerConfig(learning_rate=1e-2),
  }
  return train_step.TrainConfig(**{**defaults, **changes})


def run(folder, config=None, stop=None, **options):
  return loop.run(
    folder,
    learner(),
    config or config_of(),
    sharding.make_mesh(1),
    identity={"name": "test"},
    stop=stop or Stop(),
    **options,
  )


def newest(folder, config=None):
  return checkpoints.restore(
    folder / run_folder.CHECKPOINTS,
    train_step.abstract_state(learner(), config or config_of()),
  )


def lines(folder):
  text = (folder / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def contents(folder):
  return {
    path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
  }


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
  """Programs on disk, so that a second start need not compile."""
  settings = {
    "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
    "jax_persistent_cache_min_compile_time_secs": 0,
  }
  before = {name: getattr(jax.config, name) for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """Folder, parameters and reports of a run that was never stopped."""
  folder = tmp_path_factory.mktemp("straight")
  reports = []
  params = run(folder, on_progress=reports.append)
  return folder, params, reports


def test_run_saves_its_end_and_reports_every_call(straight):
  folder, params, reports = straight
  restored = newest(folder)
  assert restored.step == int(restored.state.step) == NUM_STEPS
  assert restored.config == {"name": "test"}
  chex.assert_trees_all_equal(restored.state.params, params)
  assert [report.step for report in reports] == [3, 6, 9, 12]
  assert {report.num_steps for report in reports} == {NUM_STEPS}
  assert all(report.steps_per_second > 0 for report in reports)
  written = lines(folder)
  assert [line["step"] for line in written] == [3, 6, 9, 12]
  for report, line in zip(reports, written, strict=True):
    assert line["loss"] == report.scalars["loss"] > 0
    assert line["num_skipped"] == 0
    assert line["l2_error/d2"] > 0


def test_run_that_is_over_changes_nothing(straight):
  folder, params, _ = straight
  before = contents(folder)
  reports = []
  chex.assert_trees_all_equal(run(folder, on_progress=reports.append), params)
  assert not reports
  assert contents(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 4])
def test_stopped_run_goes_on_to_the_same_bits(straight, tmp_path, at):
  folder, params, _ = straight
  step = 3 * (at - 1)
  with pytest.raises(hosts.StoppedError, match=f"at step {step}"):
    run(tmp_path, stop=Stop(at), save_interval=0.0)  # after every call
  if step:
    assert newest(tmp_path).step == step
  chex.assert_trees_all_equal(run(tmp_path, save_interval=0.0), params)
  chex.assert_trees_all_equal(newest(tmp_path).state, newest(folder).state)
  assert lines(tmp_path) == lines(folder)
  # Of the saves by time none is left.
  kept = {path.name for path in (tmp_path / run_folder.CHECKPOINTS).iterdir()}
  assert kept == {"6", "12"}


@pytest.mark.slow
def test_own_folder_comes_before_restore_dir_and_that_before_scratch(
  straight, tmp_path
):
  folder, _, _ = straight
  longer = config_of(num_steps=15, checkpoint_every=3)
  reports = []
  params = run(tmp_path, longer, restore_dir=folder, on_progress=reports.append)
  # It goes on where the other run ended: with its step, so with new tasks.
  assert [report.step for report in reports] == [15]
  unbroken = tmp_path / "unbroken"
  chex.assert_trees_all_equal(run(unbroken, longer), params)
  assert newest(tmp_path).step == 15

  reports = []
  run(tmp_path, longer, restore_dir=folder, on_progress=reports.append)
  assert not reports
  with pytest.raises(checkpoints.CheckpointError, match="holds no checkpoint"):
    run(tmp_path / "new", restore_dir=tmp_path / "none")
  # More steps than are wanted: that is not the training that was asked for.
  with pytest.raises(
    checkpoints.CheckpointError, match="step 15 was restored, takes at most"
  ):
    run(tmp_path / "new", restore_dir=tmp_path)
  with pytest.raises(checkpoints.CheckpointError, match="holds no checkpoint"):
    newest(tmp_path / "new")


@pytest.mark.slow
def test_updates_that_stay_bad_stop_the_run(tmp_path):
  # The first update is finite, but no loss is finite after it.
  config = config_of(
    optimizer=optim.OptimizerConfig(learning_rate=1e37), max_skipped_in_row=4
  )
  reports = []
  with pytest.raises(loop.NonFiniteError, match="^step 5: 4 updates in a row"):
    run(tmp_path, config, on_progress=reports.append)
  assert [report.step for report in reports] == [3]
  assert np.isnan(reports[0].scalars["loss"])
  assert reports[0].scalars["num_skipped"] == 2
  # What was saved, if anything, is finite: the save itself checks that.
  steps = [path.name for path in (tmp_path / run_folder.CHECKPOINTS).iterdir()]
  assert set(steps) <= {"6"}


@pytest.mark.slow
def test_bad_update_is_counted_and_the_run_goes_on(tmp_path, monkeypatch):
  make = train_step.make_train_step

  def make_with_a_fault(*args):
    step = make(*args)

    def with_a_fault(state, data):
      is_bad = state.step == 4
      poisoned = jax.tree.map(
        lambda leaf: leaf + jax.numpy.where(is_bad, np.nan, 0.0), state.params
      )
      after, scalars = step(state._replace(params=poisoned), data)
      params = jax.tree.map(
        lambda new, old: jax.numpy.where(is_bad, old, new),
        after.params,
        state.params,
      )
      return after._replace(params=params), scalars

    return with_a_fault

  monkeypatch.setattr(train_step, "make_train_step", make_with_a_fault)
  run(tmp_path)
  assert newest(tmp_path).step == NUM_STEPS
  assert [line["num_skipped"] for line in lines(tmp_path)] == [0, 1, 1, 1]
  assert lines(tmp_path)[1]["loss"] == "NaN"
