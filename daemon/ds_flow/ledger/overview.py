"""Short questions about the whole: what a day brought, and what waits for a person.

None of them gets slower with the length of the history, so a page may ask them again and again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ds_flow.core import FireOutcome, RunState
from ds_flow.ledger.queries import IS_LOOK, IS_NO_COPY
from ds_flow.ledger.rows import SetAside
from ds_flow.ledger.store import Row, Store, text

COUNTED_RUNS = 10_000  # the newest; more in a day are not counted
COUNTED_EVENTS = 10_000
LOOKED_THROUGH = 1000  # of the newest dead batches and quarantined files

COMBINED = ("final_combined_", "final_combined`")
"""A name of a combined file is between these two: "`" comes after "_"."""

FAILURES = (RunState.FAILED.value, RunState.TIMED_OUT.value, RunState.LOST.value)
"""The ends of runs that count as failures."""

_LEFT = """
    EXISTS (SELECT 1 FROM batch_file JOIN file ON file.id = file_id
        WHERE batch_file.batch_id = batch.id AND state = 'quarantined' AND cause = 'dead')
"""
_DEAD = f"""
    SELECT id, reason, ended_at FROM
        (SELECT id, reason, ended_at FROM batch WHERE state = 'dead' ORDER BY rowid DESC LIMIT ?)
    AS batch WHERE {_LEFT} LIMIT ?
"""
_MENDED = f"(batch.state = 'succeeded' OR (batch.state = 'dead' AND NOT {_LEFT}))"

_SET_ASIDE = f"""
    SELECT (SELECT max(at) FROM event WHERE file_id = file.id),
        path, version, cause, reason, away_to
    FROM (SELECT id, path, version, cause, reason, away_to FROM file WHERE state = 'quarantined'
          ORDER BY id DESC LIMIT ?) AS file
    WHERE NOT EXISTS (SELECT 1 FROM file AS newer WHERE newer.path = file.path
        AND newer.version > file.version AND NOT ({IS_LOOK}))
    LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class DeadBatch:
    """A batch that has used up its attempts, and has files that nothing else has taken since."""

    id: str
    reason: str
    ended_at: str


@dataclass(frozen=True, slots=True)
class LostRun:
    """A run that was lost, of a batch that is not published yet."""

    name: str  # Run ID, or batch and attempt
    error: str
    ended_at: datetime
    again: str  # the name of the newest attempt after it; "" if there is none


@dataclass(frozen=True, slots=True)
class Day:
    """What came since a time."""

    runs: dict[str, int]  # by state
    repaired: int  # of those that failed: their files were published or taken since
    files: int  # published
    rows: int  # in the combined files
    set_aside: int  # files


@dataclass(frozen=True, slots=True)
class Combined:
    """The newest combined file."""

    run_id: str
    name: str
    rows: int
    bytes: int
    at: str


@dataclass(frozen=True, slots=True)
class PastFire:
    """One fire that was recorded, with the newest run of its batch."""

    schedule: str
    due_at: str
    at: str
    outcome: FireOutcome
    detail: str
    batch: str | None
    run_id: str | None
    run_state: str | None


