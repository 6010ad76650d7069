import math

import matplotlib
import numpy as np
import pytest
from matplotlib.backends import backend_agg

from tests.figures.rows import COMPONENTS, MEANS, drawn, legend_of, make_rows
from tgmm_jax.evaluation import sorted_loss
from tgmm_jax.figures import cells as cell_figures
from tgmm_jax.figures import panels as figure_panels
from tgmm_jax.figures import style as figure_style


def test_lines_have_the_means_and_bars_the_standard_errors():
  figure = cell_figures.error_against_components(make_rows(MEANS))
  assert [panel.get_title() for panel in figure.axes] == ["d = 2", "d = 8"]
  for panel, dim in zip(figure.axes, (2, 8), strict=True):
    expected = {
      solver: dict(zip(COMPONENTS, values, strict=True))
      for (solver, d), values in MEANS.items()
      if d == dim
    }
    assert drawn(panel) == expected
    assert panel.get_yscale() == "log"
    assert [int(tick) for tick in panel.get_xticks()] == list(COMPONENTS)
  (bars,) = figure.axes[1].containers[0].lines[2]
  for segment, mean in zip(
    bars.get_segments(), MEANS["refiner", 8], strict=True
  ):
    np.testing.assert_allclose(segment[:, 1], [0.9 * mean, 1.1 * mean])


def test_every_mean_lies_within_its_panel():
  figure = cell_figures.error_against_components(make_rows(MEANS))
  for panel in figure.axes:
    bottom, top = panel.get_ylim()
    for points in drawn(panel).values():
      assert all(bottom < mean < top for mean in points.values())


def test_absent_and_non_finite_cells_leave_a_gap_in_the_line():
  rows = make_rows(
    {
      ("refiner", 2): (0.02, None, 0.07, 0.1),
      ("labels", 2): (0.02, 0.03, math.nan, 0.05),
    }
  )
  (panel,) = cell_figures.error_against_components(rows).axes
  for container in panel.containers:
    gap = 1 if container.get_label() == "refiner" else 2
    is_drawn = np.isfinite(container.lines[0].get_ydata())
    np.testing.assert_array_equal(is_drawn, np.arange(4) != gap)


def test_mean_far_above_becomes_an_arrow_with_its_value():
  rows = make_rows({("spectral", 2): (3813.0,), ("labels", 2): (0.017,)})
  (panel,) = cell_figures.error_against_components(rows).axes
  assert drawn(panel)["spectral"] == {}
  assert [text.get_text() for text in panel.texts] == ["3,813"]
  assert panel.get_ylim()[1] < 100
  assert panel.texts[0].xy[1] < panel.get_ylim()[1]


@pytest.mark.parametrize(
  ("solver", "dim", "num_points", "metric", "is_drawn"),
  [
    ("tgmm-released", 2, 128, "l2_error", True),
    ("tgmm-released+em5", 128, 128, "l2_error", True),
    ("tgmm", 2, 128, "l2_error", False),
    ("tgmm-released", 3, 128, "l2_error", False),
    ("tgmm-released", 2, 64, "l2_error", False),
    ("tgmm-released", 2, 128, "l2_error_released", False),
  ],
)
def test_optimum_of_the_sorted_loss(solver, dim, num_points, metric, is_drawn):
  rows = make_rows(
    {(solver, dim): (1.0, 2.0, 3.0, 4.0)}, num_points=num_points, metric=metric
  )
  figure = cell_figures.error_against_components(rows, metric=metric)
  dotted = [
    line for line in figure.axes[0].get_lines() if line.get_linestyle() == ":"
  ]
  assert len(dotted) == is_drawn
  assert (sorted_loss.OPTIMUM in legend_of(figure)) == is_drawn
  if is_drawn:
    kept = [
      row.mean
      for row in sorted_loss.errors()
      if (row.dim, row.metric) == (dim, "l2_error")
    ]
    np.testing.assert_array_equal(dotted[0].get_xdata(), COMPONENTS)
    np.testing.assert_array_equal(dotted[0].get_ydata(), kept)


def test_panels_for_each_number_of_points_and_shift():
  means = {("labels", 8): (0.02, 0.03)}
  rows = (
    make_rows(means)
    + make_rows(means, num_points=64)
    + make_rows(means, shift=5.0)
  )
  figure = cell_figures.error_against_components(rows)
  assert [panel.get_title() for panel in figure.axes] == [
    "d = 8, N = 64, shift 0",
    "d = 8, N = 128, shift 0",
    "d = 8, N = 128, shift 5",
  ]


