"""Every planted edit is counted as what it is, and every row once, whatever the order of the rows."""

import itertools
import json
import logging
import subprocess
import sys
from collections import Counter
from functools import cache

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.pairs.rewordings
from data.durable import write_bytes
from data.pairs.changes import SNAPSHOT_SCHEMA, changes, read_snapshot, write_snapshot
from data.pairs.rewordings import NEAR
from data.parquet import as_frame, parquet_bytes
from data.tokens.sketches import similarity, sketch
from tests.planted import COUNTED, KINDS, Row, frame, planted, reworded, words

EMPTY = as_frame(SNAPSHOT_SCHEMA.empty_table())
ABOUT = {"rows": 2, "model": "Grün", "nested": {"a": [1, None]}}


def rng(seed=0):
    return np.random.default_rng(seed)


def a_row(seed=0):
    random = rng(seed)
    return Row(words(random, 10), words(random, 60), words(random, 80))


def counted(before, after):
    """What is not zero of the counts of rows."""
    found = changes(before, after).document()
    return {name: found[name] for name in COUNTED if found[name]}


@pytest.mark.parametrize("seed", range(3))
def test_planted_edits_of_every_kind_are_counted_exactly(seed):
    edits = {kind: 20 + place for place, kind in enumerate(KINDS) if kind != "unchanged"}
    before, after, expected = planted(1000, edits, seed)
    assert changes(before, after).document() == expected
    assert min(expected[kind] for kind in COUNTED) >= 20


@pytest.mark.parametrize("kind", KINDS)
def test_planted_edits_of_one_kind_are_counted_exactly(kind):
    before, after, expected = planted(60, {kind: 25})
    assert changes(before, after).document() == expected
    assert changes(before, after).any == (kind not in ("unchanged", "twice"))


# Any rows: few tokens, texts and prompts, in any combination, so that everything competes with everything.

# Sets of 14, each moved on by 2: similarity 0.75, 0.56, 0.4, ... at 1, 2, 3 steps.
SKETCHES = [np.arange(2 * step + 1, 2 * step + 15, dtype="<u4").tobytes() + b"\xff" * 8 for step in range(11)]


def any_row(prompt_tokens, chosen, rejected, *texts):
    keys = [f"{prompt_tokens}{tokens}" * 32 for tokens in (chosen, rejected)]
    digests = [bytes([text]) * 16 for text in texts]
    sketches = [SKETCHES[tokens] for tokens in (chosen, rejected)]
    return (f"{keys[0][:32]}{keys[1][:32]}", *keys, *digests, *sketches, 10 + chosen, 10 + rejected)


few = st.integers(0, 1)
some = st.integers(0, 5)
rows = st.lists(st.builds(any_row, few, some, some, few, some, some), max_size=12)


def table(rows):
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * len(SNAPSHOT_SCHEMA)
    return as_frame(pa.table(columns, schema=SNAPSHOT_SCHEMA))


def nearness(a, b):
    sides = [
        1.0 if a[text] == b[text] else similarity(*(np.frombuffer(row[made], "<u4")[None] for row in (a, b)))[0]
        for text, made in ((4, 6), (5, 7))
    ]
    return sum(sides) / 2


@cache
def hashed(value):
    return pl.Series([value]).hash()[0]


def in_order(row):
    return tuple(hashed(row[place]) for place in (0, 3, 4, 5))


def plainly(before, after):
    """The definition, row by row; rows compare by pair key, then texts."""
    removed, added = (sorted(rows, key=in_order) for rows in (before, after))
    found = Counter(dict.fromkeys(COUNTED, 0))
    steps = [("unchanged", (0,), (0,)), ("flipped", (1, 2), (2, 1))]
    steps += [("retokenised", (3, 4, 5), (3, 4, 5)), ("flipped", (3, 4, 5), (3, 5, 4))]
    for kind, mine, theirs in steps:
        for row in list(removed):
            match = next((a for a in added if [row[i] for i in mine] == [a[i] for i in theirs]), None)
            if match:
                removed.remove(row)
                added.remove(match)
                found[kind] += 1
    couples = [
        (-nearness(a, b), *sorted([(*in_order(a), 0, i), (*in_order(b), 1, j)]), i, j)
        for (i, a), (j, b) in itertools.product(enumerate(removed), enumerate(added))
        if a[3] == b[3] and nearness(a, b) >= NEAR
    ]
    taken = [set(), set()]
    for *_, i, j in sorted(couples):
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
    found["reworded"] = len(taken[0])
    found["removed"], found["added"] = len(removed) - len(taken[0]), len(added) - len(taken[1])
    known, tokens = ({row[i]: row[i + 7] for row in rows for i in (1, 2)} for rows in (before, after))
    unknown = [tokens[key] for key in tokens.keys() - known.keys()]
    of_all = {"before": len(before), "after": len(after), "not_compared": 0}
    return {**found, **of_all, "to_score": len(unknown), "tokens_to_score": sum(unknown)}


