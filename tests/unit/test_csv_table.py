import csv
import hashlib
import io
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from csv_io.decoding import unmarked_utf16
from csv_io.dialect import sniffed
from csv_io.errors import TableError, WrongEncodingError
from csv_io.records import MAX_COLUMNS, MAX_RECORD_BYTES, Records
from csv_io.table import (
    BLOCK_BYTES,
    PIECE_BYTES,
    Lines,
    Source,
    UnreadableError,
    read_pieces,
    read_rows,
    read_tables,
    to_frame,
    to_text,
)
from csv_io.writing import Alignment, TableWriter
from csv_reference import Rows, as_table, strict_rows
from ds_flow.core.program import CHECKOUT

ANY_CELL = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.text(',;|\t"\r\n aé', max_size=8),
    st.sampled_from(["", "007", "1.10", "NA", "null", "#N/A", "nan", '"', '""', "\r\n"]),
)
NAME = ANY_CELL.filter(lambda name: name.strip() != "" and not name.startswith("\ufeff"))
DELIMITER = st.sampled_from(",;\t|")
END = st.sampled_from(["\n", "\r\n"])
SMALL = st.integers(1, 40)


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    header = draw(st.lists(NAME, min_size=1, max_size=4, unique=True))
    row = st.lists(ANY_CELL, min_size=len(header), max_size=len(header))
    return [header, *draw(st.lists(row, max_size=6))]


def dumped(rows: Rows, delimiter: str = ",", end: str = "\r\n") -> str:
    text = io.StringIO()
    # With LF alone, Python 3.11 leaves a cell with CR unquoted.
    writer = csv.writer(
        text,
        delimiter=delimiter,
        lineterminator=end,
        quoting=csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL,
    )
    writer.writerows(rows)
    return text.getvalue()


def read(
    content: bytes,
    delimiter: str = "auto",
    encoding: str = "utf-8",
    block_bytes: int = BLOCK_BYTES,
    piece_bytes: int = PIECE_BYTES,
) -> Rows:
    source = Source(io.BytesIO(content), block_bytes)
    found = [
        to_frame(table)
        for table in read_tables(
            Records(source, delimiter=delimiter, encoding=encoding), piece_bytes=piece_bytes
        )
    ]
    assert source.sha256 == hashlib.sha256(content).hexdigest()
    assert source.bytes == len(content)
    assert {str(kind) for frame in found for kind in frame.dtypes} == {"str"}
    assert not any(frame.isna().any().any() for frame in found)
    return [list(found[0].columns), *(row for frame in found for row in frame.to_numpy().tolist())]


def commas(content: bytes) -> Records:
    return Records(Source(io.BytesIO(content), 1000), delimiter=",", encoding="utf-8")


def written(rows: Rows, constants: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    writer = TableWriter(stream, rows[0], constants)
    writer.write(to_text(pd.DataFrame(rows[1:], columns=rows[0], dtype="str")))
    assert writer.written.bytes == len(stream.getvalue())
    assert writer.written.sha256 == hashlib.sha256(stream.getvalue()).hexdigest()
    assert writer.written.rows == len(rows) - 1
    return stream.getvalue()


def parsed(content: bytes) -> Rows:
    return list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))


# --------------------------------------------------------------------------- lossless


@given(tables(), DELIMITER, END, SMALL, SMALL)
def test_every_cell_is_read_as_it_was_written_wherever_a_block_ends(
    rows: Rows, delimiter: str, end: str, block_bytes: int, piece_bytes: int
) -> None:
    text = dumped(rows, delimiter, end)
    assume(not text.rstrip("\r\n ").endswith("\x1a"))  # there it is no data
    assert read(text.encode(), delimiter, "utf-8", block_bytes, piece_bytes) == rows


@given(tables(), st.dictionaries(NAME, ANY_CELL, min_size=1, max_size=3))
def test_every_cell_is_written_as_it_was_read(rows: Rows, constants: dict[str, str]) -> None:
    content = written(rows, constants)
    tail = list(constants.values())
    assert parsed(content) == [[*rows[0], *constants], *([*row, *tail] for row in rows[1:])]


QUOTED_BLANK_AT_END = re.compile(r'^" *"(\n *)*\Z', re.MULTILINE)
"""The reference takes it for a line of blanks. It is a row of one cell, and is refused as such."""


