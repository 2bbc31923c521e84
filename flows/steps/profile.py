"""What an input holds, found out while it passes: its columns, and their empty cells."""

import numpy as np

from csv_io.table import Cells, Lines, Rows, chunks
from ds_flow.core import COMPARED_COLUMNS


class Profiler:
    """Takes in a file piece by piece."""

    def __init__(self) -> None:
        self._header: tuple[str, ...] = ()
        self._empty: list[int] = []
        self.rows = 0

    def add(self, rows: Rows) -> None:
        """Take in a piece. A table that is too wide to be compared is not looked at."""
        names = tuple(rows.column_names)
        self.rows += len(rows.bounds) - 1 if isinstance(rows, Lines) else rows.num_rows
        if len(names) > COMPARED_COLUMNS:
            return
        self._header = names
        if isinstance(rows, Lines):
            empty = count_empty_in_lines(rows)
        else:
            empty = [count_empty(column) for column in rows.columns]
        before = self._empty or [0] * len(names)
        self._empty = [old + new for old, new in zip(before, empty, strict=True)]

    @property
    def header(self) -> tuple[str, ...]:
        """The columns; none if they are too many."""
        return self._header

    @property
    def empty(self) -> tuple[int, ...]:
        """How many cells of each column are empty."""
        return tuple(self._empty)


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
        return [0] * width
    codes = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero((codes == ord(",")) | (codes == ord("\n")))
    sizes = np.diff(ends, prepend=-1) - 1
    found: list[int] = (sizes.reshape(-1, width) == 0).sum(axis=0).tolist()
    return found
