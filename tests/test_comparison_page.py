"""docs/comparison.md: what it says of this project is held to the code, what it says of TRL to the installed TRL.

The other tools were read at the commits that it names; nothing here can tell whether they have changed.
"""

import ast
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli import app
from stages.objectives.catalogue import OBJECTIVES

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/comparison.md").read_text()
README = (ROOT / "README.md").read_text()
SPANS = re.findall(r"`([^`\n]+)`", PAGE)
SOURCES = PAGE.partition("## Where it was read")[2]
_TRL = find_spec("trl")  # where it lies, without importing it
installed_trl = pytest.mark.skipif(_TRL is None, reason="the extra `bench` is not installed")


def test_commands_and_options_are_those_of_the_program():
    group: Any = typer.main.get_command(app)
    named = [span.split() for span in SPANS if span.startswith("pipeline ")]
    assert len(named) >= 6
    for _, command, *rest in named:
        known = {option for parameter in group.commands[command].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, command


def test_keys_and_files_are_there():
    keys = {span for span in SPANS if re.fullmatch(r"(reference|data|scoring|train|eval|store)\.\w+", span)}
    configuration = (ROOT / "docs/configuration.md").read_text()
    assert keys
    assert [key for key in keys if f"| `{key}` |" not in configuration] == []
    own = [span for span in SPANS if span.startswith("tests/stages")]
    assert own
    assert [path for path in own if not (ROOT / path).exists()] == []


def losses() -> tuple[int, int, set[str]]:
    """What the page says: the number of losses here, in TRL, and the names of those that TRL lacks."""
    ours, theirs, names = re.search(
        r"\| losses \| (\d+) .*?\| (\d+), all of them here too; beyond them are here ([^.]*)\.", PAGE
    ).groups()
    return int(ours), int(theirs), set(re.findall(r"`(\w+)`", names))


def test_as_many_objectives_as_it_says():
    ours, theirs, beyond = losses()
    assert ours == len(OBJECTIVES)
    assert theirs == ours - len(beyond)
    assert beyond <= set(OBJECTIVES)


def test_its_figures_are_those_of_the_readme():
    for job in ("scoring", "training"):
        rows = [row for row in README.splitlines() if row.startswith(f"| {job}, float32 |")]
        ratios = sorted((row.split("|")[5].split()[2] for row in rows), key=lambda ratio: float(ratio.rstrip("x")))
        said = f"{ratios[0]} to {ratios[-1]}"
        assert re.search(rf"{said} (the time )?in {job}", PAGE), said


def test_what_has_not_been_run_is_said_as_long_as_it_is_so():
    assert "**Nothing here has been run on a GPU yet.**" in PAGE
    assert "No figure of a GPU stands" in README, "docs/comparison.md says that nothing has been run on one"


def test_every_tool_has_a_commit_a_date_and_something_to_look_for():
    opening = re.search(r"It compares with (.*?)\.\n", PAGE, re.DOTALL).group(1)
    tools = re.findall(r"[\w-]+", opening.replace("and, for evaluation,", ""))
    assert len(tools) == 10
    for tool in tools:
        row = re.search(rf"^\| {tool} \| (.*?) \| `[\w./-]+` \| `[^`]+`.*\|$", SOURCES, re.MULTILINE)
        assert row, tool
        if tool != "TRL":
            commit = re.match(
                r"\[(\w{7,})\]\(https://github\.com/[\w.-]+/[\w.-]+/tree/\1\), 2026-\d\d-\d\d", row.group(1)
            )
            assert commit, tool


def trl_file(path: str) -> Path:
    return Path(_TRL.origin).parent.parent / path


@installed_trl
def test_trl_is_of_the_version_that_was_read():
    assert version("trl") in SOURCES, "read the new version again: tests below say which lines moved"


@installed_trl
def test_what_is_to_be_looked_for_in_trl_is_found_there():
    rows = SOURCES[SOURCES.index("| TRL |") : SOURCES.index("| open-instruct |")].splitlines()
    file = ""
    for row in rows:
        _, _, _, named, looked_for, _ = (cell.strip() for cell in row.split("|"))
        file = file if named == "the same" else named.strip("`")
        fragment, *others = re.findall(r"`([^`]+)`", looked_for)
        assert fragment in trl_file(file).read_text(), (file, fragment)
        assert [path for path in others if not trl_file(path).is_file()] == []


@installed_trl
def test_trls_losses_are_all_here_but_for_those_that_it_lacks():
    tree = ast.parse(trl_file("trl/trainer/dpo_trainer.py").read_text())
    compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq)]
    theirs = {
        node.comparators[0].value
        for node in compared
        if isinstance(node.left, ast.Name)
        and node.left.id == "loss_type"
        and isinstance(node.comparators[0], ast.Constant)
    }
    _, count, beyond = losses()
    assert len(theirs) == count
    assert set(OBJECTIVES) - theirs == beyond
    assert theirs <= set(OBJECTIVES)


@installed_trl
def test_trls_options_are_there_and_ppo_is_not():
    tree = ast.parse(trl_file("trl/trainer/dpo_config.py").read_text())
    fields = {node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)}
    for option in ("precompute_ref_log_probs", "max_length", "padding_free", "sync_ref_model", "router_aux_loss_coef"):
        assert option in fields
    assert "in TRL 1.16 no longer" in PAGE
    assert sorted(trl_file("trl").glob("**/ppo*_trainer.py")) == []