@given(st.text(',"\n a', max_size=24), SMALL)
def test_what_strict_csv_reads_as_a_table_is_read_alike_and_the_rest_is_refused(
    text: str, block_bytes: int
) -> None:
    assume(not QUOTED_BLANK_AT_END.search(text))
    expected = as_table(strict_rows(text))
    if expected is not None:
        assert read(text.encode(), ",", "utf-8", block_bytes) == expected
    else:
        with pytest.raises(TableError):
            read(text.encode(), ",", "utf-8", block_bytes)


@given(st.text(';"\r\n a', max_size=24))
def test_text_with_carriage_returns_is_refused_or_read_as_strict_csv_reads_it(text: str) -> None:
    try:
        found = read(text.encode(), ";")
    except TableError:
        return
    assert found == as_table(strict_rows(text, ";"))


@given(tables(), st.sampled_from(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "gb18030"]), SMALL)
def test_other_encodings_are_read_where_the_settings_say_so(
    rows: Rows, encoding: str, block_bytes: int
) -> None:
    text = dumped(rows)
    assume("\x1a" not in text)  # at the end it is no data
    content = text.encode(encoding)
    assert read(content, ",", encoding, block_bytes) == rows


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n",
        b"a,b\r\n1,2\r\n",
        b"a,b\n1,2",
        b"a,b\r\n1,2",
        b"a,b\n1,2\r",
        b"\xef\xbb\xbfa,b\n1,2\n",
        b'\xef\xbb\xbf"a","b"\n1,2\n',
        b"\n\r\na,b\n\n1,2\n\n",
        b"a;b\n1;2\n",
        b"a\tb\n1\t2\n",
        b"a|b\n1|2\n",
    ],
)
def test_line_ends_marks_blank_lines_and_delimiters_are_recognised(content: bytes) -> None:
    delimiter = sniffed(content)
    for block_bytes in (1, 2, 3, BLOCK_BYTES):
        for setting in (delimiter, "auto"):
            assert read(content, setting, block_bytes=block_bytes) == [["a", "b"], ["1", "2"]]


def test_a_header_without_rows_is_a_table() -> None:
    assert read(b"a,b\n") == read(b"a,b") == [["a", "b"]]


def test_a_quote_inside_an_unquoted_cell_is_text() -> None:
    assert read(b'a,b\n5" pipe,"x, ""y"""\n') == [["a", "b"], ['5" pipe', 'x, "y"']]


def test_an_empty_cell_of_one_column_is_a_row_and_a_blank_line_is_none() -> None:
    assert read(b'a\n""\n\nx\n') == [["a"], [""], ["x"]]


def test_cells_beyond_the_limits_of_the_csv_module_are_read() -> None:
    cell = "x" * 200_000
    assert read(f'a,{cell}\n1,"{cell}\n"\n'.encode()) == [["a", cell], ["1", f"{cell}\n"]]


