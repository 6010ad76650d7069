"""The theorems as networks: how near are they to the algorithms they perform?

  python -m experiments.main --config=experiments/constructed.py[:VARIANT]

Nothing is trained. No variant: many problems and up to 1,024 segments, a long
run. `:quick`: minutes, every claim. `:smoke`: goes through
everything in seconds, for the tests.
"""

import ml_collections

from experiments import results_pages
from experiments.runner import fields, studies
from experiments.studies.constructed import em as constructed_em
from experiments.studies.constructed import em_truth as constructed_truth
from experiments.studies.constructed import (
  figures as constructed_figures,
)
from experiments.studies.constructed import sizes as constructed_sizes
from experiments.studies.constructed import (
  spectral as constructed_spectral,
)
from experiments.studies.constructed import (
  spectral_network as constructed_network,
)
from tgmm_jax.evaluation import contenders, evaluator
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.tasks import mixtures

VARIANTS = ("", "quick", "smoke")

sweep = studies.sweep

CONCLUSION = (
  "The networks are their algorithms: exactly, to rounding, for tensor power,"
  " to what is asked for at the predicted number of iterations for the power"
  " method, and for EM to an error that falls with the number of segments and"
  " is smaller with three layers a step than with two."
  " They have their algorithms' limits too: without normalisation tensor power"
  " leaves float32 after four steps, in a few problems a component of EM dies,"
  " and two classes are labelled about as by `eigh`, which is far from Bayes"
  " where they overlap most."
)
_EM = {"study": "em_distance", "metric": "means, 95th percentile"}
_POWER = "1 - |cos| at the predicted tau, largest"
_TENSOR = "error of the direction, largest"


def _line(study, metric, series, x):
  return {"study": study, "metric": metric, "series": series, "x": float(x)}


PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Distance between a network and its algorithm: of EM the 95th percentile"
      " of the largest difference of a mean over the problems, which have"
      " failed where a component dies; of the others the largest of all"
      " problems. The last two lines are shares of misclassified points.",
      {
        "EM, 1 step, 16 segments": _EM
        | {"series": "3 layers a step, 16 segments", "x": 3.0},
        "EM, 1 step, 256 segments": _EM
        | {"series": "3 layers a step, 256 segments", "x": 3.0},
        "EM, 10 steps, 3 layers each, 256 segments": _EM
        | {"series": "3 layers a step, 256 segments", "x": 30.0},
        "EM, 10 steps, 2 layers each, 256 segments": _EM
        | {"series": "2 layers a step, 256 segments", "x": 20.0},
        "tensor power, direction after 4 steps, float32": _line(
          "tensor", _TENSOR, "float32", 4
        ),
        "power method, third eigenvector, ratio 0.9": _line(
          "power", _POWER, "ratio 0.9", 3
        ),
        "two classes, d = 16, |mu| = 0.5, network": _line(
          "two_classes", "error", "network, d = 16, N = 512", 0.5
        ),
        "two classes, d = 16, |mu| = 0.5, eigh": _line(
          "two_classes", "error", "eigh, d = 16, N = 512", 0.5
        ),
      },
      {"value": {}},
    ),
    figures={
      "em_distance": "EM: network and algorithm, layer by layer",
      "two_classes": "Two classes: misclassification against separation",
      "residual_stream": "The residual stream of the network that performs EM,"
      " one step",
    },
  ),
}


