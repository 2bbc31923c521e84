"""Every question to the ledger, answered with frozen values."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from ds_flow.core import BatchState, Ended, FileState, PlannedFile, RunState, Trigger, Waiting
from ds_flow.ledger.rows import BatchRow, EventRow, FileRow, RunRow
from ds_flow.ledger.store import BATCH_ROWS, Row, Store, text

FILE_COLUMNS = """
    SELECT file.id, path, version, sha256, size_bytes, state, cause, reason, seen_at,
        (SELECT run.run_id FROM output JOIN run ON run.id = output.run
         WHERE output.file_id = file.id ORDER BY run.id DESC LIMIT 1),
        (SELECT batch_id FROM batch_file WHERE batch_file.file_id = file.id AND live),
        away, away_to
    FROM file
"""
RUN_COLUMNS = """
    batch_id, attempt, run.state, run_id, ending, trigger, started_at, run.ended_at, error,
    removed_at, analysis_error, analyses
"""
_RUN = f"SELECT {RUN_COLUMNS} FROM run JOIN batch ON batch.id = batch_id"
_BATCH = "SELECT id, state, trigger, formed_at, due_at, reason, selection FROM batch"
IS_NO_COPY = "NOT (file_id IS NULL AND name GLOB '*.parquet')"
"""A combined file as Parquet has the rows of the CSV file beside it: they count once."""

IS_LOOK = "newer.sha256 IS NULL AND newer.state = 'superseded'"
"""A version that only says that a look could not read the file, which it could again later.

It is not newer than the version whose content the file has.
"""

_NEWEST = f"""version = (SELECT max(version) FROM file AS newer
    WHERE newer.path = file.path AND NOT ({IS_LOOK}))"""

REPLACED_FILES = """
    SELECT id, path FROM batch_file JOIN file ON id = file_id
    WHERE batch_id = ? AND state = 'batched' AND EXISTS (SELECT 1 FROM file AS newer
        WHERE newer.path = file.path AND newer.version > file.version
        AND newer.sha256 IS NOT NULL)
"""
"""The versions of a batch that a newer one has replaced before they were read.

