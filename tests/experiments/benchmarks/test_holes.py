"""The table of errors over the share of missing cells, in small."""

import pytest

from experiments.benchmarks import holes


@pytest.mark.slow
def test_what_is_seen_tells_more_than_complete_rows():
  rows = holes.measure_errors(8, (0.0, 0.3), 200)
  value = {(row.series, row.x): row.value for row in rows}
  assert len(value) == 8
  assert len({value[way, 0.0] for way in holes._WAYS}) == 1
  assert value["all cells", 30.0] == value["all cells", 0.0]
  for way in ("column means", "complete rows"):
    assert value["what is seen", 30.0] < value[way, 30.0]
  assert holes.draw(rows).axes