# What each study measures, at full size.
_SETTINGS = {
  "em_distance": {
    "dims": (2, 8, 32),
    "num_components": (2, 3, 4, 5),
    "num_points": (64, 128, 512),  # largest N; each N is between half and all
    "mean_range": 5.0,  # means are uniform on [-5, 5], however near each other
    "num_problems": 400,  # for each d and largest N
    "segments": (16, 64, 256, 1024),  # of each approximated function
    "num_steps": 10,  # L
  },
  "em_limit": {
    "dims": (2,),
    "num_components": (2,),
    "num_points": (128,),
    "mean_range": 2.5,  # overlap: EM takes its time
    "num_problems": 200,
    "segments": (16, 64, 256, 1024),
    "num_steps": 40,
    "num_exact": 1000,  # steps of EM taken for its limit
  },
  "em_truth": {
    # The first of each is a kind of problem, the second of each another.
    "dims": (2, 2, 2, 2, 2, 8, 32, 32, 32),
    "num_components": (2, 2, 2, 3, 5, 3, 2, 5, 5),
    "separations": (2.0, 3.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 6.0),  # of means
    "num_points": (64, 128, 256, 512, 1024, 2048, 4096, 8192),
    "num_population": 65536,
    "max_network": 256,  # largest N of the network
    "segments": 256,
    "num_problems": 40,
    "num_steps": 60,
    "num_exact": 400,
  },
  "tensor": {
    "dim": 8,
    "num_points": 128,
    "num_problems": 200,
    "num_steps": 8,
  },
  "power": {
    "dim": 16,
    "num_points": 64,
    "num_vectors": 3,  # k
    "ratios": (0.5, 0.7, 0.9, 0.95),  # of eigenvalues that follow each other
    "num_steps": 80,  # tau
    "num_problems": 200,
  },
  "two_classes": {
    "dims": (16, 32),
    "num_points": (512, 128),
    "separations": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0),  # |mu|
    "num_steps": 30,  # tau
    "num_problems": 1000,
  },
  "spectral_equality": {
    "dims": (4, 8, 16),
    "num_components": (2, 3, 4),
    "num_points": (128, 1024),
    "num_problems": 100,
    "segments": 64,
  },
  "spectral_errors": {
    "dim": 8,
    "num_components": 3,
    "num_points": 128,
    "num_problems": 100,
    "segments": (32, 64, 128, 256, 512),
    "num_newton": (0, 1, 2),  # after each curve
    "num_squarings": (0, 2, 4, 6, 8, 10),  # tau = 2^s
    "num_iters": (1, 2, 3, 4, 6, 8, 12, 20),  # of the tensor, twice
  },
  "sizes": {
    "dim": 32,  # d0
    "num_components": 5,  # K0
    "num_points": 128,
    "num_vectors": 3,
    "segments": 256,
    "num_steps": 10,  # L or tau
  },
  "solvers": {
    "dims": (8, 32),
    "num_components": (2, 3, 4, 5),
    "num_points": 128,
    "num_tasks": 1280,
  },
  "residual_stream": {
    "num_components": 2,
    "num_points": 6,
    "segments": 256,
  },
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = studies.get_config()
  config.title = "Constructed transformers"
  config.question = (
    "Both papers prove that a transformer can carry out a classical algorithm"
    " by writing its weights down. These are such networks: how near is each to"
    " its algorithm, what does the approximation cost, and where do numbers"
    " end?"
  )
  config.variant = variant
  for name, settings in _SETTINGS.items():
    config.studies[name] = ml_collections.ConfigDict(settings)
  if variant == "quick":
    _make_quick(config.studies)
  elif variant == "smoke":
    _make_smoke(config.studies)
  return config


def _make_quick(settings):
  settings.em_distance.segments = (16, 64, 256)
  settings.em_distance.num_points = (64, 128)
  settings.em_distance.num_problems = 68
  settings.em_limit.segments = (16, 64, 256)
  settings.em_limit.num_problems = 48
  settings.em_truth.num_points = (64, 256, 1024, 4096)
  settings.em_truth.num_problems = 16
  settings.em_truth.num_population = 16384
  settings.tensor.num_problems = 50
  settings.power.num_problems = 40
  settings.two_classes.num_problems = 100
  settings.two_classes.separations = (0.5, 1.0, 1.5, 2.0, 3.0)
  settings.spectral_equality.num_points = (128,)
  settings.spectral_equality.num_problems = 40
  settings.spectral_errors.num_problems = 16
  settings.solvers.dims = (8,)
  settings.solvers.num_tasks = 256


