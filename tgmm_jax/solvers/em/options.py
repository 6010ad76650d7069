"""What a fit by EM may be told, documented once and checked in one place."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.solvers import checks, k_means
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import known as em_known
from tgmm_jax.solvers.em import priors

# What `init` takes besides a mixture.
STARTS = (*k_means.METHODS, "spectral")
# What NaN in the points may be.
MISSING = ("refused", "observed")


class Options(NamedTuple):
  """What every fit by EM takes as keyword arguments, with the defaults.

  Attributes:
    init: where EM starts: one of `STARTS`, with equal weights and the pooled
      covariance of the points about their nearest means, or the mixture from
      which to start (its covariances may be None; of a batch it has the
      leading axis B). "ward" merges small clusters: on the TGMM paper's tasks
      one such start is worth ten of "k-means++"; "normal" is that paper's
      baseline; "spectral" is k-means++ where the moments do not determine the
      components. A component that loses its points falls back to the overall
      mean, with "normal" to the origin, with a given mixture to its start.
    num_init: starts; the most likely result is returned, one that is not
      degenerate before one that is.
    max_iter: steps at most; with 0 the start is returned.
    tol: stop when a step changes the mean log-likelihood by less; 0 takes
      exactly `max_iter` steps.
    reg_share: added to every variance, as a share of the variance within
      components in the same coordinate: it depends neither on units nor on how
      far apart components are. Every variance gets what rounding leaves of
      nothing as well.
    reg_covar: added as well, in squared units of the points (scikit-learn's).
    prior: an `em.Prior` of means and covariances (of a batch with the leading
      axis B), or None: EM then climbs to a maximum of likelihood times prior,
      and reports the likelihood there. `em.fraley_raftery` makes mclust's.
    prior_size: how many points the prior of the covariances counts for. Each
      is drawn to the pooled one of all components, as by a conjugate prior
      with that scale (Fraley and Raftery 2007), so that a component of few or
      equal points keeps a variance; 0 is the likelihood alone.
    prior_if_degenerate: the same for a second run from each start whose first
      has ended degenerate; 0 makes none.
    min_weight: of every component, at most 1 / K; the others share the rest.
    fixed: an `em.Fixed`: which parameters of a given `init` stay as they are,
      bit for bit; None estimates all of them.
    min_variance: floor of the variances (of the eigenvalues, for full and
      tied) in squared units of the points, or None.
    is_projected: whether to fit in the space of the leading
      `max_components - 1` principal directions; unit covariance only. Centred,
      the means of K components span K - 1 dimensions, and with unit covariance
      nothing but noise lies outside, so EM there costs the same at every d.
      Means are lifted back, with the overall mean in the coordinates left out;
      the log-likelihood is that of the full space.
    missing: one of `MISSING`: "refused", NaN in the points is invalid, or
      "observed", NaN is a cell that is missing at random: the likelihood is
      that of what is seen (Ghahramani and Jordan 1994). With a cell or a pair
      of cells that a component needs and nobody has seen the status is
      DEGENERATE; a point of which nothing is seen counts for nothing.
  """

  init: str | types.Mixture = "ward"
  num_init: int = 1
  max_iter: jax.Array | int = 100
  tol: jax.Array | float = 1e-7
  reg_share: jax.Array | float = 1e-6
  reg_covar: jax.Array | float = 0.0
  prior: priors.Prior | None = None
  prior_size: jax.Array | float = 0.0
  prior_if_degenerate: float = 0.0
  min_weight: jax.Array | float = 0.0
  fixed: em_known.Fixed | None = None
  min_variance: jax.Array | float | None = None
  is_projected: bool = False
  missing: str = "refused"


class Limits(NamedTuple):
  """The options that are numbers: a program takes any of them."""

  max_iter: jax.Array
  tol: jax.Array
  reg_share: jax.Array
  reg_covar: jax.Array
  prior_size: jax.Array
  prior_if_degenerate: jax.Array
  min_variance: jax.Array | None
  min_weight: jax.Array | None = None


class Form(NamedTuple):
  """What is compiled in: another form is another program.

  Attributes:
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    max_components: static K.
    init: one of `STARTS`, or None where the start is given.
    num_init: starts.
    is_projected: as in `Options`.
    has_second_run: whether `prior_if_degenerate` is above 0.
    takes_holes: whether NaN is a missing cell.
    tile_size: of points with holes, so many in a row are seen alike.
  """

  covariance_type: str
  max_components: int
  init: str | None
  num_init: int
  is_projected: bool
  has_second_run: bool
  takes_holes: bool = False
  tile_size: int = 1


class Plan(NamedTuple):
  """Options that have been checked, taken apart for the compiler.

  Attributes:
    form: static.
    limits: traced.
    given: the mixture to start from, or None.
    fixed: which of its parameters stay, or None.
    prior: of the parameters, or None.
  """

  form: Form
  limits: Limits
  given: types.Mixture | None
  fixed: em_known.Fixed | None = None
  prior: priors.Prior | None = None


def make_plan(
  options: Mapping[str, Any],
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  covariance_type: str,
  max_components: int | None,
  axes: tuple[str, ...] = ("N", "d"),
) -> Plan:
  """Refuses what no data can make right.

  Args:
    options: as given, fields of `Options`.
    points: with the given axes; only their shape counts.
    num_components: K, of each problem or of all.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    max_components: static K, or None for `num_components`.
    axes: letters of the axes of `points`.

  Raises:
    ValueError: one line with the option, what it is and what is taken.
  """
  options = checks.options(options, Options)
  checks.shape("points", points, axes)
  max_components = problem_lib.static_components(num_components, max_components)
  checks.name("covariance_type", covariance_type, gmm.COVARIANCE_TYPES)
  checks.integer("num_init", options.num_init, lowest=1)
  _check_projection(options.is_projected, covariance_type=covariance_type)
  checks.name("missing", options.missing, MISSING)
  if options.is_projected:
    checks.name("missing", options.missing, MISSING[:1], "with is_projected")
  init, given = _start_of(
    options, points, max_components, covariance_type=covariance_type
  )
  form = Form(
    covariance_type,
    max_components,
    init,
    int(options.num_init),
    bool(options.is_projected),
    options.prior_if_degenerate > 0,
    options.missing == "observed",
  )
  fixed = em_known.masks(
    options.fixed,
    given,
    (*points.shape[:-2], max_components),
    covariance_type=covariance_type,
  )
  limits = _make_limits(options, num_components)
  if options.prior is not None:
    _check_prior(options.prior, points.shape, covariance_type=covariance_type)
  return Plan(form, limits, given, fixed, options.prior)


def _start_of(options, points, max_components, *, covariance_type):
  """The name of the method that draws starts, or None, and what is given."""
  init = options.init
  if not isinstance(init, types.Mixture):
    checks.name("init", init, STARTS, "or a Mixture")
    return init, None
  _check_shapes(init, points, max_components, covariance_type=covariance_type)
  if options.num_init != 1:
    raise ValueError(
      f"num_init is {options.num_init}, takes 1 with a given init"
    )
  return None, init


def _check_prior(prior, shape, *, covariance_type):
  """Refuses what is no prior of such points, by shapes."""
  if not isinstance(prior, priors.Prior):
    raise ValueError(f"prior is {prior!r}, takes an em.Prior or None")
  *batch, _, dim = shape
  kind = gmm.kind_of(covariance_type)
  one = kind.shape(1, dim)[int(kind.is_per_component) :]
  expected = priors.Prior((*batch, dim), (*batch,), (*batch,), (*batch, *one))
  for name, leaf, own in zip(prior._fields, prior, expected, strict=True):
    if name == "scale" and kind.is_known:
      continue
    found = None if leaf is None else jnp.shape(leaf)
    if found != own:
      raise ValueError(f"prior has {name} of shape {found}, takes {own}")


def _check_projection(is_projected, *, covariance_type):
  if is_projected and not gmm.kind_of(covariance_type).is_known:
    raise ValueError(
      f"is_projected is True with covariance_type {covariance_type!r}, takes"
      " 'unit'"
    )


def require_default(
  options: Mapping[str, Any], names: tuple[str, ...], function: str
) -> None:
  """Refuses options that a function has no use for, unless at their default."""
  for name in names:
    default = Options._field_defaults[name]
    if options.get(name, default) != default:
      raise ValueError(
        f"{name} is {options[name]!r}, takes {default!r} with {function}"
      )


def require_drawn(plan: Plan, function: str) -> None:
  """Refuses a given mixture where starts are drawn."""
  if plan.given is not None:
    takes = ", ".join(repr(name) for name in STARTS)
    raise ValueError(f"init is a Mixture, takes {takes} with {function}")


def require_one_run(options: Mapping[str, Any], function: str) -> None:
  """Refuses several runs, projections and holes, for large problems."""
  names = ("num_init", "is_projected", "prior_if_degenerate", "missing")
  require_default(options, names, function)


def _check_shapes(
  given,
  points,
  max_components,
  *,
  covariance_type,
):
  batch, dim = points.shape[:-2], points.shape[-1]
  kind = gmm.kind_of(covariance_type)
  expected = types.Mixture(
    (*batch, max_components),
    (*batch, max_components, dim),
    (*batch, *kind.shape(max_components, dim)),
  )
  for name, leaf, shape in zip(expected._fields, given, expected, strict=True):
    if name == "covariances" and (leaf is None or kind.is_known):
      continue
    if jnp.shape(leaf) != shape:
      raise ValueError(
        f"init has {name} of shape {jnp.shape(leaf)}, takes {shape}"
      )


def _make_limits(options, num_components):
  """Refuses numbers out of range; what is traced is taken as it is."""
  checks.integer("max_iter", options.max_iter, lowest=0)
  numbers = {
    name: getattr(options, name)
    for name in (
      *("tol", "reg_share", "reg_covar", "prior_size", "prior_if_degenerate"),
      "min_variance",
    )
  }
  for name, value in numbers.items():
    if name == "min_variance" and value is None:
      continue
    checks.number(name, value, lowest=0.0)
    # One type for all, or each would be compiled for.
    if not isinstance(value, jax.core.Tracer):
      numbers[name] = float(value)
  max_iter = options.max_iter
  if not isinstance(max_iter, jax.core.Tracer):
    max_iter = int(max_iter)
  min_weight = _min_weight(options.min_weight, num_components)
  return Limits(max_iter, min_weight=min_weight, **numbers)


def _min_weight(value, num_components):
  """None where weights have no floor: then there is nothing to compile."""
  checks.number("min_weight", value, lowest=0.0)
  if isinstance(value, jax.core.Tracer):
    return value
  if not isinstance(num_components, jax.core.Tracer):
    most = 1.0 / int(np.max(num_components))
    if value > most:
      raise ValueError(
        f"min_weight is {value!r}, takes at most 1 / K = {most:g}"
      )
  return float(value) if value else None
