"""First half of the spectral method's layers: from points to whitened points.

Names of layers and what they leave in the residual stream; A is the second
moment less the noise's variance, l the component whose turn it is (the first
row of `st`, which every turn shifts).

  share     `wx = w x` in every point
  moment    `a_j = A e_j` in the matrix tokens
  begin     `b = a`, and v becomes the start of component l
  square, total, shrink   `b` becomes its square, at length about 1
  multiply, rescale       `v = b v / |v|`, about
  length, newton          (each with rescale) `|v| = 1`
  apply, value            `lam = <v, A v>`
  scale, deflate          `out, lo = v, lam` for l; `A -= lam v v^T`; next turn
  guess, pair, error, improve   `rr = lo^(-1/2)`, `root = lo^(1/2)`, all l
  whiten    `to = rr out`, `back = root out`
  project   `t_i = sum_l <to_l, x_i> e_l` in every point, `ct_i = w_i t_i`
  noise     tokens whose cubes are what noise adds to the third moment
  powers    `tt = t t^T` in all of them
"""

import numpy as np

from tgmm_jax.constructed import piecewise_linear, primitives
from tgmm_jax.constructed.token_layer import TokenLayer

# Eigenvalues and squared lengths that the curves cover.
LEAST, MOST = 1e-12, 1e12

NAMES = (
  *("share", "moment", "begin", "square", "total", "shrink", "multiply"),
  *("rescale", "length", "newton", "apply", "value", "scale", "deflate"),
  *("guess", "pair", "error", "improve", "whiten", "project", "noise"),
  "powers",
)


def layers(
  slots: primitives.Slots,
  barrier: float,
  segments: int,
  min_eigenvalue: float,
) -> dict[str, TokenLayer]:
  """The layers by name.

  Args:
    slots: of `spectral_network.build`.
    barrier: what no score passes.
    segments: of each curve.
    min_eigenvalue: to which smaller eigenvalues are raised.
  """
  made = {name: TokenLayer(slots, barrier) for name in NAMES}
  _add_moment(made["share"], made["moment"])
  _add_squaring(made, inverse(segments))
  _add_power_step(made, inverse_root(segments))
  _add_unit_length(made, inverse_root(segments))
  _add_pair(made, min_eigenvalue)
  _add_roots(made, inverse_root(segments))
  _add_whitening(made["whiten"], made["project"])
  _add_noise(made["noise"])
  add_products(made["powers"], "powers", "t", "tt")
  return made


def inverse(segments: int) -> tuple[piecewise_linear.Curve, float]:
  """1 / x, where only the size of a vector is at stake."""
  return piecewise_linear.power_geometric(-1.0, LEAST, MOST, segments)


def inverse_root(segments: int) -> tuple[piecewise_linear.Curve, float]:
  """`x^(-1/2)`, which Newton steps follow."""
  return piecewise_linear.power_geometric(-0.5, LEAST, MOST, segments)


def add_products(
  layer: TokenLayer, name: str, source: str, target: str
) -> None:
  """All products of two entries of a slot, two heads for each row of them.

  Args:
    layer: to which the heads are added.
    name: of the block, followed by the number of a row.
    source: K rows.
    target: K^2 rows.
  """
  slots = layer.slots
  size = slots.size(source)
  for row in range(size):
    layer.product(
      f"{name}.product.{row + 1}",
      slots.select(source, row),
      source,
      slots.select(target, slice(row * size, (row + 1) * size)),
    )


def shift(layer: TokenLayer, name: str, slot: str) -> None:
  """Moves every row of a slot of 0 and 1 into the row before it.

  Args:
    layer: to whose MLP it is added.
    name: of the block.
    slot: whose first row is dropped.
  """
  rows = layer.slots.select(slot)
  before = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
  layer.units(name, rows, before - rows)


def _add_moment(share, moment):
  share.product("share.product", "w", "x", "wx", is_signed=False)
  moment.signed_heads(
    "moment.sum", keys=["wx"], queries=["q"], reads="x", writes="a"
  )
  # The noise's variance is 1, and q, a unit vector, is not negative.
  select = moment.slots.select
  moment.units("moment.noise", select("q"), -select("a"))


def _add_squaring(made, curve):
  """`b = b^2 / |b|^2`, about: only its directions matter."""
  select = made["begin"].slots.select
  for name in ("begin", "square", "shrink"):
    made[name].head(
      f"{name}.forget",
      keys=["q"],
      queries=["q"],
      reads=-select("b"),
      writes="b",
    )
  made["begin"].head(
    "begin.copy", keys=["q"], queries=["q"], reads="a", writes="b"
  )
  made["begin"].gated("begin.start", select("p"), select("v"), select("st", 0))
  made["square"].signed_heads(
    "square.sum", keys=["b"], queries=["q"], reads="b", writes="b"
  )
  made["square"].dot("square.length", "b", "b", "nn", is_signed=False)
  total = made["total"]
  total.head("total.sum", keys=["nn"], queries=["mf"], reads="mf", writes="h")
  total.apply_curve("total.inverse", "h", curve, "r", select("mf"))
  total.clear("total.clear", "nn", "h", is_positive=True)
  shrink = made["shrink"]
  shrink.product("shrink.product", "r", "b", "b", is_signed=False)
  shrink.clear("shrink.clear", "r", is_positive=True)


