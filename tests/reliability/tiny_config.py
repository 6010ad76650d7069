"""A training of a few seconds, long enough to be killed in the middle."""

from experiments import rq1

experiment = rq1.experiment


def get_config():
  config = rq1.get_config("smoke")
  run = config.runs["tgmm-d2"]
  run.num_steps = 3000
  run.steps_per_call = 10
  run.checkpoint_every = 100
  del config.runs["tgmm-d2"]
  del config.runs["refiner"]
  config.runs.tiny = run
  config.evaluation.with_baselines = False
  return config
