"""Questions whose answer is one page, however long the ledger is. They change nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ds_flow.core import FileState, RunState, Trigger
from ds_flow.ledger.events import LONG_RUN, LongRun, long_run
from ds_flow.ledger.queries import FILE_COLUMNS, RUN_COLUMNS, file_row, run_row
from ds_flow.ledger.rows import FileRow, RunRow
from ds_flow.ledger.store import Row, Store, text

LOOKED_AT = 20_000  # rows that one page may look at
AFTER_ALL = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Done:
    """One run that has ended, for charts."""

    ended_at: datetime
    formed_at: datetime
    trigger: str
    state: str
    files: int
    rows: int


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One run, with how many files its batch has and how many it published."""

    row: RunRow
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class RunsPage:
    """The ids of runs, newest first, and the one to go on from; None at the end."""

    ids: list[int]
    before: int | None


@dataclass(frozen=True, slots=True)
class FilesPage:
    """Versions by path and number, and where to go on; None at the end."""

    files: list[FileRow]
    after: tuple[str, int] | None


class Pages:
    """Each question reads a bounded number of rows."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def newest_event(self) -> int:
        """The number of the newest event; each move of a state has a new one."""
        row = self._store.row("SELECT max(id) FROM event")
        return int(row[0] or 0) if row else 0

    # ------------------------------------------------------------------ runs

    def runs(
        self,
        *,
        state: RunState | None = None,
        trigger: Trigger | None = None,
        before: int | None = None,
        limit: int,
    ) -> RunsPage:
        """The runs before one of them, newest first.

        With a trigger, a page may be short although there are more: it looks at so many runs only.
        """
        which = "state = ?1" if state else "?1 IS NULL"
        looked = f"SELECT id, batch_id FROM run WHERE {which} AND (?2 IS NULL OR id < ?2)"
        looked += " ORDER BY id DESC LIMIT"
        asked = (state, before, LOOKED_AT, trigger, limit + 1)
        rows = self._store.rows(  # row by row: it ends with the page
            f"SELECT run.id FROM ({looked} ?3) AS run CROSS JOIN batch ON batch.id = batch_id"
            " WHERE ?4 IS NULL OR trigger = ?4 LIMIT ?5",
            asked,
        )
        found = sorted((row[0] for row in rows), reverse=True)
        if len(found) > limit:
            return RunsPage(found[:limit], found[limit - 1])
        last = self._store.row(f"{looked} 1 OFFSET ?3 - 1", asked[:3])
        return RunsPage(found, last[0] if last else None)

    def listed(self, ids: Sequence[int]) -> list[ListedRun]:
        """Runs as a list shows them, newest first."""
        rows = self._store.rows(
            f"SELECT {RUN_COLUMNS},"
            " (SELECT count(*) FROM batch_file WHERE batch_file.batch_id = run.batch_id),"
            " (SELECT count(*) FROM output WHERE output.run = run.id)"
            " FROM run JOIN batch ON batch.id = batch_id"
            f" WHERE run.id IN ({_marks(ids)}) ORDER BY run.id DESC",
            ids,
        )
        return [ListedRun(run_row(row[:-2]), *row[-2:]) for row in rows]

    def whole(self, ids: Sequence[int]) -> Iterator[LongRun]:
        """Runs with what each read and published, oldest first."""
        for row in self._store.each(
            f"{LONG_RUN} WHERE run.id IN ({_marks(ids)}) ORDER BY run.id", ids
        ):
            yield long_run(row)

    def ended(self, since: datetime, limit: int) -> list[Done]:
        """The newest runs that ended since a time, oldest first, with what each published."""
        rows = self._store.rows(
            "SELECT run.ended_at, formed_at, trigger, run.state,"
            " (SELECT count(*) FROM output WHERE run = run.id AND file_id IS NOT NULL),"
            " (SELECT coalesce(sum(rows), 0) FROM output"
            "  WHERE run = run.id AND file_id IS NOT NULL)"
            " FROM (SELECT * FROM run ORDER BY id DESC LIMIT ?1) AS run"
            " JOIN batch ON batch.id = batch_id WHERE run.ended_at >= ?2 ORDER BY run.id",
            (limit, text(since)),
        )
        at = datetime.fromisoformat
        return [Done(at(row[0]), at(row[1]), *row[2:]) for row in rows]

    # ------------------------------------------------------------------ files

    def files(
        self,
        *,
        state: FileState | None = None,
        prefix: str = "",
        after: tuple[str, int] | None = None,
        limit: int,
    ) -> FilesPage:
        """The versions after one of them whose paths begin so, by path and number.

        Of a state that few have, these few are put in order. Else the paths are gone through in
        order, and a page may be short although there are more.
        """
        within = "(path, version) > (?1, ?2) AND path < ?3"
        asked = (*(after or (prefix, 0)), f"{prefix}{AFTER_ALL}")
        if state and self._are_few(state):
            looked = "SELECT id, path, version FROM file INDEXED BY file_by_state WHERE state = ?4"
            rows = self._store.rows(
                f"{looked} AND {within} ORDER BY path, version LIMIT ?5", (*asked, state, limit + 1)
            )
            return self._files(rows, limit, None)
        looked = f"FROM file WHERE {within} ORDER BY path, version LIMIT"
        rows = self._store.rows(  # row by row: it ends with the page
            f"SELECT id, path, version FROM (SELECT id, path, version, state {looked} ?4)"
            " WHERE ?5 IS NULL OR state = ?5 LIMIT ?6",
            (*asked, LOOKED_AT, state, limit + 1),
        )
        last = self._store.row(
            f"SELECT path, version {looked} 1 OFFSET ?4 - 1", (*asked, LOOKED_AT)
        )
        return self._files(rows, limit, (last[0], last[1]) if last else None)

    def _are_few(self, state: FileState) -> bool:
        row = self._store.row(
            "SELECT count(*) FROM (SELECT 1 FROM file WHERE state = ? LIMIT ?)",
            (state, LOOKED_AT),
        )
        return row is not None and row[0] < LOOKED_AT

    def _files(self, found: list[Row], limit: int, last: tuple[str, int] | None) -> FilesPage:
        """The page of so many versions; `last` is where the look ended, if there may be more."""
        found = sorted(found, key=lambda row: row[1:])
        more = found[limit - 1][1:] if len(found) > limit else last
        ids = [row[0] for row in found[:limit]]
        rows = self._store.rows(
            f"{FILE_COLUMNS} WHERE file.id IN ({_marks(ids)}) ORDER BY path, version", ids
        )
        return FilesPage(list(map(file_row, rows)), more)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
