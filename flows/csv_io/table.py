"""Tables of text in and out of CSV files, losslessly and in bounded memory.

Read, every cell is the text it was: "007", "NA" and "" stay. Written, a file is RFC 4180: comma,
UTF-8, LF, a cell quoted only where it must be.
"""

import csv
import hashlib
import io
from codecs import BOM_UTF8
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from csv_io.errors import TableError
from csv_io.records import Block, Records, header_problem
from ds_flow.core import InputError

BLOCK_BYTES = 8 * 2**20
PIECE_BYTES = 32 * 2**20
"""A larger file is read in pieces of whole rows, each of about this size."""

PIECE_ROWS = 4_000_000
"""A file with more rows is, too: short rows take more memory than their bytes."""

SMALL_BYTES = 2**14
"""A block of fewer bytes is cut here: Arrow would hand it to another thread, and wait."""

TEXT = pa.large_string()  # 64-bit offsets: a piece that grows beyond 2 GiB still works
STR = pd.StringDtype(na_value=np.nan)  # what pandas calls `str`
Cells: TypeAlias = pa.Array | pa.ChunkedArray  # of text
MUST_QUOTE = b'",\r\n'


class UnreadableError(InputError):
    """The system failed to read the file."""


class Source:
    """One pass over an open file: its blocks, and the SHA-256 of exactly these bytes.

    Raises:
        UnreadableError: while reading.
    """

    def __init__(self, stream: BinaryIO, block_bytes: int = BLOCK_BYTES) -> None:
        self._stream = stream
        self._block_bytes = block_bytes
        self._hash = hashlib.sha256()
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        while block := self._read():
            self._hash.update(block)
            self.bytes += len(block)
            yield block

    def drain(self) -> None:
        """Read the rest, so that the hash covers the whole file."""
        for _ in self:
            pass

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def _read(self) -> bytes:
        try:
            return self._stream.read(self._block_bytes)
        except OSError as error:
            raise UnreadableError(error.strerror) from error


# --------------------------------------------------------------------------- reading


def read_tables(records: Records, *, piece_bytes: int = PIECE_BYTES) -> Iterator[pa.Table]:
    """Give the file's rows as tables of text without nulls, at least one, in order.

    A file of at most `piece_bytes` of UTF-8 text and PIECE_ROWS rows comes as one table.

    Raises:
        TableError: the file is not a table.
        UnreadableError: the system refused to read on.
    """
    tables: list[pa.Table] = []
    size = rows = 0
    for block in records:
        if size and (size + len(block.text) > piece_bytes or rows + block.rows > PIECE_ROWS):
            yield pa.concat_tables(tables)
            tables, size, rows = [], 0, 0
        tables.append(parse(block, records))
        size += len(block.text)
        rows += block.rows
    yield pa.concat_tables(tables)


def parse(block: Block, records: Records) -> pa.Table:
    """Cut the block's cells, and see that the same rows were found.

    A column without a name must be empty, and is left out.
    """
    numbers = [str(number) for number in range(len(records.header))]
    is_small = len(block.text) < SMALL_BYTES or not block.rows
    table = (cut_small if is_small else cut)(block, numbers, records.delimiter)
    if table.num_rows != block.rows:
        found = f"{block.rows} or {table.num_rows} rows"
        raise TableError(f"it cannot be read unambiguously: {found}")
    if all(records.header):
        return table.rename_columns(records.header)
    named = [number for number, name in enumerate(records.header) if name]
    for number in sorted(set(range(len(records.header))).difference(named)):
        refuse_cells(table[number], number, block, records.header_line)
    return table.select(named).rename_columns([records.header[number] for number in named])


def cut_small(block: Block, names: Sequence[str], delimiter: str) -> pa.Table:
    """Cut a small block into cells, as Python's own reader does."""
    text = block.text.decode()
    if block.is_plain:
        cells = text.replace("\n", delimiter).split(delimiter)
        columns = [cells[number : -1 : len(names)] for number in range(len(names))]
        return pa.table([pa.array(column, TEXT) for column in columns], names)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        found = list(zip(*filter(None, rows), strict=True)) or [()] * len(names)
        return pa.table([pa.array(column, TEXT) for column in found], names)
    except (csv.Error, ValueError) as error:
        raise TableError(f"it cannot be read unambiguously: {error}") from error


def cut(block: Block, names: Sequence[str], delimiter: str) -> pa.Table:
    """Let Arrow cut a block into cells."""
    # Arrow takes one byte order mark off whatever it is given; here it would be a cell's.
    text = BOM_UTF8 + block.text if block.text.startswith(BOM_UTF8) else block.text
    try:
        return arrow_csv.read_csv(
            pa.BufferReader(text),
            arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(text) + 1),
            arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, TEXT), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise TableError(f"it cannot be read unambiguously: {error}") from error


