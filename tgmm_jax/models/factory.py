"""Builds a network into pure functions over a params pytree.

The only place that splits and merges NNX modules. Everything else sees a
`Model`: params are nested dicts of arrays with string keys.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tgmm_jax import gmm, linalg, types
from tgmm_jax.models import frame as frame_lib
from tgmm_jax.models import prediction as prediction_lib
from tgmm_jax.models import refiner, set_transformer, tgmm

Params = dict[str, Any]
ModelConfig = refiner.RefinerConfig | tgmm.TGMMConfig

CONFIGS = {"refiner": refiner.RefinerConfig, "tgmm": tgmm.TGMMConfig}


class Model(NamedTuple):
  """A network as pure functions of one problem.

  Attributes:
    config: its sizes.
    init: `key -> params`.
    shapes: of the parameters, as `jax.ShapeDtypeStruct`.
    encode: `(key, points [N, d], num_components, *, sample_weight) ->
      (NetworkInput, NetworkFrame | None)`. The key draws the view.
    apply: `(params, NetworkInput) -> Prediction`, with an axis of stages before
      that of the components. Inputs may have leading axes: a batch in one
      call is faster than under `vmap` (see `layers`).
  """

  config: ModelConfig
  init: Callable[[jax.Array], Params]
  shapes: Params
  encode: Callable[
    ..., tuple[prediction_lib.NetworkInput, frame_lib.NetworkFrame | None]
  ]
  apply: Callable[
    [Params, prediction_lib.NetworkInput], prediction_lib.Prediction
  ]


class SetModel(NamedTuple):
  """A `set_transformer` as pure functions, of one problem or of a batch.

  Attributes:
    config: its sizes.
    init: `key -> params`.
    apply: `(params, points, sample_weight) -> answer`.
    states: `(params, points, sample_weight) -> L + 1 arrays [..., N, D]`.
  """

  config: set_transformer.SetTransformerConfig
  init: Callable[[jax.Array], Params]
  apply: Callable[[Params, jax.Array, jax.Array], jax.Array]
  states: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, ...]]


@functools.cache
def build(config: ModelConfig) -> Model:
  """Builds the network that a config describes; allocates nothing."""
  make = tgmm.TGMM if isinstance(config, tgmm.TGMMConfig) else refiner.Refiner
  init, merge, shapes = _take_apart(make, config)

  def apply(params, problem):
    return merge(params)(problem)

  if isinstance(config, tgmm.TGMMConfig):
    encode = _encode_as_is
  else:
    encode = _make_encode_in_frame(config)
  return Model(config, init, shapes, encode, apply)


def build_set(config: set_transformer.SetTransformerConfig) -> SetModel:
  """Builds a network that reads a set; allocates nothing."""
  init, merge, _ = _take_apart(set_transformer.SetTransformer, config)

  def apply(params, points, sample_weight):
    return merge(params)(points, sample_weight)

  def states(params, points, sample_weight):
    return merge(params).states(points, sample_weight)

  return SetModel(config, init, apply, states)


def _take_apart(make, config):
  """`key -> params`, `params -> module` and the shapes of the parameters."""
  # Parameters are what they are, also where JAX has 64 bits enabled.
  with jax.enable_x64(False):
    abstract = nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0)))
  graphdef, abstract_state = nnx.split(abstract, nnx.Param)

  def init(key):
    state = nnx.state(make(config, rngs=nnx.Rngs(params=key)), nnx.Param)
    return _string_keys(nnx.to_pure_dict(state))

  def merge(params):
    leaves = jax.tree.leaves(_original_keys(params))
    state = jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)
    return nnx.merge(graphdef, state)

  return init, merge, _string_keys(nnx.to_pure_dict(abstract_state))


def _encode_as_is(key, points, num_components, *, sample_weight):
  del key
  dim = jnp.asarray(points.shape[-1], points.dtype)
  return (
    prediction_lib.NetworkInput(points, sample_weight, num_components, dim),
    None,
  )


def _make_encode_in_frame(config):
  fit = frame_lib.FITS[gmm.kind_of(config.covariance_type).frame]

  def encode(key, points, num_components, *, sample_weight):
    points = jnp.where((sample_weight > 0)[:, None], points, 0.0)
    frame = fit(key, points, config.rank, sample_weight=sample_weight)
    problem = prediction_lib.NetworkInput(
      points=frame_lib.project(frame, points),
      sample_weight=sample_weight,
      num_components=num_components,
      dim=jnp.asarray(points.shape[-1], points.dtype),
      variances=frame.variances,
      rest=frame.rest,
      origin=frame_lib.project(frame, jnp.zeros_like(frame.centre)),
      knows_origin=jnp.asarray(not config.is_scale_free, points.dtype),
    )
    return problem, frame

  return encode


def encode_mixture(
  mixture: types.Mixture,
  frame: frame_lib.NetworkFrame | None,
  *,
  covariance_type: str = "unit",
) -> types.Mixture:
  """The true mixture in the coordinates in which the network predicts."""
  if frame is None:
    return mixture
  is_component = mixture.weights > 0
  means = frame_lib.project(frame, mixture.means)
  return mixture._replace(
    means=jnp.where(is_component[:, None], means, 0.0),
    covariances=frame_lib.project_covariances(
      frame, mixture.covariances, covariance_type=covariance_type
    ),
  )


def solver(
  model: Model, params: Params, *, knows_origin: bool = True
) -> types.Solver:
  """The trained network as a solver of one problem.

  Args:
    model: the network.
    params: its parameters.
    knows_origin: whether the data are known to come from a prior centred at
      the origin; False makes a refiner's answer shift-invariant, which that of
      a scale-free one always is.

  Returns:
    `(key, points, num_components, *, sample_weight) -> SolverResult`; the key
    draws the view (rotation or axes of the frame), which a network without a
    frame ignores. Status CONVERGED; INVALID_INPUT for points that are not
    finite or too large to be squared, weights that are negative, not finite or
    all zero, or K that the network does not serve; DEGENERATE where rounding
    leaves no answer, as with nearly all the weight on one point: then all
    components are that of all points. d above a refiner's `max_dim` is a
    ValueError.
  """
  served = jnp.asarray(model.config.num_components)
  own_type = model.config.covariance_type
  own_kind = gmm.kind_of(own_type)

  def solve(key, points, num_components, *, sample_weight=None):
    num_components = jnp.asarray(num_components, jnp.int32)
    points, sample_weight, is_valid = linalg.usable(
      points,
      jnp.any(num_components == served),
      sample_weight=sample_weight,
    )
    count = jnp.where(is_valid, num_components, served[0])
    problem, frame = model.encode(
      key, points, count, sample_weight=sample_weight
    )
    if problem.knows_origin is not None:
      problem = problem._replace(
        knows_origin=problem.knows_origin * knows_origin
      )
    prediction = model.apply(params, problem)
    last = jax.tree.map(lambda leaf: leaf[-1], prediction)
    mixture = prediction_lib.to_mixture(last, count, covariance_type=own_type)
    if frame is not None:
      mixture = _lift(mixture, frame, covariance_type=own_type)
    mixture, is_answer = _finite(
      mixture, points, count, sample_weight=sample_weight, kind=own_kind
    )
    log_likelihood = gmm.log_likelihood(
      points, mixture, sample_weight=sample_weight, covariance_type=own_type
    )
    return types.SolverResult(
      mixture=mixture,
      log_likelihood=jnp.where(is_valid, log_likelihood, -jnp.inf),
      num_iters=jnp.zeros((), jnp.int32),
      status=_status(is_valid, is_answer),
    )

  return solve


def _status(is_valid, is_answer):
  status = jnp.where(is_answer, types.Status.CONVERGED, types.Status.DEGENERATE)
  status = jnp.where(is_valid, status, types.Status.INVALID_INPUT)
  return status.astype(jnp.int32)


def _lift(mixture, frame, *, covariance_type):
  """The mixture in the coordinates of the points; padding is that of ours."""
  means = frame_lib.lift(frame, mixture.means)
  is_component = mixture.weights > 0
  covariances = frame_lib.lift_covariances(
    frame, mixture.covariances, covariance_type=covariance_type
  )
  if gmm.kind_of(covariance_type).structure == "matrix":
    identity = jnp.eye(means.shape[-1])
    covariances = jnp.where(is_component[:, None, None], covariances, identity)
  return mixture._replace(
    means=jnp.where(is_component[:, None], means, 0.0), covariances=covariances
  )


def _finite(mixture, points, num_components, *, sample_weight, kind):
  """The mixture, or that of all points; and whether it is the network's."""
  is_answer = jnp.all(
    jnp.stack(
      [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(mixture)]
    )
  )
  centre, matrix = linalg.weighted_covariance(
    points, sample_weight=sample_weight
  )
  variances = jnp.diagonal(matrix)
  variances = jnp.where(variances > 0, variances, 1.0)
  covariances = {
    "identity": None,
    "ball": jnp.mean(variances),
    "axes": variances,
    "matrix": jnp.diag(variances),
  }[kind.structure]
  is_component = jnp.arange(mixture.weights.size) < num_components
  rest = types.Mixture(
    is_component / num_components,
    jnp.where(is_component[:, None], centre, 0.0),
    covariances,
  )
  finite = jax.tree.map(
    lambda own, other: jnp.where(is_answer, own, other), mixture, rest
  )
  return finite, is_answer


def _string_keys(tree):
  if not isinstance(tree, dict):
    return tree
  return {str(key): _string_keys(value) for key, value in tree.items()}


def _original_keys(tree):
  """Integer keys of an `nnx.List` again, so that leaves sort as in NNX."""
  if not isinstance(tree, dict):
    return tree
  return {
    int(key) if key.isdecimal() else key: _original_keys(value)
    for key, value in tree.items()
  }
