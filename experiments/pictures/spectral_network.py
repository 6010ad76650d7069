"""The residual stream of the network that performs the spectral method.

  python -m experiments.pictures.spectral_network

draws `docs/pictures/spectral_network.png`, the picture of
docs/the_spectral_method_as_a_transformer.md.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colors as mpl_colors
from matplotlib import figure as mpl_figure

from tgmm_jax.constructed import (
  primitives,
  spectral_method,
  spectral_network,
)
from tgmm_jax.figures import style as figure_style
from tgmm_jax.training import files

PATH = pathlib.Path(__file__).parents[2] / "docs/pictures/spectral_network.png"
_MEANS = np.array([[3.0, 1.0], [-1.0, 2.5]])
_NUM_POINTS, _NUM_RESTARTS = 6, 2
# What stays for more than a layer, and what most of the work is done with.
_SLOTS = "x w wx q a b p out lo to back ns t ct tt s y yy lv mean pi".split()
_TITLES = (
  "the first state",
  "second moment less noise",
  "its eigenpairs",
  "whitened points, noise",
  "the first component",
  "means and weights",
)


def states(seed: int = 0) -> tuple[primitives.Slots, np.ndarray]:
  """The stream after each part of the method, `[6, D, T]`, and its slots."""
  generator = np.random.default_rng(seed)
  labels = np.arange(_NUM_POINTS) % 2
  points = _MEANS[labels] + generator.normal(size=(_NUM_POINTS, 2))
  total = spectral_method.num_tokens(_NUM_POINTS, 2, 2, _NUM_RESTARTS)
  with jax.enable_x64(True):
    network = spectral_network.build(2, 2, total, dtype="float64")
    starts = spectral_method.draw_starts(
      jax.random.key(seed), 2, jnp.ones(2, bool), _NUM_RESTARTS, "float64"
    )
    state = spectral_method.encode(network, jnp.asarray(points), starts)
    schedule = spectral_network.schedule(2)
    moment, eigenpairs, whitened, components, *last = schedule
    one = components._replace(repeats=1)
    found = [state]
    for part in ((moment,), (eigenpairs,), (whitened,), (one,), (one, *last)):
      state = primitives.apply(network.transformer, state, part)
      found.append(state)
  return network.transformer.slots, np.asarray(found)


def draw(slots: primitives.Slots, found: np.ndarray) -> mpl_figure.Figure:
  """A map for each part: slots against tokens; white is exactly 0.

  Args:
    slots: of the stream.
    found: `[6, D, T]`.
  """
  rows = np.concatenate([np.arange(slots.width)[slots[n]] for n in _SLOTS])
  sizes = [slots.size(name) for name in _SLOTS]
  ends = np.cumsum(sizes)
  kinds = (
    ("points", _NUM_POINTS),
    ("matrix", 2),
    ("components", 2),
    ("noise", 6),
    ("seekers", 2 * _NUM_RESTARTS),
  )
  borders = np.cumsum([size for _, size in kinds])
  norm = mpl_colors.SymLogNorm(1e-3, vmin=-1e2, vmax=1e2)
  with figure_style.style():
    figure = mpl_figure.Figure(figsize=(9.0, 10.0), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    for panel, state, title in zip(panels, found, _TITLES, strict=True):
      state = state[rows]
      image = panel.imshow(
        np.where(np.abs(state) < 1e-12, np.nan, state),
        cmap="RdBu_r",
        norm=norm,
        aspect="auto",
        interpolation="nearest",
      )
      for end in ends[:-1]:
        panel.axhline(end - 0.5, color="#cccccc", linewidth=0.5)
      for border in borders[:-1]:
        panel.axvline(border - 0.5, color="#777777", linewidth=0.7)
      panel.set_title(title, fontsize=9)
      panel.set_yticks(ends - np.array(sizes) / 2 - 0.5, _SLOTS, fontsize=7)
      panel.set_xticks(
        borders - [(size + 1) / 2 for _, size in kinds],
        [name for name, _ in kinds],
        fontsize=7,
        rotation=45,
      )
    bar = figure.colorbar(image, ax=list(panels), fraction=0.02, pad=0.01)
    bar.set_ticks([-100.0, -1.0, -0.01, 0.0, 0.01, 1.0, 100.0])
    bar.ax.tick_params(labelsize=7)
  return figure


if __name__ == "__main__":
  PATH.parent.mkdir(exist_ok=True)
  files.write(PATH, figure_style.render(draw(*states()), "png"))
