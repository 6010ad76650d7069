"""The shipped network for anisotropic mixtures.

  python -m experiments.main --config=experiments/pretrained_diag.py[:VARIANT]

One `refiner` that answers with a standard deviation for every component and
coordinate too, for d = 1 to 8, K = 1 to 5 and any N, trained on N = 16 to 128.
`experiments.shipping.release` makes the shipped files of the finished run.

No variant: 40,000 steps, 13 minutes on 2 CPU cores beside other work.
`:shipped`: trains nothing; gives the numbers on the card of the shipped
network, in minutes (`experiments.shipping.check_card` compares them).
`:quick`: 5,000 steps.
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
  " needed from K = 3 on: one forward pass alone is much farther off for K = 4"
  " and 5."
  " At N = 16 nearly all tasks of K = 5 fail, and at d = 2 EM steps make the"
  " network's answers worse from K = 2 on."
)
PAGES = shipping_config.pages(CONCLUSION, (2, 8))


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  config = shipping_config.get_config(
    variant,
    covariance_type="diag",
    **shipping_config.ALL_COORDINATES,
    num_steps=40_000,
  )
  config.title = "Pretrained: anisotropic mixtures"
  config.question = (
    "How good is the shipped network for mixtures with diagonal covariances,"
    " for few and many dimensions and points?"
  )
  return config
