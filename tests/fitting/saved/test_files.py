import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.fitting import made_fits
from tgmm_jax import fitting, gmm, types

SUFFIXES = (".json", ".safetensors")


def is_same(one, other):
  """Whether two fits have the same bits, dtypes and names."""
  for field in dataclasses.fields(one):
    values = [getattr(own, field.name) for own in (one, other)]
    if field.metadata.get("static"):
      assert values[0] == values[1], field.name
      continue
    leaves, structures = zip(*map(jax.tree.flatten, values), strict=True)
    assert structures[0] == structures[1], field.name
    for leaf, copy in zip(*leaves, strict=True):
      leaf, copy = np.asarray(leaf), np.asarray(copy)
      assert leaf.dtype == copy.dtype, field.name
      assert leaf.tobytes() == copy.tobytes(), field.name
      assert leaf.shape == copy.shape, field.name
  return True


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_every_bit_comes_back(tmp_path, covariance_type, dtype, suffix):
  fits = [
    made_fits.one(covariance_type, dtype=dtype, columns=("größe", 'a "b"\n')),
    made_fits.batch(covariance_type),
    made_fits.one(
      covariance_type,
      candidates=(1, 2, 3),
      probabilities=np.array([0.1, 0.2, 0.7], np.float32),
      num_iters=None,
    ),
  ]
  for index, fit in enumerate(fits):
    path = fit.save(tmp_path / f"{index}{suffix}")
    assert is_same(fit, fitting.load_fit(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_odd_values_come_back(tmp_path, suffix):
  mixture = made_fits.mixture_of("full")
  means = np.array([[5e-324, -0.0], [1e308, 0.1 + 0.2], [np.pi, -1e-40]])
  fit = made_fits.one(
    mixture=types.Mixture(mixture.weights, means, mixture.covariances),
    log_likelihood=np.float32(-np.inf),
    labels=jnp.full(12, -1),
  )
  path = fit.save(tmp_path / f"fit{suffix}")
  assert is_same(fit, fitting.load_fit(path))
  # In other places of memory, and the other way round.
  turned = types.Mixture(*(np.asfortranarray(leaf) for leaf in fit.mixture))
  other = fit._replace(mixture=turned).save(tmp_path / f"other{suffix}")
  assert other.read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_fit_of_points_comes_back(tmp_path, suffix):
  rng = np.random.default_rng(0)
  points = rng.normal(size=(40, 2)) + 9.0 * (np.arange(40) % 2)[:, None]
  with pytest.warns(UserWarning, match="max_components is 2, and so many"):
    fit = fitting.fit(points, max_components=2)
  found = fitting.load_fit(fit.save(tmp_path / f"fit{suffix}"))
  assert is_same(fit, found)
  assert repr(found) == repr(fit)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_exists_stays(tmp_path, suffix):
  path = tmp_path / f"fit{suffix}"
  path.write_text("points of somebody")
  with pytest.raises(FileExistsError, match="takes overwrite=True"):
    made_fits.one().save(path)
  assert path.read_text() == "points of somebody"
  made_fits.one().save(path, overwrite=True)
  assert is_same(made_fits.one(), fitting.load_fit(path))
  # A link that leads nowhere is somebody's too.
  link = tmp_path / f"link{suffix}"
  link.symlink_to(tmp_path / "gone")
  with pytest.raises(FileExistsError):
    made_fits.one().save(link)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = made_fits.one().save(tmp_path / "fit.json")
  before = path.read_bytes()

  def fail(*_):
    raise OSError("no space left")

  with monkeypatch.context() as patch:
    patch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
      made_fits.one(seed=1).save(path, overwrite=True)
  assert path.read_bytes() == before
  assert [own.name for own in tmp_path.iterdir()] == ["fit.json"]


def test_another_suffix_is_refused(tmp_path):
  with pytest.raises(ValueError, match="takes one that ends in .safetensors"):
    made_fits.one().save(tmp_path / "fit.pkl")
  assert not list(tmp_path.iterdir())


def read(path):
  """The fit of a file and None, or None and what is wrong."""
  try:
    return fitting.load_fit(path), None
  except fitting.SavedFitError as error:
    return None, str(error)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_damage_is_seen(tmp_path, suffix):
  path = made_fits.one(columns=("a", "b")).save(tmp_path / f"fit{suffix}")
  content = path.read_bytes()
  rng = np.random.default_rng(0)
  harmless = 0
  for index in rng.choice(len(content), 150, replace=False):
    spoilt = bytearray(content)
    spoilt[index] ^= 1 << int(rng.integers(7))
    path.write_bytes(bytes(spoilt))
    found, error = read(path)
    if error:
      assert "\n" not in error
      assert str(path) in error
    else:
      # White space, the version or the name of a key that is not needed.
      assert is_same(found, made_fits.one(columns=("a", "b")))
      harmless += 1
  assert harmless < 40
  for length in (0, 1, 7, 8, len(content) // 2, len(content) - 3):
    path.write_bytes(content[:length])
    with pytest.raises(fitting.SavedFitError) as error:
      fitting.load_fit(path)
    assert "\n" not in str(error.value)


def test_a_changed_number_is_seen(tmp_path):
  path = made_fits.one().save(tmp_path / "fit.json")
  found = json.loads(path.read_text())
  found["means"][0][0] += 1e-9
  path.write_text(json.dumps(found))
  with pytest.raises(ValueError, match="SHA-256 .* damaged or was changed"):
    fitting.load_fit(path)
  # Who means it says so.
  del found["sha256"]
  path.write_text(json.dumps(found))
  changed = fitting.load_fit(path).mixture.means[0, 0]
  assert changed == found["means"][0][0]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "cannot be read as a fit"),
    (b"[1, 2]", "it is no JSON object"),
    (b"{}", "it has no 'num_components'"),
    (b'{"a": 1, "a', "cannot be read as a fit"),
    (b"[" * 100_000, "cannot be read as a fit"),
    (b"\xff\xfe\x00", "cannot be read as a fit"),
    (b'{"format": 99}', "format is 99, takes 1 or less: a newer version"),
    (b'{"format": "1"}', "format is '1', takes an integer"),
  ],
)
def test_foreign_and_newer_files_are_one_line(tmp_path, content, message):
  path = tmp_path / "fit.json"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    fitting.load_fit(path)
  assert "\n" not in str(error.value)


def test_a_safetensors_file_of_others_is_one_line(tmp_path):
  path = tmp_path / "fit.safetensors"
  values = {"means": np.zeros((2, 2))}
  for metadata, message in (
    (None, "its header has no fit"),
    ({"tgmm_jax fit": "{}"}, "it has no sha256"),
    ({"tgmm_jax fit": '{"format": 2}'}, "a newer version of tgmm_jax reads it"),
    ({"tgmm_jax fit": '{"sha256": "0"}'}, "covariance_type is None"),
  ):
    path.write_bytes(safetensors.numpy.save(values, metadata=metadata))
    with pytest.raises(ValueError, match=message):
      fitting.load_fit(path)
  path.unlink()
  with pytest.raises(OSError, match="fit.safetensors"):
    fitting.load_fit(path)
