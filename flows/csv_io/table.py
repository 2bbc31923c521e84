"""CSV files as tables of text, losslessly and in bounded memory.

Every cell is the text it was: "007", "NA" and "" stay.
"""

import csv
import hashlib
import io
import os
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from csv_io.errors import TableError
from csv_io.layout import Positions
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
STR: Any = pd.StringDtype(na_value=np.nan)  # what pandas calls `str`
Cells: TypeAlias = pa.Array | pa.ChunkedArray  # of text


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

    @property
    def size_bytes(self) -> int:
        """How large the file is now."""
        try:
            return os.fstat(self._stream.fileno()).st_size
        except OSError as error:
            raise UnreadableError(error.strerror) from error

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


@dataclass(frozen=True, slots=True)
class Lines:
    """Rows as text: no cell needs quotes, a comma is between two, a line feed after each row."""

    column_names: Sequence[str]
    text: bytes
    bounds: Positions  # where each row begins, and the end


Rows: TypeAlias = pa.Table | Lines


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole rows of a file; `lines` are the same rows, None where a cell needs quotes."""

    table: pa.Table
    lines: Sequence[Lines] | None = None

    def rows(self, table: pa.Table) -> Sequence[Rows]:
        """Give rows to write: other cells, or the lines if they are those in its memory."""
        is_same = table.column_names == self.table.column_names
        lasts = is_same and all(map(shares_memory, table.columns, self.table.columns))
        return self.lines if lasts and self.lines is not None else [table]


def read_rows(records: Records) -> Iterator[Rows]:
    """Give the file's rows to write as they are, at least one of them, in order.

    Where lines cannot be read in two ways, they are not cut into cells.

    Raises:
        TableError, UnreadableError: as for `read_pieces`.
    """
    for block in records:
        yield lines_of(block, records) or parse(block, records)


def read_tables(records: Records, *, piece_bytes: int = PIECE_BYTES) -> Iterator[pa.Table]:
    """Give the tables of `read_pieces`."""
    return (piece.table for piece in read_pieces(records, piece_bytes=piece_bytes))


def read_pieces(records: Records, *, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """Give the file's rows as tables of text without nulls, at least one, in order.

    A file of at most `piece_bytes` of UTF-8 text and PIECE_ROWS rows comes as one table.

    Raises:
        TableError: the file is not a table.
        UnreadableError: the system refused to read on.
    """
    blocks: list[tuple[pa.Table, Lines | None]] = []
    size = rows = 0
    for block in records:
        if size and (size + len(block.text) > piece_bytes or rows + block.rows > PIECE_ROWS):
            yield joined_pieces(blocks)
            blocks, size, rows = [], 0, 0
        blocks.append((parse(block, records), lines_of(block, records)))
        size += len(block.text)
        rows += block.rows
    yield joined_pieces(blocks)


def joined_pieces(blocks: Sequence[tuple[pa.Table, Lines | None]]) -> Piece:
    """Put blocks of one file together."""
    lines = [lines for _, lines in blocks if lines is not None]
    tables = [table for table, _ in blocks]
    return Piece(pa.concat_tables(tables), lines if len(lines) == len(blocks) else None)


def lines_of(block: Block, records: Records) -> Lines | None:
    """A block's rows with commas between their cells, if no cell needs quotes and none goes."""
    text, delimiter = block.text, records.delimiter.encode()
    if not (block.is_plain and all(records.header)):
        return None
    if delimiter != b",":
        if b"," in text:
            return None
        text = text.replace(delimiter, b",")
    return Lines(records.header, text, np.append(block.starts, len(text)))


def shares_memory(one: Cells, other: Cells) -> bool:
    """Whether cells are the same for sure, since they lie in the same memory."""
    return [bounds_in_memory(chunk) for chunk in chunks(one)] == [
        bounds_in_memory(chunk) for chunk in chunks(other)
    ]


def bounds_in_memory(cells: pa.Array) -> tuple[object, ...]:
    """Where cells lie, and which of them."""
    addresses = [buffer and buffer.address for buffer in cells.buffers()]
    return (cells.type, cells.offset, len(cells), *addresses)


def chunks(cells: Cells) -> list[pa.Array]:
    """The pieces of cells that each lie in one place."""
    return cells.chunks if isinstance(cells, pa.ChunkedArray) else [cells]


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
    columns = zip(table.column_names, table.columns, strict=True)
    return pd.DataFrame({name: STR.__from_arrow__(cells) for name, cells in columns}, copy=False)


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
