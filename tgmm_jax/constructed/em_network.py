"""The weights of a softmax transformer that performs EM (TGMM, theorem C.1).

One set of weights serves every d up to `max_dim`, every K up to
`max_components` and every N. Per step of EM: layer A computes the
responsibilities, layer B the means and weights; with "three_layer" a layer C
computes the squared norms of the means, which layer B approximates otherwise.

Exact are both attention layers: responsibilities are a softmax over component
tokens, means a softmax over data tokens. The MLPs approximate, by ReLU units
on `segments` segments, three functions of one number: log of a
responsibility, log of a weight, and (two layers only) x^2 / 2.

A data token holds `x`, `f = 1` and the log of its sample weight `w`; a
component token its mean `mu`, a one-hot code `e`, `g = 1`, its weight `pi`
and `b = log pi - |mu|^2 / 2`; the sink of layer C `h = 1`; every token,
padding too, `one = 1`. Between steps all other slots are 0.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax.constructed import piecewise_linear, primitives

DESIGNS = ("two_layer", "three_layer")

# Weights of components below this are not told apart.
MIN_WEIGHT = 1e-4

# What masks are, beyond the largest logit of a component.
_MASK = 1e5
# Scale of the logit that holds |mu|^2. In float64 the sigmoid is a straight
# line to 1e-8 there; in float32 rounding asks for more, and for its inverse.
_SMALL = 1e-7
_LARGEST_LOGIT = 0.64


@dataclasses.dataclass(frozen=True)
class EmNetwork:
  """Weights that perform EM, and what they cover; a pytree.

  Attributes:
    transformer: the weights.
    design: one of `DESIGNS`; static.
    segments: of each approximated function; static.
    max_range: largest |coordinate| of points and means; static.
  """

  transformer: primitives.ConstructedTransformer
  design: str
  segments: int
  max_range: float

  @property
  def max_dim(self) -> int:
    """Largest d."""
    return self.transformer.slots.size("x")

  @property
  def max_components(self) -> int:
    """Largest K."""
    return self.transformer.slots.size("e")

  def schedule(self, num_steps: int) -> tuple[primitives.Run, ...]:
    """Layers for so many steps of EM."""
    layers = tuple(range(len(self.transformer.layers)))
    return (primitives.Run(layers, num_steps),)


jax.tree_util.register_dataclass(
  EmNetwork,
  data_fields=["transformer"],
  meta_fields=["design", "segments", "max_range"],
)


def build(
  max_dim: int,
  max_components: int,
  *,
  segments: int = 256,
  design: str = "two_layer",
  max_range: float = 10.0,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> EmNetwork:
  """Writes the weights down.

  The error of a logit is at most `log_geometric_bound` and, with two layers,
  `d half_square_bound`; that of a responsibility about `log_share_bound`. All
  fall as the square of the segments, and the second grows as that of the
  range. At 256 segments in float64, over 408 problems with d, K, N up to 32,
  5, 512, the 95th percentile of the largest error of a mean after ten steps is
  7e-4 with two layers and 1.2e-4 with three (in float32 7e-4 and 5e-4).

  Args:
    max_dim: d0.
    max_components: K0.
    segments: of each approximated function; of x^2 / 2 on both sides of 0
      together, so an even number.
    design: one of `DESIGNS`. Three layers do without max_dim times segments
      hidden units and with a smaller error.
    max_range: points and means are taken to be within it.
    dtype: of the weights, float32 or float64.

  Raises:
    ValueError: for sizes below 1, an odd number of segments, another design,
      a range that is not positive and finite, another dtype.
  """
  _check(max_dim, max_components, segments, design, max_range)
  # Where 64 bits are not enabled it is float32 that counts.
  dtype = jax.dtypes.canonicalize_dtype(dtype)
  if dtype not in (jnp.float32, jnp.float64):
    raise ValueError(f"dtype is {dtype}, takes float32 or float64")
  sizes = {"x": max_dim, "mu": max_dim, "m": max_dim}
  sizes |= dict.fromkeys(("e", "ga", "la", "p"), max_components)
  sizes |= dict.fromkeys(("pi", "b", "f", "w", "g", "one"), 1)
  has_sink = design == "three_layer"
  if has_sink:
    sizes |= {"h": 1, "sg": 1}
  slots = primitives.Slots.of(**sizes)
  layers = [
    _expectation(slots, segments, max_range),
    _maximisation(slots, segments, max_range, with_squares=not has_sink),
  ]
  if has_sink:
    largest = None if dtype == jnp.float64 else max_dim * max_range**2
    layers.append(_squared_norm(slots, segments, largest))
  transformer = primitives.build(
    slots, layers, activation="softmax", dtype=dtype
  )
  return EmNetwork(transformer, design, segments, float(max_range))


def _check(max_dim, max_components, segments, design, max_range):
  """Refuses what no network can be built of."""
  for name, value in (("max_dim", max_dim), ("max_components", max_components)):
    if value < 1:
      raise ValueError(f"{name} is {value}, takes an integer >= 1")
  if segments < 2 or segments % 2:
    raise ValueError(f"segments is {segments}, takes an even number >= 2")
  if design not in DESIGNS:
    raise ValueError(f"design is {design!r}, takes {DESIGNS}")
  if not 0 < max_range < np.inf:
    raise ValueError(f"max_range is {max_range}, takes a finite number > 0")


def _expectation(slots, segments, max_range):
  """Layer A: `ga_i = sum_k gamma_ik e_k`, then `la = log ga`."""
  rows = slots.select
  mask = _MASK + 2.0 * slots.size("x") * max_range**2
  layer = primitives.LayerBuilder(slots)
  # The mask is one row, exactly 0 for component tokens: as a difference of
  # two large terms it would round every logit.
  layer.head(
    "A.head.responsibilities",
    keys=["mu", "b", rows("g") - rows("one")],
    queries=["x", "one", mask * rows("one")],
    reads="e",
    writes="ga",
  )
  layer.curve(
    "A.mlp.log_responsibilities",
    rows("ga"),
    piecewise_linear.log_share(segments),
    rows("la"),
  )
  return layer


def _maximisation(slots, segments, max_range, *, with_squares):
  """Layer B: means by a softmax over the data, weights by their average."""
  rows = slots.select
  layer = primitives.LayerBuilder(slots)
  layer.head(
    "B.head.means",
    keys=["la", "w", rows("f") - rows("one")],
    queries=["e", "one", _MASK * rows("one")],
    reads="x",
    writes="m",
  )
  layer.head(
    "B.head.weights",
    keys=["w", rows("f") - rows("one")],
    queries=["one", _MASK * rows("one")],
    reads="ga",
    writes="p",
  )
  # Tokens other than components have garbage in m and p. Their gate is larger
  # than any m. In p the gate lets through the row of the component itself.
  gate = 2.0 * max_range * (rows("one") - rows("g"))
  other = 2.0 * (rows("one") - rows("e"))
  for sign in (1.0, -1.0):
    layer.units("B.mlp.mean", sign * rows("m") - gate, sign * rows("mu"))
  layer.linear("B.mlp.old_mean", rows("mu"), -rows("mu"))
  layer.linear("B.mlp.old_bias", rows("b"), -rows("b"))
  bias = np.repeat(rows("b"), slots.size("x"), axis=0)
  if with_squares:
    square = piecewise_linear.half_square(max_range, segments // 2)
    for sign in (1.0, -1.0):
      layer.curve(
        "B.mlp.squared_norm", sign * rows("m"), square, -bias, gate=gate
      )
  layer.curve(
    "B.mlp.log_weight",
    rows("p"),
    piecewise_linear.log_geometric(MIN_WEIGHT, segments),
    bias[:1].repeat(slots.size("p"), axis=0),
    gate=other,
  )
  layer.units(
    "B.mlp.weight",
    rows("p") - other,
    rows("pi").repeat(slots.size("p"), axis=0),
  )
  layer.units("B.mlp.old_weight", rows("pi"), -rows("pi"))
  layer.clear("B.mlp.clear_m", "m")
  layer.clear("B.mlp.clear_p", "p", is_positive=True)
  layer.clear("B.mlp.clear_ga", "ga", is_positive=True)
  layer.units("B.mlp.clear_la", -rows("la"), rows("la"))
  return layer


def _squared_norm(slots, segments, largest):
  """Layer C: `sg_k = sigmoid(scale |mu_k|^2)`, then `b -= |mu_k|^2 / 2`.

  A component attends to itself and to the sink, whose logit is 0.

  Args:
    slots: of the residual stream.
    segments: of the inverse of the sigmoid.
    largest: |mu|^2 up to which it is inverted; None takes the sigmoid for a
      straight line.
  """
  rows = slots.select
  scale = _SMALL if largest is None else _LARGEST_LOGIT / largest
  layer = primitives.LayerBuilder(slots)
  layer.head(
    "C.head.squared_norm",
    keys=["mu", rows("one") - rows("e") - rows("h")],
    queries=[scale * rows("mu"), -_MASK * rows("e")],
    reads="g",
    writes="sg",
  )
  gate = rows("one") - rows("g")
  name = "C.mlp.squared_norm"
  above_half = rows("sg") - 0.5 * rows("g")
  if largest is None:
    layer.units(name, above_half - gate, -2.0 / scale * rows("b"))
  else:
    rise = 1.0 / (1.0 + np.exp(-_LARGEST_LOGIT)) - 0.5
    logit = piecewise_linear.logit_centred(rise, segments)
    layer.curve(name, above_half, logit, -0.5 / scale * rows("b"), gate=gate)
  layer.clear("C.mlp.clear_sg", "sg", is_positive=True)
  return layer