@settings(deadline=None, max_examples=80)
@given(rows, rows)
def test_any_two_snapshots_are_compared_as_defined(before, after):
    assert changes(table(before), table(after)).document() == plainly(before, after)


@settings(deadline=None, max_examples=30)
@given(rows, rows, st.randoms(use_true_random=False))
def test_every_row_is_counted_once_in_any_order_and_both_ways(before, after, random):
    there = changes(table(before), table(after))
    matched = there.unchanged + there.flipped + there.reworded + there.retokenised
    assert (matched + there.removed, matched + there.added) == (len(before), len(after))
    back = changes(table(after), table(before))
    exchanged = {"added": there.removed, "removed": there.added, "before": there.after, "after": there.before}
    assert {name: getattr(back, name) for name in COUNTED} == {
        name: exchanged.get(name, getattr(there, name)) for name in COUNTED
    }
    random.shuffle(before)
    random.shuffle(after)
    assert changes(table(before), table(after)) == there


@settings(deadline=None, max_examples=30)
@given(rows)
def test_a_snapshot_has_not_changed_from_itself(rows):
    found = changes(table(rows), table(rows[::-1]))
    assert found.unchanged == found.before == found.after == len(rows)
    assert not found.any
    assert (found.to_score, found.tokens_to_score) == (0, 0)


def in_chain(place, name="a"):
    """A row whose chosen side is as many steps from another's as their places; one or two steps are near."""
    row = any_row(0, 0, 0, 0, 10 + place, 0)
    return (name * 64, name * 64, *row[2:6], SKETCHES[place], *row[7:])


def test_the_nearest_rows_are_matched_first():
    """2 and 3 are nearest, which leaves 0 and 5 to nobody."""
    before, after = [in_chain(0, "a"), in_chain(3, "b")], [in_chain(2, "c"), in_chain(5, "d")]
    for one, other in itertools.product((before, before[::-1]), (after, after[::-1])):
        assert counted(table(one), table(other)) == {"reworded": 1, "removed": 1, "added": 1}
    assert counted(table(before[:1]), table(after)) == {"reworded": 1, "added": 1}
    assert counted(table(before[1:]), table(after[1:])) == {"reworded": 1}


