"""Question 2b: tasks from another law than in training; when not to trust.

  python -m experiments.main --config=experiments/rq2_shift.py[:VARIANT]

The paper perturbs the means by normal noise of scale sigma_p at evaluation.
Further shifts, which a user's data may have: unequal weights, a K that is
stated wrong by one, heavier tails, outliers, another scale, and that scale
after standardisation. The row `tasks` says how many tasks a cheap test of the
points (`tasks.trained_range`) finds outside the trained range.

No variant: `tgmm` at the paper's size at d = 2 and 8, and a `refiner` for all
d. An accelerator's work. `:quick`: small networks at d = 2 and 8, minutes on 2
CPU cores. `:smoke`: seconds, for the tests.
"""

import ml_collections

from experiments import mixtures, results_pages
from experiments.runner import fields

VARIANTS = ("", "quick", "smoke")

experiment = mixtures.experiment
sweep = mixtures.sweep

CONCLUSION = (
  "With 8 views and 5 EM steps the refiner follows means that are shifted as"
  " ten k-means++ starts do, but for a few tasks of K = 5 at the largest shift;"
  " one forward pass, and one start of EM from N(0, I), do not."
  " Outliers and heavy tails spoil every answer that ends in EM with unit"
  " variance, EM started at the truth included, and there the cheap test warns"
  " nearly always; of unequal weights it sees little, and of a K that is stated"
  " wrong nothing."
)
_SHIFTS = {
  "as trained": ("means", 0.0),
  "means, 10": ("means", 10.0),
  "unequal weights": ("weights", 3.0),
  "K - 1 stated": ("stated_components", -1.0),
  "K + 1 stated": ("stated_components", 1.0),
  "heavy tails": ("student_t", 0.4),
  "10% outliers": ("outliers", 0.1),
  "twice the scale": ("scale", 1.0),
}
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Squared error of the means at d = 2, K = 3, N = 128, {count} tasks in"
      " each cell, with its standard error. Last line: the share of the tasks"
      " that the cheap test finds outside the trained range.",
      results_pages.solvers(
        *("refiner", "refiner-x8+em5", "tgmm", "em/normal"),
        *("em/k-means++-x10", "em/oracle"),
      )
      | {"outside range": {"solver": "tasks", "metric": "outside_range"}},
      {
        head: {"shift_kind": kind, "shift": size}
        for head, (kind, size) in _SHIFTS.items()
      },
      dim=2,
      num_components=3,
      metric="l2_error",
    ),
    figures={
      "shift_means": "Error of the means against how far means are shifted",
      "shift_outliers": "Error of the means with outliers",
    },
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = mixtures.get_config()
  config.title = "RQ2: tasks from another law"
  config.question = (
    "What happens to trained networks, and to EM and the spectral method, on"
    " tasks from another law than that of training, and can one see it from"
    " the points?"
  )
  config.variant = variant
  config.evaluation.dims = (2, 8)
  config.evaluation.shifts = (0.0, 1.0, 2.0, 5.0, 10.0)
  config.evaluation.other_shifts = ml_collections.ConfigDict(
    {
      "weights": (1.0, 3.0),
      "stated_components": (-1.0, 1.0),
      "student_t": (0.1, 0.2, 0.4),  # 10, 5 and 2.5 degrees of freedom
      "outliers": (0.02, 0.1),
      "scale": (-1.0, 1.0, 2.0),  # half, twice, four times
      "standardised": (-1.0, 1.0, 2.0),
    }
  )
  refiner = mixtures.refiner_run()
  refiner.batch_sizes = (80, 40, 40, 40, 32, 24)
  refiner.num_steps = 200_000
  config.runs.refiner = refiner
  for dim in (2, 8):
    config.runs[f"tgmm-d{dim}"] = mixtures.tgmm_run(dim)
  if variant == "quick":
    config.evaluation.num_tasks = 256
    others = config.evaluation.other_shifts
    others.weights, others.student_t = (3.0,), (0.4,)
    others.outliers, others.scale, others.standardised = (0.1,), (1.0,), (1.0,)
    refiner.dims, refiner.batch_sizes = (2, 8), (16, 16)
    mixtures.make_small(refiner, num_steps=4_000)
    mixtures.make_small(config.runs["tgmm-d2"], num_steps=800)
    del config.runs["tgmm-d8"]
  elif variant == "smoke":
    mixtures.make_smoke(config)
    config.evaluation.shifts = (0.0, 10.0)
    config.evaluation.other_shifts = ml_collections.ConfigDict(
      {"stated_components": (1.0,), "outliers": (0.1,)}
    )
  return config
