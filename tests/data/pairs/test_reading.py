"""A row is read as its source says: which columns are what, and what each of its pairs gets of it."""

import pytest

from data.pairs.reading import Reading
from data.schema import PreferencePair, SourceRow

ANSWERS = [{"text": "Because.", "rank": 0}, {"text": "So.", "rank": 1}, {"text": "No idea.", "rank": 2}]
REPLIES = [{"text": each["text"], "role": "assistant", "rank": each["rank"], "replies": []} for each in ANSWERS]
ROWS = {
    "prompt and replies": ({"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}, 1),
    "rated answers": ({"prompt": "Why?", "answers": ANSWERS}, 3),
    "message tree": ({"prompt": {"text": "Why?", "role": "prompter", "replies": REPLIES}}, 3),
}
NAMED = {"margin": "gap", "pair_weight": "sure"}


def read(form, content, columns, group_by=None):
    reading = Reading(form, columns, "all", group_by)
    return [outcome for _, outcome in reading.pairs(SourceRow(3, "rows.jsonl:4", content))]


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize(
    ("columns", "numbers", "found"),
    [
        (NAMED, {"gap": 0.5, "sure": 2}, (0.5, 2.0)),
        (NAMED, {"gap": 0.5, "sure": 2, "margin": "other", "pair_weight": None}, (0.5, 2.0)),
        ({"margin": "margin"}, {"margin": 0.5, "pair_weight": "not named"}, (0.5, 1.0)),
        ({"pair_weight": "margin"}, {"margin": 0.5}, (0.0, 0.5)),
        ({"margin": "gap", "pair_weight": "gap"}, {"gap": "0.5"}, (0.5, 0.5)),
        ({}, {"margin": "not named", "pair_weight": -1}, (0.0, 1.0)),
    ],
    ids=["named", "another of the name", "itself", "exchanged", "one for both", "none"],
)
def test_every_pair_of_a_row_has_the_numbers_that_are_named(form, columns, numbers, found):
    content, n = ROWS[form]
    pairs = read(form, content | numbers, columns)
    assert [(pair.margin, pair.weight) for pair in pairs] == [found] * n


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize(
    ("numbers", "reason", "detail"),
    [
        ({"sure": 1, "margin": 2}, "missing_field", "the column gap of columns.margin is absent, not a finite number"),
        ({"gap": "?", "sure": 1}, "wrong_type", "the column gap of columns.margin is '?', not a finite number"),
        (
            {"gap": 1, "sure": -1},
            "wrong_type",
            "the column sure of columns.pair_weight is -1, not a finite number of at least 0",
        ),
    ],
    ids=["absent", "a text", "below 0"],
)
def test_a_bad_number_refuses_every_pair_of_its_row(form, numbers, reason, detail):
    content, n = ROWS[form]
    refused = read(form, content | numbers, NAMED)
    assert [(bad.reason, bad.detail) for bad in refused] == [(reason, detail)] * n
    assert all(isinstance(pair, PreferencePair) for pair in read(form, content, {}))


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize(
    ("columns", "group_by", "group"),
    [
        ({"margin": "gap"}, "gap", "7"),
        ({"margin": "gap"}, "margin", "7"),
        ({"margin": "gap", "pair_weight": "gap"}, "gap", "7"),
        ({"margin": "gap"}, "tree", "t"),
    ],
    ids=["by its own name", "by its new one", "of two uses", "of none"],
)
def test_a_column_that_is_named_can_be_grouped_by(form, columns, group_by, group):
    content, n = ROWS[form]
    pairs = read(form, content | {"gap": 7, "tree": "t"}, columns, group_by)
    assert [pair.group for pair in pairs] == [group] * n


def test_a_prompt_that_is_named_can_be_grouped_by():
    (pair,) = read("prompt and replies", {"ask": "Why?", "chosen": "a", "rejected": "b"}, {"prompt": "ask"}, "ask")
    assert (pair.group, pair.own_group) == ("Why?", "Why?")
