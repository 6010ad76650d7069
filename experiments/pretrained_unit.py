"""The shipped network for isotropic mixtures with known variance.

  python -m experiments.main --config=experiments/pretrained_unit.py[:VARIANT]

One `refiner` for every dimension, K = 1 to 5 and any N, trained on N = 16 to
128. The table has RQ1's cells at N = 128 and those of few and many points.
`python -m experiments.release` makes the shipped files of the finished run.

No variant: 100,000 steps, about an hour on 2 CPU cores.
`:quick`: 12,000 steps; four minutes and most of the way.
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
  config.title = "Pretrained: isotropic mixtures with known variance"
  config.question = (
    "How good is the shipped network for isotropic mixtures, in every"
    " dimension and for few and many points?"
  )
  config.variant = variant
  config.tasks.num_components = (1, 2, 3, 4, 5)
  config.tasks.min_points = 16
  config.evaluation.num_components = (1, 2, 3, 4, 5)
  config.evaluation.dims = (1, 2, 3, 8, 32, 128)
  config.evaluation.num_points = (16, 128, 1024) if not variant else (128,)
  # Peers are in RQ1's table (`rq1.py:pretrained`) and on the frontier.
  config.evaluation.with_baselines = False
  run = mixture_base.refiner_run()
  run.solver = "pretrained"
  run.dims = (1, 2, 3, 5, 8, 32, 128)
  run.batch_sizes = (2, 10, 5, 5, 4, 3, 3)
  variants.make_small(run, num_steps=12_000 if variant == "quick" else 100_000)
  run.checkpoint_every = min(run.num_steps, 10_000) // 2
  config.runs.refiner = run
  if variant == "smoke":
    variants.make_smoke(config)
  return config