def _add_power_step(made, curve):
  """`u = b v` and `r = 1 / |v|`; then `v = r u`.

  Only the component whose turn it is has a v, so that no mask is needed.
  """
  multiply, rescale = made["multiply"], made["rescale"]
  turn = multiply.slots.select("st", 0)
  multiply.signed_heads(
    "multiply.matrix", keys=["q"], queries=["v"], reads="b", writes="u"
  )
  _measure(multiply, "multiply")
  multiply.apply_curve("multiply.inverse_root", "nn", curve, "r", turn)
  multiply.clear("multiply.clear", "nn", is_positive=True)
  old = rescale.slots.select("v")
  rescale.head(
    "rescale.forget", keys=[turn], queries=[turn], reads=-old, writes="v"
  )
  rescale.head(
    "rescale.product", keys=[turn], queries=["r"], reads="u", writes="v"
  )
  rescale.clear("rescale.clear", "u")
  rescale.clear("rescale.clear", "r", is_positive=True)


def _measure(layer, name):
  turn = layer.slots.select("st", 0)
  layer.head(
    f"{name}.length", keys=["v"], queries=["v"], reads=turn, writes="nn"
  )


def _add_unit_length(made, curve):
  """`u = v`, and r is about `1 / |v|` by the curve, or Newton's factor."""
  turn = made["length"].slots.select("st", 0)
  for name in ("length", "newton"):
    made[name].head(
      f"{name}.copy", keys=[turn], queries=[turn], reads="v", writes="u"
    )
    _measure(made[name], name)
  made["length"].apply_curve("length.inverse_root", "nn", curve, "r", turn)
  add_newton_factor(made["newton"], "newton.factor", turn)
  for name in ("length", "newton"):
    made[name].clear(f"{name}.clear", "nn", is_positive=True)


def add_newton_factor(layer: TokenLayer, name: str, flag: np.ndarray) -> None:
  """`r = (3 - nn) / 2` where a flag is 1: r v is nearer to length 1 than v.

  Args:
    layer: to whose MLP it is added.
    name: of the block.
    flag: `[1, D]`.
  """
  select = layer.slots.select
  layer.units(name, flag, 1.5 * select("r"))
  layer.units(name, select("nn"), -0.5 * select("r"))


def _add_pair(made, min_eigenvalue):
  """The eigenvalue, the pair to where it stays, and A without it."""
  made["apply"].signed_heads(
    "apply.matrix", keys=["q"], queries=["v"], reads="a", writes="u"
  )
  value, scale, deflate = made["value"], made["scale"], made["deflate"]
  select = value.slots.select
  turn = select("st", 0)
  # One head each: an eigenvalue in range is positive.
  value.head(
    "value.product", keys=["u"], queries=["v"], reads=turn, writes="lam"
  )
  value.clear("value.clear", "u")
  scale.head(
    "scale.product", keys=[turn], queries=["lam"], reads="v", writes="u"
  )
  deflate.signed_heads(
    "deflate.sum", keys=["v"], queries=["q"], reads=-select("u"), writes="a"
  )
  deflate.move("deflate.vector", "v", "out")
  deflate.move("deflate.value", "lam", "lo")
  deflate.units(
    "deflate.raise", min_eigenvalue * turn - select("lam"), select("lo")
  )
  shift(deflate, "deflate.turn", "st")


def _add_roots(made, curve):
  """`rr = lo^(-1/2)` and `root = lo^(1/2)`: a curve, then Newton's steps.

  With `h = (3 - rr root) / 2` both times h: the error e of their product
  becomes `3 e^2 / 4` and less, and their quotient stays lo.
  """
  guess, pair = made["guess"], made["pair"]
  select = guess.slots.select
  guess.apply_curve("guess.inverse_root", "lo", curve, "rr", select("cf"))
  pair.product("pair.product", "rr", "lo", "root", is_signed=False)
  error, improve = made["error"], made["improve"]
  error.product(
    "error.product", "rr", -0.5 * select("root"), "h", is_signed=False
  )
  error.units("error.factor", select("cf"), 1.5 * select("h"))
  both = np.concatenate([select("rr"), select("root")])
  improve.forget("improve.forget", both)
  improve.product("improve.product", "h", both, both, is_signed=False)
  improve.clear("improve.clear", "h", is_positive=True)


def _add_whitening(whiten, project):
  select = whiten.slots.select
  whiten.product(
    "whiten.inverse_root",
    "rr",
    np.concatenate([select("out"), select("fl")]),
    np.concatenate([select("to"), select("rf")]),
    is_signed=False,
  )
  whiten.product("whiten.root", "root", "out", "back", is_signed=False)
  whiten.clear("whiten.clear", "rr", "root", "lo", is_positive=True)
  whiten.units("whiten.turn", select("fl"), select("st"))
  for target, source in (("t", "x"), ("ct", "wx")):
    project.signed_heads(
      f"project.{target}",
      keys=["to"],
      queries=[source],
      reads="fl",
      writes=target,
    )


def _add_noise(layer):
  """Tokens `m + s_l e_l`, `m - s_l e_l` and m, m the mean, for each l.

  The noise's part of the third moment is half the sum of the first two cubes,
  less the third; `s_l` is its standard deviation along axis l, whitened.
  """
  layer.head("noise.mean", keys=["w"], queries=["nf"], reads="t", writes="t")
  layer.signed_heads(
    "noise.mean_term", keys=["w"], queries=["nc"], reads="t", writes="ct"
  )
  for name, queries, target in (
    ("noise.offset", "ns", "t"),
    ("noise.offset_term", "ncs", "ct"),
  ):
    layer.signed_heads(
      name, keys=["fl"], queries=[queries], reads="rf", writes=target
    )
