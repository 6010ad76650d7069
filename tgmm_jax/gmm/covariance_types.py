"""What the covariances of a mixture are: the table of types, and matrices.

`covariance_type` says how `mixture.covariances` is to be read; shapes alone
cannot tell diag from tied when K = d.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import types


class CovarianceType(NamedTuple):
  """What the covariances of a type are made of.

  Attributes:
    structure: of one covariance: "identity" (known), "ball" (one variance),
      "axes" (a variance along each coordinate) or "matrix".
    is_per_component: whether each component has its own.
    frame: the changes of coordinates that leave such a mixture one:
      "isometry", "similarity" (and one unit of length), "axes" (a unit for
      each coordinate, their order and signs) or "linear" (any map).
  """

  structure: str
  is_per_component: bool
  frame: str

  @property
  def is_known(self) -> bool:
    """Whether there is nothing to estimate, and `covariances` is None."""
    return self.structure == "identity"

  def shape(self, num_components: int, dim: int) -> tuple[int, ...]:
    """Shape of `Mixture.covariances`; () for the known identity."""
    leading = (num_components,) if self.is_per_component else ()
    trailing = {"axes": (dim,), "matrix": (dim, dim)}
    return leading + trailing.get(self.structure, ())

  def num_parameters(
    self, num_components: jax.Array | int, dim: int
  ) -> jax.Array | int:
    """Free numbers in the covariances; K may be traced."""
    one = {"identity": 0, "ball": 1, "axes": dim}
    one = one.get(self.structure, dim * (dim + 1) // 2)
    return one * num_components if self.is_per_component else one


COVARIANCE_TYPES: dict[str, CovarianceType] = {
  "unit": CovarianceType("identity", False, "isometry"),
  "tied_spherical": CovarianceType("ball", False, "similarity"),
  "spherical": CovarianceType("ball", True, "similarity"),
  "diag": CovarianceType("axes", True, "axes"),
  "tied": CovarianceType("matrix", False, "linear"),
  "full": CovarianceType("matrix", True, "linear"),
}


def kind_of(covariance_type: str) -> CovarianceType:
  """The row of `COVARIANCE_TYPES` of a name.

  Raises:
    ValueError: there is no such type.
  """
  if covariance_type not in COVARIANCE_TYPES:
    raise ValueError(
      f"covariance_type is {covariance_type!r}, takes {tuple(COVARIANCE_TYPES)}"
    )
  return COVARIANCE_TYPES[covariance_type]


def standard_deviations(
  mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """Of each component along each coordinate, `[K, d]`.

  Args:
    mixture: its covariances are used.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  return jnp.sqrt(_variances(mixture, covariance_type))


def _variances(mixture, covariance_type):
  """Of each component along each coordinate, `[K, d]`."""
  variances, kind = mixture.covariances, kind_of(covariance_type)
  match kind.structure:
    case "identity":
      return jnp.ones_like(mixture.means)
    case "ball" if kind.is_per_component:
      variances = variances[:, None]
    case "matrix":
      variances = jnp.diagonal(variances, axis1=-2, axis2=-1)
  return jnp.broadcast_to(variances, mixture.means.shape)


def covariance_matrices(
  mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """The covariance of each component as a matrix, `[K, d, d]`.

  Args:
    mixture: its covariances are used.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  num_components, dim = mixture.means.shape
  if kind_of(covariance_type).structure == "matrix":
    matrices = mixture.covariances
  else:
    matrices = _variances(mixture, covariance_type)[..., None] * jnp.eye(dim)
  return jnp.broadcast_to(matrices, (num_components, dim, dim))
