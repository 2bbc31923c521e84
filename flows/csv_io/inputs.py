"""One reader for inputs of every format: each gives its text, and `records` reads it."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from csv_io.allowance import Allowance
from csv_io.records import Records
from csv_io.table import Source
from ds_flow.core import GZIP, PARQUET, WORKBOOK, ZSTD, Reading, format_of


def records_of(
    source: Source, path: str, reading: Reading, allowance: Allowance, scratch: Path
) -> Records:
    """Read the records of a file, in the first encoding of its reading.

    `scratch` is a folder on a disk: some formats begin at their end, so a copy of them is read,
    whose bytes are those that the source has hashed.

    Raises:
        TableError: it cannot be read as a table; also while iterating.
        UnreadableError: the system refused to read on.
        OSError: the copy cannot be written.
    """
    kind, notes = format_of(path), list[str]()
    blocks: Iterable[bytes]
    if is_table(kind):
        blocks = _of_copy(source, kind, reading.sheet, allowance, scratch, notes)
        delimiter, encoding = ",", "utf-8"
    else:
        blocks = _unpacked(source, kind, allowance)
        delimiter, encoding = reading.delimiter, reading.encodings[0]
    records = Records(
        blocks, delimiter=delimiter, encoding=encoding, first_column=reading.first_column
    )
    records.notes.extend(notes)
    return records


def is_table(kind: str) -> bool:
    """Whether a format has cells, and neither an encoding nor a delimiter."""
    return kind in {WORKBOOK, PARQUET}


# A reader of a format is imported where a file has it: most projects need none.


def _unpacked(source: Source, kind: str, allowance: Allowance) -> Iterable[bytes]:
    if kind not in {GZIP, ZSTD}:
        return source
    from csv_io.packed import unpacked_gzip, unpacked_zstd

    return (unpacked_gzip if kind == GZIP else unpacked_zstd)(source, allowance)


def _of_copy(
    source: Source, kind: str, sheet: str, allowance: Allowance, scratch: Path, notes: list[str]
) -> Iterator[bytes]:
    with tempfile.TemporaryFile(dir=scratch) as copy:
        for block in source:
            copy.write(block)
        copy.seek(0)
        yield from _cells(copy, kind, sheet, allowance, notes)


def _cells(
    copy: BinaryIO, kind: str, sheet: str, allowance: Allowance, notes: list[str]
) -> Iterator[bytes]:
    if kind == PARQUET:
        from csv_io.parquet import parquet_text

        return parquet_text(copy, allowance)
    from csv_io.sheet import workbook_text

    return workbook_text(copy, allowance, sheet, notes)