def test_ties_are_decided_by_keys_whatever_the_order_of_rows_and_frames():
    """0-2, 2-4, 4-6, 6-8 and 8-10 are as near as each other: who is first decides how many rows are left."""
    found = set()
    for names in list(itertools.permutations("abcdef"))[::67]:
        before, after = ([in_chain(place, names[place // 2]) for place in places] for places in ((0, 4, 8), (2, 6, 10)))
        expected = plainly(before, after)
        assert changes(table(before), table(after)).document() == expected
        assert changes(table(before[::-1]), table(after[::-1])).document() == expected
        assert changes(table(after), table(before)).reworded == expected["reworded"]
        found.add(expected["reworded"])
    assert found == {2, 3}


def test_from_nothing_all_is_added_and_to_nothing_all_is_removed():
    snapshot = frame(a_row(1), a_row(2), a_row(2))
    assert counted(EMPTY, snapshot) == {"added": 3}
    assert changes(EMPTY, snapshot).to_score == 4
    assert counted(snapshot, EMPTY) == {"removed": 3}
    assert changes(snapshot, EMPTY).to_score == 0
    assert not changes(EMPTY, EMPTY).any
    assert changes(snapshot, EMPTY).any
    assert changes(EMPTY, snapshot).any


def test_pairs_that_contradict_each_other_in_new_tokens_are_retokenised_not_flipped():
    one = a_row()
    before, after = frame(one, one.flipped()), frame(one.flipped().retokenised(), one.retokenised())
    assert counted(before, after) == {"retokenised": 2}


def test_other_texts_of_the_same_tokens_are_the_same_pair():
    before = frame(a_row())
    after = before.with_columns(prompt_text=pl.lit(bytes(16)), chosen_text=pl.lit(bytes(16)))
    assert counted(before, after) == {"unchanged": 1}


def test_near_texts_of_another_prompt_are_another_pair():
    one = a_row()
    other = one._replace(prompt=words(rng(5), 10), chosen=reworded(one.chosen, rng()))
    assert counted(frame(one), frame(other)) == {"added": 1, "removed": 1}


def test_a_side_whose_text_stayed_counts_as_the_same_in_other_tokens():
    """Both sides have other tokens, and one another text: near enough only if the other side counts 1."""
    one = a_row()
    before = frame(one)
    after = frame(one._replace(chosen=reworded(one.chosen, rng()))).with_columns(
        rejected_key=pl.lit("0" * 64), rejected_sketch=pl.lit(sketch(words(rng(6), 60)))
    )
    assert counted(before, after) == {"reworded": 1}
    moved = after.with_columns(rejected_text=pl.lit(bytes(16)))
    assert counted(before, moved) == {"added": 1, "removed": 1}


def test_prompts_with_the_fewest_couples_are_compared_first_and_what_is_left_is_said(monkeypatch):
    """Prompts of 1 x 1, 2 x 1 and 3 x 3 rows; every row is reworded."""
    random = rng()
    before, after = [], []
    for n_before, n_after in ((3, 3), (1, 1), (2, 1)):
        prompt = words(random, 10)
        own = [Row(prompt, words(random, 60), words(random, 60)) for _ in range(n_before)]
        before += own
        after += [row._replace(chosen=reworded(row.chosen, random)) for row in own[:n_after]]
    expected = {0: (0, 11), 1: (1, 9), 2: (1, 9), 3: (2, 6), 11: (2, 6), 12: (5, 0)}
    for most, (near, left) in expected.items():
        monkeypatch.setattr(data.pairs.rewordings, "MAX_COMPARISONS", most)
        for one, other, more in ((before, after, 0), (after, before, 1)):
            found = changes(frame(*one), frame(*other))
            assert (found.reworded, found.not_compared) == (near, left)
            assert (found.removed, found.added) == (6 - near - more, 5 - near + more)


def test_couples_are_compared_in_batches_like_at_once(monkeypatch):
    before, after, expected = planted(300, {"reworded": 60, "one side replaced": 60})
    monkeypatch.setattr(data.pairs.rewordings, "_BATCH", 7)
    assert changes(before, after).document() == expected


def test_the_counts_are_json():
    document = changes(*planted(60, {"reworded": 5})[:2]).document()
    assert json.loads(json.dumps(document)) == document


def test_a_snapshot_is_read_as_it_was_written(tmp_path):
    snapshot, path = frame(a_row(1), a_row(2)), tmp_path / "folder" / "snapshot.parquet"
    for written in (snapshot, EMPTY, snapshot.reverse()):
        write_snapshot(path, written.with_columns(more=1).select(reversed([*written.columns, "more"])), ABOUT)
        frame_read, about = read_snapshot(path)
        assert frame_read.equals(written)
        assert frame_read.schema == snapshot.schema
        assert about == ABOUT
        assert not changes(written, frame_read).any


def test_the_same_snapshot_gives_the_same_bytes(tmp_path):
    for name, about in (("a", ABOUT), ("b", dict(reversed(ABOUT.items())))):
        write_snapshot(tmp_path / name, frame(a_row()), about)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_without_a_snapshot_there_is_nothing_to_compare_with(tmp_path, caplog):
    assert read_snapshot(tmp_path / "none.parquet") is None
    assert caplog.records == []


def test_a_torn_snapshot_is_none_and_said_once(tmp_path, caplog):
    path = tmp_path / "snapshot.parquet"
    write_snapshot(path, frame(a_row()), ABOUT)
    content = path.read_bytes()
    for length in range(0, len(content), 11):
        caplog.clear()
        path.write_bytes(content[:length])
        assert read_snapshot(path) is None
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert str(path) in caplog.text


def test_damage_never_stops_a_job(tmp_path):
    """A snapshot may be wrong where its bytes are, but reading it raises nothing."""
    path = tmp_path / "snapshot.parquet"
    write_snapshot(path, frame(a_row()), ABOUT)
    content = path.read_bytes()
    for position in range(0, len(content), 13):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        found = read_snapshot(path)
        assert found is None or found[0].columns == SNAPSHOT_SCHEMA.names


def test_a_snapshot_whose_strings_are_none_is_torn(tmp_path, caplog):
    table = frame(a_row()).to_arrow().cast(SNAPSHOT_SCHEMA)
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 64], pa.int32()).buffers()[1], pa.py_buffer(b"\xff" * 64)]
    )
    damaged = table.set_column(0, "pair_key", text).replace_schema_metadata({"about": "{}"})
    write_bytes(tmp_path / "snapshot.parquet", parquet_bytes(damaged))
    assert read_snapshot(tmp_path / "snapshot.parquet") is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(
    "other",
    [
        frame(a_row()).to_arrow().cast(SNAPSHOT_SCHEMA),  # does not say what it was made of
        pa.table({"pair_key": ["a"]}).replace_schema_metadata({"about": "{}"}),
        frame(a_row()).to_arrow().replace_schema_metadata({"about": "{}"}),
    ],
    ids=["no about", "other columns", "other types"],
)
def test_another_version_s_snapshot_is_none(other, tmp_path, caplog):
    write_bytes(tmp_path / "snapshot.parquet", parquet_bytes(other))
    assert read_snapshot(tmp_path / "snapshot.parquet") is None
    assert caplog.records == []


def test_neither_torch_nor_transformers_is_loaded():
    heavy = "{name.partition('.')[0] for name in sys.modules} & {'torch', 'transformers'}"
    code = f"import sys, data.pairs.changes; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
