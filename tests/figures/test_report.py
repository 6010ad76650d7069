import base64
import html.parser
import io
import math
import re

import pytest
import rich.console
from matplotlib import figure as mpl_figure

from tgmm_jax.evaluation import results
from tgmm_jax.figures import report, report_tables

VOID = {"meta", "img", "br", "hr", "link", "input"}
SETTING = results.Setting(2, 128, "means", 0.0)
CELLS = [
  (solver, SETTING, k, metric)
  for solver in ("refiner", "em/normal", "em/oracle")
  for k in (2, 3)
  for metric in ("l2_error", "l2_error_released", "accuracy")
]


class Page(html.parser.HTMLParser):
  """Checks that tags balance; collects texts, tables and attributes.

  Of bold entries it collects the first one of their line.
  """

  def __init__(self, text):
    super().__init__()
    self.open, self.tables, self.attributes, self.texts = [], [], [], []
    self.bold = []
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.attributes += [(tag, name, value) for name, value in attrs]
    if tag not in VOID:
      self.open.append(tag)
    if tag == "table":
      self.tables.append([])
    if tag == "tr":
      self.tables[-1].append([])
    if tag in ("td", "th"):
      self.tables[-1][-1].append("")
    if tag == "b":
      self.bold.append(self.tables[-1][-1][0])

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] in ("style",):
      return
    self.texts.append(data)
    if "td" in self.open or "th" in self.open:
      self.tables[-1][-1][-1] += data

  @property
  def text(self):
    """All of it, each run of blanks as one."""
    return " ".join(" ".join(self.texts).split())


def make_rows():
  means = {"refiner": (0.0200, 0.036), "em/normal": (0.021, 0.658)}
  means["em/oracle"] = (0.0209, 0.0357)
  offsets = {"l2_error": 0.0, "l2_error_released": 6.0, "accuracy": 0.3}
  return [
    results.Row(
      *(solver, 2, k, 128, 0.0, "means", metric),
      *(mean + offset, 0.0016, 1280, 10 * k),
    )
    for solver, values in means.items()
    for k, mean in zip((2, 3), values, strict=True)
    for metric, offset in offsets.items()
  ]


def write(tmp_path, **changes):
  arguments = {
    "title": "Gaussian mixtures",
    "question": "Which solver?",
    "rows": make_rows(),
    "figures": {},
    "config": {"seed": 0, "train": {"num_steps": 7}},
    "versions": {"jax": "0.10.2"},
  }
  path = tmp_path / "report.html"
  report.write_html(path, **(arguments | changes))
  return Page(path.read_text(encoding="utf-8"))


def table_of(page, head, number=0):
  """The number-th table whose head starts so, as {first cell: others}."""
  found = [table for table in page.tables if table[0][: len(head)] == head]
  return {line[0]: line[1:] for line in found[number][1:]}


def test_error_table_has_means_errors_and_failures(tmp_path):
  page = write(tmp_path)
  table = table_of(page, ["d = 2", "K = 2", "K = 3"])
  # In the order of figures: trained, classical, references.
  assert list(table) == ["refiner", "em/normal", "em/oracle"]
  assert table["em/normal"] == [
    "0.0210 ± 0.001620 (1.6%) failed",
    "0.6580 ± 0.001630 (2.3%) failed",
  ]


def test_published_metric_has_a_table_of_its_own(tmp_path):
  page = write(tmp_path)
  table = table_of(page, ["d = 2", "K = 2", "K = 3"], number=1)
  assert table["refiner"] == ["6.0200 ± 0.0016", "6.0360 ± 0.0016"]
  assert "applies its inverse" in page.text
  without = [row for row in make_rows() if row.metric != "l2_error_released"]
  page = write(tmp_path, rows=without)
  assert "applies its inverse" not in page.text


def test_summary_names_the_best_of_each_kind(tmp_path):
  better = make_rows()[0]._replace(solver="refiner-x8+em5", mean=0.0195)
  one_cell = make_rows()[0]._replace(solver="spectral", mean=1e-6)
  rows = [*make_rows(), better, better._replace(num_components=3), one_cell]
  page = write(tmp_path, rows=rows)
  lines = page.tables[0]
  assert lines[0] == ["", "kind", "solver", "K = 2", "K = 3"]
  assert [line[:4] for line in lines[1:]] == [
    ["d = 2", "trained", "refiner-x8+em5", "0.0195 ± 0.0016"],
    # Not the spectral method, which has but one of the two cells.
    ["", "classical", "em/normal", "0.0210 ± 0.0016"],
    ["", "reference", "em/oracle", "0.0209 ± 0.0016"],
  ]