def refuse_cells(column: Cells, number: int, block: Block, header_line: int) -> None:
    """Refuse text in a column without a name."""
    row = pc.index(pc.not_equal(column, ""), True).as_py()
    if row >= 0:
        where = f"column {number + 1} of the header has no name"
        reason = f"{where}, but there is text in it in line {block.line_of(row)}"
        index = "; to name a row index, as pandas and R write it, set csv.first_column"
        raise TableError(reason + ("" if number else index), header_line)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Give a table of text as a DataFrame: dtype `str`, a RangeIndex."""
    # On other threads, small columns would wait longer than they take.
    frame: pd.DataFrame = table.to_pandas(types_mapper={TEXT: STR}.get, use_threads=False)
    return frame


def to_text(frame: pd.DataFrame) -> pa.Table:
    """Turn each value into its `str`, a missing one into "".

    Raises:
        TableError: the column names cannot head a table.
    """
    names = [str(name) for name in frame.columns]
    if problem := header_problem(names):
        raise TableError(problem)
    return pa.table([column_text(column) for _, column in frame.items()], names)


def column_text(column: "pd.Series[Any]") -> Cells:
    if isinstance(column.dtype, pd.StringDtype):
        cells = as_text(pa.array(column.array))
        return pc.fill_null(cells, "") if cells.null_count else cells
    values = zip(column, column.isna(), strict=True)
    return pa.array(["" if missing else str(value) for value, missing in values], TEXT)


def as_text(cells: Cells) -> Cells:
    """Give cells of any kind of text the kind that is used here."""
    return cells if cells.type == TEXT else cells.cast(TEXT)


# --------------------------------------------------------------------------- writing


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
        self._constants = tuple(constants.values())
        self._hash = hashlib.sha256()
        self._content = ContentHash(
            [*columns, *(pair for pair in constants.items() if pair[0] not in no_content)]
        )
        self._bytes = 0
        self._rows = 0
        self._put([pa.array([name], TEXT) for name in columns], tuple(constants))

    def write(self, table: pa.Table) -> None:
        """Append the rows of a table of text that has this file's columns in this order."""
        self._put([as_text(column) for column in table.columns], self._constants)
        self._rows += table.num_rows

    @property
    def written(self) -> Written:
        return Written(
            columns=self._columns,
            rows=self._rows,
            bytes=self._bytes,
            sha256=self._hash.hexdigest(),
            content_sha256=self._content.hexdigest(),
        )

    def _put(self, columns: Sequence[Cells], constants: Sequence[str]) -> None:
        records = joined(*map(quoted, columns), by=",")
        self._content.add(records)
        for text in csv_text(records, constants):
            self._hash.update(text)
            self._bytes += len(text)
            self._stream.write(text)


class ContentHash:
    """SHA-256 over the records of a table, the same in whatever pieces they come."""

    def __init__(self, columns: Sequence[object]) -> None:
        self._text = hashlib.sha256(repr(columns).encode("utf-8", "surrogatepass"))
        self._lengths = hashlib.sha256()

    def add(self, records: Cells) -> None:
        for lengths, text in buffers(records):
            self._lengths.update(lengths.tobytes())
            self._text.update(text)

    def hexdigest(self) -> str:
        return hashlib.sha256(self._text.digest() + self._lengths.digest()).hexdigest()


def csv_text(records: Cells, constants: Sequence[str]) -> Iterator[memoryview]:
    """Give the text of records, each followed by the constants."""
    tail = ",".join(quoted(pa.array([value], TEXT))[0].as_py() for value in constants)
    for _, text in buffers(joined(records, f"{tail}\n", by="," if constants else "")):
        yield text


def buffers(cells: Cells) -> Iterator[tuple[np.ndarray, memoryview]]:
    """Give the lengths of an Arrow array's cells, and their text, which lies end to end."""
    for chunk in cells.chunks if isinstance(cells, pa.ChunkedArray) else [cells]:
        _, offsets, text = chunk.buffers()
        bounds = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        if text is not None:
            yield np.diff(bounds), memoryview(text)[bounds[0] : bounds[-1]]


def quoted(cells: Cells) -> Cells:
    """Quote the cells that hold a comma, a quote or a line end."""
    texts = [bytes(text) for _, text in buffers(cells)]
    if not any(mark in text for text in texts for mark in MUST_QUOTE):
        return cells
    special = pc.match_substring_regex(cells, f"[{MUST_QUOTE.decode()}]")
    doubled = pc.replace_substring(cells, '"', '""')
    return pc.if_else(special, joined('"', doubled, '"', by=""), cells)


def joined(*parts: Cells | str, by: str) -> Cells:
    """Join cells row by row; a str stands in every row."""
    typed = (pa.scalar(part, TEXT) if isinstance(part, str) else part for part in (*parts, by))
    return pc.binary_join_element_wise(*typed)


def align(source: Path, target: Path, columns: Sequence[str]) -> Written:
    """Write one of our own output files anew with these columns; what it lacks is empty.

    Raises:
        TableError: the source is not a table.
        FileExistsError: the target is there already.
    """
    with source.open("rb", buffering=0) as old, target.open("xb") as new:
        writer = TableWriter(new, columns, {})
        for table in read_tables(Records(Source(old), delimiter=",", encoding="utf-8")):
            empty = pa.repeat(pa.scalar("", TEXT), table.num_rows)
            cells = [table[name] if name in table.column_names else empty for name in columns]
            writer.write(pa.table(cells, list(columns)))
    return writer.written
