"""Where `GaussianMixture` starts: what its caller gives, the rest drawn."""

import functools
import numbers

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, linalg, types
from tgmm_jax.fitting.estimator import network_start
from tgmm_jax.solvers import checks, em
from tgmm_jax.solvers import covariance as covariance_lib

# What scikit-learn calls the starts, and what they are called here; "random"
# is made of random responsibilities, "network" by a shipped network.
INITS = {
  "kmeans": "k-means",
  "ward": "ward",
  "k-means++": "k-means++",
  "random_from_data": "random_points",
  "random": None,
  "network": None,
}


def given(
  weights, means, precisions, *, shape, dtype, covariance_type
) -> types.Mixture:
  """What a caller says of the start, None where nothing is said.

  Args:
    weights: as in `GaussianMixture`, as are means and precisions.
    means: `[K, d]` or None.
    precisions: shaped as covariances, or None.
    shape: (K, d).
    dtype: of the points.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.

  Raises:
    ValueError: for wrong shapes and values.
  """
  kind = gmm.kind_of(covariance_type)
  if kind.is_known and precisions is not None:
    raise ValueError(
      "precisions_init is given, takes None with covariance_type"
      f" {covariance_type!r}"
    )
  is_narrow = np.float32 in (dtype, getattr(weights, "dtype", None))
  weights = _array("weights_init", weights, shape[:1], dtype)
  if weights is not None:
    tolerance = 1e-6 if is_narrow else 1e-8
    is_share = np.all((weights >= 0) & (weights <= 1))
    if not is_share or abs(np.sum(weights) - 1.0) > tolerance:
      raise ValueError(
        f"weights_init is {weights.tolist()}, takes numbers >= 0 that sum to 1"
      )
    # What float32 leaves of a sum of 1 is none of the caller's business.
    weights = weights / np.sum(weights)
  precisions = _array("precisions_init", precisions, kind.shape(*shape), dtype)
  return types.Mixture(
    weights,
    _array("means_init", means, shape, dtype),
    _inverse(precisions, covariance_type=covariance_type),
  )


def check_fixed(fixed, weights, means, precisions) -> None:
  """Refuses to keep what is not given.

  Args:
    fixed: as in `GaussianMixture`, as are all others.
    weights: `[K]` or None.
    means: `[K, d]` or None.
    precisions: shaped as covariances, or None.

  Raises:
    ValueError: one line.
  """
  if fixed is None:
    return
  if not isinstance(fixed, em.Fixed):
    raise ValueError(f"fixed is {fixed!r}, takes an em.Fixed or None")
  inits = ("weights_init", "means_init", "precisions_init")
  given = (weights, means, precisions)
  for name, init, mask, value in zip(
    fixed._fields, inits, fixed, given, strict=True
  ):
    if mask is not None and value is None:
      raise ValueError(f"fixed has {name}, takes None without {init}")


def begin(
  keys: jax.Array,
  points: np.ndarray,
  num_components: int,
  mixture: types.Mixture,
  init_params: str,
  **options,
) -> types.Mixture | str:
  """What `em.fit_each` takes as `init`: mixtures `[S, ...]` or a name.

  Without means everything that is not given is drawn. With means the weights
  are equal and the covariances left to EM.

  Args:
    keys: `[S]`, consumed; `em.fit_each` takes the same keys with a name.
    points: `[N, d]`.
    num_components: K.
    mixture: from `given`.
    init_params: a key of `INITS`.
    **options: covariance type, weights and options of EM.
  """
  name = INITS[init_params]
  given = jax.tree.map(
    lambda leaf: np.broadcast_to(leaf, (len(keys), *leaf.shape)), mixture
  )
  if mixture.means is not None:
    equal = np.full(num_components, 1.0 / num_components, points.dtype)
    drawn = types.Mixture(
      np.broadcast_to(equal, (len(keys), *equal.shape)), None
    )
  elif init_params == "network":
    seeds = np.asarray(jax.random.key_data(keys))[:, -1]
    drawn = network_start.propose(
      seeds.tolist(),
      points,
      num_components,
      covariance_type=options["covariance_type"],
      sample_weight=options["sample_weight"],
    )
  elif name is None:
    drawn = _random_starts(
      keys,
      points,
      options["reg_covar"],
      sample_weight=options["sample_weight"],
      num_components=num_components,
      covariance_type=options["covariance_type"],
    )
  elif mixture.weights is None and mixture.covariances is None:
    return name
  else:
    drawn = em.fit_each(
      keys, points, num_components, init=name, max_iter=0, **options
    ).results.mixture
  return types.Mixture(
    *(
      other if one is None else one
      for one, other in zip(given, drawn, strict=True)
    )
  )


