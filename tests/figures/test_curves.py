import math

import numpy as np
import pytest

from tgmm_jax.evaluation import results
from tgmm_jax.figures import curves as curve_figures

PANEL = curve_figures.Panel("power", "error", "Error", "tau", "1 - |cos|")


def make_rows(series, values, *, metric="error", error=math.nan):
  return [
    results.CurveRow("power", metric, series, x, value, error, 10, 0)
    for x, value in enumerate(values)
  ]


def drawn(axis):
  return {
    container.get_label(): container.lines[0].get_data()
    for container in axis.containers
  }


def test_curves_are_drawn_as_they_are_and_references_dashed():
  rows = make_rows("ratio 0.5", [1.0, 0.25, 0.0625])
  rows += make_rows("ratio 0.5 (predicted)", [1.0, 0.3, 0.1])
  rows += make_rows("ratio 0.5", [7.0], metric="other")
  figure = curve_figures.draw(rows[::-1], [PANEL])
  (axis,) = figure.axes
  lines = drawn(axis)
  assert set(lines) == {"ratio 0.5", "ratio 0.5 (predicted)"}
  np.testing.assert_array_equal(lines["ratio 0.5"][0], [0, 1, 2])
  np.testing.assert_array_equal(lines["ratio 0.5"][1], [1.0, 0.25, 0.0625])
  styles = {
    container.get_label(): container.lines[0] for container in axis.containers
  }
  own, reference = styles["ratio 0.5"], styles["ratio 0.5 (predicted)"]
  assert own.get_color() == reference.get_color()
  assert own.get_linestyle() == "-"
  assert reference.get_linestyle() == "--"
  assert axis.get_yscale() == "log"


def test_zero_leaves_a_gap_on_a_logarithmic_axis_and_none_on_a_linear_one():
  rows = make_rows("a", [1.0, 0.0, 2.0])
  (axis,) = curve_figures.draw(rows, [PANEL]).axes
  assert np.isnan(drawn(axis)["a"][1][1])
  panel = PANEL._replace(is_log_y=False, lines={"limit": 3.0})
  (axis,) = curve_figures.draw(rows, [panel]).axes
  assert drawn(axis)["a"][1][1] == 0.0
  assert [text.get_text() for text in axis.texts] == ["limit"]


def test_panel_without_rows_is_refused():
  with pytest.raises(ValueError, match="no error of power, takes rows"):
    curve_figures.draw(make_rows("a", [1.0], metric="other"), [PANEL])


def test_residual_stream_shows_every_state():
  states = np.arange(24.0).reshape(2, 3, 4)
  figure = curve_figures.residual_stream(
    states,
    slots=(("x", 2), ("one", 1)),
    tokens=["a", "b", "c", "d"],
    titles=["start", "layer"],
  )
  maps = [axis for axis in figure.axes if axis.images]
  for axis, state in zip(maps[:2], states, strict=True):
    shown = np.ma.filled(axis.images[0].get_array(), 0.0)
    np.testing.assert_array_equal(shown, state)
  labels = [tick.get_text() for tick in maps[0].get_yticklabels()]
  assert labels == ["x1", "x2", "one"]


def test_sizes_that_do_not_fit_are_refused():
  arguments = {"slots": (("x", 2),), "tokens": ["a"], "titles": ["start"]}
  with pytest.raises(ValueError, match="states has shape"):
    curve_figures.residual_stream(np.zeros((1, 3, 1)), **arguments)


def test_emphasised_series_comes_first_and_is_thicker():
  rows = make_rows("b", [1.0, 2.0]) + make_rows("a", [1.0, 3.0])
  figure = curve_figures.draw(rows, [PANEL], emphasised="b")
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ["b", "a"]
  widths = {
    container.get_label(): container.lines[0].get_linewidth()
    for container in figure.axes[0].containers
  }
  assert widths["b"] > widths["a"]


@pytest.mark.parametrize(("scale", "base"), [(4.0, 2), (0.3, 10)])
def test_whole_numbers_are_named_on_a_logarithmic_axis(scale, base):
  rows = [
    row._replace(x=scale * 4.0**row.x) for row in make_rows("a", [1.0, 2.0])
  ]
  panel = PANEL._replace(is_log_x=True)
  (axis,) = curve_figures.draw(rows, [panel]).axes
  assert axis.xaxis.get_transform().base == base
