"""Tables of text into CSV: RFC 4180, comma, UTF-8, LF, a cell quoted only where it must be."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from csv_io.errors import TableError
from csv_io.layout import Positions
from csv_io.records import MAX_RECORD_BYTES, Records
from csv_io.table import (
    PIECE_BYTES,
    TEXT,
    Cells,
    Lines,
    Rows,
    Source,
    as_text,
    chunks,
    read_tables,
)

ANY_COLUMNS = 2**31
MUST_QUOTE = '",\r\n'
TAIL_BYTES = 2**16  # of a row, for its constants and the columns of other files


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a file that was written holds; the header is no row."""

    columns: tuple[str, ...]
    rows: int
    bytes: int
    sha256: str
    content_sha256: str  # of the cells, except those of columns that are no content


class TableWriter:
    """The CSV text of a table, hashed and counted as it is written.

    `constants` are further columns, after the table's, with one value for the whole file. Those
    whose name is in `no_content` say nothing of what the file holds.
    """

    def __init__(
        self,
        stream: BinaryIO,
        columns: Sequence[str],
        constants: Mapping[str, str],
        no_content: Collection[str] = (),
    ) -> None:
        self._stream = stream
        self._columns = (*columns, *constants)
        self._tail = tail(constants.values())
        self._hash = hashlib.sha256()
        self._content = ContentHash(
            [*columns, *(pair for pair in constants.items() if pair[0] not in no_content)]
        )
        self._bytes = 0
        self._rows = 0
        header = record(columns).encode()
        self._content.add(np.array([len(header)]), header)
        self._refuse_long(np.array([len(header)]))
        self._append(header + tail(constants).encode())

    def write(self, rows: Rows) -> None:
        """Append rows of text that have this file's columns in this order.

        Raises:
            TableError: a row is too long.
        """
        if isinstance(rows, Lines):
            lengths = np.diff(rows.bounds) - 1
            self._refuse_long(lengths)
            self._content.add(lengths, rows.text.replace(b"\n", b""))
            self._append(rows.text.replace(b"\n", self._tail.encode()))
            self._rows += len(rows.bounds) - 1
            return
        cells = (quoted(as_text(column)) for column in rows.columns)
        lines = joined(*cells, by=",")
        for bounds, text in buffers(lines):
            self._refuse_long(lengths := np.diff(bounds))
            self._content.add(lengths, text)
        for _, text in buffers(joined(lines, self._tail, by="")):
            self._append(text)
        self._rows += rows.num_rows

    @property
    def written(self) -> Written:
        return Written(
            columns=self._columns,
            rows=self._rows,
            bytes=self._bytes,
            sha256=self._hash.hexdigest(),
            content_sha256=self._content.hexdigest(),
        )

    def _refuse_long(self, lengths: Positions) -> None:
        """Refuse a row that could not be read again, and would then stop a whole batch."""
        if lengths.max(initial=0) > MAX_RECORD_BYTES - TAIL_BYTES:
            raise TableError(f"a row to publish has over {MAX_RECORD_BYTES // 2**20} MB")

    def _append(self, text: bytes | memoryview) -> None:
        self._hash.update(text)
        self._bytes += len(text)
        self._stream.write(text)


class ContentHash:
    """SHA-256 over the lines of a table, the same in whatever pieces they come."""

    def __init__(self, columns: Sequence[object]) -> None:
        self._text = hashlib.sha256(repr(columns).encode("utf-8", "surrogatepass"))
        self._lengths = hashlib.sha256()

    def add(self, lengths: Positions, text: bytes | memoryview) -> None:
        self._lengths.update(lengths.tobytes())
        self._text.update(text)

    def hexdigest(self) -> str:
        return hashlib.sha256(self._text.digest() + self._lengths.digest()).hexdigest()


def own_records(stream: BinaryIO) -> Records:
    """Read one of our own files. It may have more columns than an input may have."""
    return Records(
        Source(stream), delimiter=",", encoding="utf-8", max_columns=ANY_COLUMNS, is_ours=True
    )


class Alignment:
    """Our own output files, written anew with all columns of a batch; what one lacks is empty."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._places = {name: place for place, name in enumerate(columns)}
        self._last = len(columns) - 1
        self._header = f"{record(columns)}\n".encode()
        self._rows = max(1, PIECE_BYTES // len(columns))  # at once: most of a row is commas

    def write(self, source: Path, target: Path) -> None:
        """Write one file anew.

        Raises:
            TableError: the source is not a table.
            FileExistsError: the target is there already.
        """
        with source.open("rb", buffering=0) as old, target.open("xb") as new:
            new.write(self._header)
            for table in read_tables(own_records(old)):
                for rows in table.to_batches(max_chunksize=self._rows):
                    for _, text in buffers(self._lines(rows)):
                        new.write(text)

    def _lines(self, rows: pa.RecordBatch) -> Cells:
        """Rows with as many commas before each cell as there are columns between."""
        names = rows.schema.names
        parts: list[Cells | str] = []
        at = 0
        for place, number in sorted((self._places[name], n) for n, name in enumerate(names)):
            parts += ["," * (place - at), quoted(rows.column(number))]
            at = place
        return joined(*parts, "," * (self._last - at) + "\n", by="")


# --------------------------------------------------------------------------- text


def record(cells: Iterable[str]) -> str:
    """One line of text, without its end."""
    return ",".join(map(quoted_cell, cells))


def tail(cells: Collection[str]) -> str:
    """What ends a line that has further cells."""
    return f",{record(cells)}\n" if cells else "\n"


def quoted_cell(cell: str) -> str:
    """Quote a cell if it holds a comma, a quote or a line end."""
    must = any(mark in cell for mark in MUST_QUOTE)
    return '"' + cell.replace('"', '""') + '"' if must else cell


def quoted(cells: Cells, marks: str = MUST_QUOTE) -> Cells:
    """Quote the cells that hold a comma, a quote or a line end."""
    texts = [bytes(text) for _, text in buffers(cells)]
    if not any(mark in text for text in texts for mark in marks.encode()):
        return cells
    special = pc.match_substring_regex(cells, f"[{marks}]")
    doubled = pc.replace_substring(cells, '"', '""')
    return pc.if_else(special, joined('"', doubled, '"', by=""), cells)


def joined(*parts: Cells | str, by: str) -> Cells:
    """Join cells row by row; a str stands in every row."""
    typed = (pa.scalar(part, TEXT) if isinstance(part, str) else part for part in (*parts, by))
    return pc.binary_join_element_wise(*typed)


def buffers(cells: Cells) -> Iterator[tuple[Positions, memoryview]]:
    """Give where an Arrow array's cells begin and end, and their text, which lies end to end."""
    for chunk in chunks(cells):
        _, offsets, text = chunk.buffers()
        bounds = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        if text is not None:
            yield bounds, memoryview(text)[bounds[0] : bounds[-1]]
