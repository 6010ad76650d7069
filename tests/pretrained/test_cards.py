import copy
import dataclasses
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tgmm_jax import pretrained, types
from tgmm_jax.models import factory, refiner
from tgmm_jax.tasks import mixtures, trained_range

SMALL = refiner.RefinerConfig(
  num_components=(2, 3), rank=2, width=8, num_layers=2, num_heads=2
)
LIMITS = {"max_reach": 9.0, "min_spread": 0.5, "max_spread": 4.0}


def write(folder, **changes):
  model = factory.build(SMALL)
  params = jax.jit(model.init)(jax.random.key(0))
  fields = {
    "name": "small",
    "title": "for a test",
    "network": "refiner",
    "model": dataclasses.asdict(SMALL),
    "dims": (2, 8),
    "max_dim": 8,
    "num_points": (16, 128),
    "ranges": {"2": LIMITS, "8": LIMITS | {"max_reach": 11.0}},
    "metrics": [],
    "training": {"num_steps": 1},
  }
  return pretrained.save(folder, params, **(fields | changes)), params


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """Path of a card, and the parameters that were saved."""
  return write(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def problem():
  means = jnp.array([[-3.0, 0.0], [3.0, 0.0]])
  noise = jax.random.normal(jax.random.key(1), (40, 2))
  return means[jnp.arange(40) % 2] + noise


def test_parameters_and_card_come_back(saved):
  path, params = saved
  card, found = pretrained.load_params(path)
  assert jax.tree.structure(found) == jax.tree.structure(params)
  for got, want in zip(
    jax.tree.leaves(found), jax.tree.leaves(params), strict=True
  ):
    np.testing.assert_array_equal(got, want)
  assert card.config == SMALL
  assert card.num_components == (2, 3)
  # With or without a suffix, of either file.
  for name in (path.with_suffix(""), path.with_suffix(".safetensors")):
    assert pretrained.read_card(name) == card


def test_solver_is_that_of_the_network_and_pure(saved, problem):
  path, params = saved
  key = jax.random.key(3)
  solve = pretrained.load(path)
  direct = factory.solver(factory.build(SMALL), params, knows_origin=False)
  found, expected = solve(key, problem, 2), direct(key, problem, 2)
  np.testing.assert_array_equal(found.mixture.means, expected.mixture.means)
  assert not found.is_outside_range
  batched = jax.jit(jax.vmap(solve, in_axes=(0, 0, None)))(
    jnp.stack([key, key]), jnp.stack([problem, problem]), 2
  )
  np.testing.assert_allclose(
    batched.mixture.means[1], found.mixture.means, rtol=1e-4, atol=1e-5
  )
  assert batched.is_outside_range.shape == (2,)


def test_answers_do_not_depend_on_the_origin_unless_it_is_known(saved, problem):
  path, _ = saved
  key, shift = jax.random.key(3), jnp.array([100.0, -50.0])
  solve = pretrained.load(path)
  here = solve(key, problem, 2)
  there = solve(key, problem + shift, 2)
  np.testing.assert_allclose(
    there.mixture.means[:2] - shift, here.mixture.means[:2], atol=1e-3
  )
  assert not there.is_outside_range
  known = pretrained.load(path, knows_origin=True)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    moved = known(key, problem + shift, 2).mixture.means[:2] - shift
  here = known(key, problem, 2).mixture.means[:2]
  assert np.max(np.abs(moved - here)) > 1e-3


@pytest.mark.parametrize("scale", [0.01, 10.0])
def test_points_outside_the_range_are_flagged(saved, problem, scale):
  solve = pretrained.load(saved[0])
  key = jax.random.key(0)
  with pytest.warns(
    pretrained.OutsideRangeWarning, match="unlike those"
  ) as caught:
    result = solve(key, problem * scale, 2)
  # It points here, so that Python shows it once for each place of ours.
  assert caught[0].filename == __file__
  assert result.is_outside_range
  assert np.all(np.isfinite(result.mixture.means))
  # Inside jit nobody can warn, but the flag is there.
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert jax.jit(solve, static_argnums=2)(
      key, problem * scale, 2
    ).is_outside_range


def test_limits_between_dimensions_are_between(saved):
  card = pretrained.read_card(saved[0])
  assert float(card.range_of(4).max_reach) == pytest.approx(10.0)
  assert float(card.range_of(1).max_reach) == pytest.approx(9.0)
  assert float(card.range_of(100).max_reach) == pytest.approx(11.0)
  assert isinstance(card.range_of(2), trained_range.TrainedRange)


def test_what_a_network_does_not_answer(saved, problem):
  solve, key = pretrained.load(saved[0]), jax.random.key(0)
  with pytest.raises(ValueError, match="num_components is 4, takes one of"):
    solve(key, problem, 4)
  with pytest.raises(ValueError, match="points has d = 9, takes at most 8"):
    solve(key, jnp.zeros((20, 9)), 2)
  status = jax.jit(solve)(key, problem, jnp.asarray(4)).status
  assert status == types.Status.INVALID_INPUT


def test_the_papers_network_answers_one_d_and_knows_the_origin():
  card = pretrained.read_card("tgmm-d2")
  assert card.min_dim == card.max_dim == 2
  solve = pretrained.load("tgmm-d2")
  law = mixtures.TaskConfig(dim=2, num_components=(3,))
  task = mixtures.sample_task(jax.random.key(0), law, 3)
  options = {"sample_weight": task.sample_weight}
  key = jax.random.key(1)
  assert not solve(key, task.points, 3, **options).is_outside_range
  with pytest.warns(pretrained.OutsideRangeWarning, match="tgmm-d2"):
    assert solve(key, task.points + 20.0, 3, **options).is_outside_range
  for dim in (1, 3):
    with pytest.raises(ValueError, match=f"d = {dim}, takes (at most )?2 with"):
      solve(key, jnp.zeros((9, dim)), 3)


def test_names_that_do_not_exist():
  names = list(pretrained.available())
  with pytest.raises(pretrained.PretrainedError) as error:
    pretrained.load("none")
  assert str(error.value) == (
    f"name is 'none', takes one of {names} or the path of a card"
  )


def with_nan(content):
  flat = safetensors.numpy.load(content)
  flat["context/bias"] = np.full_like(flat["context/bias"], np.nan)
  return safetensors.numpy.save(flat)


def of_leaves(*names, dtype=np.float32):
  return safetensors.numpy.save({name: np.zeros(3, dtype) for name in names})


# What is in the file of parameters; the card has its checksum.
ODD_PARAMETERS = {
  "NaN": with_nan,
  "other parameters": lambda _: of_leaves("a"),
  "integers": lambda _: of_leaves("a", dtype=np.int32),
  "unknown numbers": lambda _: of_leaves("a").replace(b"F32", b"F33"),
  "a leaf in a leaf": lambda _: of_leaves("a", "a/b"),
  "a deep name": lambda _: of_leaves("a" + 5000 * "/a"),
}


def damaged(tmp_path, what):
  path, _ = write(tmp_path)
  card = json.loads(path.read_text())
  weights = path.with_suffix(".safetensors")
  content = bytearray(weights.read_bytes())
  if what == "flipped bit":
    content[-1] ^= 1
  elif what == "truncated":
    content = content[:-100]
  elif what == "no safetensors":
    content = b"x" * 100
    card["sha256"] = hashlib.sha256(content).hexdigest()
  elif what == "other network":
    card["model"]["width"] = 16
  elif what in ODD_PARAMETERS:
    content = ODD_PARAMETERS[what](bytes(content))
    card["sha256"] = hashlib.sha256(content).hexdigest()
  elif what == "newer format":
    card["format"] = 99
  elif what == "no format":
    del card["format"]
  elif what == "a field too few":
    del card["dims"]
  weights.write_bytes(content)
  path.write_text(json.dumps(card))
  if what == "renamed":
    weights.rename(tmp_path / "other.safetensors")
    path = path.rename(tmp_path / "other.json")
  if what == "no weights":
    weights.unlink()
  elif what == "no JSON":
    path.write_text("{")
  return path


@pytest.mark.parametrize(
  ("what", "message"),
  [
    ("flipped bit", "has the SHA-256 .*: it is damaged or another file"),
    ("truncated", "has the SHA-256"),
    ("no safetensors", "is no safetensors file"),
    ("other network", "has other parameters than the network of its card"),
    ("other parameters", "has other parameters than the network"),
    ("newer format", "has format 99, takes 1 or less: a newer version"),
    ("no format", "is no card: it has no format"),
    ("NaN", "has NaN, inf or no numbers in 'context/bias'"),
    ("renamed", "is no card: name is 'small', takes 'other' as its file"),
    ("integers", "has NaN, inf or no numbers in 'a'"),
    ("unknown numbers", "is no safetensors file that can be read"),
    ("a leaf in a leaf", "has other parameters than the network"),
    ("a deep name", "has other parameters than the network"),
    ("a field too few", "is no card of format 1: .'dims'"),
    ("no weights", "cannot be read: No such file"),
    ("no JSON", "is no card: "),
  ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, what, message):
  path = damaged(tmp_path, what)
  with pytest.raises(pretrained.PretrainedError, match=message) as error:
    pretrained.load(path)
  assert "\n" not in str(error.value)


DEEP = "[" * 100_000 + "]" * 100_000
ODD_VALUES = {
  "null": "null",
  "NaN": "NaN",
  "an infinite number": "1e999",
  "a negative number": "-1",
  "a flag": "true",
  "a text": '""',
  "a list": "[[]]",
  "an object": "{}",
  "deep": DEEP,
  "not that deep": "[" * 90 + "]" * 90,
}


def places_of(card):
  """Every field, and what stands in the first entry of those that have any."""
  places = [(name,) for name in card]
  places += [("model", name) for name in card["model"]]
  places += [("ranges", "2"), ("ranges", "2", "max_reach")]
  places += [("ranges", "8", "min_spread"), ("dims", 0), ("num_points", 1)]
  places += [("metrics", 0)]
  return places + [("metrics", 0, name) for name in card["metrics"][0]]


def with_text_at(card, place, text):
  """The JSON of a card that has a text at a place."""
  changed = copy.deepcopy(card)
  entry = changed
  for key in place[:-1]:
    entry = entry[key]
  entry[place[-1]] = "HERE"
  return json.dumps(changed).replace('"HERE"', text)


def without(card, place):
  changed = copy.deepcopy(card)
  entry = changed
  for key in place[:-1]:
    entry = entry[key]
  del entry[place[-1]]
  return json.dumps(changed)


def refusal_of(path):
  try:
    pretrained.load_params(path)
  except pretrained.PretrainedError as error:
    return str(error)
  return ""


def test_every_damaged_field_of_a_real_card_is_refused(tmp_path):
  folder = pathlib.Path(pretrained.__file__).parent / "weights"
  for suffix in (".json", ".safetensors"):
    shutil.copy(folder / f"diag{suffix}", tmp_path)
  path = tmp_path / "diag.json"
  card = json.loads(path.read_text())
  places = places_of(card)
  damages = {
    (place, what): with_text_at(card, place, text)
    for place in places
    for what, text in ODD_VALUES.items()
    # A mean of log-likelihoods, say.
    if (place[-1], what) != ("mean", "a negative number")
  }
  damages |= {
    (place, "removed"): without(card, place)
    for place in places
    if place != ("metrics", 0)  # a table may have a row less
  }
  for (place, what), text in damages.items():
    path.write_text(text)
    message = refusal_of(path)
    assert message, f"{place} is {what} and was loaded"
    assert "\n" not in message, (place, what)
    assert len(message) < 500, (place, what)
  path.write_text(json.dumps(card))
  pretrained.read_card(path)


@pytest.mark.parametrize(
  ("place", "text", "message"),
  [
    (("format",), "true", "format is True, takes an integer >= 1"),
    (("format",), "-1", "format is -1, takes an integer >= 1"),
    (("metrics",), "null", "metrics is None, takes a list of rows"),
    (("ranges", "2", "max_reach"), "NaN", "ranges has NaN or inf"),
    (("ranges", "2"), "null", r"ranges\['2'\] is None, takes max_reach, min"),
    (("model", "width"), '"64"', "model.width is '64', takes int"),
    (("model", "rank"), "4", "max_dim is 8, takes at most 4 with its network"),
    (("network",), '"none"', "has the network 'none', takes one of"),
    (("model", "covariance_type"), '"x"', "describes no network: covariance_t"),
  ],
)
def test_damaged_fields_are_named(tmp_path, place, text, message):
  folder = pathlib.Path(pretrained.__file__).parent / "weights"
  shutil.copy(folder / "diag.safetensors", tmp_path)
  card = json.loads((folder / "diag.json").read_text())
  path = tmp_path / "diag.json"
  path.write_text(with_text_at(card, place, text))
  with pytest.raises(pretrained.PretrainedError, match=message):
    pretrained.load_params(path)


def test_a_card_that_none_could_read_is_not_written(tmp_path):
  with pytest.raises(ValueError, match="ranges has NaN or inf"):
    write(tmp_path, ranges={"2": LIMITS, "8": LIMITS | {"max_reach": np.nan}})
  assert not list(tmp_path.iterdir())


def test_every_shipped_network_is_whole_and_small():
  cards = pretrained.available()
  assert set(cards) == {"unit", "tied_spherical", "diag", "full", "tgmm-d2"}
  folder = pathlib.Path(pretrained.__file__).parent / "weights"
  total = sum(path.stat().st_size for path in folder.iterdir())
  assert total < 20e6
  for name in cards:
    card, params = pretrained.load_params(name)
    assert card.name == name
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
    assert card.training["commit"]
    assert set(card.ranges) == {str(dim) for dim in card.dims}


def test_import_of_the_package_loads_no_weights():
  code = (
    "import sys, tgmm_jax;"
    "assert 'jax' not in sys.modules and 'safetensors' not in sys.modules;"
    "assert callable(tgmm_jax.fit);"
    "from tgmm_jax.fitting import fits, networks;"
    "assert networks.loaded.cache_info().currsize == 0"
  )
  subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
