"""CSV and TSV: rows of texts with the place of their first line, and no torn row in silence."""

import gzip

import pyarrow as pa
import pytest

from data.errors import DataError
from data.sources.source import Source, read_lines, read_rows


def read(path, content):
    path.write_bytes(content)
    return list(read_rows(Source(path=str(path))))


def zstd(content):
    return pa.Codec("zstd").compress(content, asbytes=True)


TABLE = [
    {"prompt": 'a "word", or\r\ntwo', "chosen": "", "rejected": "é\0"},
    {"prompt": " 1", "chosen": "2.0", "rejected": "x"},
]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gz", "zst"])
@pytest.mark.parametrize(("kind", "delimiter"), [("csv", ","), ("tsv", "\t")])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
def test_cells_are_texts_under_the_names_of_the_header(tmp_path, kind, delimiter, end, mark, pack):
    path = tmp_path / f"rows.{kind}{ {'compress': '.gz', 'zstd': '.zst'}.get(pack.__name__, '') }"
    records = [["prompt", "chosen", "rejected"], ['"a ""word"", or\r\ntwo"', "", "é\0"], [" 1", "2.0", "x"]]
    content = "".join(delimiter.join(record) + end for record in records)
    assert [row.content for row in read(path, pack(mark + content.encode()))] == TABLE


def test_a_row_of_cells_stands_where_its_first_line_does(tmp_path):
    path = tmp_path / "rows.csv"
    rows = read(path, b'\na,b\n"1\n\n1",2\n\n3,4\n  \n5,6')
    assert [(line.number, line.text) for line in read_lines(Source(path=str(path)))] == [
        (3, b'{"a": "1\\n\\n1", "b": "2"}'),
        (6, b""),
        (7, b'{"a": "3", "b": "4"}'),
        (8, b""),
        (9, b'{"a": "5", "b": "6"}'),
    ]
    assert [row.location for row in rows] == [f"{path}:{number}" for number in (3, 7, 9)]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (b"1", "1 cells where the header has 2"),
        (b"1,2,", "3 cells where the header has 2"),
        (b"1,\xff", "not UTF-8, in which the file has to be written"),
        (b'1,"2"3', "lines 3 to 3 are no row of cells (',' expected after '\"')"),
        (b'1,"2\n3,"4', "lines 3 to 4 are no row of cells (',' expected after '\"')"),
    ],
    ids=["short", "long", "not UTF-8", "quote inside", "quote left open"],
)
def test_a_torn_row_of_cells_is_one_bad_row(tmp_path, record, problem):
    good, bad, after = read(tmp_path / "rows.csv", b"a,b\n1,2\n" + record + b"\n5,6\n")
    assert (good.content, after.content) == ({"a": "1", "b": "2"}, {"a": "5", "b": "6"})
    assert (bad.number, bad.content, bad.problem) == (3, None, problem)


def test_a_quote_that_is_never_closed_is_one_bad_row(tmp_path):
    good, bad = read(tmp_path / "rows.csv", b'a,b\n1,2\n1,"2\n3,4\n')
    assert (good.content, bad.problem) == (
        {"a": "1", "b": "2"},
        "lines 3 to 4 are no row of cells (unexpected end of data)",
    )


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a,b\n", b"a,b"])
def test_a_table_may_have_no_rows(tmp_path, content):
    assert read(tmp_path / "rows.csv", content) == []


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"a,b,a,c,c", r"names a column twice: a, c\. Rename or remove one of them\."),
        (
            b"prompt;chosen;rejected",
            r"is one column, 'prompt;chosen;rejected'\. Cells stand apart by commas in a \.csv and ",
        ),
        ("prompt,chosen".encode("utf-16"), r"is not UTF-8\. Write the file again in that encoding\."),
        ("prompt,chosen".encode("utf-16-le"), r"is not UTF-8\. Write the file again in that encoding\."),
        (b"prompt,\xe9", r"is not UTF-8\. Write the file again in that encoding\."),
        (b'a,"b"c', r"cannot be read: ',' expected after '\"'\. Write the file again\."),
    ],
)
def test_a_header_that_cannot_name_the_columns_is_refused(tmp_path, header, problem):
    with pytest.raises(DataError, match=rf"^The header of .*rows\.csv {problem}"):
        read(tmp_path / "rows.csv", header + b"\n1,2\n")


def test_an_index_without_a_name_does_no_harm(tmp_path):
    (row,) = read(tmp_path / "rows.csv", b",,prompt,chosen\n1,0,a,b\n")
    assert row.content == {"": "0", "prompt": "a", "chosen": "b"}
