"""The shipped network for isotropic mixtures with one unknown variance.

  python -m experiments.main \
    --config=experiments/pretrained_tied_spherical.py[:VARIANT]

One `refiner` for every dimension, K = 1 to 5 and any N, trained on N = 16 to
128. It reads the points in units of their own spread and answers with the
standard deviation too. One law of training: standard deviations from 0.63 to
2.63 for means in the paper's box.
`experiments.shipping.release` makes the shipped files of the finished run.

No variant: 50,000 steps, 26 minutes on 2 CPU cores beside other work.
`:shipped`: trains nothing; gives the numbers on the card of the shipped
network, in minutes (`experiments.shipping.check_card` compares them).
`:quick`: 6,000 steps.
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
  " times the points of its training, in every cell; at N = 128 views help for"
  " K = 4 and 5 at d = 8, and not at d = 2."
  " At N = 16 EM steps make its answers worse from K = 3 on, and two tasks of"
  " five or more fail there with three components."
)
PAGES = shipping_config.pages(CONCLUSION, (2, 8, 128))


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  config = shipping_config.get_config(
    variant,
    covariance_type="tied_spherical",
    dims=(1, 2, 3, 5, 8, 32, 128),
    batch_sizes=(2, 10, 5, 5, 4, 3, 3),
    evaluated_dims=(2, 8, 128),
    num_steps=50_000,
  )
  config.title = "Pretrained: isotropic mixtures with one unknown variance"
  config.question = (
    "How good is the shipped network for isotropic mixtures whose variance"
    " nobody knows?"
  )
  return config
