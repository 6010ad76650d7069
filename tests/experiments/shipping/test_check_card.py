"""The numbers on the cards of the shipped networks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import networks
from experiments.mixtures import shipped
from experiments.shipping import check_card
from tgmm_jax import metrics, pretrained
from tgmm_jax.evaluation import contenders, results
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.models import factory
from tgmm_jax.tasks import mixtures


def row_of(mean, error, **changes):
  cell = {"solver": "pretrained", "dim": 2, "num_components": 3}
  cell |= {"num_points": 128, "metric": "l2_error"}
  cell |= {"shift": 0.0, "shift_kind": "means"}
  return results.Row(
    **(cell | changes),
    mean=mean,
    standard_error=error,
    count=640,
    failures=0,
  )


def test_distances_are_in_standard_errors_of_both():
  card = pretrained.read_card("unit")
  metrics_of = [
    row_of(0.10, 0.03)._asdict(),
    row_of(0.20, 0.0, dim=8)._asdict(),
    row_of(0.20, 0.01, dim=128)._asdict(),
  ]
  object.__setattr__(card, "metrics", metrics_of)
  rows = [row_of(0.35, 0.04), row_of(0.20, 0.0, dim=8)]
  found = check_card.compare(card, rows)
  # The farthest first; what the table lacks is infinitely far.
  assert [entry[-1] for entry in found] == [
    math.inf,
    pytest.approx(5.0, rel=1e-6),
    0.0,
  ]
  assert found[1][0][:3] == ("pretrained", 2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(pretrained.available()))
def test_a_number_on_the_card_is_that_of_other_tasks(name):
  card, params = pretrained.load_params(name)
  law = mixtures.TaskConfig(
    dim=2,
    num_components=(3,),
    min_points=128,
    max_points=128,
    covariance_type=card.config.covariance_type,
    max_components=5,
    # As the config of the network has them.
    **({"min_weight": 0.05, "max_cosine": 1.0} if name == "full" else {}),
  )
  batch, _ = mixture_evaluation.sample_tasks(law, 256, 1)
  solve = factory.solver(factory.build(card.config), params)
  keys = jax.random.split(jax.random.key(5), 256)

  @jax.jit
  def errors_of(keys, batch):
    def error_of(inputs):
      key, task = inputs
      found = solve(key, task.points, task.num_components).mixture
      return metrics.l2_error(
        found.means, task.mixture.means, task.num_components
      )

    return jax.lax.map(error_of, (keys, batch), batch_size=64)

  errors = np.asarray(errors_of(keys, batch))
  solver = shipped.solver_of(name, card.dims)
  (own,) = [
    entry
    for entry in card.metrics
    if (entry["solver"], entry["dim"]) == (solver, 2)
    and (entry["num_components"], entry["num_points"]) == (3, 128)
    and entry["metric"] == "l2_error"
  ]
  error = math.hypot(errors.std() / 16.0, own["standard_error"])
  assert abs(errors.mean() - own["mean"]) < 3.5 * error


def test_the_cards_name_what_gives_their_numbers():
  for name, card in pretrained.available().items():
    solvers = {entry["solver"] for entry in card.metrics}
    own = shipped.solver_of(name, card.dims)
    assert solvers == set(contenders.network_names(own, card.config)), name
    assert "shipped" in card.training["evaluation"], name


def test_forward_pass_is_timed_on_the_answer_itself(monkeypatch):
  monkeypatch.setattr(networks, "_NUM_TASKS", 8)
  monkeypatch.setattr(networks, "_BLOCK", 4)
  card, params = pretrained.load_params("unit")
  params = jax.tree.map(jnp.asarray, params)
  functions, flops = networks.pieces(card, params, networks.sample(2))
  assert set(functions) == {"view", "network", "answer"}
  for function in functions.values():
    function()
  # Pointwise layers alone, by hand: 28 -> 128 -> 64 for 128 points.
  assert flops > 2 * 128 * (28 * 128 + 128 * 64)
  assert flops < 20e6
