"""The shipped network for isotropic mixtures with known variance.

  python -m experiments.main --config=experiments/pretrained_unit.py[:VARIANT]

One `refiner` for every dimension, K = 1 to 5 and any N, trained on N = 16 to
128.
`experiments.shipping.release` makes the shipped files of the finished run.

No variant: 100,000 steps, about an hour on 2 CPU cores.
`:shipped`: trains nothing; gives the numbers on the card of the shipped
network, in minutes (`experiments.shipping.check_card` compares them).
`:quick`: 12,000 steps; four minutes and most of the way.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import mixtures
from experiments.shipping import config as shipping_config

VARIANTS = shipping_config.VARIANTS

experiment = mixtures.experiment
sweep = mixtures.sweep

CONCLUSION = (
  "Trained on 16 to 128 points, the network with 8 views and 5 EM steps goes on"
  " to gain at N = 1,024 in every cell."
  " Where points are few it is better alone: at N = 16, d = 2 EM steps and"
  " views make its answers worse from K = 3 on."
)
PAGES = shipping_config.pages(CONCLUSION, (2, 8, 128))


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  config = shipping_config.get_config(
    variant,
    covariance_type="unit",
    dims=(1, 2, 3, 5, 8, 32, 128),
    batch_sizes=(2, 10, 5, 5, 4, 3, 3),
    evaluated_dims=(2, 8, 128),
    num_steps=100_000,
  )
  config.title = "Pretrained: isotropic mixtures with known variance"
  config.question = (
    "How good is the shipped network for isotropic mixtures, in every"
    " dimension and for few and many points?"
  )
  return config
