"""Pages say what the kept tables say, and every question has its own."""

import re
import types

import pytest

from experiments.mixtures import figures as mixture_figures
from experiments.results_pages import __main__ as command
from experiments.results_pages import page, tables
from experiments.runner import kept as kept_runs
from tgmm_jax.evaluation import results, sorted_loss
from tgmm_jax.training import files

FOUND = {kept.name: kept for kept in kept_runs.find()}
THERE = [name for name, kept in FOUND.items() if command.is_kept(kept)]
# Pages of which a part is made, and those that show figures of kept runs.
PARTS = ("docs/papers.md", "experiments/README.md")
OTHERS = [kept_runs.ROOT / "README.md", *page.PAGES.parent.glob("*.md")]
_LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")


@pytest.fixture(scope="module")
def made():
  return command.make()


def test_committed_pages_are_those_of_the_command(made):
  committed = set(page.PAGES.glob("*.md"))
  assert {command.path_of(name) for name in THERE} == committed
  assert committed < set(made)
  for path in committed:
    assert path.read_bytes() == made[path].encode(), path


def test_parts_of_pages_are_those_of_the_command(made):
  for name in PARTS:
    path = kept_runs.ROOT / name
    assert path.read_bytes() == made[path].encode(), path


def test_the_librarys_part_of_a_kept_table_is_that_of_the_command(made):
  assert sorted_loss.TABLE.read_text() == made[sorted_loss.TABLE]
  kept = results.read_csv(kept_runs.RESULTS / "sorted_loss" / "results.csv")
  assert set(sorted_loss.errors()) < set(kept)


def test_every_question_has_a_line_and_links_lead_somewhere(made):
  text = made[kept_runs.EXPERIMENTS / "README.md"]
  for path in kept_runs.questions():
    assert text.count(f"[`{path.name}`]({path.name})") == 1
  for path, text in made.items():
    for link in _LINK.findall(text):
      if not link.startswith("http"):
        assert (path.parent / link).exists(), (path, link)


@pytest.mark.parametrize("name", FOUND)
def test_conclusions_are_beside_the_configs_and_type_no_results(name):
  kept = FOUND[name]
  assert isinstance(kept.module.CONCLUSION, str)
  conclusions = {own.conclusion for own in kept.module.PAGES.values()}
  assert kept.module.CONCLUSION in conclusions
  # A sentence or two; settings are integers, results are looked up.
  assert kept.page.conclusion.endswith(".")
  assert not re.search(r"\d\.\d|\d%|e-\d", kept.page.conclusion)
  assert set(re.findall(r"{(\w+)}", kept.page.conclusion)) == set(
    kept.page.numbers
  )


@pytest.mark.parametrize("name", THERE)
def test_tables_are_small_and_figures_are_those_that_are_kept(name):
  table = FOUND[name].page.table(page.read(kept_runs.RESULTS / name).rows)
  assert table.caption.endswith(".")
  assert 1 <= len(table.lines) <= 9
  assert all(1 <= len(line) <= 8 for line in table.lines.values())
  figures = kept_runs.RESULTS / name / "figures"
  committed = {path.stem for path in figures.glob("*.png")}
  assert committed == set(FOUND[name].page.figures)
  assert len(committed) <= 3


def test_kept_folders_are_those_of_questions():
  folders = {path.name for path in kept_runs.RESULTS.iterdir()}
  assert folders == set(THERE)
  assert {path.name for path in kept_runs.RESULTS.parent.iterdir()} == {"quick"}


def test_figures_that_other_files_show_are_kept():
  shown = [
    path.parent / link
    for path in OTHERS
    for link in re.findall(r"[\w./]*results/quick/[\w./]+png", path.read_text())
  ]
  assert len(shown) > len(PARTS)
  for path in shown:
    assert path.exists(), path


@pytest.mark.parametrize("name", sorted(set(FOUND) - set(THERE)))
def test_a_page_can_be_made_of_what_a_run_is_planned_to_give(name, tmp_path):
  """So that no run of minutes ends without its page."""
  kept = FOUND[name]
  config = kept.module.get_config(kept.variant)
  experiment = kept.module.experiment(config, tmp_path / "run")
  rows = [
    results.Row(solver, *_cell(setting, count), metric, 0.5, 0.1, 64, 3)
    for solver, setting, count, metric in experiment._kind.expected
  ]
  run = page.Run(
    {"title": config.title, "question": config.question},
    files.read_json(kept_runs.RESULTS / "rq1" / "versions.json"),
    {"seconds": 83.4, "num_starts": 2},
    rows,
  )
  text = page.text(kept, run)
  assert "- Time: 1 min 23 s, in 2 starts\n" in text
  assert "0.50 ± 0.10" in text.split("**What came out.**")[1]
  drawn = {own for _, (own, _) in mixture_figures.draw(rows)}
  assert set(kept.page.figures) <= drawn


def _cell(setting, count):
  dim, num_points, shift_kind, shift = setting
  return dim, count, num_points, shift, shift_kind


def _page_of(**options):
  module = types.SimpleNamespace(
    PAGES={"quick": page.Page(**options)}, __doc__="What?\n"
  )
  return kept_runs.Kept("what", "quick", module)


RUN = page.Run(
  {"title": "What", "question": "What is it?"},
  {
    "git_commit": "0123456789abcdef-dirty",
    "num_cores": 16,
    "platform": "gpu",
    "num_devices": 2,
    "device_kind": "GPU X",
    "jax": "1.0",
  },
  {},
  [results.CurveRow("s", "error", "a", 1.0, 0.5, 0.1, 8, 0)],
)


def test_a_page_says_how_it_was_made():
  text = page.text(_page_of(conclusion="So it is.", figures={"x": "An x"}), RUN)
  assert text.startswith("# What (`what.py:quick`)\n\nWhat is it?\n")
  assert "**What came out.** So it is.\n" in text
  assert "--config=experiments/what.py:quick\n" in text
  assert "- Hardware: 16 CPU cores, 2 gpu devices (GPU X)\n" in text
  assert "- Time: not recorded\n" in text
  assert "- Commit 0123456789ab with further changes; jax 1.0\n" in text
  figure = "../../experiments/results/quick/what/figures/x.png"
  assert f"![An x]({figure})" in text
  assert "curves.csv" in text
  assert "results.csv" not in text


def test_numbers_of_a_conclusion_are_looked_up():
  fields = {"series": "a", "x": 1.0}
  found = _page_of(conclusion="It is {it}.", numbers={"it": fields})
  assert "It is 0.50 ± 0.10.\n" in page.text(found, RUN)
  lost = _page_of(conclusion="It is {it}.", numbers={"it": {"series": "b"}})
  with pytest.raises(ValueError, match="takes the fields of a row"):
    page.text(lost, RUN)


def test_names_choose_pages_and_unknown_ones_are_refused():
  made = command.make(["rq1_pretrained"])
  pages = {path.stem for path in made if path.parent == page.PAGES}
  assert pages == {"rq1_pretrained"}
  made = command.make(["rq1"])
  pages = {path.stem for path in made if path.parent == page.PAGES}
  assert pages == {"rq1", "rq1_pretrained"}
  with pytest.raises(ValueError, match="name is 'rq9', takes one of"):
    command.make(["rq9"])


def test_default_table_is_a_table_of():
  assert page.Page("x").table is tables.default