def _make_smoke(settings):
  settings.em_distance.update(
    dims=(2,), num_components=(2,), num_points=(32,), num_problems=4
  )
  settings.em_distance.update(segments=(16,), num_steps=3)
  settings.em_limit.update(num_points=(32,), num_problems=4, segments=(16,))
  settings.em_limit.update(num_steps=12, num_exact=100)
  settings.em_truth.update(dims=(2,), num_components=(2,), separations=(4.0,))
  settings.em_truth.num_points = (32, 64)
  settings.em_truth.update(num_population=128, max_network=32, segments=16)
  settings.em_truth.update(num_problems=4, num_steps=20, num_exact=100)
  settings.tensor.update(dim=3, num_points=16, num_problems=4, num_steps=6)
  settings.power.update(dim=3, num_points=16, num_vectors=2, ratios=(0.5,))
  settings.power.update(num_steps=10, num_problems=4)
  settings.two_classes.update(dims=(3,), num_points=(64,), num_problems=4)
  settings.two_classes.separations = (2.0,)
  settings.spectral_equality.update(dims=(3,), num_components=(2,))
  settings.spectral_equality.update(num_points=(32,), num_problems=4)
  settings.spectral_errors.update(dim=3, num_components=2, num_points=32)
  settings.spectral_errors.update(num_problems=4, segments=(64,))
  settings.spectral_errors.update(num_newton=(4,), num_squarings=())
  settings.spectral_errors.num_iters = ()
  settings.sizes.update(dim=4, num_vectors=2, segments=16, num_steps=3)
  settings.solvers.update(dims=(3,), num_components=(2,), num_points=32)
  settings.solvers.num_tasks = 8
  settings.residual_stream.segments = 64


def _measure_solvers(settings, seed, on_step):
  """The constructed solvers in a table beside EM, spectral and the limits."""
  baselines = contenders.baselines()
  wanted = ("em/k-means++", "spectral", "em/oracle", "labels")
  groups = {name: baselines[name] for name in wanted}
  groups |= contenders.constructed(
    max(settings.dims), max(settings.num_components)
  )
  # Two classes are K = 2 alone.
  two = {contenders.TWO_CLASSES: groups.pop(contenders.TWO_CLASSES)}
  law = mixtures.TaskConfig(
    dim=min(settings.dims),
    num_components=settings.num_components,
    max_points=settings.num_points,
    min_points=settings.num_points,
  )
  rows = []
  for part, counts in ((groups, settings.num_components), (two, (2,))):
    config = mixture_evaluation.EvaluationConfig(
      tasks=law,
      dims=settings.dims,
      num_components=counts,
      num_points=(settings.num_points,),
      num_tasks=settings.num_tasks,
      seed=seed,
    )
    rows += _score(part, config, on_step)
  return rows


def _score(groups, config, on_step):
  """Solvers in all cells of an evaluation, a step for each law."""
  laws = list(config.laws())
  rows = []
  for done, law in enumerate(laws):
    rows += evaluator.run(
      mixture_evaluation.make(groups, [law], config.num_tasks, config.seed)
    )
    on_step(done + 1, len(laws))
  return rows


STUDIES = {
  "em_distance": studies.Study(
    "EM: network and algorithm, layer by layer",
    constructed_em.em_distance,
    constructed_figures.draw_em_distance,
    constructed_figures.tabulate_em_distance,
  ),
  "em_limit": studies.Study(
    "EM: distance to the limit and the bound a beta^L + eps / (1 - beta)",
    constructed_em.em_limit,
    constructed_figures.draw_em_limit,
    constructed_figures.tabulate_em_limit,
  ),
  "em_truth": studies.Study(
    "EM: rate, and distance from the truth, with N",
    constructed_truth.em_truth,
    constructed_figures.draw_em_truth,
    constructed_figures.tabulate_em_truth,
  ),
  "tensor": studies.Study(
    "Cubic tensor power iteration: exactness, growth and range",
    constructed_spectral.tensor,
    constructed_figures.draw_tensor,
  ),
  "power": studies.Study(
    "Power method: error of the eigenvectors",
    constructed_spectral.power,
    constructed_figures.draw_power,
    constructed_figures.tabulate_power,
  ),
  "two_classes": studies.Study(
    "Two classes: misclassification against separation",
    constructed_spectral.two_classes,
    constructed_figures.draw_two_classes,
  ),
  "residual_stream": studies.Study(
    "The residual stream of the network that performs EM, one step",
    constructed_em.residual_stream,
    constructed_figures.draw_residual_stream,
  ),
  "spectral_equality": studies.Study(
    "The whole spectral method: network and method, same starts",
    constructed_network.equality,
    None,
    constructed_figures.tabulate_equality,
  ),
  "spectral_errors": studies.Study(
    "The whole spectral method: error against segments and steps",
    constructed_network.errors,
    constructed_figures.draw_spectral_errors,
    constructed_figures.tabulate_orders,
  ),
  "sizes": studies.Study(
    "Sizes of the networks",
    constructed_sizes.sizes,
    None,
    constructed_figures.tabulate_sizes,
  ),
  "solvers": studies.Study("Solvers", _measure_solvers),
}

experiment = studies.experiment_of(STUDIES, get_config)
