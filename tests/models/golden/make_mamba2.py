"""Writes mamba2.npz: weights, inputs and outputs of tiny Hugging Face Mamba2s.

Run from the repository's root, with the extra `bench` installed:
  python tests/models/golden/make_mamba2.py

One model for each number of groups; names start with it. All weights are
drawn anew, so that no part of the block can be wrong unnoticed. Of three
sequences the second is padded at the end and the third at the start; padding
in the middle is no reference, as there Hugging Face's state goes on to decay.
"""

import pathlib

import numpy as np
import torch
import transformers

NUM_POINTS = 9


def reference(num_groups):
  """Arrays of one model."""
  config = transformers.Mamba2Config(
    vocab_size=1,
    hidden_size=16,
    num_hidden_layers=2,
    num_heads=4,
    head_dim=8,
    expand=2,
    state_size=6,
    n_groups=num_groups,
    chunk_size=4,
    pad_token_id=0,
    bos_token_id=0,
    eos_token_id=0,
    use_cache=False,
  )
  model = transformers.Mamba2Model(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(0.4 * torch.randn_like(parameter))
    inputs = torch.randn(3, NUM_POINTS, 16)
    mask = torch.ones(3, NUM_POINTS)
    mask[1, 6:] = 0.0
    mask[2, :4] = 0.0
    masked = model(inputs_embeds=inputs, attention_mask=mask)
    whole = model(inputs_embeds=inputs)
  arrays = {name: value.numpy() for name, value in model.state_dict().items()}
  del arrays["embeddings.weight"]
  return {
    "inputs": inputs.numpy(),
    "mask": mask.numpy(),
    "masked": masked.last_hidden_state.numpy(),
    "whole": whole.last_hidden_state.numpy(),
    **arrays,
  }


def main():
  torch.manual_seed(0)
  arrays = {
    f"{num_groups}/{name}": value
    for num_groups in (1, 2)
    for name, value in reference(num_groups).items()
  }
  np.savez_compressed(
    pathlib.Path(__file__).with_name("mamba2.npz"),
    transformers=transformers.__version__,
    torch=torch.__version__,
    **arrays,
  )


if __name__ == "__main__":
  main()
