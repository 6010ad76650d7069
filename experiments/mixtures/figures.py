"""Figures of experiments with mixtures: what a table has to show."""

from collections.abc import Iterator, Sequence

from matplotlib import figure as mpl_figure

from tgmm_jax.evaluation import results
from tgmm_jax.figures import cells as cell_figures
from tgmm_jax.tasks import shifts


def draw(
  rows: Sequence[results.Row],
) -> Iterator[tuple[str, tuple[str, mpl_figure.Figure]]]:
  """Captions, names and figures of the settings that a table has."""
  kept = [row for row in rows if row.solver != results.TASKS]
  # All of them, where every task of the table is shifted.
  plain = [row for row in kept if row.shift == 0] or kept
  sizes = sorted({row.num_points for row in plain})
  # The paper's N, or the largest there is.
  usual = 128 if 128 in sizes else sizes[-1]
  base_rows = [row for row in plain if row.num_points == usual]
  caption = "Error of the means against the number of components"
  if len(sizes) > 1:
    caption += f", N = {usual}"
  yield caption, ("error", cell_figures.error_against_components(base_rows))
  if len(sizes) > 1:
    figure = cell_figures.error_against(
      plain, "num_points", label="N", is_log_x=True
    )
    yield "Error of the means against N", ("num_points", figure)
  kinds = sorted({row.shift_kind for row in kept if row.shift})
  for kind in kinds:
    here = [row for row in kept if row.shift_kind == kind or not row.shift]
    figure = cell_figures.error_against(
      here, "shift", label=f"shift of {kind}", title=shifts.KINDS[kind]
    )
    yield f"Error of the means, shift of {kind}", (f"shift_{kind}", figure)
  released = [row for row in base_rows if row.metric == "l2_error_released"]
  if released and not kinds and len(sizes) == 1:
    yield (
      "The same under the published evaluation's alignment",
      ("alignment", cell_figures.alignment_contrast(base_rows)),
    )
    yield "The finding", ("front", cell_figures.front_picture(base_rows))