def test_a_solver_looks_the_same_whoever_stands_beside_it():
  crowd = cell_figures.error_against_components(make_rows(MEANS)).axes[0]
  alone = {("em/k-means++-x10", 2): MEANS["em/k-means++-x10", 2]}
  single = cell_figures.error_against_components(make_rows(alone)).axes[0]
  lines = {c.get_label(): c.lines[0] for c in crowd.containers}
  line = single.containers[0].lines[0]
  other = lines["em/k-means++-x10"]
  assert line.get_color() == other.get_color()
  assert line.get_marker() == other.get_marker()


def test_styles_are_distinct_and_references_grey_and_dashed():
  styles = figure_style.SOLVER_STYLES
  assert len({(s.color, s.marker) for s in styles.values()}) == len(styles)
  for name in ("em/oracle", "labels"):
    red, green, blue = matplotlib.colors.to_rgb(styles[name].color)
    assert red == green == blue
    assert styles[name].linestyle == "--"
  unlisted = figure_style.solver_style("refiner-x4")
  assert unlisted.color == "#0072B2"


def test_legend_has_solvers_in_the_order_of_tables_with_references_last():
  rows = make_rows(MEANS | {("other", 2): (1.0, 1.0, 1.0, 1.0)})
  figure = cell_figures.error_against_components(rows[::-1])
  assert legend_of(figure) == [
    "refiner",
    "em/k-means++-x10",
    "other",
    "em/oracle",
    "labels",
  ]


def test_alignment_contrast_shows_both_errors():
  right = {("em/oracle", 2): (0.021, 0.036), ("spectral", 2): (9.0, 9.0)}
  released = {("em/oracle", 2): (0.021, 6.5)}
  rows = make_rows(right) + make_rows(released, metric="l2_error_released")
  left, other = cell_figures.alignment_contrast(rows).axes
  assert drawn(left) == {"em/oracle": {2: 0.021, 3: 0.036}}
  assert drawn(other) == {"em/oracle": {2: 0.021, 3: 6.5}}
  assert left.get_ylim() == other.get_ylim()
  assert other.get_ylim()[1] > 6.5


@pytest.mark.parametrize("dims", [(2,), (2, 8), (2, 8, 32, 128)])
def test_no_text_is_cut_off_at_the_edge(dims):
  means = {
    (solver, dim): (0.01, 0.02, 0.04, 0.09)
    for solver in figure_style.SOLVER_STYLES
    for dim in dims
  }
  means[("em/k-means++-x10", 2)] = (1.0, 1.0, 1.0, 1.0)
  means[("refiner", 2)] = (2.0, 2.0, 2.0, 2.0)
  rows = make_rows(means)
  rows += [row._replace(metric="l2_error_released") for row in rows]
  for figure in (
    cell_figures.front_picture(rows),
    cell_figures.error_against_components(rows),
    cell_figures.error_against_components(rows, metric="l2_error_released"),
    cell_figures.alignment_contrast(rows),
  ):
    backend_agg.FigureCanvasAgg(figure).draw()
    texts = [*figure.texts, *figure.legends]
    for panel in figure.axes:
      texts += [panel.title, panel.xaxis.label, panel.yaxis.label]
    for text in texts:
      box = text.get_window_extent()
      assert box.x0 >= 0
      assert box.y0 >= 0
      assert box.x1 <= figure.bbox.x1
      assert box.y1 <= figure.bbox.y1


def test_alignment_contrast_of_a_run_without_the_usual_solvers():
  rows = make_rows({("tgmm", 2): (0.5, 0.6)})
  rows += [row._replace(metric="l2_error_released", mean=9.0) for row in rows]
  left, right = cell_figures.alignment_contrast(rows).axes
  assert drawn(left) == {"tgmm": {2: 0.5, 3: 0.6}}
  assert drawn(right) == {"tgmm": {2: 9.0, 3: 9.0}}


def test_learning_curves_smooth_over_raw():
  steps = np.arange(400)
  noise = np.random.default_rng(0).normal(size=400)
  metrics = {
    "one": {"step": steps, "loss": 1.0 + 0.1 * noise, "lr": steps},
    "two": {
      "step": steps[:3],
      "loss": np.array([3.0, 2.0, 1.0]),
      "l2_error/d2": np.array([0.5, np.nan, 0.25]),
    },
  }
  loss, evaluation = cell_figures.learning_curves(metrics).axes
  raw, smooth, short = loss.get_lines()
  np.testing.assert_array_equal(raw.get_ydata(), metrics["one"]["loss"])
  np.testing.assert_array_equal(smooth.get_xdata(), steps)
  # A mean over 11 values, by hand.
  middle = metrics["one"]["loss"][195:206].mean()
  assert smooth.get_ydata()[200] == pytest.approx(middle)
  np.testing.assert_array_equal(short.get_ydata(), [3.0, 2.0, 1.0])
  (line,) = evaluation.get_lines()
  np.testing.assert_array_equal(line.get_data(), [[0, 2], [0.5, 0.25]])
  labels = [text.get_text() for text in evaluation.get_legend().get_texts()]
  assert labels == ["two/d2"]


