"""The picture of the README: it says what its rows support, and no more."""

import math

import pytest

from tests.figures.rows import MEANS, drawn, legend_of, make_rows
from tgmm_jax.figures import cells as cell_figures


def title_of(rows):
  return cell_figures.front_picture(rows).get_suptitle()


def test_front_picture_states_what_the_numbers_support():
  rows = make_rows(MEANS)
  # Standard errors are a tenth: .094 - .067 is 2.3 of their combined ones,
  # .188 - .142 is 1.95, which is too little.
  assert title_of(rows) == (
    "One forward pass beats ten restarts of EM at d = 2, K = 4"
  )
  better = MEANS | {("refiner", 2): (0.020, 0.036, 0.067, 0.120)}
  assert title_of(make_rows(better)).endswith("K = 4, 5")


@pytest.mark.parametrize(
  "refiner",
  [
    (0.021, 0.045, 0.094, 0.188),  # no better
    (0.040, 0.036, 0.067, 0.142),  # worse for K = 2
    (0.021, 0.036, math.nan, 0.120),  # not known for K = 4
  ],
)
def test_front_picture_claims_nothing_that_the_numbers_do_not_support(refiner):
  rows = make_rows(MEANS | {("refiner", 2): refiner})
  assert "beats" not in title_of(rows)


def test_front_picture_leaves_out_other_settings():
  rows = make_rows(MEANS) + make_rows(
    {("refiner", 32): (0.02,), ("spectral", 2): (1.0,)}
  )
  rows += make_rows({("refiner", 2): (1e-4,) * 4}, num_points=512)
  rows += make_rows({("refiner", 2): (1e-4,) * 4}, shift=1.0)
  figure = cell_figures.front_picture(rows)
  assert [panel.get_title() for panel in figure.axes] == ["d = 2", "d = 8"]
  assert drawn(figure.axes[0]).keys() == {
    "refiner",
    "em/k-means++-x10",
    "em/oracle",
  }
  assert drawn(figure.axes[0])["refiner"][2] == 0.020


def test_front_picture_falls_back_on_the_views():
  rows = make_rows(
    MEANS
    | {("refiner", 2): (0.021, 0.045, 0.094, 0.188)}
    | {("refiner-x8+em5", 2): (0.01, 0.02, 0.04, 0.09)}
  )
  assert title_of(rows) == (
    "Eight views and 5 EM steps beat ten restarts of EM "
    "at d = 2, K = 2, 3, 4, 5"
  )


def test_front_picture_of_a_run_without_the_usual_cells():
  rows = make_rows({("tgmm", 32): (0.5, 0.6)}, num_points=64, shift=2.0)
  figure = cell_figures.front_picture(rows)
  assert [panel.get_title() for panel in figure.axes] == ["d = 32, shift 2"]
  assert drawn(figure.axes[0]) == {"tgmm": {2: 0.5, 3: 0.6}}
  assert legend_of(figure) == ["tgmm"]
  assert "N = 64" in figure.get_supxlabel()


@pytest.mark.parametrize("setting", [{"num_points": 64}, {"shift": 2.0}])
def test_front_picture_claims_nothing_of_other_settings(setting):
  assert "beats" in title_of(make_rows(MEANS))
  assert "beats" not in title_of(make_rows(MEANS, **setting))
