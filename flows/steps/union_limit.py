"""How wide a combined file may become: which files fit into it, and why the others do not."""

from collections.abc import Sequence

from ds_flow.core import Rejected, first_of
from ds_flow.work import Result

APPENDED = 3  # an output's last columns: processed_at, source_file, tag
ROWS = 2**20  # of a full spreadsheet: so many rows of empty cells may be put into the combined file

Header = tuple[str, ...]


def fitting(good: Sequence[Result], max_columns: int) -> list[Result | Rejected]:
    """These results, but a rejection for each one whose columns do not fit.

    Columns that most files have come first, then those of narrow files: one wide file among many
    is the one that does not fit.
    """
    groups: dict[Header, list[Result]] = {}
    for one in good:
        groups.setdefault(one.columns, []).append(one)
    union = Union(max_columns)
    order = sorted(groups, key=lambda header: (-len(groups[header]), len(header)))
    why = {header: union.add(header, sum(one.rows for one in groups[header])) for header in order}
    return [_rejected(one, why[one.columns]) if why[one.columns] else one for one in good]


class Union:
    """The columns and rows that a combined file has so far."""

    def __init__(self, max_columns: int) -> None:
        self._max_columns = max_columns
        self._names: set[str] = set()
        self._rows = 0
        self._empty = 0  # cells of columns that a row's file lacks

    def add(self, header: Header, rows: int) -> str:
        """Take the rows of files that have this header; or say why they do not fit."""
        data = header[:-APPENDED]
        new = [name for name in data if name not in self._names]
        width = len(self._names) + len(new)
        empty = self._empty + self._rows * len(new) + rows * (width - len(data))
        if width > self._max_columns:
            return self._why(new, f"have {width:,} columns")
        if empty > self._max_columns * ROWS:
            return self._why(new, f"have {empty / 1e9:,.0f} billion empty cells")
        self._names.update(new)
        self._rows += rows
        self._empty = empty
        return ""

    def _why(self, new: Sequence[str], much: str) -> str:
        own = f"{len(new):,} that other files of this batch lack ({first_of(new, ', ')})"
        limit = f"csv.max_columns is {self._max_columns:,}"
        return f"the combined file would {much}, with {own}; {limit}; release it alone, or raise it"


def _rejected(one: Result, reason: str) -> Rejected:
    return Rejected(
        path=one.path, version=one.version, sha256=one.sha256, cause="rejected", reason=reason
    )