def test_learning_curves_with_negative_values_are_not_logarithmic():
  metrics = {"one": {"step": np.arange(3), "loss": np.array([1.0, 0.0, -1.0])}}
  (panel,) = cell_figures.learning_curves(metrics).axes
  assert panel.get_yscale() == "linear"


def test_smoothing_keeps_constants_and_slopes():
  constant = figure_panels.smoothed(np.full(1000, 2.5))
  np.testing.assert_allclose(constant, 2.5)
  line = figure_panels.smoothed(np.arange(1000.0))
  np.testing.assert_allclose(line[12:-12], np.arange(1000.0)[12:-12])


@pytest.mark.parametrize(
  "draw",
  [
    cell_figures.error_against_components,
    cell_figures.alignment_contrast,
    cell_figures.front_picture,
    cell_figures.learning_curves,
  ],
)
def test_nothing_to_draw_is_an_error_that_says_so(draw):
  empty = {} if draw is cell_figures.learning_curves else []
  with pytest.raises(ValueError, match="takes"):
    draw(empty)


def test_saved_bytes_are_reproducible_whatever_the_settings(tmp_path):
  rows = make_rows(MEANS)
  first = cell_figures.save(
    cell_figures.error_against_components(rows), tmp_path / "one" / "d2.v1"
  )
  settings = {"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20}
  with matplotlib.rc_context(settings):
    before = dict(matplotlib.rcParams)
    second = cell_figures.save(
      cell_figures.error_against_components(rows[::-1]), tmp_path / "two"
    )
    assert dict(matplotlib.rcParams) == before
  assert [path.name for path in first] == ["d2.v1.png", "d2.v1.pdf"]
  for one, two in zip(first, second, strict=True):
    assert one.read_bytes() == two.read_bytes()
  png, pdf = (path.read_bytes() for path in first)
  assert png.startswith(b"\x89PNG")
  assert pdf.startswith(b"%PDF")
  for word in (b"Date", b"matplotlib", b"Matplotlib"):
    assert word not in png + pdf


def test_error_against_another_field_has_a_panel_for_each_cell():
  rows = [
    row._replace(num_points=num_points, mean=row.mean / num_points)
    for num_points in (64, 16)
    for row in make_rows(MEANS)
  ]
  rows.append(rows[0]._replace(solver="em/random_points"))
  figure = cell_figures.error_against(
    rows, "num_points", label="N", title="Sizes", is_log_x=True
  )
  assert [panel.get_title() for panel in figure.axes] == [
    f"d = {dim}, K = {count}" for dim in (2, 8) for count in COMPONENTS
  ]
  for panel, (dim, count) in zip(
    figure.axes,
    [(d, k) for d in (2, 8) for k in COMPONENTS],
    strict=True,
  ):
    expected = {
      solver: {n: values[COMPONENTS.index(count)] / n for n in (16, 64)}
      for (solver, d), values in MEANS.items()
      if d == dim
    }
    assert drawn(panel) == expected
  assert figure.get_suptitle() == "Sizes"
  assert {panel.get_xlabel() for panel in figure.axes[4:]} == {"N"}


def test_error_far_above_the_panel_is_at_its_edge_without_a_bar():
  rows = make_rows({("spectral", 2): (0.5, 3000.0)})
  rows = [
    row._replace(shift=row.num_components, num_components=2) for row in rows
  ]
  (panel,) = cell_figures.error_against(rows, "shift", label="shift").axes
  (container,) = panel.containers
  assert container.lines[0].get_ydata()[1] == pytest.approx(30.0)
  (bars,) = container.lines[2]
  low, high = bars.get_segments()[1][:, 1]
  assert low == high


def test_likelihood_far_below_the_others_is_cut():
  means = {("a", 2): (-3.0, -4.0), ("b", 2): (-3.5, -4.0)}

  def make(means):
    rows = make_rows(means, metric="log_likelihood")
    return [row._replace(standard_error=0.1) for row in rows]

  rows = make(means)
  (panel,) = cell_figures.error_against_components(
    rows, metric="log_likelihood"
  ).axes
  low, _ = panel.get_ylim()
  assert -5.0 < low < -4.0
  rows += make({("c", 2): (-90.0, -3.0)})
  (panel,) = cell_figures.error_against_components(
    rows, metric="log_likelihood"
  ).axes
  assert -10.0 < panel.get_ylim()[0] < -4.0