def test_summary_counts_failures_once_for_all_metrics(tmp_path):
  page = write(tmp_path)
  # Three solvers with 20 and 30 failures, 1280 tasks in each of six cells.
  counts = "3 solvers, 6 cells, 1,280 tasks in each. 150 of 7,680 solutions"
  assert counts in page.text


def test_missing_cells_are_shown_as_missing(tmp_path):
  rows = [
    row
    for row in make_rows()
    if (row.solver, row.num_components) != ("refiner", 3)
  ]
  cells = [*CELLS, ("refiner", SETTING._replace(dim=32), 2, "l2_error")]
  page = write(tmp_path, rows=rows, expected=cells)
  assert table_of(page, ["d = 2"])["refiner"][1] == "missing"
  assert table_of(page, ["d = 32"])["refiner"] == ["missing"]
  text = page.text
  assert "4 of 19 planned results are missing" in text
  assert "refiner, d = 2, K = 3: l2_error, l2_error_released, accuracy" in text
  assert "refiner, d = 32, K = 2: l2_error" in text


def test_complete_run_and_unplanned_cells_are_not_missing(tmp_path):
  page = write(tmp_path, expected=CELLS)
  text = page.text
  assert "No planned cell is missing." in text
  extra = make_rows()[0]._replace(solver="spectral")
  page = write(tmp_path, rows=[*make_rows(), extra], expected=CELLS)
  assert table_of(page, ["d = 2"])["spectral"][1] == "–"
  assert "missing:" not in page.text


def test_run_without_results_is_reported_as_missing(tmp_path):
  page = write(tmp_path, rows=[], expected=CELLS)
  assert f"{len(CELLS)} of {len(CELLS)} planned" in page.text
  assert table_of(page, ["d = 2"])["refiner"] == ["missing", "missing"]


def test_mean_that_is_not_finite_is_said_to_be(tmp_path):
  rows = make_rows()
  rows[0] = rows[0]._replace(mean=math.nan, standard_error=math.nan)
  page = write(tmp_path, rows=rows)
  cell = table_of(page, ["d = 2"])["refiner"][0]
  assert cell.startswith("not finite")


def test_names_cannot_smuggle_markup(tmp_path):
  evil = '<script>alert("1")</script>&\'"'
  rows = [make_rows()[0]._replace(solver=evil, metric=metric)
          for metric in ("l2_error", evil)]  # fmt: skip
  page = write(
    tmp_path,
    title=evil,
    question=evil,
    rows=rows,
    figures={evil: mpl_figure.Figure((1, 1))},
    tables={evil: {evil: evil}},
    config={evil: evil},
    versions={evil: evil},
    parameters={evil: {evil: evil}},
    training={evil: evil},
    expected=[(evil, SETTING, 3, evil)],
  )
  content = (tmp_path / "report.html").read_text()
  assert "<script" not in content
  assert ("img", "alt", evil) in page.attributes
  assert content.count("&lt;script&gt;") > 10


def test_names_are_shown_as_they_are(tmp_path):
  solver, title = "a&b<script>c</script>", "K & d <script>"
  row = make_rows()[0]._replace(solver=solver)
  page = write(tmp_path, title=title, rows=[row], config={"title": title})
  content = (tmp_path / "report.html").read_text()
  # Escaped, and not twice.
  assert "<script" not in content
  assert "&amp;amp;" not in content
  assert "&amp;lt;" not in content
  # In the tab, the heading and the config; in the summary and its table.
  assert page.text.count(title) == 3
  assert page.tables[0][1][2] == solver
  assert table_of(page, ["d = 2"]) == {
    solver: ["0.0200 ± 0.001620 (1.6%) failed"]
  }


