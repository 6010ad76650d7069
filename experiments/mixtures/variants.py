"""What the variants of experiments with mixtures share."""

import ml_collections


def make_released(run: ml_collections.ConfigDict) -> None:
  """The recipe of the paper's released code, without its faults.

  docs/released_code.md has all of it beside ours.

  Args:
    run: changed; a `tgmm`.
  """
  run.solver = "tgmm-released"
  run.loss = "sorted"
  run.has_each_k = True
  run.model.is_causal = True
  run.model.max_points = 4096
  run.model.pooling = "released"


def make_small(run: ml_collections.ConfigDict, num_steps: int) -> None:
  """A training that 2 CPU cores do in a minute or a few.

  Args:
    run: changed; a `tgmm` becomes small, a `refiner` is as it is.
    num_steps: of the training, a multiple of 100.
  """
  run.num_steps = num_steps
  run.steps_per_call = 50
  run.checkpoint_every = num_steps // 2
  if run.network == "tgmm":
    run.batch_sizes = (32,)
    run.model.width = 32
    run.model.num_layers = 3
    run.optimizer.learning_rate = 2e-3
    run.optimizer.schedule = "cosine"
    run.optimizer.num_warmup_steps = 100
    run.optimizer.max_grad_norm = 1.0


def make_smoke(config: ml_collections.ConfigDict) -> None:
  """Everything in seconds: tiny tasks, few of them, tiny networks at d = 2.

  Args:
    config: changed; runs at another single d than 2 are left out.
  """
  config.tasks.min_points = 16
  config.tasks.max_points = 32
  config.tasks.num_components = (2, 3)
  config.evaluation.dims = (2,)
  config.evaluation.num_components = (2, 3)
  config.evaluation.num_points = (32,)
  config.evaluation.num_tasks = 16
  for name in list(config.runs):
    run = config.runs[name]
    if 2 not in run.dims:
      del config.runs[name]
      continue
    run.num_steps = 40
    run.steps_per_call = 5
    run.checkpoint_every = 10
    run.model.width = 8
    if run.network == "refiner":
      run.dims = (2, 3)
      run.batch_sizes = (8, 8)
      run.model.num_layers = 2
    else:
      run.batch_sizes = (8,)
      run.model.num_layers = 1
      run.model.num_heads = 2
