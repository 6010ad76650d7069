import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation.evaluated import (
  NUM_TASKS,
  anisotropic_law,
  cells,
  evaluate,
  law_of,
  truth,
)
from tgmm_jax import types
from tgmm_jax.evaluation import contenders
from tgmm_jax.evaluation import mixtures as mixture_evaluation


def one_failure(batch):
  result = truth(batch)
  means = result.mixture.means.at[0].add(jnp.array([100.0, 0.0]))
  return result._replace(
    mixture=result.mixture._replace(means=means),
    status=result.status.at[0].set(types.Status.DEGENERATE),
    num_iters=result.num_iters.at[1].set(24),
  )


def test_a_cells_tasks_do_not_depend_on_the_other_cells():
  batch, fresh = mixture_evaluation.sample_tasks(law_of(), NUM_TASKS, 7)
  other_law = law_of(num_components=(5, 3), num_points=(32,))
  other, other_fresh = mixture_evaluation.sample_tasks(other_law, NUM_TASKS, 7)
  second, first = slice(NUM_TASKS, None), slice(NUM_TASKS)
  np.testing.assert_array_equal(batch.num_components[first], 2)
  np.testing.assert_array_equal(batch.num_components[second], 3)
  np.testing.assert_array_equal(other.num_components[first], 5)
  for a, b in zip(
    jax.tree.leaves((batch, fresh)),
    jax.tree.leaves((other, other_fresh)),
    strict=True,
  ):
    np.testing.assert_array_equal(a[second], b[second])


@pytest.mark.slow
def test_fewer_tasks_are_the_first_of_more():
  many, _ = mixture_evaluation.sample_tasks(law_of(), NUM_TASKS, 7)
  few, _ = mixture_evaluation.sample_tasks(law_of(), 3, 7)
  np.testing.assert_array_equal(few.points[:3], many.points[:3])
  np.testing.assert_array_equal(
    few.points[3:], many.points[NUM_TASKS : NUM_TASKS + 3]
  )


def test_tasks_are_the_seeds_and_all_different():
  batch, fresh = mixture_evaluation.sample_tasks(law_of(), NUM_TASKS, 7)
  points = np.asarray(batch.points).reshape(2 * NUM_TASKS, -1)
  assert len(np.unique(points[:, 0])) == 2 * NUM_TASKS
  assert not np.any(np.isin(fresh, batch.points))
  other, _ = mixture_evaluation.sample_tasks(law_of(), NUM_TASKS, 8)
  assert not np.any(np.isin(other.points, batch.points))


def test_laws_are_all_settings():
  config = cells(dims=(2, 8), num_points=(16, 64), shifts=(0.0, 1.0))
  laws = list(config.laws())
  assert len(laws) == len(set(laws)) == 8
  assert {law.num_components for law in laws} == {(2, 3)}
  assert {law.min_points == law.max_points for law in laws} == {True}
  # Arrays of one shape whatever the K of the cells, as the networks give.
  assert {law.padded_components for law in laws} == {5}


def test_rows_are_complete_and_count_failures():
  groups = {
    "truth": lambda key, batch: {"truth": truth(batch)},
    "pair": lambda key, batch: {
      "a": one_failure(batch),
      "b": truth(batch),
    },
  }
  seen = []
  rows = evaluate(
    groups,
    law_of(),
    NUM_TASKS,
    7,
    on_contender=lambda law, name: seen.append(name),
  )
  assert seen == ["truth", "pair"]
  names = {row.metric for row in rows}
  assert names >= {
    "l2_error",
    "l2_error_released",
    mixture_evaluation.AS_RELEASED,
    "weight_error",
    "accuracy",
    "log_likelihood",
    "log_likelihood_fresh",
    "num_iters",
    "degenerate",
  }
  found = {(row.solver, row.num_components, row.metric): row for row in rows}
  assert len(found) == len(rows) == 3 * 2 * len(names)
  for row in rows:
    assert (row.dim, row.num_points, row.shift) == (2, 32, 0.0)
    is_hit = row.solver == "a" and row.num_components == 2
    # A mean so far away is left out of this one, as it was published.
    is_left_out = is_hit and row.metric == mixture_evaluation.AS_RELEASED
    assert row.count == NUM_TASKS - is_left_out
    assert np.isfinite(row.mean)
    assert row.failures == is_hit - is_left_out
  assert found["truth", 3, "l2_error"].mean == 0.0
  assert found["truth", 3, "weight_error"].mean == 0.0
  error = found["a", 2, "l2_error"]
  # 100^2 in one of two coordinates, over the tasks.
  np.testing.assert_allclose(error.mean, 5000.0 / NUM_TASKS, rtol=1e-3)
  assert found["a", 2, "degenerate"].mean == 1 / NUM_TASKS
  assert found["a", 2, "num_iters"].mean == 24 / NUM_TASKS
  assert found["b", 2, "l2_error"].mean == 0.0
  assert found["a", 2, mixture_evaluation.AS_RELEASED].mean == 0.0


