"""Rows come with their place from every kind of file, and damage is named."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from data.errors import DataError
from data.identity import file_digest
from data.schema import SourceRow
from data.sources import Source, read_rows, source_digest

ROWS = [{"prompt": f"Why {i}?", "chosen": [{"role": "assistant", "content": "é"}], "rejected": "No."} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ARRAY = json.dumps(ROWS).encode()


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


FILES = {
    "rows.jsonl": lambda path: path.write_bytes(LINES),
    "crlf.jsonl": lambda path: path.write_bytes(LINES.replace(b"\n", b"\r\n")),
    "no last newline.jsonl": lambda path: path.write_bytes(LINES.rstrip()),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "rows.json": lambda path: path.write_bytes(ARRAY),
    "indented.json": lambda path: path.write_bytes(json.dumps(ROWS, indent=2, ensure_ascii=False).encode()),
    "bom.json": lambda path: path.write_bytes(b"\xef\xbb\xbf" + ARRAY),
    "rows.json.gz": lambda path: path.write_bytes(gzip.compress(ARRAY)),
    "rows.parquet": lambda path: parquet(path, ROWS),
}


def read(path, content=None):
    if content is not None:
        path.write_bytes(content)
    return list(read_rows(Source(path=str(path))))


@pytest.mark.parametrize("name", FILES)
def test_rows_come_in_order_with_their_place(tmp_path, name):
    path = tmp_path / name
    FILES[name](path)
    assert read(path) == [SourceRow(i + 1, f"{path}:{i + 1}", row) for i, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    "bad",
    [b'{"prompt": "Wh', b"{'prompt': 1}", b'{"a": 1} {"b": 2}', b'"\xff"', b"\x00\x00"],
    ids=["torn", "quotes", "two", "not UTF-8", "NUL"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["jsonl", "jsonl.gz"])
def test_line_that_is_not_json_is_one_bad_row(tmp_path, bad, pack):
    path = tmp_path / f"rows.{'jsonl' if pack is bytes else 'jsonl.gz'}"
    first, second, third = read(path, pack(b'{"a": 1}\n' + bad + b'\n{"b": 2}'))
    assert (first.content, third.content) == ({"a": 1}, {"b": 2})
    assert (second.number, second.location, second.content) == (2, f"{path}:2", None)
    assert second.problem.startswith("not a line of JSON (")


def test_blank_lines_are_no_rows_and_keep_the_line_numbers(tmp_path):
    rows = read(tmp_path / "rows.jsonl", b'\n{"a": 1}\n \t\r\n\n{"b": 2}\n\n')
    assert [(row.number, row.location.rpartition(":")[2], row.content) for row in rows] == [
        (2, "2", {"a": 1}),
        (5, "5", {"b": 2}),
    ]


def test_byte_order_mark_is_not_part_of_the_first_line(tmp_path):
    first, second = read(tmp_path / "rows.jsonl", b'\xef\xbb\xbf{"a": 1}\n{"b": 2}\n')
    assert (first.content, first.problem) == ({"a": 1}, None)
    assert second.number == 2
    assert [row.content for row in read(tmp_path / "rows.jsonl", b'\xef\xbb\xbf\n{"a": 1}\n')] == [{"a": 1}]


def test_types_are_not_coerced_between_lines(tmp_path):
    lines = [1, "1", None, {"prompt": 1}, {"prompt": "1"}, {"prompt": None}, {"prompt": [1, "1"]}]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    assert [row.content for row in read(tmp_path / "rows.jsonl", content)] == lines


@pytest.mark.parametrize("content", [b"", b"\n\n"], ids=["nothing", "blank lines"])
def test_empty_file_has_no_rows(tmp_path, content):
    assert read(tmp_path / "rows.jsonl", content) == []


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz"])
def test_truncated_gzip_is_named(tmp_path, name):
    content = gzip.compress(LINES * 50)[:-20]
    with pytest.raises(DataError, match=r"rows\.json.*gz cannot be read: Compressed file ended .*; write it again"):
        read(tmp_path / name, content)


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz"])
def test_damage_inside_a_gzip_is_named(tmp_path, name):
    content = bytearray(gzip.compress(LINES * 50))
    content[10] ^= 6  # the kind of the first deflate block
    with pytest.raises(DataError, match=r"rows\.json.*gz cannot be read: "):
        read(tmp_path / name, bytes(content))


def test_line_nested_too_deep_is_one_bad_row(tmp_path):
    deep, good = read(tmp_path / "rows.jsonl", b"[" * 100_000 + b"]" * 100_000 + b'\n{"a": 1}\n')
    assert deep.problem.startswith("not a line of JSON")
    assert good.content == {"a": 1}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("rows.jsonl.gz", LINES, r"Not a gzipped file"),
        ("rows.json", ARRAY[:-5], r"Expecting ',' delimiter|Unterminated string"),
        ("rows.json", b"", r"Expecting value"),
        ("rows.parquet", LINES, r"Parquet magic bytes not found"),
        ("rows.parquet", b"", r"Parquet file size is 0 bytes"),
    ],
)
def test_damaged_file_is_named(tmp_path, name, content, problem):
    with pytest.raises(DataError, match=rf"The preference data .*{name} cannot be read: ({problem})") as caught:
        read(tmp_path / name, content)
    assert "damaged or not of the kind that its ending says; write it again" in str(caught.value)


def test_json_that_is_no_list_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"holds one JSON dict, not a list of rows\. Write a list of objects, or one "):
        read(tmp_path / "rows.json", LINES.splitlines()[0])


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json.gz", "rows.parquet"])
@pytest.mark.parametrize("use", [lambda source: list(read_rows(source)), source_digest], ids=["read", "digest"])
def test_missing_file_is_named(tmp_path, name, use):
    with pytest.raises(DataError, match=rf"The preference data .*{name} do not exist\. Correct `data\.train` or"):
        use(Source(path=str(tmp_path / name)))


def test_file_of_unknown_ending_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"Cannot tell the format of .*rows\.csv by its name\. Known endings: \.jsonl"):
        read(tmp_path / "rows.csv", b"prompt,chosen,rejected\n")


def test_name_that_is_neither_file_nor_hub_id_is_refused():
    with pytest.raises(DataError, match=r"^prefs\.csv is neither a file with a known ending \(.*\) nor a Hub id"):
        list(read_rows(Source(path="prefs.csv")))


def test_hub_that_cannot_be_reached_is_named():
    source = Source(path="nobody/no-such-preferences", split="dev")
    with pytest.raises(
        DataError, match=r"The data set nobody/no-such-preferences\[dev\] cannot be loaded from the Hub"
    ):
        list(read_rows(source))


def test_bare_name_is_a_path():
    assert Source.model_validate("owner/name") == Source(path="owner/name")
    assert Source(path="owner/name").name == "owner/name"


def test_split_of_a_file_is_refused():
    with pytest.raises(ValidationError, match=r"split: dev has no effect on the file rows\.jsonl; remove it"):
        Source(path="rows.jsonl", split="dev")


def test_digest_of_a_file_is_of_its_bytes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINES)
    assert source_digest(Source(path=str(path))) == file_digest(path)
