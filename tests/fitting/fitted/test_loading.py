import numpy as np
import pytest

import tgmm_jax
from tests.fitting import made_fits
from tgmm_jax import fitting, pretrained


@pytest.mark.parametrize("suffix", [".json", ".safetensors", ".JSON"])
def test_a_path_is_a_fit(tmp_path, suffix):
  fit = made_fits.one(columns=("a", "b"))
  path = fit.save(tmp_path / f"fit{suffix}")
  assert isinstance(tgmm_jax.load(path), fitting.Fit)
  assert repr(tgmm_jax.load(str(path))) == repr(fit)
  assert repr(fitting.load_fit(path)) == repr(fit)


def test_a_name_is_a_network():
  assert callable(tgmm_jax.load("unit"))
  assert callable(tgmm_jax.load("unit", knows_origin=True))


def test_the_path_of_a_card_is_a_network(tmp_path):
  card, params = pretrained.load_params("unit")
  fields = {
    name: getattr(card, name)
    for name in ("title", "network", "model", "dims", "max_dim", "num_points")
    + ("ranges", "metrics", "training")
  }
  path = pretrained.save(tmp_path, params, name="own", **fields)
  for own in (path, path.with_suffix(".safetensors"), path.with_suffix("")):
    assert callable(tgmm_jax.load(own))


def test_what_is_neither_is_one_line(tmp_path):
  with pytest.raises(ValueError, match="takes one of .*'unit'") as error:
    tgmm_jax.load("nothing")
  assert "\n" not in str(error.value)
  path = made_fits.one().save(tmp_path / "fit.json")
  with pytest.raises(ValueError, match="knows_origin is given, takes none"):
    tgmm_jax.load(path, knows_origin=True)
  with pytest.raises(ValueError, match="path is .*fit.txt', takes one that"):
    fitting.load_fit(tmp_path / "fit.txt")


def test_a_loaded_fit_says_what_the_saved_one_said(tmp_path):
  points = np.random.default_rng(0).normal(size=(30, 2))
  fit = made_fits.one("tied")
  found = tgmm_jax.load(fit.save(tmp_path / "fit.safetensors"))
  np.testing.assert_array_equal(
    found.predict_proba(points), fit.predict_proba(points)
  )
