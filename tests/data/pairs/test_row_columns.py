"""Columns of the rows that pairs were made of, read again from every kind of source."""

import gzip
import json
import random

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.config import DataConfig
from data.errors import ConfigError, DataError
from data.pairs import pair_parts
from data.pairs.row_columns import row_columns
from data.sources.source import Source, read_rows
from tests.tiny import example_rows, write_jsonl


@pytest.fixture
def held_out(prepare_rows):
    """The data step with these sources held out: their pairs, and a function that reads columns of these again."""

    def run(*sources):
        prepared = prepare_rows(*example_rows(3, 900), eval=list(sources), eval_fraction=None)
        every = [Source(path="rows.jsonl"), *DataConfig(train="rows.jsonl", eval=list(sources)).eval]
        return prepared.splits["eval"], lambda pairs, *columns: row_columns(pairs, prepared, every, columns)

    return run


def rows_of(n):
    return [row | {"topic": f"t{i}", "level": i} for i, row in enumerate(example_rows(n))]


def packed(folder, rows):
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return folder / "rows.jsonl.gz"


def listed(folder, rows):
    (folder / "rows.json").write_text(json.dumps(rows, indent=1))
    return folder / "rows.json"


def parquet(folder, rows):
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=7)
    return folder / "rows.parquet"


def files(folder, rows):
    (folder / "inner").mkdir()
    write_jsonl(folder / "one.jsonl", rows[:11])
    write_jsonl(folder / "inner" / "two.jsonl", ["", *rows[11:]])
    return folder


@pytest.mark.parametrize("write", [packed, listed, parquet, files])
def test_columns_are_found_in_any_kind_of_source(held_out, tmp_path_factory, write):
    source = str(write(tmp_path_factory.mktemp("source"), rows_of(30)))
    pairs, columns = held_out(source)
    level, topic = columns(pairs, "level", "topic")
    assert level.to_list() == [row.content["level"] for row in read_rows(Source(path=source))]
    assert level.dtype == pl.Int64 and topic.to_list() == [f"t{i}" for i in level] and topic.n_unique() == 30


def test_columns_are_found_in_a_csv_whose_rows_take_several_lines(held_out, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,chosen,rejected,topic\n" + "".join(f'"Why\n{i}?",Yes.,No.,t{i}\n' for i in range(9)))
    pairs, columns = held_out(str(path))
    assert columns(pairs, "topic")[0].to_list() == [f"t{i}" for i in range(9)]


def test_columns_are_found_on_the_hub(held_out, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows_of(6)))
    pairs, columns = held_out("owner/name")
    assert columns(pairs, "topic")[0].to_list() == [f"t{i}" for i in range(6)]


def test_pairs_of_many_parts_in_any_order_have_the_columns_of_their_own_rows(held_out, tmp_path, monkeypatch):
    for name, value in (("FEWEST", 4), ("USUAL", 10), ("MOST", 20)):
        monkeypatch.setattr(pair_parts, name, value)
    rows = rows_of(150)
    lines = [line for row in rows for line in ((row, "torn") if row["level"] % 7 == 0 else (row,))]
    pairs, columns = held_out(str(write_jsonl(tmp_path / "held.jsonl", ["", *lines])))
    assert len(pairs.parts) > 8
    some = pairs.take(random.Random(0).choices(range(len(pairs)), k=200))
    (level,) = columns(some, "level")
    stands = [lines.index(rows[value]) + 2 for value in level]
    assert stands == [int(pair.location.rpartition(":")[2]) for pair in some]


def test_several_pairs_of_a_row_and_rows_that_stand_twice_have_the_columns_of_their_row(held_out, tmp_path):
    def rated(i):
        answers = [{"text": f"Answer {i} {j}.", "score": j} for j in range(4)]
        return {"prompt": f"Why {i}?", "answers": answers, "topic": f"t{i}"}

    path = str(write_jsonl(tmp_path / "rated.jsonl", [rated(0), rated(1), rated(0) | {"topic": "again"}]))
    pairs, columns = held_out({"path": path, "pairs": "adjacent"})
    assert columns(pairs, "topic")[0].to_list() == ["t0"] * 3 + ["t1"] * 3 + ["again"] * 3
    assert pairs.keys.n_unique() == 6


