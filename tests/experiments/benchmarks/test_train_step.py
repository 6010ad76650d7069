import jax
import jax.numpy as jnp
import pytest

from experiments import rq1
from experiments.benchmarks import train_step as bench_train_step
from experiments.mixtures import config as mixture_config
from tgmm_jax.models import tgmm
from tgmm_jax.tasks import mixtures
from tgmm_jax.training import sharding
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import mixtures as mixture_learner


def flops(function, *arguments):
  jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
  return bench_train_step.product_flops(jaxpr)


def test_flops_of_products_by_hand():
  left, right = jnp.ones((5, 2, 3)), jnp.ones((5, 3, 7))

  @jax.jit
  def repeated(left):
    def body(carry, _):
      return carry @ jnp.ones((3, 3)), None

    return jax.lax.scan(body, left, length=11)[0]

  assert flops(jnp.matmul, left, right) == 2 * 5 * 2 * 3 * 7
  assert flops(repeated, left) == 11 * 2 * 10 * 3 * 3
  assert flops(jnp.sin, left) == 0


def test_flops_of_the_papers_step():
  # The backbone, forward and twice that backward; the rest is under 2%.
  tasks = mixture_learner.MixtureTraining((mixtures.TaskConfig(dim=2),))
  run = mixture_config.MixtureRun(
    "tgmm", "tgmm", tgmm.TGMMConfig(dim=2), tasks, train_step.TrainConfig()
  )
  case = bench_train_step.make_case("tgmm", run, steps_per_call=2)
  counted = bench_train_step.step_flops(case, sharding.make_mesh(1))
  tasks, points, width, num_layers = 64, 128, 128, 12
  forward = num_layers * tasks * points * (24 * width**2 + 4 * points * width)
  assert counted == pytest.approx(3 * forward, rel=0.02)


@pytest.mark.slow
def test_every_column_of_a_smoke_case():
  run = next(
    run
    for run in mixture_config.make_plan(rq1.get_config("smoke")).runs
    if run.name == "tgmm-d2"
  )
  case = bench_train_step.make_case("smoke", run, steps_per_call=2)
  row = bench_train_step.measure(case, sharding.make_mesh(1), repeats=1)
  assert row[0] == "smoke"
  numbers = [float(cell.rstrip("%").replace(",", "")) for cell in row[1:]]
  assert all(number >= 0 for number in numbers)
  steps_per_second, tasks_per_second = numbers[:2]
  assert tasks_per_second == pytest.approx(8 * steps_per_second, rel=0.1)
