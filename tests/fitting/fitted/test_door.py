import numpy as np
import pandas as pd
import pytest

from tests import tables_of_any_kind as tables
from tests.fitting import made_fits
from tgmm_jax import fitting
from tgmm_jax.fitting import fitted

POINTS = tables.points_of()


WITH_NAMES = [
  pytest.param(tables.frame, id="pandas"),
  pytest.param(tables.record, id="record"),
  pytest.param(tables.KINDS["__dataframe__"], id="__dataframe__"),
  pytest.param(tables.polars_frame, id="Polars"),
  pytest.param(tables.arrow_table, id="Arrow"),
]


@pytest.mark.parametrize("make", WITH_NAMES)
def test_names_of_columns_are_known(make):
  assert fitted.columns_of(make(POINTS)) == tuple(tables.NAMES)


@pytest.mark.parametrize(
  "points",
  [
    POINTS,
    POINTS.tolist(),
    pd.DataFrame(POINTS),
    pd.DataFrame(POINTS, columns=["a", "a"]),
    pd.DataFrame(POINTS, columns=["a", 1]),
    pd.Series(POINTS[:, 0], name="a"),
    3.0,
  ],
)
def test_what_has_no_names_has_none(points):
  assert fitted.columns_of(points) is None


@pytest.mark.parametrize("make", WITH_NAMES)
def test_a_table_is_read_by_its_names(make):
  fit = made_fits.one(columns=("width", "length"))
  np.testing.assert_allclose(
    fit.score_samples(make(POINTS)),
    fit.score_samples(POINTS[:, ::-1]),
    rtol=1e-12,
  )


def test_a_fit_keeps_the_names_of_its_table():
  found = fitting.fit(tables.frame(POINTS), 2)
  assert found.columns == tuple(tables.NAMES)
  assert "length" in repr(found)
  assert fitting.fit(POINTS, 2).columns is None


@pytest.mark.parametrize(
  ("points", "weight", "message"),
  [
    (np.zeros((4, 3)), None, "points has 3 columns, takes 2 as the fit: a, b"),
    (np.zeros(4), None, r"points has shape \(4,\), takes \[N, d\]: for one"),
    (np.zeros((0, 2)), None, r"points has shape \(0, 2\), takes \[N, d\]"),
    (np.array([["x", "y"]]), None, "points "),
    (np.array([[0.0, np.nan]]), None, r"points contains nan \(first at \[0, 1"),
    (np.zeros((2, 2)), [1.0], r"sample_weight has shape \(1,\), takes \(2,\)"),
    (np.zeros((2, 2)), [1.0, -1.0], "sample_weight is -1.0 at 1"),
    (pd.DataFrame({"a": [1.0], "c": [2.0]}), None, "no column 'b', takes a, b"),
  ],
)
def test_what_is_no_point_of_the_fit_is_refused_in_one_line(
  points, weight, message
):
  fit = made_fits.one(columns=("a", "b"))
  with pytest.raises(ValueError, match=message) as error:
    fit.predict(points, sample_weight=weight)
  assert "\n" not in str(error.value)


def test_a_batch_takes_as_many_problems():
  fit = made_fits.batch(count=3)
  with pytest.raises(ValueError, match="2 problems, takes 3 as the fit"):
    fit.predict(np.zeros((2, 5, 2)))
  with pytest.raises(ValueError, match=r"takes \[B, N, d\]"):
    fit.predict(np.zeros((5, 2)))
  spoilt = np.zeros((3, 70_000, 2))
  spoilt[2, 1] = np.nan  # has no mixture anyway
  fit.predict(spoilt)
  spoilt[1, 69_000, 1] = np.inf
  with pytest.raises(ValueError, match=r"problem 1: .*inf.*\[69000, 1\]"):
    fit.predict(spoilt)
