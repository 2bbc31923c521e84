"""What an input holds, found out while it passes: its columns, their empty cells, and a profile.

Empty cells are counted in all rows, since that costs next to nothing. Values are looked at in some
rows only, so that a profile costs little beside the reading and writing of the file:

- in all rows of a small file, and of the only file of a batch up to ROWS of them;
- in a file of more, in as many rows and a fiftieth of the others, spread over it evenly;
- in the first FILES files of a batch, in the plan's order.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from csv_io.layout import Positions
from csv_io.table import Cells, Lines, Rows, chunks
from ds_flow.core import COMPARED_COLUMNS, Plan
from steps.column_profile import COLUMNS, Profile, describe

FILES = 100
ROWS = 5_000  # that are looked at in a batch, if its files are small
LEAST_ROWS = 100  # that are looked at in a file of a batch of many
SHARE = 50  # of further rows, one in so many
MOST_ROWS = 2_000  # of the further rows of a piece


def rows_of_each(plan: Plan) -> dict[str, int]:
    """The files of a batch that get a profile, each with its number of rows to look at at least."""
    files = plan.files[:FILES] if plan.options.profile else ()
    return {planned.path: max(LEAST_ROWS, ROWS // len(plan.files)) for planned in files}


class Profiler:
    """Takes in a file piece by piece. `rows` is None for a file that gets no profile."""

    def __init__(self, least_rows: int | None = None) -> None:
        self._left = least_rows
        self._header: tuple[str, ...] = ()
        self._empty: list[int] = []
        self._cells: list[list[str]] = []
        self.rows = 0

    def add(self, rows: Rows) -> None:
        """Take in a piece. Of a table that is too wide to be compared, few columns are."""
        self._header = names = tuple(rows.column_names)
        if isinstance(rows, Lines):
            count, empty = len(rows.bounds) - 1, count_empty_in_lines(rows)
        else:
            count = rows.num_rows
            empty = [count_empty(column) for column in rows.columns[:COMPARED_COLUMNS]]
        self.rows += count
        before = self._empty or [0] * len(names)
        self._empty = [old + new for old, new in zip(before, empty, strict=False)]
        if self._left is not None:
            cells = some_cells(rows, _chosen(count, self._left))
            known = self._cells or [[] for _ in cells]
            self._cells = [old + new for old, new in zip(known, cells, strict=True)]
            self._left = max(0, self._left - count)

    @property
    def header(self) -> tuple[str, ...]:
        """The columns; none if they are too many to be compared."""
        return self._header if len(self._header) <= COMPARED_COLUMNS else ()

    @property
    def empty(self) -> tuple[int, ...]:
        """How many cells of each of these columns are empty."""
        return tuple(self._empty) if self.header else ()

    def profile(self, hidden: Sequence[str]) -> Profile | None:
        """Describe the file."""
        if self._left is None:
            return None
        return describe(self._header, self._cells, rows=self.rows, empty=self._empty, hidden=hidden)


def some_cells(rows: Rows, chosen: Positions) -> list[list[str]]:
    """Give the cells of these rows, by column."""
    columns = min(COLUMNS, len(rows.column_names))
    if isinstance(rows, Lines):
        ends = rows.bounds[1:] - 1
        texts = [rows.text[rows.bounds[row] : ends[row]].decode() for row in chosen]
        cut = [text.split(",", columns)[:columns] for text in texts]
        return [[row[column] for row in cut] for column in range(columns)]
    some = rows.select(range(columns)).take(pa.array(chosen))
    return [column.to_pylist() for column in some.columns]


def _chosen(rows: int, least: int) -> Positions:
    """Which rows of a piece are looked at: the first ones, and some of the others."""
    if rows <= least:
        return np.arange(rows)
    further = min((rows - least) // SHARE, MOST_ROWS)
    spread = np.linspace(least, rows - 1, further, dtype=np.int64)
    return np.concatenate([np.arange(least), spread])


def count_empty(cells: Cells) -> int:
    """Count the empty ones of cells of text without nulls: those that end where they begin."""
    count = 0
    for chunk in chunks(cells):
        bounds = np.frombuffer(chunk.buffers()[1], np.int64)
        bounds = bounds[chunk.offset : chunk.offset + len(chunk) + 1]
        count += len(chunk) - int(np.count_nonzero(bounds[1:] != bounds[:-1]))
    return count


def count_empty_in_lines(lines: Lines) -> list[int]:
    """Count the empty cells of each column where no cell needs quotes."""
    text, width = lines.text, len(lines.column_names)
    if text[:1] not in b",\n" and not any(pair in text for pair in (b",,", b",\n", b"\n,")):
        return [0] * min(width, COMPARED_COLUMNS)
    codes = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero((codes == ord(",")) | (codes == ord("\n")))
    sizes = np.diff(ends, prepend=-1) - 1
    found: list[int] = (sizes.reshape(-1, width) == 0).sum(axis=0).tolist()
    return found[:COMPARED_COLUMNS]
