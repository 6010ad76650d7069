import numpy as np
import pytest

from experiments.benchmarks import starts


@pytest.fixture(autouse=True)
def two_ways(monkeypatch):
  monkeypatch.setattr(
    starts, "_WAYS", [("k-means++", 1), ("k-means", 3), (starts._ALL_POINTS, 1)]
  )


@pytest.fixture(name="folder")
def folder_with_sets(tmp_path):
  """Two sets, one of them with two labellings and a point that is noise."""
  generator = np.random.default_rng(0)
  for name, num_labellings in (("one", 1), ("two", 2)):
    centres = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    labels = np.repeat([1, 2, 3], 20)
    points = centres[labels - 1] + generator.normal(size=(60, 2))
    (tmp_path / "sets").mkdir(exist_ok=True)
    np.savetxt(tmp_path / "sets" / f"{name}.data.gz", points)
    for index in range(num_labellings):
      own = np.minimum(labels, 3 - index)
      own[0] = 0
      path = tmp_path / "sets" / f"{name}.labels{index}.gz"
      np.savetxt(path, own, fmt="%d")
  return tmp_path


def cells(table, heading):
  (column,) = (one for one in table.columns if one.header == heading)
  return list(column.cells)


def test_sets_are_read_with_all_their_labellings(folder):
  (first, second) = starts.read_sets(folder)
  assert first[0].shape == second[0].shape == (60, 2)
  assert [len(first[1]), len(second[1])] == [1, 2]
  assert first[1][0].tolist()[:2] == [0, 1]


def test_groups_that_stand_apart_are_found_from_every_start(folder):
  table = starts.on_sets(folder)
  assert [float(cell.split()[0]) for cell in cells(table, "ARI")][-1] == 1.0
  lost = [
    float(cell.split()[0]) for cell in cells(table, "log-likelihood less best")
  ]
  assert max(lost) == 0.0


def test_every_way_is_scored_on_tasks():
  table = starts.on_tasks("unit", 4)
  assert cells(table, "starts") == ["1", "3", "1"]
  assert cells(table, "start")[-1] == "ward, all points"
  for heading in ("l2_error, K = 3", "l2_error, K = 5"):
    assert all(float(cell.split()[0]) >= 0 for cell in cells(table, heading))
