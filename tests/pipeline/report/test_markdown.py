"""The summary: nothing in it acts, however it is read, and it is never too long."""

import re
import sys

import pytest
from markdown_it import MarkdownIt

from pipeline.report.compose import compose
from pipeline.report.markdown import MOST_BYTES, append_to_job_summary, code_span, cut, summary_of
from tests.pipeline.report.documents import HOSTILE, document, material, slice_of


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """A summary has none; they only take time."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def summary(**changes) -> str:
    return summary_of(compose(material(**changes))).decode()


def test_verdict_gates_comparisons_and_results_in_this_order():
    text = summary()
    parts = ("## FAILED: `night-7`", "1 of 3 gates failed", "FAILED** `drift` is 0.130", "### Comparisons",
             "baseline `night-6`: 77", "| ranking accuracy | 0.584 | 0.649 | 0.538 to 0.747 |",
             "### Accuracy by slice", "### Data")  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "It jumps over the dog" not in text and "How many times" not in text  # no text of the data


def test_a_warning_is_a_whole_sentence():
    assert "**Warning.** `Looks like a base model: see 'pipeline inspect'.`" in summary()


def rendered(text: str) -> str:
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)


def test_nothing_that_others_wrote_becomes_markup():
    """Read by another program as GitHub does, the summary has the elements that a harmless one has, and no others."""
    usual, hostile = (re.findall(r"<(\w+)", rendered(summary(**changes))) for changes in ({}, {"text": HOSTILE}))
    assert set(hostile) == set(usual) and not {"a", "img", "script", "h1"} & set(hostile)
    assert hostile.count("tr") == usual.count("tr") and hostile.count("td") == usual.count("td")


def test_names_of_others_stand_in_code_where_nobody_is_mentioned():
    outside = re.sub(r"`[^`\n]*`", "", summary(text=HOSTILE))
    for sign in ("@", "<", "](", "://", "${{", "|`", "#1"):
        assert sign not in outside
    assert summary(text=HOSTILE).count("`") % 2 == 0


def test_no_line_is_a_command_to_ci():
    for text in (summary(text=HOSTILE), summary(text="::error::x"), summary(text="\n::error::x")):
        assert not [line for line in text.splitlines() if line.lstrip().startswith(("::", "##["))]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"`a\x7cb`"),
        ("a`b``", r"`a\x60b\x60\x60`"),
        ("a\nb\tc", r"`a\nb\tc`"),
        ("", "(empty)"),
        (" \u202e ", r"`\u202e`"),
        ("x" * 130, f"`{'x' * 120} ... (10 characters more)`"),
    ],
)
def test_a_code_span_has_no_way_out(text, shown):
    assert code_span(text) == shown


def test_a_summary_is_below_the_limit_whatever_the_evaluation_has():
    rows = [slice_of(f"value {i} " + "x" * 100, 40, 0.7) for i in range(300)]
    found = document() | {"slices": {f"column{i} {'y' * 80}": rows for i in range(200)}}
    content = summary_of(compose(material(document=found)))
    assert MOST_BYTES - 500 < len(content) <= MOST_BYTES < 1024 * 1024
    assert content.decode().endswith("report.html has all of it.\n") and content.startswith(b"## FAILED")


def test_what_is_cut_ends_with_a_whole_line():
    text = "".join(f"| line {i} | \u00e9 |\n" for i in range(100))
    content = cut(text, 500).decode()
    kept = content.splitlines()[:-2]
    assert kept and kept == text.splitlines()[: len(kept)] and len(content.encode()) <= 500
    assert cut(text, 10_000) == text.encode()


def test_the_summary_of_a_ci_step_gets_it_once(tmp_path):
    step = tmp_path / "summary"
    step.write_text("before\n")
    for _ in range(2):
        assert append_to_job_summary(b"## Passed\n", {"GITHUB_STEP_SUMMARY": str(step)}) == str(step)
    assert step.read_text() == "before\n\n## Passed\n"
    assert append_to_job_summary(b"## Passed\n", {}) is None


def test_the_summary_of_a_ci_step_never_grows_too_long(tmp_path):
    step = tmp_path / "summary"
    for i in range(4):
        append_to_job_summary(b"## Run %d\n" % i + b"a line\n" * 50_000, {"GITHUB_STEP_SUMMARY": str(step)})
    assert step.stat().st_size <= MOST_BYTES and step.read_bytes().count(b"## Run") == 3
    assert step.read_text().endswith("report.html has all of it.\n")


def test_a_summary_that_cannot_be_written_fails_nothing(tmp_path):
    assert append_to_job_summary(b"x", {"GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "folder")}) is None