# --------------------------------------------------------------------------- the delimiter


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("Last, First;Grade;Course\nDoe, Ann;1;Art\n", ";"),
        ("Last, First;Grade;Course\nDoe, Ann;1;Art\nRoe, Bob;2;Art\nPoe, Al;3\n", ";"),
        ("#id,name\n#1,Ann\n#2,Bob\n", ","),
        ("full name\nAnn Lee\nBob Roe\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("name;note\nAnn;x, y\nBob;z\n", ";"),
        ('a,b\n"1;2",3\n', ","),
        ("a|b|c;d\n1|2|3;4\n5|6|7\n", "|"),
        ("notes\none; two\nthree\n", ","),
        ("notes\none\ntwo; three\n", ","),
        ('notes\n"one; two"\n"three; four"\n', ","),
        ("name\nAnn\nBob\n", ","),
        ("name,address\nAnn,Main St; 5\nBob,High St 7\n", ","),
        ("id,tags\n1,a;b\n2,c;d\n", ","),
        ('"id;no","name;nick"\n"1;2","Ann;A"\n', ","),
        ('id,"name;nick"\n1,"Ann;A"\n', ","),
        ('"Last, First";"Course, Room"\n"Doe, Ann";"Art, 7"\n', ";"),
        ("a,b\n1,2\n1,2,3\n", ","),
        ("a;b;c\n1;2\n", ";"),
        ("a,b;c;d\n1;2;3\n4\n", ";"),
        ("a;b;c,d\n1;2;3,4\n5;6;7\n", ";"),
        ("a,b,c;d\n1;2\n", ";"),
    ],
)
def test_the_delimiter_is_the_one_that_the_first_records_agree_on(
    content: str, delimiter: str
) -> None:
    assert sniffed(content.encode()) == delimiter


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("Last, First\tGrade\nDoe, Ann\t1\n", "',' and '\\t' may each be the delimiter"),
        ("a|b|c;d\n1|2|3;4\n5|6|;\n", "';' and '|' may each be the delimiter"),
        ('a,"b";c\n"1";2,3\n', "',' and ';' may each be the delimiter"),
        ("a,b;c;d\n1,2;3;4\n1,2;3;4\n1,x\n", "',' and ';' may each be the delimiter"),
        ("a b c\n1 2 3\n4 5 6\n", "' ' splits all lines alike"),
        ("a^b\n1^2\n", "'^' splits all lines alike"),
        ("Internal Server Error", "it is one line of text without a delimiter"),
        ("name\n", "it is one line of text without a delimiter"),
        ("# by: Ann, Bob\nid,name\n1,Ann\n", "it begins with a comment"),
        ("#a,b\n#c,d\nid,name\n1,Ann\n", "it begins with a comment"),
        ("Kurs 1\nid,name\n1,Ann\n", "with ',' the first line is 1 cell, and most others are 2"),
        ("Kurs 1, Herbst\nid;name\n1;Ann\n", "with ';' the first line is 1 cell"),
        ("Kurs 1\nid;name\n1;Ann\n", "with ';' the first line is 1 cell, and most others are 2"),
        ("Kurs 1\n\nid;name\n", "with ';' the first line is 1 cell"),
        ("Kurs 1\nHerbst\nid;name\n1;Ann\n", "with ';' the first line is 1 cell"),
        ("Kurs 1\nid;name\n1;Ann\n2;Bob\nTotal 2\n", "with ';' the first line is 1 cell"),
        ("# Author: me\nid|name\n1|Ann\n", "it begins with a comment"),
        ("Kurs 1\nid\tname, nick\n1\tAnn, A\n", "with ',' the first line is 1 cell"),
    ],
)
def test_a_delimiter_that_could_as_well_be_another_is_refused(content: str, reason: str) -> None:
    with pytest.raises(TableError) as error:
        read(content.encode())
    assert reason in str(error.value)
    assert str(error.value).endswith("csv.delimiter")


def test_a_sample_that_ends_inside_a_record_does_not_mislead() -> None:
    rows = [["a", "b"], *(["x" * 3000, str(number)] for number in range(60))]
    assert read(dumped(rows, ";").encode()) == rows


def test_a_delimiter_that_is_set_is_not_guessed() -> None:
    assert read(b"a;b\n1;2\n", ",") == [["a;b"], ["1;2"]]


# --------------------------------------------------------------------------- what a file announces


BY_MARK = ("read as", "by its byte order mark, not as utf-8")
AB = [["a", "b"], ["1", "2"]]


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (b"sep=;\na;b\n1;2\n", ["its first line, sep=;, was obeyed and left out"]),
        (b'"sep=;"\r\na;b\r\n1;2\r\n', ["its first line, sep=;, was obeyed and left out"]),
        (b"sep=,,\na,b\n1,2\n", ["its first line, sep=,, was obeyed and left out"]),
        (b"SEP=^\ra^b\r1^2\r", ["its first line, sep=^, was obeyed and left out"]),
        ("\ufeffa,b\n1,2\n".encode("utf-16-le"), [f"{BY_MARK[0]} utf-16-le, {BY_MARK[1]}"]),
        ("\ufeffa\tb\n1\t2\n".encode("utf-16-be"), [f"{BY_MARK[0]} utf-16-be, {BY_MARK[1]}"]),
        ("\ufeffa,b\n1,2\n".encode("utf-32-le"), [f"{BY_MARK[0]} utf-32-le, {BY_MARK[1]}"]),
        ('\ufeff\ufeff"a",b\n1,2\n'.encode(), []),
        (b"a,b\r1,2\r", []),
        (b'a,b\r1,"2"\r\r', []),
        (b"a,b\r\r\n1,2\r\r\n\r\r\n", []),
        (b"a,b\n1,2\n\x1a", ["the end mark ^Z after its last line was left out"]),
        (b"a,b\r\n1,2\r\n\x1a\x1a\r\n", ["the end mark ^Z after its last line was left out"]),
        (b"a,b\n1,2\x1a\n", ["the end mark ^Z after its last line was left out"]),
        (b"a,b\n1,2\x1a", ["the end mark ^Z after its last line was left out"]),
        (b"a,b\n1,2\n  \n\n ", ["blanks after its last row were left out"]),
        (b"a,b,\n1,2,\n", ["column 3, without a name and empty, was left out"]),
        (
            b"a,b,,\n1,2,,\n",
            [f"column {n}, without a name and empty, was left out" for n in (3, 4)],
        ),
        (b"a,,b\n1,,2\n", ["column 2, without a name and empty, was left out"]),
        (b"a,b\n1,2", ["its last line has no line end; perhaps it was cut off"]),
        (b"a,b\r1,2", ["its last line has no line end; perhaps it was cut off"]),
    ],
)
def test_what_a_file_announces_is_obeyed_and_what_is_no_row_is_left_out(
    content: bytes, notes: list[str]
) -> None:
    for block_bytes in (1, 2, 3, BLOCK_BYTES):
        records = Records(
            Source(io.BytesIO(content), block_bytes), delimiter="auto", encoding="utf-8"
        )
        frames = [to_frame(table) for table in read_tables(records)]
        rows = [
            list(frames[0].columns),
            *(row for one in frames for row in one.to_numpy().tolist()),
        ]
        assert rows == AB
        assert records.notes == notes


