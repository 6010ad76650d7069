import json

import jax
import jax.numpy as jnp
import pytest

from tgmm_jax.training import checkpoint_metadata

_TEMPLATE = {
  "params.w": jax.ShapeDtypeStruct((4, 3), jnp.float32),
  "step": jax.ShapeDtypeStruct((), jnp.int32),
}


def _meta():
  meta = checkpoint_metadata.make(
    7,
    {"model": {"width": 3}, "dims": (2, 8)},
    _TEMPLATE,
    {"params.w": "00", "step": "01"},
  )
  return json.loads(json.dumps(meta))


def test_written_metadata_passes():
  checkpoint_metadata.check(_meta(), 7)
  assert checkpoint_metadata.misfit(_meta(), _TEMPLATE, None) == ""


def test_every_change_of_the_metadata_is_seen():
  text = json.dumps(_meta())
  for position, character in enumerate(text):
    for other in {"0", "9", "x", " "} - {character}:
      changed = text[:position] + other + text[position + 1 :]
      try:
        meta = json.loads(changed)
      except ValueError:
        continue
      if meta != _meta():
        with pytest.raises((ValueError, KeyError, TypeError)):
          checkpoint_metadata.check(meta, 7)


def test_copy_of_another_step_is_refused():
  with pytest.raises(ValueError, match="copy of step 7"):
    checkpoint_metadata.check(_meta(), 8)


def test_newer_format_is_named(monkeypatch):
  monkeypatch.setattr(checkpoint_metadata, "FORMAT", 5)
  meta = _meta()
  monkeypatch.undo()
  with pytest.raises(
    checkpoint_metadata.NewerFormatError,
    match="by a newer version: its format is 5",
  ):
    checkpoint_metadata.check(meta, 7)


def test_misfit_names_leaf_both_types_and_config_keys():
  template = _TEMPLATE | {"params.w": jax.ShapeDtypeStruct((5, 3), "float32")}
  text = checkpoint_metadata.misfit(
    _meta(), template, {"model": {"width": 5}, "dims": [2, 8]}
  )
  assert text == (
    "params.w is float32[4,3] there and float32[5,3] here;"
    " config: model.width is 3 there and 5 here"
  )


@pytest.mark.parametrize(
  ("template", "expected"),
  [
    ({"params.w": _TEMPLATE["params.w"]}, "step is int32[] there and missing"),
    (
      _TEMPLATE | {"b": _TEMPLATE["step"]},
      "b is missing there and int32[] here",
    ),
    (
      _TEMPLATE | {"step": jax.ShapeDtypeStruct((), "float32")},
      "step is int32[] there and float32[] here",
    ),
    (
      {f"leaf{i}": _TEMPLATE["step"] for i in range(6)},
      "leaf2 is missing there and int32[] here and 5 leaves more",
    ),
  ],
)
def test_every_kind_of_misfit(template, expected):
  assert expected in checkpoint_metadata.misfit(_meta(), template, None)


def test_a_subtree_is_compared_alone():
  params = {"params.w": _TEMPLATE["params.w"]}
  assert (
    checkpoint_metadata.misfit(_meta(), params, None, subtree="params") == ""
  )
  assert checkpoint_metadata.misfit(_meta(), params, None, subtree="para")
