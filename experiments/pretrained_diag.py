"""The shipped network for anisotropic mixtures.

  python -m experiments.main --config=experiments/pretrained_diag.py[:VARIANT]

One `refiner` that answers with a standard deviation for every component and
coordinate too, for d = 1 to 8, K = 1 to 5 and any N, trained on N = 16 to 128.
`python -m experiments.release` makes the shipped files of the finished run.

No variant: 40,000 steps.
`:quick`: 8,000 steps, minutes.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import jobs, mixture_base, variants

VARIANTS = ("", "quick", "smoke")

experiment = jobs.Experiment
sweep = mixture_base.sweep


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  variants.check(variant, VARIANTS)
  config = mixture_base.get_config()
  config.title = "Pretrained: anisotropic mixtures"
  config.question = (
    "How good is the shipped network for mixtures with diagonal covariances,"
    " for few and many dimensions and points?"
  )
  config.variant = variant
  config.tasks.covariance_type = "diag"
  config.tasks.num_components = (1, 2, 3, 4, 5)
  config.tasks.min_points = 16
  config.evaluation.num_components = (1, 2, 3, 4, 5)
  config.evaluation.dims = (1, 2, 4, 8)
  config.evaluation.num_points = (16, 128, 1024) if not variant else (128,)
  # Peers are in RQ1's table (`rq1.py:pretrained`) and on the frontier.
  config.evaluation.with_baselines = False
  run = mixture_base.refiner_run()
  run.solver = "pretrained"
  run.dims = (1, 2, 3, 4, 5, 6, 8)
  run.batch_sizes = (3, 10, 5, 4, 3, 3, 4)
  run.model.rank = 8
  variants.make_small(run, num_steps=8_000 if variant == "quick" else 40_000)
  run.checkpoint_every = min(run.num_steps, 10_000) // 2
  config.runs.refiner = run
  if variant == "smoke":
    run.model.rank = 3
    variants.make_smoke(config)
  return config
