"""Trained networks as files: safe to read, checked, and with a card.

A network is two files, `NAME.safetensors` with its parameters and `NAME.json`,
its card: how it is built, what it was trained on, what it reached, and the
SHA-256 of the parameters. Those in `tgmm_jax/pretrained/weights` come with the
package; nothing is downloaded, and nothing in a file is executed.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import os
import pathlib
import reprlib
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import types
from tgmm_jax.pretrained import card_fields, stored_params
from tgmm_jax.solvers import checks
from tgmm_jax.tasks import trained_range
from tgmm_jax.training import files

if TYPE_CHECKING:
  # A card is read without Flax, which takes a second.
  from tgmm_jax.models import factory

# Of the card: raised when an older reader would misunderstand it.
FORMAT = 1


class PretrainedError(ValueError):
  """A network that cannot be used, in one line: why, and what is there."""


class OutsideRangeWarning(UserWarning):
  """Points that do not look like those a network was trained on."""


@dataclasses.dataclass(frozen=True)
class Card:
  """What there is to know of a trained network; `NAME.json` holds it.

  Attributes:
    name: of the network and of its files.
    title: what it is for, in a line.
    format: version of the card.
    network: a name in `factory.CONFIGS`.
    model: the fields of its config.
    dims: d of the tasks it was trained on, ascending.
    max_dim: the largest d that it answers, None for any.
    num_points: the smallest and the largest N of training.
    ranges: by d, limits as in `trained_range.TrainedRange`, about the mean, or
      in units of the spread where the network knows no unit, or about the
      origin where it needs one.
    sha256: of the file with the parameters.
    metrics: rows of a table: solver, dim, num_components, num_points, metric,
      mean, standard_error, count, failures.
    training: config, commit, steps, seconds, hardware and versions.
  """

  name: str
  title: str
  format: int
  network: str
  model: dict[str, Any]
  dims: tuple[int, ...]
  max_dim: int | None
  num_points: tuple[int, int]
  ranges: dict[str, dict[str, float]]
  sha256: str
  metrics: list[dict[str, Any]]
  training: dict[str, Any]

  @property
  def num_components(self) -> tuple[int, ...]:
    """K that it answers."""
    return tuple(self.model["num_components"])

  @property
  def min_dim(self) -> int:
    """The smallest d that it answers; the paper's network has one d alone."""
    return self.model.get("dim", 1)

  @property
  def config(self) -> "factory.ModelConfig":
    """Of the network; `PretrainedError` where the card describes none."""
    from tgmm_jax.models import factory

    kind = factory.CONFIGS.get(self.network)
    if kind is None:
      raise PretrainedError(
        f"the card of {self.name!r} has the network {self.network!r}, takes"
        f" one of {list(factory.CONFIGS)}"
      )
    try:
      card_fields.check_model(
        {field.name: field.type for field in dataclasses.fields(kind)},
        self.model,
      )
      return kind(
        **{
          name: tuple(value) if isinstance(value, list) else value
          for name, value in self.model.items()
        }
      )
    except ValueError as error:
      raise PretrainedError(
        f"the card of {self.name!r} describes no network: {error}"
      ) from error

  def range_of(self, dim: int) -> trained_range.TrainedRange:
    """The limits for any d, between those of training by the logarithm."""
    dims = np.array(self.dims)
    return trained_range.TrainedRange(
      *(
        jnp.asarray(
          np.interp(
            np.log(dim),
            np.log(dims),
            [self.ranges[str(own)][name] for own in dims],
          ),
          jnp.float32,
        )
        for name in trained_range.TrainedRange._fields
      )
    )


def available() -> dict[str, Card]:
  """The cards of the networks that come with the package, by name."""
  return dict(_shipped())


@functools.cache
def _shipped():
  """Read once: every fit asks for them."""
  return {
    path.stem: read_card(path) for path in sorted(_folder().glob("*.json"))
  }


