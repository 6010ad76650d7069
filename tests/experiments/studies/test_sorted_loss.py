"""The optimum of the sorted loss, from the command to the page."""

import pytest

from tgmm_jax.evaluation import results, sorted_loss


@pytest.mark.slow
def test_the_optimum_stands_beside_em_and_the_network(start, tmp_path):
  workdir = tmp_path / "run"
  ended = start(
    "--config=experiments/sorted_loss.py:smoke", f"--workdir={workdir}"
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  rows = results.read_csv(workdir / "results.csv")
  assert {row.count for row in rows} == {16}
  found = {(row.solver, row.num_components, row.metric): row for row in rows}
  others = ("em/normal", "em/oracle", "pretrained")
  for count in (2, 3):
    optimum = found[sorted_loss.OPTIMUM, count, "l2_error"]
    loss = found[sorted_loss.OPTIMUM, count, "sorted_error"]
    assert optimum.mean < loss.mean
    assert optimum.failures == loss.failures > 0
    for solver in others:
      assert found[solver, count, "l2_error"].mean < optimum.mean
  assert (workdir / "figures" / "optimum.png").exists()
