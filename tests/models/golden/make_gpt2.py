"""Writes gpt2.npz: weights, inputs and outputs of a tiny Hugging Face GPT-2.

Run from the repository's root, with the extra `bench` installed:
  python tests/models/golden/make_gpt2.py

All weights are drawn anew, wide and with biases, so that no part of the block
can be wrong unnoticed. The second sequence has two padded positions.
"""

import pathlib

import numpy as np
import torch
import transformers


def main():
  torch.manual_seed(0)
  config = transformers.GPT2Config(
    vocab_size=1,
    n_positions=9,
    n_embd=16,
    n_layer=2,
    n_head=4,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    bos_token_id=0,
    eos_token_id=0,
    use_cache=False,
  )
  model = transformers.GPT2Model(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(0.4 * torch.randn_like(parameter))
    inputs = torch.randn(2, 7, 16)
    mask = torch.ones(2, 7)
    mask[1, 5:] = 0.0
    hidden = model(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
  arrays = {name: value.numpy() for name, value in model.state_dict().items()}
  del arrays["wte.weight"]
  np.savez_compressed(
    pathlib.Path(__file__).with_name("gpt2.npz"),
    inputs=inputs.numpy(),
    mask=mask.numpy(),
    hidden=hidden.numpy(),
    **arrays,
  )


if __name__ == "__main__":
  main()
