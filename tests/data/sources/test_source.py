"""Rows come with their place from every kind of file, and damage is named."""

import datetime
import decimal
import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from data.errors import DataError
from data.identity import file_digest
from data.schema import SourceRow
from data.sources.source import Line, Source, parse_line, read_lines, read_rows, source_digest

ROWS = [{"prompt": f"Why {i}?", "chosen": [{"role": "assistant", "content": "é"}], "rejected": "No."} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ARRAY = json.dumps(ROWS).encode()


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


def arrow(path, rows, new=pa.ipc.new_stream):
    table = pa.Table.from_pylist(rows)
    with new(path, table.schema) as file:
        file.write_table(table, max_chunksize=2)


def zstd(content):
    return pa.Codec("zstd").compress(content, asbytes=True)


def damaged(content, at, mask):
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


FILES = {
    "rows.jsonl": lambda path: path.write_bytes(LINES),
    "crlf.jsonl": lambda path: path.write_bytes(LINES.replace(b"\n", b"\r\n")),
    "no last newline.jsonl": lambda path: path.write_bytes(LINES.rstrip()),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "rows.json": lambda path: path.write_bytes(ARRAY),
    "indented.json": lambda path: path.write_bytes(json.dumps(ROWS, indent=2, ensure_ascii=False).encode()),
    "bom.json": lambda path: path.write_bytes(b"\xef\xbb\xbf" + ARRAY),
    "rows.json.gz": lambda path: path.write_bytes(gzip.compress(ARRAY)),
    "two members.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES[:99]) + gzip.compress(LINES[99:])),
    "rows.jsonl.zst": lambda path: path.write_bytes(zstd(LINES)),
    "two frames.jsonl.zst": lambda path: path.write_bytes(zstd(LINES[:99]) + zstd(LINES[99:])),
    "mixed endings.jsonl": lambda path: path.write_bytes(LINES.replace(b"\n", b"\r\n", 1)),
    "LOUD.JSONL": lambda path: path.write_bytes(LINES),
    "rows.json.zst": lambda path: path.write_bytes(zstd(ARRAY)),
    "rows.parquet": lambda path: parquet(path, ROWS),
    "rows.arrow": lambda path: arrow(path, ROWS),
    "file format.arrow": lambda path: arrow(path, ROWS, pa.ipc.new_file),
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
    [b'{"prompt": "Wh', b"{'prompt': 1}", b'{"a": 1} {"b": 2}', b'"\xff"', b"\x00\x00", b"1" * 5000],
    ids=["torn", "quotes", "two", "not UTF-8", "NUL", "a number of 5000 digits"],
)
@pytest.mark.parametrize(
    ("ending", "pack"),
    [("jsonl", bytes), ("jsonl.gz", gzip.compress), ("jsonl.zst", zstd)],
    ids=["jsonl", "gz", "zst"],
)
def test_line_that_is_not_json_is_one_bad_row(tmp_path, bad, ending, pack):
    path = tmp_path / f"rows.{ending}"
    first, second, third = read(path, pack(b'{"a": 1}\n' + bad + b'\n{"b": 2}'))
    assert (first.content, third.content) == ({"a": 1}, {"b": 2})
    assert (second.number, second.location, second.content) == (2, f"{path}:2", None)
    assert second.problem.startswith("not a line of JSON (")


def test_a_byte_that_is_not_utf8_says_so(tmp_path):
    (row,) = read(tmp_path / "rows.jsonl", b'"\xff"')
    assert row.problem == (
        "not a line of JSON (not UTF-8, in which the file has to be written: "
        "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte)"
    )


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


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
@pytest.mark.parametrize(
    ("ending", "pack", "problem"),
    [("gz", gzip.compress, "Compressed file ended "), ("zst", zstd, "Truncated compressed stream")],
    ids=["gz", "zst"],
)
def test_truncated_compressed_file_is_named(tmp_path, kind, ending, pack, problem):
    content = pack(b"a,b\tc\n" + LINES * 50)[:-20]
    with pytest.raises(DataError, match=rf"rows\.{kind}\.{ending} cannot be read: {problem}.*; write it again"):
        read(tmp_path / f"rows.{kind}.{ending}", content)


@pytest.mark.parametrize("kind", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("gz", damaged(gzip.compress(LINES * 50), 10, 6)),  # the kind of the first deflate block
        ("zst", damaged(zstd(LINES * 50), 0, 1)),
        ("zst", zstd(LINES * 50) + b"more"),
    ],
    ids=["gz", "zst", "behind zst"],
)
def test_damage_inside_a_compressed_file_is_named(tmp_path, kind, ending, content):
    with pytest.raises(DataError, match=rf"rows\.{kind}\.{ending} cannot be read: "):
        read(tmp_path / f"rows.{kind}.{ending}", content)