def test_page_needs_nothing_from_elsewhere(tmp_path):
  png = b"\x89PNG\r\n\x1a\n123"
  (tmp_path / "a.png").write_bytes(png)
  figure = mpl_figure.Figure((1, 1))
  page = write(
    tmp_path, figures={"A file.": tmp_path / "a.png", "A figure.": figure}
  )
  sources = [value for _, name, value in page.attributes if name == "src"]
  assert [source.split(",")[0] for source in sources] == [
    "data:image/png;base64"
  ] * 2
  assert base64.b64decode(sources[0].split(",")[1]) == png
  assert base64.b64decode(sources[1].split(",")[1]).startswith(b"\x89PNG")
  content = (tmp_path / "report.html").read_text()
  assert not re.search(r"https?://|@import|url\(", content)
  for _, name, value in page.attributes:
    assert name != "href" or value.startswith("#")


def test_links_lead_to_sections(tmp_path):
  page = write(tmp_path)
  targets = {value for _, name, value in page.attributes if name == "id"}
  links = [value for _, name, value in page.attributes if name == "href"]
  assert len(links) > 3
  assert {link[1:] for link in links} == targets


def test_the_other_sections(tmp_path):
  page = write(
    tmp_path,
    parameters={"refiner": {"total": 371234, "share": 0.25}, "tgmm": {}},
    training={"refiner": {"steps": 6000, "seconds": 301.5}},
  )
  assert table_of(page, ["", "total"])["refiner"] == ["371,234", "0.25"]
  assert table_of(page, ["", "total"])["tgmm"] == ["–", "–"]
  assert table_of(page, ["", "steps"])["refiner"] == ["6,000", "301.5"]
  text = page.text
  assert '"num_steps": 7' in text
  assert ["jax", "0.10.2"] in page.tables[-1]
  assert "clustering accuracy" in text


def test_same_input_same_bytes(tmp_path):
  figures = {"A figure.": mpl_figure.Figure((1, 1))}
  write(tmp_path, figures=figures)
  first = (tmp_path / "report.html").read_bytes()
  write(tmp_path, figures=figures, rows=make_rows()[::-1])
  assert (tmp_path / "report.html").read_bytes() == first


def test_bold_is_the_best_and_what_is_within_its_standard_error(tmp_path):
  base = make_rows()[0]._replace(standard_error=0.01)
  means = {"a": 1.0, "b": 1.005, "c": 1.02, "em/oracle": 0.5}
  rows = [base._replace(solver=name, mean=mean) for name, mean in means.items()]

  assert write(tmp_path, rows=rows).bold == ["a", "b"]
  rows = [row._replace(metric="accuracy") for row in rows]
  assert write(tmp_path, rows=rows).bold == ["c"]
  rows = [row._replace(metric="num_iters") for row in rows]
  assert write(tmp_path, rows=rows).bold == []


@pytest.mark.parametrize(
  ("mean", "standard_error", "text"),
  [
    (0.0209526, 0.00157554, "0.0210 ± 0.0016"),
    (0.0209526, 0.0095, "0.021 ± 0.009"),
    (-3.43567, 0.0123, "-3.436 ± 0.012"),
    (3813.4, 791.2, "3813 ± 791"),
    (1.5e9, 2e8, "1.50e+09 ± 2e+08"),
    (0.25, 0.0, "0.25"),
    (0.25, math.nan, "0.25"),
    (math.nan, math.nan, "not finite"),
    (math.inf, math.nan, "not finite"),
  ],
)
def test_format_mean(mean, standard_error, text):
  assert report_tables.format_mean(mean, standard_error) == text


def test_terminal_table_fits_80_columns_and_shows_names_as_they_are():
  rows = make_rows()
  rows += [
    row._replace(solver=name, num_components=k, standard_error=0.0004)
    for row in rows[:1]
    for name in ("em/k-means++-x10-projected", "[red]odd")
    for k in (2, 3, 4, 5)
  ]
  stream = io.StringIO()
  console = rich.console.Console(file=stream, width=80)
  console.print(report.terminal_table(rows))
  lines = stream.getvalue().splitlines()
  assert all(len(line) <= 80 for line in lines)
  found = {line.split()[0]: line.split()[1:] for line in lines if line.split()}
  assert found["refiner"] == ["0.020(2)", "0.036(2)", "–", "–", "2.0%"]
  assert found["em/k-means++-x10-projected"] == ["0.0200(4)"] * 4 + ["1.6%"]
  assert found["[red]odd"] == ["0.0200(4)"] * 4 + ["1.6%"]
