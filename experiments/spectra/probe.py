"""Does a trained network do what the power method does? Rows and figure.

Left: how well the leading eigenvector can be read off each point's state by a
linear map, layer by layer, and the same for the power method started at each
point. Right: the error of trained networks against their depth, and of the
power method, from a random start, after as many steps.
"""

import functools
from typing import Any

import jax
import numpy as np

from tgmm_jax.evaluation import evaluator, probes, results
from tgmm_jax.evaluation import spectra as spectrum_evaluation
from tgmm_jax.figures import curves as curve_figures
from tgmm_jax.models import factory, set_transformer
from tgmm_jax.solvers import pca

STUDY, DEPTH = "probe", "depth"
COSINE, ERROR = "|cos| of the points' states", "1 - |cos| of the answer"
# Problems on which probes are fitted, and as many on which they are applied.
_NUM_PROBLEMS = 512


def layer_rows(
  config: set_transformer.SetTransformerConfig,
  params: Any,
  sample: spectrum_evaluation.Sample,
  seed: int,
) -> list[results.CurveRow]:
  """The probes of a network's layers, beside the power method's steps.

  Args:
    config: of the network.
    params: trained.
    sample: `(key, size) -> SpectralBatch`, without padding.
    seed: of the problems.
  """
  model = factory.build_set(config)
  keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 4))
  training, testing = (sample(key, _NUM_PROBLEMS) for key in keys)

  def states_of(batch):
    return model.states(params, batch.points, batch.sample_weight)

  by_layer = jax.jit(functools.partial(probes.cosines_by_layer, states_of))
  by_step = jax.jit(
    functools.partial(probes.cosines_by_step, num_steps=config.num_layers)
  )
  found = {
    "transformer": by_layer(training, testing),
    "power method": by_step(testing),
  }
  return [
    results.mean_point(STUDY, COSINE, series, place, values)
    for series, array in found.items()
    for place, values in enumerate(np.asarray(array))
  ]


def depth_rows(
  config: set_transformer.SetTransformerConfig,
  params: Any,
  sample: spectrum_evaluation.Sample,
  num_instances: int,
  seed: int,
) -> list[results.CurveRow]:
  """The error of one network, and of as many steps of the power method.

  Args:
    config: of the network.
    params: trained.
    sample: `(key, size) -> SpectralBatch`.
    num_instances: problems.
    seed: of problems and starts.
  """
  model = factory.build_set(config)
  depth = config.num_layers
  key = jax.random.fold_in(jax.random.key(seed), 5)

  def power_method(batch):
    def one(key, points):
      found = pca.fit(
        key, points, 1, ddof=1, method="deflation", max_iter=depth, tol=0.0
      )
      return found.vectors

    return jax.vmap(one)(jax.random.split(key, len(batch.points)), batch.points)

  answers = {
    "transformer": lambda batch: model.apply(
      params, batch.points, batch.sample_weight
    )[..., :1],
    "power method": power_method,
  }

  def rows_of(values):
    return [
      results.mean_point(
        DEPTH, ERROR, series, depth, 1.0 - by_metric["|cos|"][:, 0]
      )
      for series, by_metric in values.items()
    ]

  return evaluator.run(
    spectrum_evaluation.make(
      answers, sample, "eigenvectors", num_instances, seed, rows=rows_of
    )
  )


def draw(rows: list[results.CurveRow]):
  """The figure, of the panels for which there are rows."""
  panels = [
    curve_figures.Panel(
      STUDY,
      COSINE,
      "What the points turn to",
      "layer, or step",
      "|cos| with the leading eigenvector",
      is_log_y=False,
    ),
    curve_figures.Panel(
      DEPTH, ERROR, "Error of the answer", "layers, or steps", "1 - |cos|"
    ),
  ]
  studies = {row.study for row in rows}
  return curve_figures.draw(
    rows,
    [panel for panel in panels if panel.study in studies],
    emphasised=spectrum_evaluation.NETWORK,
  )