def test_line_nested_too_deep_is_one_bad_row(tmp_path):
    deep, good = read(tmp_path / "rows.jsonl", b"[" * 100_000 + b"]" * 100_000 + b'\n{"a": 1}\n')
    assert deep.problem.startswith("not a line of JSON")
    assert good.content == {"a": 1}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("rows.jsonl.gz", LINES, r"Not a gzipped file"),
        ("rows.jsonl.zst", LINES, r"ZSTD decompress failed: Unknown frame descriptor"),
        ("rows.json", ARRAY + b"]", r"Extra data: line 1 column \d+"),
        ("rows.json", b"[1 2]", r"Expecting ',' delimiter: line 1 column 4"),
        ("rows.json", b"[1, ]", r"Expecting value: line 1 column 5"),
        ("rows.json", b"[", r"Expecting value: line 1 column 2"),
        ("rows.json", b"[1", r"Expecting ',' delimiter: line 1 column 3"),
        ("rows.json", b'["\xff"]', r"'utf-8' codec can't decode"),
        ("rows.json", b"[" * 100_000, r"maximum recursion depth exceeded"),
        ("rows.arrow", LINES, r"Expected to read \d+ metadata bytes"),
        ("rows.arrow", b"", r"Cannot mmap an empty file|Tried reading schema message"),
        ("rows.arrow", b"ARROW1\0\0torn", r"File is too small|not an Arrow file"),
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
    with pytest.raises(DataError, match=r"Cannot tell the format of .*rows\.xlsx by its name\. Known endings: \.jsonl"):
        read(tmp_path / "rows.xlsx", b"prompt,chosen,rejected\n")


def test_name_that_is_neither_file_nor_hub_id_is_refused():
    with pytest.raises(DataError, match=r"^prefs/ is neither a folder nor a file with a known ending \(.*\) nor a Hub"):
        list(read_rows(Source(path="prefs/")))


def test_bare_name_is_a_path():
    assert Source.model_validate("owner/name") == Source(path="owner/name")
    assert Source(path="owner/name").name == "owner/name"


def test_split_of_a_file_is_refused():
    with pytest.raises(ValidationError, match=r"split: dev has no effect on the file rows\.jsonl; remove it"):
        Source(path="rows.jsonl", split="dev")


@pytest.mark.parametrize("weight", [0, -1, float("inf")])
def test_weight_is_a_number_above_nothing(weight):
    with pytest.raises(ValidationError, match=r"weight\n  Input should be (greater than 0|a finite number)"):
        Source(path="rows.jsonl", weight=weight)
    assert Source(path="rows.jsonl").weight == 1.0


def test_digest_of_a_file_is_of_its_bytes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINES)
    assert source_digest(Source(path=str(path))) == file_digest(path)


def test_digest_of_a_file_may_come_from_memory(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINES)
    assert source_digest(Source(path=str(path)), lambda asked: f"known of {asked}") == f"known of {path}"


def lines(path, content=None):
    if content is not None:
        path.write_bytes(content)
    return list(read_lines(Source(path=str(path))))


def test_a_line_is_as_it_stands_in_its_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    found = lines(path, b'\xef\xbb\xbf{"a":  1}\r\n\n \t\n{"b": torn')
    assert found == [
        Line(str(path), 1, b'{"a":  1}'),
        Line(str(path), 2, b""),
        Line(str(path), 3, b""),
        Line(str(path), 4, b'{"b": torn'),
    ]
    assert [type(line.text) for line in found] == [bytes] * 4


def test_a_row_of_a_list_is_a_line_as_it_stands_in_its_file(tmp_path):
    found = lines(tmp_path / "rows.json", '[ {"a":\n 1.0, "é": "\\ud800"} ,\r\n2\t]\n'.encode())
    assert [(line.number, line.text) for line in found] == [(1, '{"a":  1.0, "é": "\\ud800"}'.encode()), (2, b"2")]


@pytest.mark.parametrize("content", [b"[]", b" [ \n] ", b"\xef\xbb\xbf[]"])
def test_a_list_may_be_empty(tmp_path, content):
    assert lines(tmp_path / "rows.json", content) == []