def key_of(random_state) -> jax.Array:
  """A PRNG key, after scikit-learn's kinds of random state."""
  if random_state is None:
    random_state = np.random.default_rng()
  if isinstance(random_state, numbers.Integral):
    checks.integer("random_state", random_state, lowest=0, highest=2**32 - 1)
    seed = random_state
  elif hasattr(random_state, "integers"):
    seed = random_state.integers(2**32, dtype=np.uint32)
  elif hasattr(random_state, "randint"):
    seed = random_state.randint(2**32, dtype=np.uint32)
  else:
    raise ValueError(
      f"random_state is {random_state!r}, takes an integer, a NumPy generator"
      " or RandomState, or None"
    )
  return jax.random.key(np.uint32(seed))


@functools.partial(
  jax.jit, static_argnames=("num_components", "covariance_type")
)
def _random_starts(
  keys,
  points,
  reg_covar,
  *,
  sample_weight,
  num_components,
  covariance_type,
):
  """Mixtures `[S, ...]` of random responsibilities."""
  centre = linalg.weighted_mean(points, sample_weight=sample_weight)
  columns = (points - centre).T
  shape = (num_components, len(points))

  def draw(key):
    share = jax.random.uniform(key, shape, points.dtype)
    share *= sample_weight / jnp.sum(share, axis=0) / jnp.sum(sample_weight)
    mass = jnp.sum(share, axis=1)
    means = linalg.matmul(share, columns.T)
    means /= mass[:, None]
    covariances = None
    if not gmm.kind_of(covariance_type).is_known:
      scatter = covariance_lib.scatter(
        share,
        columns[None] - means[:, :, None],
        covariance_type=covariance_type,
      )
      covariances = covariance_lib.estimate(
        scatter,
        mass,
        jnp.zeros_like(means),
        covariance_lib.Ridge(jnp.full_like(centre, reg_covar), 0.0),
        covariance_type=covariance_type,
      )
    return types.Mixture(mass, means + centre, covariances)

  return jax.vmap(draw)(keys)


def _array(argument, value, shape, dtype):
  """None, or an array of finite numbers of the shape."""
  if value is None:
    return None
  value = np.asarray(value, dtype)
  if value.shape != shape:
    raise ValueError(f"{argument} has shape {value.shape}, takes {shape}")
  if not np.all(np.isfinite(value)):
    raise ValueError(f"{argument} has NaN or inf, takes finite numbers")
  return value


def _inverse(
  precisions,
  *,
  covariance_type,
):
  """Covariances from precisions, which must be positive (definite)."""
  if precisions is None:
    return None
  if gmm.kind_of(covariance_type).structure != "matrix":
    if not np.all(precisions > 0):
      raise ValueError(
        f"precisions_init has values down to {np.min(precisions)}, takes"
        " numbers > 0"
      )
    return 1.0 / precisions
  is_symmetric = np.allclose(precisions, np.swapaxes(precisions, -1, -2))
  if not is_symmetric or not np.all(np.linalg.eigvalsh(precisions) > 0):
    raise ValueError(
      "precisions_init has a matrix that is not, takes symmetric positive"
      " definite ones"
    )
  return np.linalg.inv(precisions)