@given(
    tables(),
    st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]),
    st.sampled_from(["utf-8", "cp1252", "latin-1", "shift_jis", "utf-16", "utf-16-be", "utf-32"]),
    SMALL,
)
def test_text_with_a_byte_order_mark_is_read_by_it_whatever_is_set(
    rows: Rows, written_as: str, set_to: str, block_bytes: int
) -> None:
    text = dumped(rows)
    assume("\x1a" not in text)  # at the end it is no data
    content = f"\ufeff{text}".encode(written_as)
    source = Source(io.BytesIO(content), block_bytes)
    records = Records(source, delimiter=",", encoding=set_to)
    assert [list(row) for table in read_tables(records) for row in to_frame(table).to_numpy()] == (
        rows[1:]
    )
    assert records.encoding in {written_as, set_to}


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-be"])
def test_a_byte_order_mark_overrides_the_encoding_that_is_set(encoding: str) -> None:
    assert read("\ufeffn\u00e9,b\n1,2\n".encode(), "auto", encoding) == [
        ["n\u00e9", "b"],
        ["1", "2"],
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x1f\x8b\x08\0", "it is a gzip archive, not a CSV file"),
        (b"PK\x03\x04\0\0", "it is a zip archive or an Excel workbook (.xlsx), not a CSV file"),
        (b"PAR1\x15\x04", "it is a Parquet file, not a CSV file"),
        (b"\x89PNG\r\n\x1a\n\0\0", "it is a PNG image, not a CSV file"),
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "it is a Git LFS pointer, not a"),
        (b"<!DOCTYPE html>\n<p>a, b\n", "it is an HTML page, not a CSV file"),
        (b"\n <?xml version='1.0'?>\n", "it is an XML document, not a CSV file"),
        (b'{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n', "it is a JSON document, not a CSV file"),
        (b'[\n  {"a": 1}\n]', "it is a JSON document, not a CSV file"),
        (
            "\u00ef\u00bb\u00bfid,b\n1,2\n".encode(),
            "it begins with '\u00ef\u00bb\u00bf', a byte order mark that was",
        ),
    ],
)
def test_a_file_of_another_kind_is_named_as_what_it_is(content: bytes, reason: str) -> None:
    for block_bytes, delimiter in itertools.product((1, 7, BLOCK_BYTES), (",", "auto")):
        with pytest.raises(TableError) as error:
            read(content, delimiter, block_bytes=block_bytes)
        assert str(error.value).startswith(reason)


@pytest.mark.parametrize("header", ["[id],[name]", "<DATE>,<OPEN>", "{x},b"])
def test_a_header_in_brackets_is_no_document(header: str) -> None:
    assert read(f"{header}\n1,2\n".encode())[1] == ["1", "2"]


def test_a_first_line_that_contradicts_the_settings_is_refused() -> None:
    assert read(b"sep=;\na;b\n1;2\n", ";") == AB
    with pytest.raises(TableError, match=r"line 1: it says sep=;, but csv\.delimiter is ','"):
        read(b"sep=;\na;b\n1;2\n", ",")


