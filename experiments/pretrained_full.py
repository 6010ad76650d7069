"""The shipped network for mixtures with full covariances.

  python -m experiments.main --config=experiments/pretrained_full.py[:VARIANT]

One `refiner` for d = 1 to 8, K = 1 to 5 and any N, trained on N = 16 to 128 of
a broad law: shapes from round to thin, sizes and weights that differ, overlap
from none to heavy. It reads whitened points, so no linear map of the data
changes its answer.
`experiments.shipping.release` makes the shipped files of the finished run.

No variant: 80,000 steps, 41 minutes on 2 CPU cores beside other work.
`:shipped`: trains nothing; gives the numbers on the card of the shipped
network, in minutes (`experiments.shipping.check_card` compares them).
`:quick`: 10,000 steps.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import mixtures
from experiments.shipping import config as shipping_config

VARIANTS = shipping_config.VARIANTS

experiment = mixtures.experiment
sweep = mixtures.sweep

CONCLUSION = (
  "With 8 views and 5 EM steps the network goes on to gain at N = 1,024, eight"
  " times the points of its training, in every cell, and at d = 8 the views are"
  " worth most."
  " It fails where a component has few points for its covariance: at d = 8,"
  " N = 16 on nearly every task from K = 2 on; and of five components a quarter"
  " of the tasks or more fail at d = 2 whatever N."
)
PAGES = shipping_config.pages(CONCLUSION, (2, 8))


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  config = shipping_config.get_config(
    variant,
    covariance_type="full",
    **shipping_config.ALL_COORDINATES,
    num_steps=80_000,
  )
  config.title = "Pretrained: mixtures with full covariances"
  config.question = (
    "How good is the shipped network for mixtures of all shapes, for few and"
    " many dimensions and points?"
  )
  # The law is broad: components may be small, and their means anywhere.
  config.tasks.min_weight = 0.05
  config.tasks.max_cosine = 1.0
  return config