def read_card(name_or_path: str | os.PathLike) -> Card:
  """Reads the card of a network.

  Args:
    name_or_path: a name in `available()`, or a path with or without its
      suffix.

  Raises:
    PretrainedError: there is no such network, or its card cannot be read.
  """
  path = _find(name_or_path)
  try:
    found = files.parse_object(path.read_bytes())
    version = card_fields.format_of(found)
    if version > FORMAT:
      raise PretrainedError(
        f"{path} has format {version}, takes {FORMAT} or less: a newer version"
        " of tgmm_jax reads it"
      )
    fields = {field.name for field in dataclasses.fields(Card)}
    if set(found) != fields:
      wrong = sorted(set(found) ^ fields)
      raise PretrainedError(
        f"{path} is no card of format {version}: {reprlib.repr(wrong)}"
      )
    card_fields.check(found)
    if found["name"] != path.stem:
      raise ValueError(
        f"name is {found['name']!r}, takes {path.stem!r} as its file: one of"
        " them was renamed"
      )
  except PretrainedError:
    raise
  except (OSError, ValueError) as error:
    raise PretrainedError(f"{path} is no card: {error}") from error
  for name in ("dims", "num_points"):
    found[name] = tuple(found[name])
  return Card(**found)


def load_params(
  name_or_path: str | os.PathLike,
) -> "tuple[Card, factory.Params]":
  """Reads card and parameters, and checks that they belong together.

  Raises:
    PretrainedError: see `read_card`; the checksum is another than the card's,
      or the parameters are not those of the network that it describes.
  """
  path = _find(name_or_path)
  card = read_card(path)
  weights = path.with_suffix(".safetensors")
  try:
    content = weights.read_bytes()
  except OSError as error:
    raise PretrainedError(
      f"{weights} cannot be read: {error.strerror}"
    ) from error
  digest = hashlib.sha256(content).hexdigest()
  if digest != card.sha256:
    raise PretrainedError(
      f"{weights} has the SHA-256 {digest[:12]}..., takes"
      f" {card.sha256[:12]}... as on its card: it is damaged or another file"
    )
  try:
    flat = stored_params.decode(content)
  except ValueError as error:
    raise PretrainedError(f"{weights} {error}") from error
  _check_dims(path, card)
  # Those that come with the package need no network to be built for it.
  if path.parent != _folder():
    wanted = stored_params.flatten(_build(card).shapes)
    if stored_params.types_of(flat) != stored_params.types_of(wanted):
      raise PretrainedError(
        f"{weights} has other parameters than the network of its card"
      )
  return card, stored_params.unflatten(flat)


def _check_dims(path, card):
  """Refuses a card that promises more d than its network can answer."""
  most = card.config.max_dim
  if most is not None and (card.max_dim is None or card.max_dim > most):
    raise PretrainedError(
      f"{path} is no card: max_dim is {card.max_dim}, takes at most {most} with"
      " its network"
    )


def _build(card):
  from tgmm_jax.models import factory

  config = card.config
  try:
    return factory.build(config)
  except (TypeError, ValueError, ArithmeticError) as error:
    text = " ".join(str(error).split())
    raise PretrainedError(
      f"the card of {card.name!r} describes no network: {text}"
    ) from error


