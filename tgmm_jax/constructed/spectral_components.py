"""Second half of the spectral method's layers: from whitened points to means.

Names of layers and what they leave in the residual stream. The tensor is
`T = sum_i ct_i (x) t_i (x) t_i` over points, noise and components found; a
turn finds one component from the seekers whose turn it is (`sr`).

  start     y becomes the start of every seeker in turn
  products, map, renew    `y = T(I, y, y) / |y|^2`, about
  unit, settle            (each with renew) `|y| = 1`
  measure   (after products and map) `val = T(y, y, y)`
  choose    y of the component is the soft maximum of its seekers'
  store     `tt, ct = y y^T, -val y`: the component is off the tensor; next turn
  unwhiten  `mean = sum_l back_l (val t)_l`, `lo = val^2`
  weigh, add, normalise   `pi = val^-2 / sum val^-2`
"""

from tgmm_jax.constructed import primitives, spectral_whitening
from tgmm_jax.constructed.token_layer import TokenLayer

NAMES = (
  *("start", "products", "map", "renew", "unit", "settle", "measure"),
  *("choose", "store", "unwhiten", "weigh", "add", "normalise"),
)


def layers(
  slots: primitives.Slots, barrier: float, segments: int, sharpness: float
) -> dict[str, TokenLayer]:
  """The layers by name.

  Args:
    slots: of `spectral_network.build`.
    barrier: what no score passes.
    segments: of each curve.
    sharpness: of the soft maximum, in units of 1 / val.
  """
  made = {name: TokenLayer(slots, barrier) for name in NAMES}
  select = slots.select
  made["start"].gated("start.vector", select("s"), select("y"), select("sr", 0))
  _add_tensor_step(made, segments)
  _add_unit_length(made, segments)
  _add_choice(made, barrier, sharpness)
  _add_store(made["store"])
  _add_means(made["unwhiten"], barrier)
  _add_weights(made)
  return made


def _in_turn(slots):
  """The flag of seekers and of the component whose turn it is."""
  return slots.select("st", 0) + slots.select("sr", 0)


def _add_tensor_step(made, segments):
  """`<t_i, y>^2 = <tt_i, yy>` is one score, so T(I, y, y) one head."""
  products, renew = made["products"], made["renew"]
  flag = _in_turn(products.slots)
  spectral_whitening.add_products(products, "products", "y", "yy")
  products.dot("products.length", "y", "y", "nn", is_signed=False)
  curve = spectral_whitening.inverse(segments)
  products.apply_curve("products.inverse", "nn", curve, "r", flag)
  products.clear("products.clear", "nn", is_positive=True)
  made["map"].head(
    "map.sum", keys=["tt"], queries=["yy"], reads="ct", writes="z"
  )
  renew.forget("renew.forget", "y")
  renew.product("renew.product", "r", "z", "y", is_signed=False)
  renew.clear("renew.clear", "z", "yy")
  renew.clear("renew.clear", "r", is_positive=True)


def _add_unit_length(made, segments):
  """`z = y`, and r is about `1 / |y|` by the curve, or Newton's factor."""
  flag = _in_turn(made["unit"].slots)
  for name in ("unit", "settle"):
    made[name].product(f"{name}.copy", "one", "y", "z", is_signed=False)
    made[name].dot(f"{name}.length", "y", "y", "nn", is_signed=False)
  curve = spectral_whitening.inverse_root(segments)
  made["unit"].apply_curve("unit.inverse_root", "nn", curve, "r", flag)
  spectral_whitening.add_newton_factor(made["settle"], "settle.factor", flag)
  for name in ("unit", "settle"):
    made[name].clear(f"{name}.clear", "nn", is_positive=True)


def _add_choice(made, barrier, sharpness):
  """The value of each vector, and a softmax over the seekers in turn.

  No other token has a vector then (`renew` leaves none to those whose turn it
  is not), so that who does not choose, and is masked the other way round, adds
  0.
  """
  measure, choose = made["measure"], made["choose"]
  select = measure.slots.select
  # One head: of a vector that is an eigenvector the value is positive.
  measure.dot("measure.product", "z", "y", "val", is_signed=False)
  measure.clear("measure.clear", "z")
  measure.clear("measure.clear", "r", is_positive=True)
  chooser, seeker, one = select("st", 0), select("sr", 0), select("one")
  choose.head(
    "choose.soft_maximum",
    keys=["val", one - seeker, seeker],
    queries=[
      sharpness * chooser,
      -barrier * chooser,
      -barrier * (one - chooser),
    ],
    reads="y",
    writes="y",
  )


def _add_store(layer):
  select = layer.slots.select
  turn = select("st", 0)
  flag = {"only": turn, "is_signed": False}
  layer.product("store.term", "val", -select("y"), "ct", **flag)
  layer.product("store.value", "one", "val", "lv", **flag)
  layer.gated("store.products", select("yy"), select("tt"), turn)
  for slot in ("st", "sr"):
    spectral_whitening.shift(layer, "store.turn", slot)


def _add_means(layer, barrier):
  select = layer.slots.select
  is_other = select("one") - select("cf")
  layer.signed_heads(
    "unwhiten.sum",
    keys=["fl"],
    queries=[-select("ct")],
    reads="back",
    writes="mean",
    masks=(["one"], [-barrier * is_other]),
  )
  layer.product("unwhiten.square", "lv", "lv", "lo", is_signed=False)


def _add_weights(made):
  """With `rr = lo^(-1/2)`: its square, their sum, and over that."""
  weigh, add, normalise = made["weigh"], made["add"], made["normalise"]
  weigh.product("weigh.product", "rr", "rr", "pi", is_signed=False)
  weigh.clear("weigh.clear", "rr", "root", is_positive=True)
  add.forget("add.forget", "lo")
  add.head("add.sum", keys=["pi"], queries=["cf"], reads="cf", writes="lo")
  normalise.forget("normalise.forget", "pi")
  normalise.product("normalise.product", "rr", "pi", "pi", is_signed=False)