A look that could not read the file has entered a version without content: it replaces nothing.
"""


class Reading:
    """Every question that the daemon and people ask. It changes nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # ------------------------------------------------------------------ for the daemon

    def require_in_place(self) -> None:
        """Raise LedgerError if the ledger's file was removed or replaced while in use."""
        self._store.require_in_place()

    def known(self) -> Iterator[tuple[str, str]]:
        """How each path in the inbox looked when last seen; of an older version first.

        What has left is not among them: if it is there again, it has come again.
        """
        return self._store.each(
            "SELECT path, stat FROM file WHERE stat <> '' AND (away IS NULL OR away = 'going')"
            " ORDER BY id"
        )

    def unseen(self) -> list[str]:
        """The paths whose latest version must be looked at again."""
        rows = self._store.rows(
            "SELECT path FROM file WHERE stat = '' AND NOT EXISTS (SELECT 1 FROM file AS newer"
            " WHERE newer.path = file.path AND newer.version > file.version)"
        )
        return [row[0] for row in rows]

    def waiting(self) -> list[Waiting]:
        """Every waiting version, oldest first."""
        rows = self._store.rows(
            "SELECT id, size_bytes FROM file WHERE state = 'waiting' ORDER BY id"
        )
        return [Waiting(*row) for row in rows]

    def has_waiting(self) -> bool:
        """Whether a version waits. There may be a million, and nobody needs to read them all."""
        return self._store.row("SELECT 1 FROM file WHERE state = 'waiting' LIMIT 1") is not None

    def due_batches(self, now: datetime) -> list[BatchRow]:
        """Every batch that may start now: new files before reruns, then oldest first.

        If a batch's last run ended in the future, the clock was set back since. It waits no longer.
        """
        return self._batches(
            "WHERE state = 'queued' OR (state = 'retrying' AND (due_at <= ?1 OR EXISTS"
            " (SELECT 1 FROM run WHERE batch_id = batch.id AND run.ended_at > ?1)))"
            " ORDER BY trigger <> 'arrival', formed_at, id",
            (text(now),),
        )

    def next_due(self) -> datetime | None:
        """When the next batch may start."""
        row = self._store.row(
            "SELECT min(due_at) FROM batch WHERE ended_at IS NULL AND state <> 'running'"
        )
        return datetime.fromisoformat(row[0]) if row and row[0] else None

    def live_runs(self) -> list[RunRow]:
        """Every run that has not ended."""
        return self._runs("WHERE run.ended_at IS NULL ORDER BY run.id")

    def has_live_run(self, batch: str) -> bool:
        """Whether a run of this batch has not ended."""
        row = self._store.row("SELECT 1 FROM run WHERE batch_id = ? AND ended_at IS NULL", (batch,))
        return row is not None

    def has_dead_files(self, batch: str) -> bool:
        """Whether a version is quarantined because this batch is dead, and can be retried."""
        row = self._store.row(
            "SELECT 1 FROM batch_file JOIN file ON id = file_id"
            " WHERE batch_id = ? AND state = 'quarantined' AND cause = 'dead'",
            (batch,),
        )
        return row is not None

    def run_ids(self) -> set[str]:
        """The Run IDs of everything published."""
        rows = self._store.each("SELECT run_id FROM run WHERE state = 'succeeded'")
        return {row[0] for row in rows}

    def next_attempt(self, batch: str) -> int:
        """The number after a batch's last attempt."""
        return 1 + self._count("SELECT max(attempt) FROM run WHERE batch_id = ?", (batch,))

    def ended(self, batch: str) -> list[Ended]:
        """How a batch's runs ended so far, oldest first."""
        rows = self._store.rows(
            "SELECT state, results, run_id IS NOT NULL FROM run"
            " WHERE batch_id = ? AND ended_at IS NOT NULL"
            " ORDER BY id",
            (batch,),
        )
        return [Ended(RunState(state), results, bool(began)) for state, results, began in rows]

    def never_began(self, batch: str) -> str:
        """Why a batch's last run that ended never began, if none has begun since; or ""."""
        row = self._store.row(
            "SELECT error FROM run WHERE batch_id = ? AND ended_at IS NOT NULL AND run_id IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM run AS later WHERE later.batch_id = run.batch_id"
            " AND later.id > run.id AND (later.ended_at IS NOT NULL OR later.run_id IS NOT NULL))",
            (batch,),
        )
        return row[0] if row else ""

    def held_back(self, batch: str) -> str:
        """Why a batch could not start when that was last tried, if it has not started since."""
        row = self._store.row(
            "SELECT kind, detail FROM event WHERE batch_id = ?"
            " AND kind IN ('batch.held_back', 'run.running') ORDER BY id DESC LIMIT 1",
            (batch,),
        )
        return row[1] if row and row[0] == "batch.held_back" else ""

    def planned(self, batch: str) -> list[PlannedFile]:
        """A batch's files, for its plan."""
        rows = self._store.rows(
            "SELECT path, version, sha256, size_bytes, away_to FROM batch_file"
            " JOIN file ON id = file_id WHERE batch_id = ? ORDER BY id",
            (batch,),
        )
        return [
            PlannedFile(path=path, version=version, sha256=sha256, size_bytes=size, kept_at=kept)
            for path, version, sha256, size, kept in rows
        ]

    def replaced(self, batch: str) -> set[str]:
        """The paths of a batch's versions that a newer one has replaced before they were read."""
        return {path for _, path in self._store.rows(REPLACED_FILES, (batch,))}

    # ------------------------------------------------------------------ for people

    def counts(self, thing: str) -> dict[str, int]:
        """How many files, batches or runs are in each state."""
        states = {"file": FileState, "batch": BatchState, "run": RunState}[thing]
        counted = {
            state.value: self._count(f"SELECT count(*) FROM {thing} WHERE state = ?", (state,))
            for state in states
        }
        return {state: count for state, count in counted.items() if count or thing == "file"}

    def total(self) -> int:
        """How many versions of files were ever seen."""
        return self._count("SELECT count(*) FROM file")

    def _count(self, sql: str, args: Sequence[object] = ()) -> int:
        row = self._store.row(sql, args)
        return int(row[0] or 0) if row else 0

    def files(self, where: str = "", args: Sequence[object] = ()) -> Iterator[FileRow]:
        """Versions by path and number. `where` is one of this module's conditions."""
        for row in self._store.each(f"{FILE_COLUMNS} {where} ORDER BY path, version", args):
            yield file_row(row)

    def files_in(self, state: FileState) -> Iterator[FileRow]:
        """Every version in one state."""
        return self.files("WHERE state = ?", (state,))

    def versions(self, path: str) -> list[FileRow]:
        """Every version of one path, oldest first."""
        return list(self.files("WHERE path = ?", (path,)))

    def latest(self, paths: Sequence[str] | None = None) -> list[FileRow]:
        """The newest version of each path, or of the given ones."""
        if paths is None:
            return list(self.files(f"WHERE {_NEWEST}"))
        found: list[FileRow] = []
        for start in range(0, len(paths), BATCH_ROWS):
            some = paths[start : start + BATCH_ROWS]
            marks = ", ".join("?" * len(some))
            found += self.files(f"WHERE path IN ({marks}) AND {_NEWEST}", some)
        return found

    def newest(self, state: FileState) -> Iterator[FileRow]:
        """The newest version of each path that has it in this state."""
        return self.files(f"WHERE state = ? AND {_NEWEST}", (state,))

    def unpublished(self, selection: str) -> Iterator[FileRow]:
        """Newest versions that are published, but not yet by a rerun over this selection."""
        return self.files(
            f"WHERE {_NEWEST} AND state = 'processed' AND NOT EXISTS"
            " (SELECT 1 FROM output JOIN run ON run.id = run JOIN batch ON batch.id = batch_id"
            "  WHERE file_id = file.id AND selection = ?)",
            (selection,),
        )

    def seen(self, paths: Sequence[str]) -> dict[str, str]:
        """How the latest version of each of these paths looked when last seen, if known."""
        found: dict[str, str] = {}
        for start in range(0, len(paths), BATCH_ROWS):
            some = paths[start : start + BATCH_ROWS]
            marks = ", ".join("?" * len(some))
            found |= dict(
                self._store.rows(
                    f"SELECT path, stat FROM file WHERE path IN ({marks}) ORDER BY version", some
                )
            )
        return found

    def has_path_within(self, first: str, last: str) -> bool:
        """Whether a version of a path in this range is known: not before `first`, before `last`."""
        row = self._store.row(
            "SELECT 1 FROM file WHERE path >= ? AND path < ? LIMIT 1", (first, last)
        )
        return row is not None

    def batch(self, batch: str) -> BatchRow | None:
        """One batch."""
        found = self._batches("WHERE id = ?", (batch,))
        return found[0] if found else None

    def batches_in(self, state: BatchState) -> list[BatchRow]:
        """Every batch in one state, oldest first."""
        return self._batches("WHERE state = ? ORDER BY formed_at, id", (state,))

    def batch_paths(self, batch: str) -> list[str]:
        """The paths of a batch's files."""
        return [item.path for item in self.planned(batch)]

    def runs(self) -> Iterator[RunRow]:
        """Every run, oldest first."""
        for row in self._store.each(f"{_RUN} ORDER BY run.id"):
            yield run_row(row)

    def runs_of(self, batch: str) -> list[RunRow]:
        """A batch's runs, oldest first."""
        return self._runs("WHERE batch_id = ? ORDER BY run.id", (batch,))

    def run(self, run_id: str) -> RunRow | None:
        """One run by its Run ID."""
        found = self._runs("WHERE run_id = ?", (run_id,))
        return found[0] if found else None

    def outputs(self, run_id: str) -> list[str]:
        """The names that a run published."""
        rows = self._store.rows(
            "SELECT name FROM output JOIN run ON run.id = run WHERE run_id = ? ORDER BY name",
            (run_id,),
        )
        return [row[0] for row in rows]

    def hashes(self, run_id: str) -> dict[str, str]:
        """The names that a run published, each with its SHA-256."""
        rows = self._store.rows(
            "SELECT name, sha256 FROM output JOIN run ON run.id = run WHERE run_id = ?", (run_id,)
        )
        return dict(rows)

    def events(self, path: str) -> list[EventRow]:
        """A path's history, with the events of the batches that claimed it."""
        rows = self._store.rows(
            """
            WITH mine AS (SELECT id FROM file WHERE path = ?)
            SELECT at, kind, detail FROM event
            WHERE id IN (SELECT id FROM event WHERE file_id IN mine)
               OR id IN (SELECT id FROM event WHERE file_id IS NULL AND batch_id IN
                         (SELECT batch_id FROM batch_file WHERE file_id IN mine))
            ORDER BY id
            """,
            (path,),
        )
        return [EventRow(*row) for row in rows]

    def _batches(self, rest: str, args: Sequence[object]) -> list[BatchRow]:
        rows = self._store.rows(f"{_BATCH} {rest}", args)
        return [
            BatchRow(
                id=row[0],
                state=BatchState(row[1]),
                trigger=Trigger(row[2]),
                formed_at=row[3],
                due_at=row[4],
                reason=row[5],
                selection=row[6],
            )
            for row in rows
        ]

    def _runs(self, rest: str, args: Sequence[object] = ()) -> list[RunRow]:
        return [run_row(row) for row in self._store.rows(f"{_RUN} {rest}", args)]


def file_row(row: Row) -> FileRow:
    """A version from a row of `FILE_COLUMNS`."""
    values = dict(zip(FileRow.__slots__, row, strict=True))
    return FileRow(**{**values, "state": FileState(values["state"])})


def run_row(row: Row) -> RunRow:
    """A run from a row of `RUN_COLUMNS`."""
    values = dict(zip(RunRow.__slots__, row, strict=True))
    ending = values["ending"]
    return RunRow(
        **{
            **values,
            "state": RunState(values["state"]),
            "ending": RunState(ending) if ending else None,
            "trigger": Trigger(values["trigger"]),
        }
    )
