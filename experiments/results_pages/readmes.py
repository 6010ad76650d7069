"""The parts of pages written by hand that are made of the kept results."""

from collections.abc import Mapping, Sequence

from experiments.results_pages import page, tables
from experiments.runner import kept as kept_runs
from tgmm_jax.figures import report_tables

_BY = "made by `python -m experiments.results_pages`"
QUESTIONS, ERRORS = "questions", "errors"
# Lines of the table of errors: what is shown, whose it is, and its solver.
_LINES = {
  "EM, one N(0, I) start (the paper's baseline)": ("rq1", "em/normal"),
  "EM, best of ten k-means++ starts": ("rq1", "em/k-means++-x10"),
  "spectral": ("rq1", "spectral"),
  "`refiner`, one forward pass": ("rq1", "refiner"),
  "`refiner`, 8 views and 5 EM steps": ("rq1", "refiner-x8+em5"),
  "the shipped network, 8 views and 5 EM steps": (
    "rq1_pretrained",
    "pretrained-x8+em5",
  ),
  "the paper's network, matched loss, one forward pass": (
    "tgmm_networks_shipped",
    "tgmm",
  ),
  "the paper's network, matched loss, 5 EM steps": (
    "tgmm_networks_shipped",
    "tgmm+em5",
  ),
  "small `tgmm`, published loss and backbone": ("rq1", "tgmm-released"),
  "EM started at the truth (a limit)": ("rq1", "em/oracle"),
}
_DIMS, _COUNTS = (2, 8), (2, 3, 4, 5)
# More decimals would not fit the width of a page.
_MOST_DIGITS = 3


def replace(text: str, name: str, content: str) -> str:
  """A file's text with other content between the two markers of a part.

  Args:
    text: of the file.
    name: of the part.
    content: new.

  Raises:
    ValueError: the text has not each marker once.
  """
  begin, end = f"<!-- {name}: {_BY} -->\n", f"<!-- end of {name} -->"
  if text.count(begin) != 1 or text.count(end) != 1:
    raise ValueError(f"the text has no part {name!r}, takes {begin!r}, {end!r}")
  before, _, rest = text.partition(begin)
  _, _, after = rest.partition(end)
  return f"{before}{begin}\n{content.strip()}\n\n{end}{after}"


def list_questions(
  found: Sequence[kept_runs.Kept], pages: Sequence[str]
) -> str:
  """A line for each question: its file, what it asks, its pages.

  Args:
    found: what is kept of them.
    pages: names of the pages that there are.
  """
  lines = {}
  for kept in found:
    asked = kept.module.__doc__.splitlines()[0].removesuffix(".")
    head = f"[`{kept.question}.py`]({kept.question}.py)"
    line = lines.setdefault(head, {"question": asked, "results": ""})
    shown = f"[:{kept.variant}](../docs/results/{kept.name}.md)"
    if kept.name not in pages:
      shown = f":{kept.variant} not run yet"
    line["results"] += (", " if line["results"] else "") + shown
  return page.markdown(lines)


def errors_table(runs: Mapping[str, page.Run]) -> str:
  """RQ1's errors at two d: the table of `docs/papers.md` and what it is.

  Args:
    runs: by name, what is kept of RQ1.
  """
  columns = {
    f"d = {dim}, K = {count}": {"dim": dim, "num_components": count}
    for dim in _DIMS
    for count in _COUNTS
  }
  lines, counts = {}, set()
  for head, (name, solver) in _LINES.items():
    lines[head] = {}
    for other, column in columns.items():
      fields = {"solver": solver, "metric": "l2_error", **column}
      row = tables.find(runs[name].rows, fields)
      lines[head][other] = _short(row) if row else "–"
      counts |= {row.count} if row else set()
  tasks = " to ".join(f"{count:,}" for count in sorted(counts))
  return (
    "Squared error of the means per component and coordinate at N = 128, with"
    " its\nstandard error where it has a digit to show,"
    f" {tasks} tasks in each cell, from\n[`rq1.py:quick`](results/rq1.md), for"
    " the shipped network\n[`rq1.py:pretrained`](results/rq1_pretrained.md),"
    " and for the paper's own\n[`tgmm_networks.py:shipped`]"
    "(results/tgmm_networks_shipped.md).\n\n" + page.markdown(lines)
  )


def _short(row):
  """`0.052 ± 0.007`, and `0.019` where the error has no digit left."""
  digits = min(report_tables.worthy_digits(row.standard_error), _MOST_DIGITS)
  error = f"{row.standard_error:.{digits}f}"
  mean = f"{row.mean:.{digits}f}"
  return f"{mean} ± {error}" if float(error) else mean