def test_a_location_begins_as_the_user_named_the_file(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    monkeypatch.chdir(tmp_path)
    assert [row.location for row in read_rows(Source(path="./rows.jsonl"))][1] == "./rows.jsonl:2"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b'{"chosen": "a", "prompt": "b", "chosen": "a"}', "'chosen'"),
        (b'{"chosen": [{"role": "user", "role": "assistant"}]}', "'role'"),
        (b'{"%s": 1, "%s": 2}' % (b"k" * 99, b"k" * 99), f"'{'k' * 40}'"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "'\\ud800'"),
    ],
    ids=["row", "message", "long", "half a character"],
)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_key_that_stands_twice_is_one_bad_row(tmp_path, ending, text, key):
    content = b'{"a": 1}\n' + text if ending == "jsonl" else b'[{"a": 1}, ' + text + b"]"
    good, bad = read(tmp_path / f"rows.{ending}", content)
    assert good.content == {"a": 1}
    assert (bad.number, bad.content, bad.problem) == (2, None, f"the key {key} stands twice")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_lines_in_another_encoding_say_so(tmp_path, encoding):
    rows = read(tmp_path / "rows.jsonl", '{"a": "b"}\n{"a": "c"}\n'.encode(encoding))
    assert {row.problem.partition(":")[0] for row in rows} == {
        "not a line of JSON (not UTF-8, in which the file has to be written"
    }


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_what_python_takes_for_json_stays_so(tmp_path, name):
    text = b'{"a": NaN, "b": -Infinity, "c": "\\ud800", "d": "\\u0000", "e": 123456789012345678901, "f": "\xc2\x85"}'
    (row,) = read(tmp_path / name, b"[" + text + b"]" if name.endswith(".json") else text)
    nan = row.content.pop("a")
    assert nan != nan
    rest = {"b": float("-inf"), "c": "\ud800", "d": "\0", "e": 123456789012345678901, "f": "\x85"}
    assert row.content == rest


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b'{"prompt": "%s", "chosen": "b"}' % (b"a" * 10_000_000)),
        ("rows.csv", b'prompt,chosen\n"%s",b' % (b"a" * 10_000_000)),
    ],
)
def test_a_text_may_be_ten_megabytes(tmp_path, name, content):
    (row,) = read(tmp_path / name, content)
    assert (len(row.content["prompt"]), row.content["chosen"]) == (10_000_000, "b")


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.csv", "rows.parquet", "rows.arrow"]
)
def test_a_file_is_never_in_memory_as_a_whole(tmp_path, name):
    path, n = tmp_path / name, 20_000
    content = b'"prompt","chosen"\n' + b'"%s","b"\n' % (b"a" * 500) * n
    if name.endswith((".parquet", ".arrow")):
        table = pa.table({"prompt": ["a" * 500] * n, "chosen": ["b"] * n})
        pq.write_table(table, path) if name.endswith(".parquet") else arrow(path, table.to_pylist())
    else:
        path.write_bytes({"gz": gzip.compress, "zst": zstd}.get(name.rpartition(".")[2], bytes)(content))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_lines(Source(path=str(path)))) in (n, n + 1)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_a_row_group_is_never_in_memory_as_a_whole(tmp_path):
    path, before = tmp_path / "rows.parquet", pa.total_allocated_bytes()
    pq.write_table(
        pa.table({"a": [f"{i:01000}" for i in range(20_000)]}), path, use_dictionary=False, compression="none"
    )
    held = [pa.total_allocated_bytes() - before for _ in read_lines(Source(path=str(path)))]
    assert (len(held), max(held) < 5_000_000) == (20_000, True)


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        (datetime.datetime(2024, 5, 1, 12), "2024-05-01 12:00:00"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (decimal.Decimal("1.50"), "1.50"),
        (b"text", "text"),
        (b"\xff\x00", {"bytes": 2}),
        ({"bytes": b"\x89PNG", "path": None}, {"bytes": {"bytes": 4}, "path": None}),
        (1.5, 1.5),
        (None, None),
        ([1, 2], [1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize(("ending", "write"), [("parquet", parquet), ("arrow", arrow)])
def test_what_json_cannot_hold_is_text(tmp_path, ending, write, value, read_as):
    write(tmp_path / f"rows.{ending}", [{"a": value}])
    assert [row.content for row in read(tmp_path / f"rows.{ending}")] == [{"a": read_as}]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_numbers_go_on_over_the_batches_of_a_file(tmp_path, ending):
    path, table = tmp_path / f"rows.{ending}", pa.table({"a": range(1000)})
    if ending == "parquet":
        pq.write_table(table, path, row_group_size=700)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=700)
    assert [(line.number, line.text) for line in lines(path)] == [(i + 1, b'{"a": %d}' % i) for i in range(1000)]


def test_lines_are_parsed_where_they_are_used(tmp_path):
    path = tmp_path / "rows.jsonl"
    torn = b'{"a": 1}\n{"torn'
    assert parse_line(lines(path, torn)[0]) == SourceRow(1, f"{path}:1", {"a": 1})
    assert parse_line(Line("f", 7, b"", "no row")) == SourceRow(7, "f:7", None, problem="no row")
