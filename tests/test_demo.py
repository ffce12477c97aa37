"""The preference set of the demo: distinct prompts, and no side that its length gives away."""

import json
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "examples" / "demo" / "prefs.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def words(side: str) -> list[int]:
    return [len(row[side].split()) for row in ROWS]


def test_prompts_are_distinct():
    questions = {" ".join(row["prompt"][-1]["content"].lower().split()) for row in ROWS}
    assert len(questions) == len(ROWS) == 200


def test_length_gives_no_clue():
    chosen, rejected = words("chosen"), words("rejected")
    assert sum(chosen) == pytest.approx(sum(rejected), rel=0.03)
    longer = sum(c > r for c, r in zip(chosen, rejected, strict=True))
    shorter = sum(c < r for c, r in zip(chosen, rejected, strict=True))
    assert longer == pytest.approx(shorter, rel=0.1)