def load(
  name_or_path: str | os.PathLike, *, knows_origin: bool = False
) -> types.Solver:
  """A trained network as a solver of one problem.

  Args:
    name_or_path: a name in `available()`, or the path of a card.
    knows_origin: whether the data come from a law that is centred at the
      origin, as the paper's tasks; False makes the answer shift-invariant, but
      not that of the paper's own network, which needs such a law.

  Returns:
    `(key, points, num_components, *, sample_weight) -> SolverResult`, pure but
    for an `OutsideRangeWarning` where it is called on arrays with values. The
    key draws the view. `is_outside_range` says whether the points look unlike
    those of training.

  Raises:
    PretrainedError: see `load_params`.
  """
  from tgmm_jax.models import factory

  card, params = load_params(name_or_path)
  params = jax.tree.map(jnp.asarray, params)
  solve = factory.solver(_build(card), params, knows_origin=knows_origin)

  def solve_in_range(key, points, num_components, *, sample_weight=None):
    check_problem(card, points.shape[-1], num_components)
    if sample_weight is None:
      sample_weight = jnp.ones(points.shape[0], points.dtype)
    result = solve(key, points, num_components, sample_weight=sample_weight)
    is_outside = trained_range.is_outside(
      card.range_of(points.shape[-1]),
      points,
      sample_weight=sample_weight,
      about=about(card.config),
    )
    warn_if_outside(card, is_outside)
    return result._replace(is_outside_range=is_outside)

  return solve_in_range


def about(config: "factory.ModelConfig") -> str:
  """How the limits of a network are measured, see `trained_range.measure`."""
  if config.needs_origin:
    return "origin"
  return "spread" if config.is_scale_free else "mean"


def check_problem(card: Card, dim: int, num_components: Any) -> None:
  """Refuses problems that a network does not answer.

  Args:
    card: of the network.
    dim: d of the problem.
    num_components: K; of a traced one the solver's status tells.

  Raises:
    ValueError: d or K is out of the card's range.
  """
  if dim < card.min_dim:
    raise ValueError(
      f"points has d = {dim}, takes {card.min_dim} with the network"
      f" {card.name!r}"
    )
  if card.max_dim is not None and dim > card.max_dim:
    raise ValueError(
      f"points has d = {dim}, takes at most {card.max_dim} with the network"
      f" {card.name!r}"
    )
  if isinstance(num_components, jax.core.Tracer):
    return
  wrong = np.setdiff1d(np.asarray(num_components), card.num_components)
  if wrong.size:
    raise ValueError(
      f"num_components is {wrong[0]}, takes one of {card.num_components} with"
      f" the network {card.name!r}"
    )


def warn_if_outside(card: Card, is_outside: jax.Array) -> None:
  """Warns where any problem is outside the range; of traced ones nobody knows.

  Python shows the same warning once.
  """
  if not isinstance(is_outside, jax.core.Tracer) and np.any(is_outside):
    checks.warn(
      f"points are unlike those that the network {card.name!r} was trained on"
      " (reach or spread): its answer may be poor",
      OutsideRangeWarning,
    )


def save(
  folder: str | os.PathLike, params: "factory.Params", **fields: Any
) -> pathlib.Path:
  """Writes a network's two files; the card gets format and checksum.

  Args:
    folder: where to; it is made if it does not exist.
    params: float32 arrays.
    **fields: of the `Card`, all others.

  Returns:
    The path of the card.

  Raises:
    ValueError: a field is not what a card takes; nothing is written.
  """
  folder = pathlib.Path(folder)
  content = stored_params.encode(params)
  card = Card(
    format=FORMAT, sha256=hashlib.sha256(content).hexdigest(), **fields
  )
  # As a reader will find it.
  card_fields.check(json.loads(json.dumps(dataclasses.asdict(card))))
  path = folder / f"{card.name}.json"
  files.write(path.with_suffix(".safetensors"), content)
  files.write_json(path, dataclasses.asdict(card))
  return path


def _folder():
  return pathlib.Path(
    str(importlib.resources.files("tgmm_jax.pretrained.weights"))
  )


def _find(name_or_path):
  """The path of a card."""
  path = pathlib.Path(name_or_path)
  if path.suffix in (".json", ".safetensors"):
    path = path.with_suffix("")
  if path == pathlib.Path(path.name) and not path.with_suffix(".json").exists():
    path = _folder() / path.name
  card = path.with_name(path.name + ".json")
  if not card.is_file():
    names = [own.stem for own in sorted(_folder().glob("*.json"))]
    raise PretrainedError(
      f"name is {str(name_or_path)!r}, takes one of {names} or the path of a"
      " card"
    )
  return card
