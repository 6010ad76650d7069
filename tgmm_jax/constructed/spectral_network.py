"""The whole spectral method as one stack of transformer layers.

The open end of arXiv 2505.11918 ("approximating the full spectral algorithm"):
from the points alone to K means and weights, as `solvers.spectral.fit` about
the origin with variance 1 finds them. One set of weights serves every d, K and
N up to its sizes. The layers are in `spectral_whitening` (moments, eigenpairs
by the power method of arXiv 2501.01312, whitening) and in
`spectral_components` (tensor power iteration, choice, deflation, means).

Exact are all products, sums, deflations and copies: ReLU attention, two heads
for a factor of either sign. Approximate are `1 / x`, which scales vectors
alone, and `x^(-1/2)`, which Newton's steps (exact products) take to rounding;
both by `segments` segments between 1e-12 and 1e12. One layer has a softmax: the
soft maximum over the starts of a component. What is left is what the power
method and the tensor power method leave after so many steps.

Tokens: N points (`x`, and the share `w`), d matrix tokens (`q` a unit vector,
`mf`), K components (`fl` its number one-hot, `cf`, `st` how many turns are
before it, `p` a start), 3 K for the noise (`ns`, `nf`, `nc`, `ncs`), and R
seekers for each component (`s` a start, `sr` as `st`). Every token has its
number in binary (`c`) and `one`.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax.constructed import (
  primitives,
  spectral_components,
  spectral_whitening,
)

_NAMES = spectral_whitening.NAMES + spectral_components.NAMES

# Of `solvers.spectral.fit`, where the variance is 1.
MIN_EIGENVALUE = 1e-3


class Steps(NamedTuple):
  """How often what is repeated.

  Attributes:
    num_squarings: s, of the matrix for each eigenvector.
    num_multiplications: m, by that power: `m 2^s` steps of the power method.
    num_newton: of each length and root; 7% off (64 segments) it takes 4 to
      rounding of float64.
    num_iters: tensor power steps from each start.
    num_polish: further ones from what is chosen of them. Quadratic convergence
      needs ten; a noisy tensor, which is not a sum of orthogonal terms, more.
  """

  num_squarings: int = 10
  num_multiplications: int = 5
  num_newton: int = 4
  num_iters: int = 15
  num_polish: int = 30


@dataclasses.dataclass(frozen=True)
class SpectralNetwork:
  """Weights that perform the spectral method; a pytree.

  Attributes:
    transformer: the weights.
    segments: of each approximated function; static.
  """

  transformer: primitives.ConstructedTransformer
  segments: int

  @property
  def max_dim(self) -> int:
    """Largest d."""
    return self.transformer.slots.size("x")

  @property
  def max_components(self) -> int:
    """Largest K."""
    return self.transformer.slots.size("fl")

  @property
  def max_tokens(self) -> int:
    """Largest T."""
    return 2 ** self.transformer.slots.size("c")


jax.tree_util.register_dataclass(
  SpectralNetwork, data_fields=["transformer"], meta_fields=["segments"]
)


def build(
  max_dim: int,
  max_components: int,
  max_tokens: int,
  *,
  segments: int = 64,
  sharpness: float = 1e3,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> SpectralNetwork:
  """Writes the weights down.

  Args:
    max_dim: d0.
    max_components: K0, at most d0.
    max_tokens: the largest T, see `spectral_method.num_tokens`; only its
      logarithm adds rows.
    segments: of the curves of 1 / x and `x^(-1/2)`.
    sharpness: of the soft maximum over starts; values are `w^(-1/2)`.
    dtype: of the weights.

  Raises:
    ValueError: for sizes that no network has.
  """
  for name, value, highest in (
    ("max_dim", max_dim, np.inf),
    ("max_components", max_components, max_dim),
    ("max_tokens", max_tokens, np.inf),
    ("segments", segments, np.inf),
  ):
    if not 1 <= value <= highest:
      raise ValueError(f"{name} is {value}, takes 1 ... {highest}")
  slots = _slots(max_dim, max_components, max_tokens)
  # No finite score passes it unless its square has left the range before.
  barrier = 2.0 ** (jnp.finfo(dtype).maxexp - 8)
  made = spectral_whitening.layers(slots, barrier, segments, MIN_EIGENVALUE)
  made |= spectral_components.layers(slots, barrier, segments, sharpness)
  transformer = primitives.build(
    slots,
    [made[name] for name in _NAMES],
    activation=["softmax" if n == "choose" else "relu" for n in _NAMES],
    dtype=dtype,
  )
  return SpectralNetwork(transformer, segments)


def _slots(max_dim, max_components, max_tokens):
  of_points = ("x", "wx")
  of_matrix = ("q", "a", "b")
  of_components = ("p", "v", "u", "out", "to", "back", "mean")
  scalars = "w mf cf nf nc nn r h lam lo rr root val lv pi one".split()
  codes = ("fl", "st", "rf", "ns", "ncs", "s", "sr", "t", "ct", "y", "z")
  return primitives.Slots.of(
    **dict.fromkeys((*of_points, *of_matrix, *of_components), max_dim),
    **dict.fromkeys(codes, max_components),
    **dict.fromkeys(("tt", "yy"), max_components**2),
    **dict.fromkeys(scalars, 1),
    c=max((max_tokens - 1).bit_length(), 1),
  )


def schedule(
  num_components: int,
  steps: Steps = Steps(),  # noqa: B008
) -> tuple[primitives.Run, ...]:
  """The layers for K components.

  There are `17 + 6 n + K (20 + 3 (s + i + j) + 2 m + 6 n)` of them, with n
  Newton steps, s squarings, m multiplications, i and j tensor power steps.

  Args:
    num_components: K, or more: a turn of which there is no component changes
      nothing.
    steps: how often what is repeated.
  """

  def run(*parts, repeats=1):
    indices = [_NAMES.index(p) if isinstance(p, str) else p for p in parts]
    return primitives.Run(tuple(indices), repeats)

  newton = steps.num_newton
  squares = run("square", "total", "shrink", repeats=steps.num_squarings)
  power = run("multiply", "rescale", repeats=steps.num_multiplications)
  eigenpair = (
    *("begin", squares, power, "length", "rescale"),
    *(run("newton", "rescale", repeats=newton), "apply", "value"),
    *("scale", "deflate"),
  )
  roots = ("guess", "pair", run("error", "improve", repeats=newton))
  step = ("products", "map", "renew")
  to_value = (
    *("unit", "renew", run("settle", "renew", repeats=newton)),
    *("products", "map", "measure"),
  )
  component = (
    *("start", run(*step, repeats=steps.num_iters), *to_value, "choose"),
    *(run(*step, repeats=steps.num_polish), *to_value, "store"),
  )
  return (
    run("share", "moment"),
    run(*eigenpair, repeats=num_components),
    run(*roots, "whiten", "project", "noise", "powers"),
    run(*component, repeats=num_components),
    run("unwhiten", *roots, "weigh", "add", *roots),
    run("normalise", repeats=2),
  )
