"""How a family of mixtures is fitted: its two doors, one problem and many."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax.solvers import checks
from tgmm_jax.solvers.em import batches as em_batches
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em.robust import families as em_families
from tgmm_jax.solvers.execution import cores


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  settings: em_families.Settings,
  options: Mapping[str, Any],
  *,
  family: em_families.Family,
  covariance_type: str,
  sample_weight: jax.Array | None,
  max_components: int | None,
) -> em_families.Ended:
  """Fits one problem.

  Args:
    key: consumed; split over the starts.
    points: `[N, d]`.
    num_components: K, as in `em.fit`.
    settings: of the family.
    options: fields of `em.Options`.
    family: its functions.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`, or None for ones.
    max_components: as in `em.fit`.

  Raises:
    ValueError: for options that no data could make right.
  """
  plan = _plan_of(
    options,
    points,
    num_components,
    covariance_type=covariance_type,
    max_components=max_components,
  )
  inputs = em_starts.Inputs(
    *(key, points, num_components, sample_weight),
    *(plan.given, plan.fixed, None, plan.prior),
  )
  return em_families.fit(
    inputs, plan.limits, settings, form=plan.form, family=family
  )


def fit_batch(
  key: jax.Array,
  points: Any,
  num_components: Any,
  settings_of: Callable[[checks.Batch], em_families.Settings],
  options: Mapping[str, Any],
  conclude: Callable[[em_families.Ended], Any],
  *,
  family: em_families.Family,
  covariance_type: str,
  sample_weight: Any,
  max_components: int | None,
  batch_size: int,
) -> Any:
  """Fits B problems, as `em.fit_batch`.

  Args:
    key: one key, folded with the index of each problem, or `[B]`.
    points: `[B, N, d]`.
    num_components: `[B]`, or one K for all.
    settings_of: gives the family's settings, all with the axis B.
    options: fields of `em.Options`.
    conclude: what is made of the fits.
    family: its functions.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[B, N]`, or None for ones.
    max_components: as in `em.fit_batch`.
    batch_size: runs at a time.

  Raises:
    ValueError: as `em.fit_batch`.
  """
  batch = checks.batch(
    points,
    num_components,
    sample_weight=sample_weight,
    max_components=max_components,
  )

  def run():
    settings = settings_of(batch)
    plan = _plan_of(
      options,
      batch.points,
      batch.num_components,
      covariance_type=covariance_type,
      max_components=batch.max_components,
      axes=("B", "N", "d"),
    )
    checks.integer("batch_size", batch_size, lowest=1)
    inputs = em_batches.inputs_of(key, batch, plan)
    kind = {"form": plan.form, "family": family, "batch_size": batch_size}

    def fit_part(part):
      return em_families.fit_batch(part[0], plan.limits, part[1], **kind)

    given = (inputs, settings)
    return conclude(cores.deal_out(fit_part, given, least=batch_size))

  return checks.in_precision_of(batch.points, run)


def numbers(
  argument: str,
  value: Any,
  takes: str,
  is_right: Callable[[Any], Any],
) -> None:
  """Refuses a number, or an array of numbers, out of range.

  Args:
    argument: its name.
    value: what is traced is taken as it is.
    takes: the range, for the message.
    is_right: of an array.

  Raises:
    ValueError: one line.
  """
  if isinstance(value, jax.core.Tracer):
    return
  given = np.asarray(checks.numbers_of(argument, value, ("B",)))
  if not np.all(is_right(given)):
    raise ValueError(f"{argument} is {value!r}, takes {takes}")


def share(argument: str, value: Any) -> None:
  """Refuses what is no number from 0 to below 1, or an array of such."""
  numbers(
    argument,
    value,
    "a number >= 0 and below 1",
    lambda given: (given >= 0) & (given < 1),
  )


def for_each(
  argument: str, value: Any, shape: tuple[int, ...], dtype: Any
) -> jax.Array:
  """What is given once or for each, as an array of the shape.

  Args:
    argument: its name.
    value: what broadcasts to the shape.
    shape: of the answer.
    dtype: of the answer.

  Raises:
    ValueError: it does not broadcast.
  """
  try:
    return jnp.broadcast_to(jnp.asarray(value, dtype), shape)
  except ValueError:
    raise ValueError(
      f"{argument} has shape {np.shape(value)}, takes {shape}, or one for all"
    ) from None


def _plan_of(options, points, num_components, **others):
  """`options.make_plan`; what no family takes is refused."""
  em_options.require_default(
    options, ("is_projected", "prior_if_degenerate"), "outliers"
  )
  return em_options.make_plan(options, points, num_components, **others)
