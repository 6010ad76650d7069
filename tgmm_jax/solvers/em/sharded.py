"""EM for one very large problem that is sharded over the devices of a mesh.

The start comes from a sample of the points; then each iteration passes once
over all of them, block by block, so that nothing of the size `K d N` is ever
held, and reduces the sums over the devices in one vector of
1 + K (1 + d) numbers and the size of the covariances.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding

from tgmm_jax import types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import known as em_known
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import runs as em_runs
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em import steps as em_steps

# From how many points a start is drawn: k-means++ on all of them would cost
# one pass for each component.
NUM_START_POINTS = 16_384


def fit_sharded(
  key: jax.Array,
  points: jax.Array,
  num_components: int,
  *,
  mesh: Mesh,
  axis: str = "data",
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  block_size: int | None = None,
  **options,
) -> types.SolverResult:
  """Fits one problem whose points are dealt out over the devices of a mesh.

  Args:
    key: consumed; the sample from which a start is drawn, and the start.
    points: `[N, d]`, on the host, on a device or sharded over `axis`. It is
      computed in float32 or float64, as they are.
    num_components: K.
    mesh: the devices; its axes may be of any type.
    axis: the axis of the mesh over which points are dealt out.
    covariance_type: as in `em.fit`.
    sample_weight: `[N]`, or None for ones.
    block_size: points of a device at a time, or None for what suits it.
    **options: fields of `em.Options` but `num_init`, `is_projected`,
      `prior_if_degenerate`, `missing`. A start is drawn from at most
      `NUM_START_POINTS` points.

  Returns:
    A `SolverResult`, replicated; statuses as in `em.fit`. In NumPy where the
    points are float64 and JAX has not 64 bits enabled.

  Raises:
    ValueError: for wrong shapes and dtypes, NaN or inf, fewer points than
      components, weights that cannot be used, unknown names and options.
  """
  points = checks.array("points", points, ("N", "d"))
  num_points = points.shape[0]
  checks.integer("num_components", num_components, lowest=1, highest=num_points)
  checks.name("axis", axis, mesh.axis_names)
  if block_size is not None:
    checks.integer("block_size", block_size, lowest=1)
  em_options.require_one_run(options, "fit_sharded")
  plan = em_options.make_plan(
    options,
    points,
    int(num_components),
    covariance_type=covariance_type,
    max_components=None,
  )
  layout = _Layout(_with_automatic_axes(mesh), axis, block_size)
  sample_weight = checks.weights(sample_weight, points)
  return checks.in_precision_of(
    points, lambda: _fit(key, points, sample_weight, plan, layout)
  )


def _fit(key, points, sample_weight, plan, layout):
  """`fit_sharded` in the precision of the points."""
  mesh, num_points = layout.mesh, points.shape[0]
  points, sample_weight = _deal_out(points, sample_weight, mesh, layout.axis)
  key, given, fixed, prior = jax.device_put(
    (key, plan.given, plan.fixed, plan.prior), NamedSharding(mesh, jax.P())
  )
  with jax.set_mesh(mesh):
    _check_values(points, sample_weight, num_points)
    return _fit_sharded(
      em_starts.Inputs(
        *(key, points, plan.form.max_components, sample_weight, given),
        fixed=fixed,
        prior=prior,
      ),
      plan.limits,
      form=plan.form,
      num_points=num_points,
      layout=layout,
    )


def _with_automatic_axes(mesh):
  """Drawing a start fails under JAX's default, Explicit."""
  automatic = (AxisType.Auto,) * len(mesh.axis_names)
  return Mesh(mesh.devices, mesh.axis_names, axis_types=automatic)


class _Layout(NamedTuple):
  """Where the points lie, and how many are worked on at a time; static."""

  mesh: Mesh
  axis: str
  block_size: int | None


def _deal_out(points, sample_weight, mesh, axis):
  """Points and weights over the devices, padded by weight 0."""
  missing = -points.shape[0] % mesh.shape[axis]
  if missing:
    points = jnp.pad(points, ((0, missing), (0, 0)))
    sample_weight = jnp.pad(sample_weight, (0, missing))
  over_points = NamedSharding(mesh, jax.P(axis))
  return jax.device_put((points, sample_weight), over_points)


def _check_values(points, sample_weight, num_points):
  """Refuses NaN, inf and weights that cannot be used; looks at one row."""
  is_good, row = _first_bad(points, sample_weight)
  if not is_good:
    row = int(row)
    rows = slice(row, row + 1)
    checks.values(points[rows], sample_weight[rows], first=row)
    checks.problem(points[:num_points], sample_weight[:num_points])