def test_what_the_published_averages_leave_out_of_all_has_no_row():
  def group(key, batch):
    result = truth(batch)
    means = result.mixture.means.at[:NUM_TASKS].add(1e4)
    means = means.at[-1].set(jnp.nan)
    return {"a": result._replace(mixture=result.mixture._replace(means=means))}

  rows = evaluate({"a": group}, law_of(), NUM_TASKS, 7)
  (row,) = [row for row in rows if row.metric == mixture_evaluation.AS_RELEASED]
  assert (row.num_components, row.count, row.failures) == (3, NUM_TASKS - 1, 0)
  assert row.mean == 0.0


def test_a_solvers_rows_do_not_depend_on_the_others():
  drawn = {}

  def draws(name):
    def group(key, batch):
      drawn.setdefault(name, []).append(jax.random.key_data(key))
      return {name: truth(batch)}

    return group

  alone = evaluate({"b": draws("b")}, law_of(), NUM_TASKS, 7)
  groups = {"a": draws("a"), "b": draws("b")}
  both = evaluate(groups, law_of(), NUM_TASKS, 7)
  assert alone == [row for row in both if row.solver == "b"]
  np.testing.assert_array_equal(*drawn["b"])


@pytest.mark.slow
def test_reference_rows():
  law = law_of(num_points=(64,))
  num_tasks = 256
  groups = {
    name: group
    for name, group in contenders.baselines().items()
    if name in ("em/oracle", "em/normal", "labels")
  }
  rows = evaluate(groups, law, num_tasks, 7)
  error = {
    (row.solver, row.num_components): row.mean
    for row in rows
    if row.metric == "l2_error"
  }
  batch = jax.device_get(mixture_evaluation.sample_tasks(law, num_tasks, 7)[0])
  for index, count in enumerate((2, 3)):
    expected = []
    for task in range(index * num_tasks, (index + 1) * num_tasks):
      points, labels = batch.points[task], batch.labels[task]
      errors = [
        ((points[labels == k].mean(0) - batch.mixture.means[task, k]) ** 2)
        for k in range(count)
      ]
      expected.append(np.mean(errors))
    # Means of the points by their true labels: no estimate knows more.
    np.testing.assert_allclose(
      error["labels", count], np.mean(expected), rtol=1e-4
    )
    assert error["labels", count] <= 1.05 * error["em/oracle", count]
  # The table of limits has .036 and .66 for 128 points.
  assert error["em/oracle", 3] < 0.2
  assert error["em/normal", 3] > 0.3


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"dims": ()}, "dims is empty, takes at least one value"),
    ({"num_components": ()}, "num_components is empty"),
    ({"num_points": ()}, "num_points is empty"),
    ({"shifts": ()}, "shifts is empty"),
    ({"dims": (2, 2)}, "dims is .2, 2., takes each value once"),
    ({"dims": (0,)}, "dim is 0, takes an integer >= 1"),
    ({"num_points": (0,)}, "takes 1 <= min_points"),
    ({"num_components": (0,)}, "takes integers K >= 1"),
    ({"shifts": (-1.0,)}, "shift is -1.0, takes a finite number >= 0"),
    ({"num_tasks": 1}, "num_tasks is 1, takes >= 2"),
    ({"seed": -1}, "seed is -1, takes 0 to"),
  ],
)
def test_config_refuses(change, message):
  with pytest.raises(ValueError, match=message):
    cells(**change)


def test_scales_are_scored_where_they_are_not_known():
  off = jnp.array([0.3, -0.2])

  def group(key, batch):
    result = truth(batch)
    scales = jnp.sqrt(result.mixture.covariances) + off
    mixture = result.mixture._replace(covariances=scales**2)
    return {"a": result._replace(mixture=mixture)}

  rows = evaluate({"a": group}, anisotropic_law(), NUM_TASKS, 7)
  error = [row.mean for row in rows if row.metric == "scale_error"]
  np.testing.assert_allclose(error, [np.mean(off**2)] * 2, rtol=1e-4)
  rows = evaluate(
    {"a": lambda key, batch: {"a": truth(batch)}}, law_of(), NUM_TASKS, 7
  )
  assert "scale_error" not in {row.metric for row in rows}


def test_padding_is_shared_by_several_sizes():
  config = cells(num_points=(16, 32, 64, 128, 256, 512))
  padded = [config.padded_points(n) for n in config.num_points]
  assert padded == [32, 32, 128, 128, 512, 512]
  assert cells(num_points=(128,)).padded_points(128) == 128
  assert cells(num_points=(10, 100)).padded_points(10) == 25
  law = law_of()
  batch, fresh = mixture_evaluation.sample_tasks(law, 4, 7, 64)
  assert batch.points.shape[1] == fresh.shape[1] == 64
  np.testing.assert_array_equal(
    np.sum(batch.sample_weight, axis=1), law.max_points
  )
  np.testing.assert_array_equal(batch.labels[:, law.max_points :], -1)
  np.testing.assert_array_equal(batch.points[:, law.max_points :], 0.0)
