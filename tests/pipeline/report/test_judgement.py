"""Gates and comparisons in words."""

import pytest

from pipeline.report.content import words
from pipeline.report.judgement import comparison_section, gate_sentence, verdict_words
from tests.pipeline.report.documents import comparison, document, gate, material


def said(text) -> str:
    return "".join(words(text))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            gate("reward_accuracy", "min", 0.6, "passed", 0.831, value=0.81),
            "reward_accuracy is 0.831, the lower end of its interval 0.810; at least 0.6 is wanted",
        ),
        (gate("drift", "max", 0.05, "failed", 0.13), "drift is 0.130; at most 0.05 is wanted"),
        (
            gate("loss", "max_rise", 0.0, "failed", 0.04, 0.01, 0.07, "anchor", "a"),
            (
                "loss rose by 0.040 against the anchor a; the rise is between +0.010 and +0.070 (95 % interval), "
                "at most 0 is allowed"
            ),
        ),
        (
            gate("loss", "max_drop", 0.01, "inconclusive", -0.004, -0.02, 0.02, "baseline", "b"),
            (
                "loss rose by 0.004 against the baseline b; the drop is between \u22120.020 and +0.020 "
                "(95 % interval), at most 0.01 is allowed: the interval holds the limit"
            ),
        ),
        (
            gate("loss", "max_drop", 0.01, "inconclusive", None, against="baseline"),
            "loss: nothing to compare with yet; a drop of at most 0.01 is allowed",
        ),
    ],
)
def test_a_gate_is_a_sentence(found, sentence):
    assert said(gate_sentence(found)) == sentence


@pytest.mark.parametrize(
    ("kind", "by", "said_of_it"),
    [
        ("max_drop", 0.02, "loss dropped by 0.020"),
        ("max_drop", -0.02, "loss rose by 0.020"),
        ("max_rise", 0.02, "loss rose by 0.020"),
        ("max_rise", -0.02, "loss dropped by 0.020"),
        ("max_rise", -0.0002, "loss is as it was"),
    ],
)
def test_a_drop_below_0_is_a_rise(kind, by, said_of_it):
    assert said(gate_sentence(gate("loss", kind, 0.1, "passed", by, -0.03, 0.03, "baseline", "b"))).startswith(
        said_of_it
    )


def test_the_level_of_many_looks_is_told():
    found = gate("loss", "max_drop", 0.01, "failed", 0.2, 0.1, 0.3, "baseline", "b") | {"level": 1 - 0.05 / 365}
    assert "(99.99 % interval)" in said(gate_sentence(found))


@pytest.mark.parametrize(
    ("verdicts", "overall", "sentence"),
    [
        (["passed"], "passed", "the gate passed"),
        (["passed", "passed"], "passed", "all 2 gates passed"),
        ([], "passed", "no gate is set, so nothing was judged"),
        (["passed", "failed", "failed"], "failed", "2 of 3 gates failed"),
        (["inconclusive", "passed"], "inconclusive", "no gate failed, but 1 of 2 cannot be decided on these pairs"),
        ([], None, "no gate was looked at"),
    ],
)
def test_a_verdict_is_a_sentence(verdicts, overall, sentence):
    gates = [gate("loss", "max", 1.0, verdict, 0.5) for verdict in verdicts]
    assert verdict_words({"gates": gates, "verdict": overall}) == sentence


def test_the_baseline_comes_before_the_reference_and_an_unknown_interval_is_no_number():
    found = document() | {
        "comparisons": [*document()["comparisons"], comparison("anchor", "a", "loss", 1, 2, None, None)]
    }
    (section,) = comparison_section(material(document=found))
    paragraphs = [said(block.text) for block in section.blocks if hasattr(block, "text")]
    assert [text.split()[2] for text in paragraphs[:3]] == ["baseline", "anchor", "reference"]
    tables = [block for block in section.blocks if hasattr(block, "rows")]
    assert [len(table.rows) for table in tables] == [2, 1, 1] and "unknown" in tables[1].rows[0]
