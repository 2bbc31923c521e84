"""Any bytes at all as a table: read as Python's own reader does, or refused with a reason."""

import csv
import io

from hypothesis import example, given
from hypothesis import strategies as st

from csv_io.records import TableError
from csv_io.table import Source, UnreadableError, read_tables, to_frame

Rows = list[list[str]]

PIECES = st.sampled_from(
    [b",", b'"', b'""', b"\r\n", b"\n", b"\r", b"a", b"b", b" ", b"\xc3\xa9", b"\xef\xbb\xbf"]
)
HOSTILE = st.lists(PIECES, max_size=30).map(b"".join) | st.binary(max_size=60)


def ours(content: bytes, block_bytes: int) -> Rows | None:
    """What we read of it, header first; None if it is refused."""
    try:
        tables = list(read_tables(Source(io.BytesIO(content), block_bytes), delimiter=","))
    except TableError as refused:
        return None if refused.reason and (refused.line or 1) >= 1 else []
    rows = [list(row) for table in tables for row in to_frame(table).itertuples(index=False)]
    return [tables[0].column_names, *rows]


def reference(content: bytes) -> Rows | None:
    """What Python's reader makes of it: equally wide rows under unique names, or None."""
    try:
        text = content.decode().removeprefix("\ufeff")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (csv.Error, UnicodeDecodeError):
        return None
    is_table = bool(rows) and len({len(row) for row in rows}) == 1 and "\0" not in text
    has_names = is_table and all(name.strip() for name in rows[0])
    return rows if has_names and len(set(rows[0])) == len(rows[0]) else None


@given(HOSTILE, st.integers(1, 20))
@example(b"a\n\xef\xbb\xbfb\n", 20)  # a byte order mark within: a character like any other
@example(b'a\n"\n', 1)
@example(b"a\n\xc3", 1)
@example(b"\xef\xbb\xbf\xef\xbb\xbfa\n1\n", 2)
def test_what_is_read_is_what_pythons_reader_reads(content: bytes, block_bytes: int) -> None:
    read = ours(content, block_bytes)

    assert read is None or read == reference(content)


@given(HOSTILE)
def test_what_pythons_reader_takes_is_refused_only_for_a_stray_carriage_return(
    content: bytes,
) -> None:
    expected = reference(content)
    is_stray = b"\r" in content.replace(b"\r\n", b"")

    assert is_stray or ours(content, 7) == expected


@given(HOSTILE, st.sampled_from(["utf-8", "utf-16", "utf-32", "latin-1", "cp037", "shift_jis"]))
def test_any_bytes_in_any_encoding_are_a_table_or_refused(content: bytes, encoding: str) -> None:
    try:
        tables = list(
            read_tables(Source(io.BytesIO(content), 8), delimiter="auto", encoding=encoding)
        )
    except (TableError, UnreadableError):
        return
    assert tables