@jax.jit
def _first_bad(points, weights):
  """Whether the values can be fitted, and the first row that cannot be."""
  is_good = checks.good_rows(points, weights)
  return jnp.all(is_good) & jnp.any(weights > 0), jnp.argmin(is_good)


@functools.partial(jax.jit, static_argnames=("form", "num_points", "layout"))
def _fit_sharded(inputs, limits, *, form, num_points, layout):
  problem = em_starts.prepare(inputs, limits, form)
  replicated = NamedSharding(layout.mesh, jax.P())
  sample = jax.lax.with_sharding_constraint(
    _sample(inputs.key, problem, num_points), replicated
  )
  problem, start = begin(
    inputs.key, problem, sample, inputs.given, inputs.fixed, form=form
  )
  run = jax.shard_map(
    functools.partial(
      _run_shard,
      limits=limits,
      covariance_type=form.covariance_type,
      layout=layout,
    ),
    mesh=layout.mesh,
    in_specs=(jax.P(None, layout.axis), jax.P(layout.axis), jax.P(), jax.P()),
    out_specs=jax.P(),
  )
  frame = problem._replace(columns=None, sample_weight=None)
  ended, log_likelihood = run(
    problem.columns, problem.sample_weight, frame, start
  )
  result = em_runs.conclude(
    problem, ended, log_likelihood, covariance_type=form.covariance_type
  )
  return em_starts.restored(result, inputs)


class Sample(NamedTuple):
  """The points of a large problem from which a start is drawn.

  Attributes:
    columns: `[d, n]`, in the frame.
    sample_weight: `[n]`, sums to 1.
  """

  columns: jax.Array
  sample_weight: jax.Array


def _sample(key, problem, num_points):
  """The points that a start is drawn from."""
  columns, weight = problem.columns, problem.sample_weight
  if num_points <= NUM_START_POINTS:
    return Sample(columns[:, :num_points], weight[:num_points])
  index = jax.random.randint(
    jax.random.fold_in(key, 1), (NUM_START_POINTS,), 0, num_points
  )
  columns, weight = columns[:, index], weight[index]
  total = jnp.sum(weight)
  uniform = jnp.full_like(weight, 1.0 / NUM_START_POINTS)
  return Sample(columns, jnp.where(total > 0, weight / total, uniform))


def begin(
  key: jax.Array,
  problem: problem_lib.PreparedProblem,
  sample: Sample,
  given: types.Mixture | None,
  fixed: em_known.Fixed | None = None,
  *,
  form: em_options.Form,
) -> tuple[problem_lib.PreparedProblem, em_starts.Start]:
  """The problem, marked where a given start cannot be used, and the start.

  Args:
    key: consumed; draws the start.
    problem: its frame is used.
    sample: the points that the start is drawn from.
    given: the mixture to start from, or None.
    fixed: what of it stays, or None.
    form: of the fit.
  """
  part = problem._replace(
    columns=sample.columns, sample_weight=sample.sample_weight
  )
  (draw_key,) = jax.random.split(key, 1)
  part, start = em_starts.begin(draw_key, given, part, form, fixed=fixed)
  return problem._replace(is_valid=part.is_valid), start


def _run_shard(
  columns, sample_weight, frame, start, *, limits, covariance_type, layout
):
  """All steps on the points of one device."""
  options = {
    "covariance_type": covariance_type,
    "block_size": layout.block_size,
  }

  def advance(run):
    statistics = em_steps.e_step(
      columns, run.mixture, sample_weight=sample_weight, **options
    )
    log_density = statistics.log_density
    change = jnp.sum(sample_weight * (log_density - run.log_density))
    # One vector, one reduction.
    vector, unravel = ravel_pytree(
      (statistics._replace(log_density=None), change)
    )
    sums, change = unravel(jax.lax.psum(vector, layout.axis))
    return em_runs.update(
      frame,
      run,
      sums._replace(log_density=log_density),
      change,
      limits=limits,
      covariance_type=covariance_type,
    )

  run = jax.lax.while_loop(
    lambda run: ~em_runs.is_done(run, limits=limits),
    advance,
    em_runs.begin(frame._replace(sample_weight=sample_weight), start),
  )
  log_density = em_steps.log_density(columns, run.mixture, **options)
  log_likelihood = jnp.sum(sample_weight * log_density)
  return run._replace(log_density=None), jax.lax.psum(
    log_likelihood, layout.axis
  )
