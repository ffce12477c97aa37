"""The documentation is made from the code, or checked against it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generate import DOCS, cli_page, configuration_page, data_page, math_page, objectives_page, schema

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("examples/**/*.md"))]


@pytest.mark.parametrize(
    ("name", "page"),
    [
        *(("cli.md", cli_page), ("configuration.md", configuration_page), ("data.md", data_page)),
        *(("objectives.md", objectives_page), ("math.md", math_page), ("schema.json", schema)),
    ],
)
def test_generated_pages_are_in_step_with_the_code(name, page):
    assert (DOCS / name).read_text() == page(), "run: python docs/generate.py"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_links_between_pages_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", path.read_text())
    inner = [(path.parent / link if link else path, heading) for link, heading in links if "://" not in link]
    assert [str(target) for target, _ in inner if not target.exists()] == []
    pages = [(target, heading) for target, heading in inner if heading and target.suffix == ".md"]
    assert [heading for target, heading in pages if heading not in headings(target)] == []


def headings(page: Path) -> set[str]:
    """Names that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_list_of_pages():
    listed = set(re.findall(r"\]\(([\w.-]+\.md)\)", (DOCS / "README.md").read_text()))
    assert listed == {path.name for path in DOCS.glob("*.md")} - {"README.md"}


@pytest.mark.parametrize("page", ["guarantees.md", "security.md"])
def test_every_guarantee_names_tests_that_are_there(page):
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", (DOCS / page).read_text())
    named = [(path, test) for path, test in named if path != "tests/test_docs.py"]
    assert len(named) > 30
    texts = {path: (ROOT / "tests" / path).read_text() for path, _ in named}
    assert [test for path, test in named if test and f"def {test}(" not in texts[path]] == []


def test_what_the_math_page_says_is_shown_by_tests_that_are_there():
    named = re.findall(r"`(test_\w+)`", (DOCS / "math.md").read_text())
    texts = "".join(path.read_text() for path in (ROOT / "tests/stages/objectives").glob("test_*.py"))
    assert len(named) > 8
    assert [test for test in named if f"def {test}(" not in texts] == []


def test_the_readmes_configuration_loads(tmp_path):
    from pipeline.config import load_config

    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "c.yaml").write_text(block)
    assert load_config(tmp_path / "c.yaml", (), {}).train.pairs_per_step == 16


def test_the_exit_codes_of_the_readme_are_those_of_the_errors():
    from data import errors

    codes = {value.exit_code for value in vars(errors).values() if isinstance(value, type)}
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)}
    assert table == codes | {0, 130}


def test_the_tables_of_benchmarks_are_the_committed_results():
    """The overview stands in the README, everything in docs/benchmarks.md."""
    results = sorted((ROOT / "benchmarks/results").glob("*.json"))
    command = [sys.executable, "benchmarks/tables.py", *map(str, results)]
    tables = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    overview, _, everything = tables.partition("\n\n")
    assert overview.startswith("|  | set (pairs) | ours |")
    assert overview in (ROOT / "README.md").read_text()
    assert everything.strip() in (DOCS / "benchmarks.md").read_text()
