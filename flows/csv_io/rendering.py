"""Cells of other formats as CSV text, which `records` then reads as it reads any other file.

So one reader decides what a table is. What could be read otherwise there is quoted here: an empty
row of one cell, an end mark, and all names of columns.
"""

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from csv_io.decoding import END_MARK
from csv_io.table import TEXT, Cells
from csv_io.writing import MUST_QUOTE, buffers, joined, quoted

SPECIAL = MUST_QUOTE + END_MARK.decode()
NEEDS_QUOTES = re.compile(f"[{SPECIAL}]")


def header_line(names: Sequence[str]) -> bytes:
    """The first line. A column without a name has an empty cell."""
    return f"{','.join(map(_in_quotes, names))}\n".encode()


def line(cells: Sequence[str]) -> str:
    """A row of cells, of which one at least holds text."""
    return (
        ",".join([_in_quotes(cell) if NEEDS_QUOTES.search(cell) else cell for cell in cells]) + "\n"
    )


def lines(columns: Sequence[Cells]) -> bytes:
    """Rows of cells without nulls, column by column."""
    parts = [quoted(cells, marks=SPECIAL) for cells in columns]
    rows = joined(*parts, by=",")
    if len(parts) == 1:  # where an empty line would be no row
        rows = pc.if_else(pc.equal(rows, ""), pa.scalar('""', TEXT), rows)
    return b"".join(bytes(text) for _, text in buffers(joined(rows, "\n", by="")))


def _in_quotes(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if cell else ""
