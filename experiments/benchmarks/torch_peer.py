"""The released variant of the paper's network in PyTorch, for comparison.

GPT-2 is Hugging Face's; read-in, readout, loss and AdamW are written here.
Needs torch and transformers (extra `bench`); nothing else imports this file.
"""

import jax
import numpy as np
import torch
import transformers

from tgmm_jax.models import factory
from tgmm_jax.training import optim
from tgmm_jax.training.learners import mixtures as mixture_learner

# Ours in a block, and Hugging Face's.
_BLOCK = {
  "attention_norm": "ln_1",
  "attention.query_key_value": "attn.c_attn",
  "attention.output": "attn.c_proj",
  "mlp_norm": "ln_2",
  "mlp.hidden": "mlp.c_fc",
  "mlp.output": "mlp.c_proj",
}


class _Network(torch.nn.Module):
  """The network of `rq1.py:released`, isotropic tasks only."""

  def __init__(self, config):
    super().__init__()
    width, num_modules = config.width, len(config.num_components)
    components = config.max_components
    self.dim, self.components = config.dim, components
    self.tasks = torch.nn.Embedding(num_modules, config.embedding_width)
    self.read_in_task = torch.nn.Linear(
      config.embedding_width, width, bias=False
    )
    self.read_in = torch.nn.Linear(config.dim, width)
    self.backbone = transformers.GPT2Model(
      transformers.GPT2Config(
        vocab_size=1,
        bos_token_id=0,
        eos_token_id=0,
        n_positions=config.max_points,
        n_embd=width,
        n_layer=config.num_layers,
        n_head=config.num_heads,
        # The default, gelu_new, is the same formula in unfused operations.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        attn_implementation="sdpa",
      )
    )
    outputs = components + config.dim
    self.queries = torch.nn.Parameter(
      torch.zeros(num_modules, components, outputs)
    )
    shape = (num_modules, width, outputs)
    self.key_kernel = torch.nn.Parameter(torch.zeros(shape))
    self.kernel = torch.nn.Parameter(torch.zeros(shape))

  def forward(self, points, mask, index):
    """Log weights `[B, K]`, masked later, and means `[B, K, d]`."""
    task = self.read_in_task(self.tasks(index))
    hidden = self.backbone(
      inputs_embeds=self.read_in(points) + task[:, None], attention_mask=mask
    ).last_hidden_state
    keys = hidden @ self.key_kernel[index]
    logits = self.queries[index] @ keys.transpose(1, 2)
    logits = logits.masked_fill(mask[:, None] == 0, -torch.inf)
    outputs = logits.softmax(-1) @ (hidden @ self.kernel[index])
    return outputs[..., : self.components].mean(1), outputs[
      ..., self.components :
    ]


class Peer:
  """Network, optimiser and one fixed batch of tasks."""

  def __init__(
    self,
    model: factory.Model,
    tasks: mixture_learner.MixtureTraining,
    settings: optim.OptimizerConfig,
  ):
    """Takes over initial weights and a batch of tasks of ours."""
    is_released = model.config.is_causal and model.config.pooling == "released"
    if not is_released or tasks.loss != "sorted":
      raise ValueError("the network is not the released one")
    self._learner = mixture_learner.make(model, tasks)
    self._params = jax.jit(self._learner.init)(jax.random.key(0))
    self._examples = jax.jit(self._learner.sample)(jax.random.key(0), ())
    problems, targets = self._examples
    served = np.asarray(model.config.num_components)
    counts = np.asarray(problems.num_components)
    index = np.argmax(counts[:, None] == served, axis=-1)
    self._index = torch.from_numpy(index)
    self._points = _tensor(problems.points)
    self._mask = _tensor(problems.sample_weight)
    self._counts = torch.from_numpy(counts.copy())
    self._weights = _tensor(targets.weights)
    self._means = _tensor(targets.means)
    self._network = _Network(model.config)
    _copy(self._params, self._network)
    self._optimizer = torch.optim.AdamW(
      self._network.parameters(),
      settings.learning_rate,
      betas=(0.9, settings.b2),
      weight_decay=settings.weight_decay,
    )

  def _loss(self):
    logits, means = self._network(self._points, self._mask, self._index)
    is_component = torch.arange(logits.shape[-1]) < self._counts[:, None]
    log_weights = logits.masked_fill(~is_component, -1e9).log_softmax(-1)
    squared = (means - self._means).square().sum(-1) * is_component
    squared = squared.sum(-1) / (self._counts * means.shape[-1])
    return (squared - (self._weights * log_weights).sum(-1)).mean()

  def losses(self) -> tuple[float, float]:
    """The loss of ours and of PyTorch's network, before the first step."""
    ours, _ = jax.jit(self._learner.loss)(self._params, self._examples)
    with torch.no_grad():
      return float(ours), float(self._loss())

  def step(self) -> None:
    """One train step on the fixed batch."""
    self._optimizer.zero_grad()
    self._loss().backward()
    self._optimizer.step()


def _tensor(array):
  return torch.from_numpy(np.array(array))


def _copy(params, network):
  """Our weights into the network; every parameter of it is set."""
  values = {}
  for path, leaf in jax.tree.leaves_with_path(params):
    *parts, name = (entry.key for entry in path)
    values[".".join(_torch_names(parts, name))] = _tensor(
      leaf.T
      if parts and parts[0].startswith("read_in") and leaf.ndim == 2
      else leaf
    )
  # Hugging Face's table of words, which takes no part.
  values["backbone.wte.weight"] = torch.zeros_like(network.backbone.wte.weight)
  with torch.no_grad():
    for key, parameter in network.named_parameters():
      parameter.copy_(values.pop(key))
  if values:
    raise ValueError(f"parameters without a counterpart: {sorted(values)}")


def _torch_names(parts, name):
  if parts[0] == "readout":
    return [name]
  if parts[0] == "backbone":
    if parts[1] == "blocks":
      layer = _BLOCK[".".join(parts[3:])]
      parts = ["backbone", "h", parts[2], layer]
    else:
      names = {"final_norm": "ln_f", "positions": "wpe"}
      parts = ["backbone", names[parts[1]]]
  return [*parts, "bias" if name == "bias" else "weight"]