def test_a_file_that_is_two_sources_is_read_for_both(held_out, tmp_path):
    path = str(write_jsonl(tmp_path / "held.jsonl", rows_of(4)))
    pairs, columns = held_out(path, {"path": path, "columns": {"rejected": "rejected"}})
    assert columns(pairs, "topic")[0].to_list() == [f"t{i}" for i in range(4)] * 2


def test_a_column_of_some_sources_only_is_missing_in_the_others(held_out, tmp_path):
    one = str(write_jsonl(tmp_path / "one.jsonl", rows_of(2)))
    two = str(write_jsonl(tmp_path / "two.jsonl", example_rows(2, 50)))
    pairs, columns = held_out(one, two)
    assert columns(pairs, "topic")[0].to_list() == ["t0", "t1", None, None]


@pytest.fixture
def column(held_out, tmp_path):
    """A column of these values, as it is read again."""

    def run(*values):
        rows = [row | {"odd": value} for row, value in zip(example_rows(len(values)), values, strict=True)]
        pairs, columns = held_out(str(write_jsonl(tmp_path / "held.jsonl", rows)))
        return columns(pairs, "odd")[0]

    return run


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("\u202ereversed", "\u202ereversed"),
        ("x" * 100_000, "x" * 100_000),
        ("half \ud83d", "half ?"),
        ("nul \0", "nul \0"),
        ("", ""),
        (float("nan"), None),
        (True, "true"),
        (7, "7"),
        (10**400, str(10**400)),
        ({"b": [1, None], "a": "\u00e9"}, '{"a": "\u00e9", "b": [1, null]}'),
    ],
    ids=["bidi", "long", "surrogate", "nul", "empty", "nan", "bool", "int", "huge", "object"],
)
def test_values_of_any_kind_are_kept_as_texts(column, value, kept):
    assert column("text", value, None).to_list() == ["text", kept, None]


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        ([1, 2, None], pl.Int64, [1, 2, None]),
        ([1, 0.5, float("nan")], pl.Float64, [1.0, 0.5, None]),
        ([1, "2", None], pl.String, ["1", "2", None]),
        ([1, True, None], pl.String, ["1", "true", None]),
        ([1, 2**63, None], pl.String, ["1", str(2**63), None]),
        ([None, None], pl.String, [None, None]),
    ],
)
def test_a_column_is_one_of_numbers_only_where_all_of_it_is(column, values, kind, kept):
    assert (column(*values).dtype, column(*values).to_list()) == (kind, kept)


@pytest.fixture
def three(held_out, tmp_path):
    """Three pairs, what reads their columns, and their file."""
    path = write_jsonl(tmp_path / "held.jsonl", [row | {"topic": "a", "\u202e" * 50: 1} for row in example_rows(3)])
    return *held_out(str(path)), path


def test_a_column_that_no_row_has_is_named_with_those_that_there_are(three):
    pairs, columns, _ = three
    with pytest.raises(ConfigError) as error:
        columns(pairs, "topic", "topik")
    assert str(error.value) == (
        "eval.slices names the column topik, and no row of the held-out pairs has it; did you mean topic? Their "
        "columns are: chosen, prompt, rejected, topic, " + "\u202e" * 40 + ". Correct the name, or take it out."
    )
    with pytest.raises(
        ConfigError, match=r"the column zzz, and no row of the held-out pairs has it. Their columns are"
    ):
        columns(pairs, "zzz")


def test_a_source_that_changed_meanwhile_is_named(three):
    pairs, columns, path = three
    write_jsonl(path, example_rows(1))
    with pytest.raises(DataError, match=r"held\.jsonl:2 is not there any more: .*held\.jsonl has changed since"):
        columns(pairs, "topic")


def test_without_columns_no_source_is_read(three):
    pairs, columns, path = three
    path.unlink()
    assert columns(pairs) == []


def test_a_column_that_is_named_twice_is_one(three):
    pairs, columns, _ = three
    assert [column.name for column in columns(pairs, "topic", "topic")] == ["topic"]
