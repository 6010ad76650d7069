"""The power method for k eigenvectors as a ReLU transformer.

Theorem 2.1 of arXiv 2501.01312: a network that symmetrises the points to
`A = X X^T`, makes tau power iterations on each of k given starts, estimates
the eigenvalue, and takes the pair off A. All products are exact (two ReLU
heads `relu(z) - relu(-z)` each). The one approximated function is
`1 / sqrt(|v|^2)`, by 64 segments to 3.2%: it scales v and never turns it, and
at the end of each vector Newton's `v (3 - |v|^2) / 2`, which is made of exact
products, takes the length to 1 at quadratic rate.

Nothing is masked: every score is a product with a flag, or with a slot that is
0 in all other tokens. Tokens are the N points (`x`), d matrix tokens (`q` a
unit vector, `a` a column of A), k auxiliary tokens (`p` a start, `fl` its
number, then `out` and `lo` the result) and one work token (`fw`); as their
slots differ they may also lie on top of each other.

The layers, by the names of their blocks: `S` symmetrises and loads the first
start; `P` multiplies by A and `Q` rescales, tau times; `C` (the curve once
more) and `W` (Newton), each with `Q`, make the length 1; `E1`, `E2` estimate
the eigenvalue; `T1` ... `Tk` store the pair and load the next start; `R`
removes the pair; `L` labels the points by the side on which they lie.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import linalg
from tgmm_jax.constructed import piecewise_linear, primitives

# Squared lengths that the curve covers: eigenvalues from 1e-4 to 1e4.
LEAST_SQUARE, MOST_SQUARE = 1e-8, 1e8
_NUM_SEGMENTS = 64
# Half the width of the ramp of the labels; a power of two, so that float32
# loses no more than the rounding of the projection over it.
LABEL_WIDTH = 2.0**-14

_SYMMETRISE, _MULTIPLY, _RESCALE, _CURVE, _NEWTON, _LABEL = range(6)
_ESTIMATE = (6, 7)
_REMOVE, _FIRST_STORE = 8, 9


def build(
  max_dim: int,
  num_vectors: int = 1,
  *,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> primitives.ConstructedTransformer:
  """The network; the weights depend on neither N nor d nor tau.

  Args:
    max_dim: d0, the largest d.
    num_vectors: k0, the largest k.
    dtype: of the weights.

  Raises:
    ValueError: for k0 not in 1 ... d0.
  """
  if max_dim < 1:
    raise ValueError(f"max_dim is {max_dim}, takes an integer >= 1")
  if not 1 <= num_vectors <= max_dim:
    raise ValueError(f"num_vectors is {num_vectors}, takes 1 ... {max_dim}")
  slots = primitives.Slots.of(
    **dict.fromkeys(("x", "q", "a", "p", "v", "w", "u", "out"), max_dim),
    fl=num_vectors,
    **dict.fromkeys(("fw", "nn", "r", "lam", "lo", "s", "lab", "one"), 1),
  )
  layers = [
    _symmetrise(slots),
    _multiply(slots, "P", is_by_matrix=True),
    _rescale(slots),
    _multiply(slots, "C", is_by_matrix=False),
    _newton(slots),
    _label(slots),
    *_estimate(slots),
    _remove(slots),
    *(_store(slots, index) for index in range(num_vectors)),
  ]
  return primitives.build(slots, layers, activation="relu", dtype=dtype)


def _symmetrise(slots):
  """`a_j = sum_i x_i x_i[j]`, and v becomes the first start."""
  layer = primitives.LayerBuilder(slots)
  layer.signed_heads(
    "S.symmetrise", keys=["x"], queries=["q"], reads="x", writes="a"
  )
  _load(layer, "S", 0, "v")
  return layer


def _load(layer, name, index, target):
  """Copies start number `index` to the work token."""
  slots = layer.slots
  if index < slots.size("fl"):
    layer.head(
      f"{name}.load",
      keys=[slots.select("fl", index)],
      queries=["fw"],
      reads="p",
      writes=target,
    )


def _forget(layer, name):
  """Takes v off itself, before anything is added in its place.

  An MLP would add `u - v`, which is rounded to the size of v.
  """
  old = layer.slots.select("v")
  layer.head(name, keys=["fw"], queries=["fw"], reads=-old, writes=old)


def _multiply(slots, name, *, is_by_matrix):
  """`w = A v` (or w = v), and r is about `1 / |v|` of the present v."""
  layer = primitives.LayerBuilder(slots)
  if is_by_matrix:
    _times_matrix(layer, f"{name}.matrix")
  else:
    _copy(layer, f"{name}.copy")
  _measure(layer, f"{name}.length")
  curve, constant = piecewise_linear.power_geometric(
    -0.5, LEAST_SQUARE, MOST_SQUARE, _NUM_SEGMENTS
  )
  flag, inverse = slots.select("fw"), slots.select("r")
  layer.curve(f"{name}.inverse", slots.select("nn"), curve, inverse, one=flag)
  layer.units(f"{name}.inverse", flag, constant * inverse)
  layer.clear(f"{name}.clear", "nn", is_positive=True)
  return layer


def _newton(slots):
  """`w = v` and `r = (3 - |v|^2) / 2`."""
  layer = primitives.LayerBuilder(slots)
  _copy(layer, "W.copy")
  _measure(layer, "W.length")
  flag, inverse = slots.select("fw"), slots.select("r")
  layer.units("W.factor", flag, 1.5 * inverse)
  layer.units("W.factor", slots.select("nn"), -0.5 * inverse)
  layer.clear("W.clear", "nn", is_positive=True)
  return layer


def _times_matrix(layer, name):
  layer.signed_heads(name, keys=["q"], queries=["v"], reads="a", writes="w")


def _copy(layer, name):
  layer.head(name, keys=["fw"], queries=["fw"], reads="v", writes="w")


def _measure(layer, name):
  layer.head(name, keys=["v"], queries=["v"], reads="fw", writes="nn")


def _rescale(slots):
  """`v = r w`."""
  layer = primitives.LayerBuilder(slots)
  _forget(layer, "Q.forget")
  layer.head("Q.rescale", keys=["fw"], queries=["r"], reads="w", writes="v")
  layer.clear("Q.clear", "w")
  layer.clear("Q.clear", "r", is_positive=True)
  return layer


def _estimate(slots):
  """`w = A v`, then `lam = <v, w>`, or 0 where that is below."""
  first = primitives.LayerBuilder(slots)
  _times_matrix(first, "E1.matrix")
  second = primitives.LayerBuilder(slots)
  second.head("E2.value", keys=["w"], queries=["v"], reads="fw", writes="lam")
  second.clear("E2.clear", "w")
  return first, second


def _store(slots, index):
  """The pair goes to its auxiliary token; `w = lam v`; the next start to u."""
  name = f"T{index + 1}"
  layer = primitives.LayerBuilder(slots)
  pair = [slots.select("v"), slots.select("lam")]
  result = [slots.select("out"), slots.select("lo")]
  layer.head(
    f"{name}.store",
    keys=["fw"],
    queries=[slots.select("fl", index)],
    reads=np.concatenate(pair),
    writes=np.concatenate(result),
  )
  layer.head(
    f"{name}.scale", keys=["fw"], queries=["lam"], reads="v", writes="w"
  )
  _load(layer, name, index + 1, "u")
  return layer


def _remove(slots):
  """`a_j -= lam v v_j`, and v becomes what was loaded."""
  layer = primitives.LayerBuilder(slots)
  _forget(layer, "R.forget")
  layer.signed_heads(
    "R.remove", keys=["v"], queries=["q"], reads=-slots.select("w"), writes="a"
  )
  layer.move("R.move", "u", "v")
  layer.clear("R.clear", "w")
  layer.clear("R.clear", "lam", is_positive=True)
  return layer


def _label(slots):
  """`s_i = <x_i, v>`, and `lab` its sign, with a ramp at 0."""
  layer = primitives.LayerBuilder(slots)
  layer.signed_heads(
    "L.project", keys=["v"], queries=["x"], reads="fw", writes="s"
  )
  side, label, one = (slots.select(name) for name in ("s", "lab", "one"))
  width = LABEL_WIDTH
  layer.units("L.label", side + width * one, label / width)
  layer.units("L.label", side - width * one, -label / width)
  layer.units("L.label", one, -label)
  return layer


def schedule(
  num_vectors: int, num_steps: int, *, num_newton: int = 4
) -> tuple[primitives.Run, ...]:
  """The layers for k eigenvectors: `1 + k (2 tau + 2 num_newton + 6)`.

  Args:
    num_vectors: k.
    num_steps: tau, power iterations for each.
    num_newton: Newton steps for each; 3% off, the length is 1 to 2e-11 after
      3 and to rounding after 4.
  """
  runs = [primitives.Run((_SYMMETRISE,))]
  for index in range(num_vectors):
    runs += [
      primitives.Run((_MULTIPLY, _RESCALE), num_steps),
      primitives.Run((_CURVE, _RESCALE)),
      primitives.Run((_NEWTON, _RESCALE), num_newton),
      primitives.Run((*_ESTIMATE, _FIRST_STORE + index, _REMOVE)),
    ]
  return tuple(runs)


def label_schedule(num_steps: int) -> tuple[primitives.Run, ...]:
  """The layers that label points by the leading direction: `2 tau + 4`."""
  return (
    primitives.Run((_SYMMETRISE,)),
    primitives.Run((_MULTIPLY, _RESCALE), num_steps),
    primitives.Run((_CURVE, _RESCALE)),
    primitives.Run((_LABEL,)),
  )


def encode(
  network: primitives.ConstructedTransformer,
  points: jax.Array,
  starts: jax.Array,
  *,
  is_overlay: bool = False,
) -> jax.Array:
  """The first state, `[D, T]`.

  Args:
    network: from `build`.
    points: `[N, d]`, over sqrt(N) for the covariance; 0 is padding.
    starts: `[k, d]`, one for each eigenvector.
    is_overlay: whether all kinds of tokens begin at token 0, T = max(N, d),
      or each after the other, T = N + d + k + 1. The result is the same.

  Raises:
    ValueError: for more dimensions or vectors than the network was built for.
  """
  slots = network.slots
  num_points, dim = points.shape
  num_vectors = starts.shape[0]
  max_dim, max_vectors = slots.size("x"), slots.size("fl")
  if dim > max_dim:
    raise ValueError(f"points have d = {dim}, takes d <= max_dim = {max_dim}")
  if not 1 <= num_vectors <= min(max_vectors, dim):
    raise ValueError(
      f"starts are k = {num_vectors}, takes 1 ... {min(max_vectors, dim)}, the"
      " lesser of num_vectors and d"
    )
  if starts.shape != (num_vectors, dim):
    raise ValueError(f"starts have shape {starts.shape}, takes [k, {dim}]")
  parts = [
    {"x": points, "one": jnp.ones((num_points, 1), points.dtype)},
    {"q": jnp.eye(dim, dtype=points.dtype)},
    {"p": starts, "fl": jnp.eye(num_vectors, dtype=points.dtype)},
    {"fw": jnp.ones((1, 1), points.dtype)},
  ]
  sizes = [num_points, dim, num_vectors, 1]
  firsts = [0] * 4 if is_overlay else [sum(sizes[:i]) for i in range(4)]
  num_tokens = max(sizes) if is_overlay else sum(sizes)
  state = jnp.zeros((slots.width, num_tokens), points.dtype)
  for first, part in zip(firsts, parts, strict=True):
    for name, rows in part.items():
      row = slots[name].start
      state = jax.lax.dynamic_update_slice(state, rows.T, (row, first))
  return state


def decode(
  network: primitives.ConstructedTransformer,
  state: jax.Array,
  dim: int,
  num_vectors: int,
) -> tuple[jax.Array, jax.Array]:
  """Eigenvalues `[k]` and vectors `[d, k]` in a last state, either layout."""
  slots = network.slots
  places = slots.read(state, "fl").T
  values = linalg.matmul(slots.read(state, "lo"), places)[0, :num_vectors]
  vectors = linalg.matmul(slots.read(state, "out"), places)
  return values, vectors[:dim, :num_vectors]


def read_vector(
  network: primitives.ConstructedTransformer, states: jax.Array, dim: int
) -> jax.Array:
  """The vector in work, `[..., d]`, of states `[..., D, T]`."""
  slots = network.slots
  work = jnp.swapaxes(slots.read(states, "fw"), -1, -2)
  return linalg.matmul(slots.read(states, "v"), work)[..., :dim, 0]