def test_a_row_index_gets_the_name_that_is_set() -> None:
    records = Records([b",a\n0,x\n"], delimiter="auto", encoding="utf-8", first_column="row")
    assert [table.to_pylist() for table in read_tables(records)] == [[{"row": "0", "a": "x"}]]


def test_blanks_in_a_table_of_one_column_are_a_cell() -> None:
    assert read(b"a\nx\n  \n") == [["a"], ["x"], ["  "]]


def test_an_end_mark_within_a_text_is_a_character() -> None:
    assert read(b"a,b\n1\x1a,2\n") == [["a", "b"], ["1\x1a", "2"]]


# --------------------------------------------------------------------------- what is no table


OTHERWISE = "; if it is in another encoding, set csv.encoding (csv.for sets it for one source)"
NAMELESS = "of the header has no name, but there is text in it"
INDEX = "; to name a row index, as pandas and R write it, set csv.first_column"
CUT = "; its last line has no line end; perhaps it was cut off"
OLD_MAC = "where other lines end with a carriage return (old Mac line ends)"


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", None, "the file is empty"),
        (b"\n\r\n\n", None, "the file is empty"),
        (b"\xef\xbb\xbf", None, "the file is empty"),
        (b"a,b\n1,2\n3\n", 3, "cells: 1 in this row, 2 in the header"),
        (b'a,b\n"1\n1",2\n\n3,4,5\n', 5, "cells: 3 in this row, 2 in the header"),
        (b'a,b\n1,2\n"3\n4"\n', 3, "cells: 1 in this row (to line 4), 2 in the header"),
        (b"a,b\n1,2\n3,\x004\n", 3, "a NUL byte"),
        (b"a,b\n1,2\n3,\xff\n", 3, f"byte 0xff is not utf-8{OTHERWISE}"),
        (b"a,b\n1,2\n3,\xc3", 3, f"byte 0xc3 is not utf-8{OTHERWISE}"),
        (b"a,b,a\n1,2,3\n", 1, "the header names 'a' twice"),
        (b"\na, \n1,\n3,4\n", 2, f"column 2 {NAMELESS} in line 4"),
        (b"a,,c\n1,\n2,3,4\n", 2, "cells: 2 in this row, 3 in the header"),
        (b",a\n0,1\n", 1, f"column 1 {NAMELESS} in line 2{INDEX}"),
        (b"a,b\n1,2\n3", 3, f"cells: 1 in this row, 2 in the header{CUT}"),
        (b"a,b\n1,2\n3,4,5", 3, "cells: 3 in this row, 2 in the header"),
        (b"a,b\n1\n3", 2, "cells: 1 in this row, 2 in the header"),
        (b'a,b\n1,2\n" "\n', 3, "cells: 1 in this row, 2 in the header"),
        (b'a,b\n1,2\n3,"4', 3, f"a quote is never closed{CUT}"),
        (b'a,b\n1,2\n3,"4\n5,6\n', 3, "a quote is never closed"),
        (b'"a,b\n1,2\n', 1, "a quote is never closed"),
        (b'a,b\n1,"2"3\n', 2, "text after a closing quote"),
        (b'a,b\n1,""2\n', 2, "text after a closing quote"),
        (b"a,b\r1,2\n3,4\r", 2, f"a line feed, {OLD_MAC}"),
        (
            b'a,b\n"1,2\n3,4\n5,"6"\n',
            4,
            "text after a closing quote; the cell begins with a quote in line 2",
        ),
        (b"a,b\n1,2\n \n3,4\n", 3, "cells: 1 in this row, 2 in the header"),
        (b"a,b\n1,2\r3,4\n", 2, "a carriage return that ends no line"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(
    content: bytes, line: int | None, reason: str
) -> None:
    for block_bytes, delimiter in itertools.product((1, 2, 7, BLOCK_BYTES), (",", "auto")):
        with pytest.raises(TableError) as error:
            read(content, delimiter, block_bytes=block_bytes)
        assert (error.value.line, error.value.reason) == (line, reason)
        assert str(error.value) == (reason if line is None else f"line {line}: {reason}")


def test_text_in_another_encoding_than_the_set_one_is_refused() -> None:
    with pytest.raises(TableError, match="line 2: byte 0xe9 is not utf-8"):
        read("a,b\né,2\n".encode("latin-1"))
    with pytest.raises(TableError, match="it looks like utf-16-le without a byte order mark"):
        read("a,b\n1,2\n".encode("utf-16-le"))


@pytest.mark.parametrize("delimiter", [",", "auto"])
@pytest.mark.parametrize(("other", "told"), [("le", "be"), ("be", "le")])
def test_utf16_in_the_other_order_of_bytes_is_in_another_encoding(
    other: str, told: str, delimiter: str
) -> None:
    content = "a,b\n1,2\n".encode(f"utf-16-{other}")
    with pytest.raises(WrongEncodingError, match=f"it looks like utf-16-{other} without a byte"):
        read(content, delimiter, encoding=f"utf-16-{told}")


def test_a_record_without_end_is_refused_before_it_fills_the_memory() -> None:
    blocks = itertools.chain([b'a,b\n1,2\n3,"'], itertools.repeat(b"x" * BLOCK_BYTES))
    seen = itertools.count()
    records = Records(
        (block for block in blocks if next(seen) >= 0), delimiter=",", encoding="utf-8"
    )
    with pytest.raises(TableError, match="line 3: a record of over 16 MB; is a quote left open"):
        list(records)
    assert next(seen) <= MAX_RECORD_BYTES // BLOCK_BYTES + 3


def test_a_table_of_too_many_columns_is_refused() -> None:
    names = ",".join(f"c{number}" for number in range(MAX_COLUMNS + 1))
    with pytest.raises(TableError, match="line 1: 16,385 columns; at most 16,384 are taken"):
        read(f"{names}\n".encode())


def test_a_read_that_the_system_refuses_is_told_apart_from_a_bad_table() -> None:
    with (
        Path("/proc/self/mem").open("rb", buffering=0) as refused,  # nothing lies at address 0
        pytest.raises(UnreadableError, match="Input/output error"),
    ):
        Records(Source(refused), delimiter=",", encoding="utf-8")


# --------------------------------------------------------------------------- pieces


def test_a_file_up_to_the_piece_size_is_one_piece_and_a_larger_one_is_several() -> None:
    content = b"a,b\n" + b"1,2\n" * 40_000
    sizes = [
        [table.num_rows for table in read_tables(commas(content), piece_bytes=size)]
        for size in (len(content), 100_000, 1)
    ]
    assert sizes[0] == [40_000]
    assert [4 * rows <= 100_000 for rows in sizes[1]] == [True, True]
    assert len(sizes[2]) > 9
    assert {sum(rows) for rows in sizes} == {40_000}


def test_a_file_of_many_short_rows_comes_in_pieces_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csv_io.table.PIECE_ROWS", 40_000)
    content = b"a\n" + b"1\n" * 60_000
    sizes = [table.num_rows for table in read_tables(commas(content))]
    assert sum(sizes) == 60_000
    assert max(sizes) <= 40_000


def test_after_an_early_end_the_rest_can_be_drained_for_the_hash() -> None:
    content = b"a,b\n1\n" + b"1,2\n" * 100
    source = Source(io.BytesIO(content), 8)
    with pytest.raises(TableError):
        list(read_tables(Records(source, delimiter=",", encoding="utf-8")))
    source.drain()
    assert source.sha256 == hashlib.sha256(content).hexdigest()


# --------------------------------------------------------------------------- writing


def test_a_small_file_is_read_without_the_help_of_other_threads() -> None:
    code = """
import io, os, pyarrow
from csv_io.records import Records
from csv_io.table import Source, read_tables, to_frame, to_text
threads = set(os.listdir("/proc/self/task"))
for content in (b"a,b\\n1,2\\n", b'a,b\\n"1",2\\n'):
    for table in read_tables(Records(Source(io.BytesIO(content)), delimiter=",", encoding="utf-8")):
        to_text(to_frame(table))
print(len(set(os.listdir("/proc/self/task")) - threads))
"""
    folders = os.pathsep.join([str(CHECKOUT / "flows"), str(CHECKOUT / "daemon")])
    environment = {**os.environ, "PYTHONPATH": folders}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout == "0\n"


def test_only_cells_that_must_be_quoted_are_quoted() -> None:
    rows = [["a", "b c"], ["", "x"], ["1,2", 'say "hi"'], ["x\ny", "x\ry"], [" ", ";|\t'"]]
    assert written(rows, {"tag": "a,b"}) == (
        b'a,b c,tag\n,x,"a,b"\n"1,2","say ""hi""","a,b"\n"x\ny","x\ry","a,b"\n ,;|\t\',"a,b"\n'
    )


def test_values_of_any_type_are_written_as_their_str_and_missing_ones_as_empty() -> None:
    moment = datetime(2024, 2, 29, 1, 2, 3)  # noqa: DTZ001 - a naive one is what frames hold
    frame = pd.DataFrame(
        {
            "text": ["007", None],
            "float": [0.1, float("nan")],
            "integer": [1, 2],
            "flag": [True, False],
            "moment": [pd.Timestamp(moment), pd.NaT],
            "kind": pd.Categorical(["x", None]),
            "nullable": pd.array([1, None], dtype="Int64"),
            "object": [["a", "b"], None],
            8: [1.0, 2.5],
        },
        index=[5, 3],
    )
    table = to_text(frame)
    assert table.column_names == [*map(str, frame.columns)]
    assert [list(row.values()) for row in table.to_pylist()] == [
        ["007", "0.1", "1", "True", "2024-02-29 01:02:03", "x", "1", "['a', 'b']", "1.0"],
        ["", "", "2", "False", "", "", "", "", "2.5"],
    ]


@pytest.mark.parametrize("names", [["a", "a"], ["a", " "], [], [1, "1"]])
def test_a_frame_whose_names_cannot_head_a_table_is_refused(names: Sequence[object]) -> None:
    with pytest.raises(TableError):
        to_text(pd.DataFrame([["x"] * len(names)], columns=list(names)))


def swapped(frame: pd.DataFrame) -> pd.DataFrame:
    frame[["a", "b"]] = frame[["b", "a"]].to_numpy()
    return frame


def with_one_cell(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[1, "b"] = "new"
    return frame


@pytest.mark.parametrize(
    "change",
    [
        swapped,
        with_one_cell,
        lambda frame: frame.iloc[::-1],
        lambda frame: frame.iloc[[1, 0, 2]],
        lambda frame: frame.head(2),
        lambda frame: frame.tail(2),
        lambda frame: frame[["b", "a"]],
        lambda frame: frame[["a"]],
        lambda frame: frame.rename(columns={"a": "c"}),
        lambda frame: frame.assign(a=frame["b"]),
        lambda frame: frame.replace("1", "one"),
    ],
)
def test_rows_that_a_transform_changed_are_not_written_as_they_were_read(
    change: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    (piece,) = read_pieces(commas(b"a,b\n1,x\n2,y\n3,z\n"))
    assert piece.lines is not None

    table = to_text(change(to_frame(piece.table)))
    assert piece.rows(table) == [table]


def test_rows_that_a_transform_left_alone_are_lines_already() -> None:
    (piece,) = read_pieces(commas(b"a,b\n1,x\n2,y\n"))
    frame = to_frame(piece.table)
    frame["a"].astype(int)

    assert piece.rows(to_text(frame)) is piece.lines


def test_lines_are_not_cut_into_cells_where_nothing_changes_them() -> None:
    plain, quoted = b"a;b\n1;x\n2;y\n", b'a,b\n1,"x"\n'

    (lines,) = read_rows(Records(Source(io.BytesIO(plain)), delimiter=";", encoding="utf-8"))
    (table,) = read_rows(commas(quoted))

    assert isinstance(lines, Lines)
    assert (lines.text, lines.bounds.tolist()) == (b"1,x\n2,y\n", [0, 4, 8])
    assert isinstance(table, pa.Table)
    assert table.to_pylist() == [{"a": "1", "b": "x"}]


@pytest.mark.parametrize("end", [b"\r\n", b"\r\r\n"])
def test_lines_of_windows_are_lines_too(end: bytes) -> None:
    (lines,) = read_rows(commas(b"a,b" + end + b"1,x" + end + b",y" + end))

    assert isinstance(lines, Lines)
    assert (lines.text, lines.bounds.tolist()) == (b"1,x\n,y\n", [0, 4, 7])


def test_a_slice_of_an_arrow_table_is_written_and_nothing_around_it() -> None:
    stream = io.BytesIO()
    writer = TableWriter(stream, ["a"], {})
    writer.write(pa.table({"a": ["1", "2", "3", "4"]}).slice(1, 2))
    assert stream.getvalue() == b"a\n2\n3\n"


# --------------------------------------------------------------------------- content


def content(tables: Sequence[pa.Table], constants: dict[str, str]) -> str:
    writer = TableWriter(io.BytesIO(), tables[0].column_names, constants, ["at"])
    for table in tables:
        writer.write(table)
    return writer.written.content_sha256


def test_content_is_the_same_in_whatever_pieces_it_comes_and_at_whatever_time() -> None:
    table = pa.table({"a": ["1", 'x"', ""], "b": ["2", "3\n", "4"]})
    whole = content([table], {"at": "noon", "tag": "t"})
    for cut in range(4):
        pieces = [table.slice(0, cut), table.slice(cut)]
        assert content(pieces, {"at": "night", "tag": "t"}) == whole


@pytest.mark.parametrize(
    ("columns", "constants"),
    [
        ({"a": ["12", "3"]}, {"tag": "t"}),
        ({"a": ["1", "23", ""]}, {"tag": "t"}),
        ({"b": ["1", "23"]}, {"tag": "t"}),
        ({"a": ["1", "23"]}, {"tag": "u"}),
        ({"a": ["1", "23"], "b": ["", ""]}, {"tag": "t"}),
    ],
)
def test_other_cells_names_or_constants_are_other_content(
    columns: dict[str, list[str]], constants: dict[str, str]
) -> None:
    first = content([pa.table({"a": ["1", "23"]})], {"tag": "t"})
    assert content([pa.table(columns)], constants) != first


# --------------------------------------------------------------------------- aligning


@given(tables(), st.data())
def test_aligning_keeps_each_cell_under_its_name_and_leaves_the_others_empty(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("align")
    folder.joinpath("old.csv").write_bytes(written(rows, {"tag, too": "t"}))
    more = data.draw(st.lists(NAME, max_size=3, unique=True))
    columns = data.draw(st.permutations(list(dict.fromkeys([*rows[0], *more, "tag, too"]))))
    Alignment(columns).write(folder / "old.csv", folder / "new.csv")
    content = folder.joinpath("new.csv").read_bytes()
    old = [dict(zip([*rows[0], "tag, too"], [*row, "t"], strict=True)) for row in rows[1:]]
    assert parsed(content) == [columns, *([row.get(name, "") for name in columns] for row in old)]


@pytest.mark.parametrize(
    "name",
    [
        "<html>",
        "%PDF-1",
        "{}",
        "\ufeffid",
        "Obj\x01",
        "ï»¿id",
        "version https://git-lfs.github.com/",
    ],
)
def test_an_output_is_aligned_whatever_its_first_column_is_called(
    tmp_path: Path, name: str
) -> None:
    source, target = tmp_path / "source.csv", tmp_path / "target.csv"
    source.write_bytes(written([[name, "b"], ["1", "2\x1a"]], {}))
    Alignment([name, "b", "c"]).write(source, target)
    assert parsed(target.read_bytes()) == [[name, "b", "c"], ["1", "2\x1a", ""]]


def test_a_column_that_a_file_lacks_costs_no_call_of_its_own(tmp_path: Path) -> None:
    tmp_path.joinpath("old.csv").write_bytes(written([["b", "a"], ["1", "2"]], {}))

    def calls_for(width: int) -> int:
        columns = ["a", *map(str, range(width)), "b"]
        alignment, found = Alignment(columns), itertools.count()
        sys.setprofile(lambda _frame, event, _what: event.endswith("call") and next(found))
        try:
            alignment.write(tmp_path / "old.csv", tmp_path / f"{width}.csv")
        finally:
            sys.setprofile(None)
        return next(found)

    assert calls_for(1) > 0
    assert calls_for(10) == calls_for(1000)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_text_in_pairs_of_bytes_without_a_mark_is_told_by_its_zeros(encoding: str) -> None:
    assert unmarked_utf16("id,name\n1,a\n".encode(encoding)) == encoding
    assert unmarked_utf16("1".encode(encoding)) == ""
    assert unmarked_utf16(bytes(20)) == ""


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["йцж;фыж\nшщ;эю\n", "λδ\tφψ\r\nω\tξ\r\n", "名,上\n一,二"])
def test_utf16_of_any_script_is_known_by_its_delimiters_and_line_ends(
    text: str, encoding: str
) -> None:
    assert unmarked_utf16(text.encode(encoding)) == encoding


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,\0\n",
        b"ab,\0\n\0c,\0\n",  # a line end where UTF-16 has none
        "йцж\nшщ\n".encode("utf-16-le"),  # one column: it could be anything
        "йцж;фыж".encode("utf-16-le"),
    ],
)
def test_text_with_nul_bytes_is_not_taken_for_utf16(content: bytes) -> None:
    assert unmarked_utf16(content) == ""