class Overview:
    """Questions about the whole, each with a bound on what it reads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def dead(self, limit: int) -> list[DeadBatch]:
        """The newest dead batches that can be retried, newest first."""
        rows = self._store.rows(_DEAD, (LOOKED_THROUGH, limit))
        return [DeadBatch(*row) for row in rows]

    def repaired(self, dead: int) -> int:
        """How many of so many dead batches have no file left that nothing else has taken."""
        return max(0, dead - len(self.dead(LOOKED_THROUGH))) if dead else 0

    def is_replaced(self, run_id: str) -> bool:
        """Whether newer runs, whose outputs are still there, have published every file of a run."""
        row = self._store.row(
            "SELECT 1 FROM run WHERE run_id = ? AND NOT EXISTS ("
            "  SELECT 1 FROM output AS mine JOIN file ON file.id = mine.file_id"
            "  WHERE mine.run = run.id AND NOT EXISTS ("
            "   SELECT 1 FROM file AS other JOIN output AS newer ON newer.file_id = other.id"
            "   JOIN run AS later ON later.id = newer.run"
            "   WHERE other.path = file.path AND newer.run > mine.run"
            "   AND later.removed_at IS NULL))",
            (run_id,),
        )
        return row is not None

    def set_aside(self, limit: int) -> list[SetAside]:
        """The newest quarantined versions that are the newest of their files, newest first."""
        rows = self._store.rows(_SET_ASIDE, (LOOKED_THROUGH, limit))
        return [SetAside(*row) for row in rows]

    def lost(self, since: datetime, limit: int) -> list[LostRun]:
        """The runs that were lost after a time, newest first, of batches that still live."""
        rows = self._store.rows(
            "SELECT coalesce(run.run_id, run.batch_id || '/' || run.attempt), error, run.ended_at,"
            " coalesce((SELECT coalesce(run_id, batch_id || '/' || attempt) FROM run AS later"
            "  WHERE later.batch_id = run.batch_id AND later.id > run.id"
            "  ORDER BY later.id DESC LIMIT 1), '')"
            " FROM run JOIN batch ON batch.id = run.batch_id"
            " WHERE run.state = 'lost' AND batch.ended_at IS NULL AND run.ended_at > ?"
            " ORDER BY run.id DESC LIMIT ?",
            (text(since), limit),
        )
        return [LostRun(name, why, datetime.fromisoformat(at), to) for name, why, at, to in rows]

    def since(self, at: datetime) -> Day:
        """Count the runs that began after a time, and what they published."""
        new = (
            "SELECT id, batch_id, state FROM (SELECT id, batch_id, state, started_at FROM run"
            f" ORDER BY id DESC LIMIT {COUNTED_RUNS}) WHERE started_at > ?1"
        )
        done = f"SELECT id FROM ({new}) WHERE state = 'succeeded'"
        runs = self._store.rows(f"SELECT state, count(*) FROM ({new}) GROUP BY 1", (text(at),))
        files = f"SELECT count(*) FROM output WHERE run IN ({done}) AND file_id IS NOT NULL"
        rows = (
            "SELECT coalesce(sum(rows), 0) FROM output"
            f" WHERE run IN ({done}) AND name BETWEEN ?2 AND ?3 AND {IS_NO_COPY}"
        )
        aside = (
            "SELECT count(DISTINCT file_id) FROM (SELECT file_id, at FROM event"
            f" WHERE kind = 'file.quarantined' ORDER BY id DESC LIMIT {COUNTED_EVENTS})"
            " WHERE at > ?1"
        )
        mended = (
            f"SELECT count(*) FROM ({new}) AS new JOIN batch ON batch.id = batch_id"
            f" WHERE new.state IN {FAILURES} AND {_MENDED}"
        )
        return Day(
            runs=dict(runs),
            repaired=self._count(mended, (text(at),)),
            files=self._count(files, (text(at),)),
            rows=self._count(rows, (text(at), *COMBINED)),
            set_aside=self._count(aside, (text(at),)),
        )

    def newest_combined(self) -> Combined | None:
        """The newest combined file that is there. A run that sets all files aside makes none."""
        row = self._store.row(
            "SELECT run_id, name, rows, size_bytes, ended_at FROM run CROSS JOIN output"
            f" ON output.run = run.id AND name BETWEEN ? AND ? AND {IS_NO_COPY}"
            " WHERE state = 'succeeded' AND removed_at IS NULL ORDER BY run.id DESC LIMIT 1",
            COMBINED,
        )
        return Combined(*row) if row else None

    def fires(self, schedule: str, since: datetime | None, limit: int) -> list[PastFire]:
        """A schedule's newest fires, newest first: those due after a time, if one is given."""
        rows = self._store.rows(
            "SELECT schedule, due_at, at, outcome, detail, fire.batch_id, run.run_id, run.state"
            " FROM fire LEFT JOIN run ON run.id ="
            "  (SELECT max(id) FROM run WHERE run.batch_id = fire.batch_id)"
            " WHERE schedule = ? AND due_at > ? ORDER BY due_at DESC LIMIT ?",
            (schedule, text(since) if since else "", limit),
        )
        return [_fire(row) for row in rows]

    def _count(self, sql: str, args: Sequence[object]) -> int:
        row = self._store.row(sql, args)
        return int(row[0]) if row else 0


def _fire(row: Row) -> PastFire:
    schedule, due_at, at, outcome, *rest = row
    return PastFire(schedule, due_at, at, FireOutcome(outcome), *rest)
