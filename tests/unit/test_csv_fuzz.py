"""Any bytes at all as a table: read as Python's own reader does, or refused with a reason."""

import io
import re
from collections.abc import Iterator

import pyarrow as pa
from hypothesis import assume, example, given
from hypothesis import strategies as st

from csv_io.decoding import BINARY, TEXTUAL
from csv_io.errors import TableError
from csv_io.records import Records
from csv_io.table import (
    Source,
    UnreadableError,
    cut,
    cut_small,
    read_pieces,
    read_rows,
    read_tables,
    to_frame,
)
from csv_io.writing import TableWriter
from csv_reference import Rows, as_table, strict_rows

PIECES = st.sampled_from(
    [b",", b'"', b'""', b"\r\n", b"\n", b"\r", b"a", b"b", b" ", b"\xc3\xa9", b"\xef\xbb\xbf"]
)
END_MARK = re.compile(r"\x1a[\x1a\r\n ]*\Z")  # ^Z, after which nothing but blanks comes
HOSTILE = st.lists(PIECES, max_size=30).map(b"".join) | st.binary(max_size=60)


def opened(content: bytes, block_bytes: int, delimiter: str, encoding: str) -> Iterator[pa.Table]:
    source = Source(io.BytesIO(content), block_bytes)
    return read_tables(Records(source, delimiter=delimiter, encoding=encoding))


def ours(content: bytes, block_bytes: int) -> Rows | None:
    """What we read of it, header first; None if it is refused."""
    try:
        tables = list(opened(content, block_bytes, ",", "utf-8"))
    except TableError as refused:
        return None if refused.reason and (refused.line or 1) >= 1 else []
    rows = [list(row) for table in tables for row in to_frame(table).itertuples(index=False)]
    return [tables[0].column_names, *rows]


def reference(content: bytes) -> Rows | None:
    """The table that Python's reader finds; None if there is none."""
    try:
        text = END_MARK.sub("", content.decode().lstrip("\ufeff"))
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else as_table(strict_rows(text))


@given(HOSTILE, st.integers(1, 20))
@example(b"a\n\xef\xbb\xbfb\n", 20)  # a byte order mark within: a character like any other
@example(b'a\n"\n', 1)
@example(b"a\n\xc3", 1)
@example(b"\xef\xbb\xbf\xef\xbb\xbfa\n1\n", 2)
def test_what_is_read_is_what_pythons_reader_reads(content: bytes, block_bytes: int) -> None:
    read = ours(content, block_bytes)

    assert read is None or read == reference(content)


@given(HOSTILE, st.integers(1, 20), st.sampled_from(",;"))
@example(b"a,b\n\n1,2\n", 20, ",")
@example(b'a\n""\n', 20, ",")
def test_a_small_block_is_cut_as_a_large_one_is(
    content: bytes, block_bytes: int, delimiter: str
) -> None:
    source = Source(io.BytesIO(content), block_bytes)
    try:
        records = Records(source, delimiter=delimiter, encoding="utf-8")
        blocks = [block for block in records if block.rows]
    except TableError:
        return
    names = [str(number) for number in range(len(records.header))]

    for block in blocks:
        assert cut_small(block, names, delimiter) == cut(block, names, delimiter)


@given(
    HOSTILE
    | st.lists(st.sampled_from([b"a;1\n", b";\n", b"\xc3\xa9;x,y\n", b'"q";2\n'])).map(b"".join),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from(",;"),
)
@example(b"a;b\n1;2\n;3\n", 5, 4, ";")
@example(b"a;b\n1,5;2\n", 20, 20, ";")
@example(b"a,b,\n1,2,\n", 20, 20, ",")
@example(b"a,b\r\n1,2\r\n\r\n3,4\r\r\n", 20, 20, ",")
@example(b'a,b\r\n1,2\r\n3,"\r"\r\n', 20, 20, ",")
@example(b"a,b\n\n1,2\n", 20, 20, ",")
def test_rows_that_are_lines_already_are_written_as_their_cells_would_be(
    content: bytes, block_bytes: int, piece_bytes: int, delimiter: str
) -> None:
    source = Source(io.BytesIO(content), block_bytes)
    try:
        records = Records(source, delimiter=delimiter, encoding="utf-8")
        pieces = list(read_pieces(records, piece_bytes=piece_bytes))
    except TableError:
        return
    again = Source(io.BytesIO(content), block_bytes)
    rows = list(read_rows(Records(again, delimiter=delimiter, encoding="utf-8")))
    streams = [io.BytesIO(), io.BytesIO(), io.BytesIO()]
    names = pieces[0].table.column_names
    as_cells, as_lines, uncut = [TableWriter(one, names, {"tag": "a, b"}) for one in streams]
    for piece in pieces:
        as_cells.write(piece.table)
        for part in piece.rows(piece.table):
            as_lines.write(part)
    for part in rows:
        assert list(part.column_names) == names
        uncut.write(part)

    assert streams[0].getvalue() == streams[1].getvalue() == streams[2].getvalue()
    assert as_cells.written == as_lines.written == uncut.written


@given(HOSTILE)
@example(b"\x1a")
@example(b"a\n\x1a\n")
@example(b',""""\r\n""')
def test_what_pythons_reader_takes_is_refused_only_for_a_stray_carriage_return(
    content: bytes,
) -> None:
    assume(not any(content.startswith(mark) for mark, _ in BINARY))
    assume(not any(kind.match(content.decode(errors="replace")) for kind, _ in TEXTUAL))
    expected = reference(content)
    is_stray = b"\r" in content.replace(b"\r\n", b"")

    assert is_stray or ours(content, 7) == expected


@given(HOSTILE, st.sampled_from(["utf-8", "utf-16", "utf-32", "latin-1", "cp037", "shift_jis"]))
def test_any_bytes_in_any_encoding_are_a_table_or_refused(content: bytes, encoding: str) -> None:
    try:
        tables = list(opened(content, 8, "auto", encoding))
    except (TableError, UnreadableError):
        return
    assert tables
