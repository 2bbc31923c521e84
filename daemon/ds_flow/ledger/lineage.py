"""Lineage: what was made from what, and the beginnings and ends of runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ds_flow.ledger.store import Row, Store, text

_MADE = """
    SELECT run_id, run.ended_at, run.removed_at IS NOT NULL, trigger, output.name, output.sha256,
        output.size_bytes, output.rows, file.path, file.version, file.sha256, file.size_bytes
    FROM output JOIN run ON run.id = output.run JOIN batch ON batch.id = run.batch_id
        LEFT JOIN file ON file.id = output.file_id
"""


RUN_STATES = ("running", "succeeded", "failed", "timed_out", "lost", "stopped", "cancelled")
_KINDS = ", ".join(f"'run.{state}'" for state in RUN_STATES)
_LAST_RUN_EVENT = "SELECT max({})".format(  # of each kind first: the daemon asks once a second
    ", ".join(
        f"coalesce((SELECT max(id) FROM event WHERE kind = 'run.{state}'), 0)"
        for state in RUN_STATES
    )
)
_RUN_EVENTS = f"""
    SELECT event.id, event.at, event.kind, run_id, attempt, run.batch_id, trigger, formed_at,
        (SELECT due_at FROM fire WHERE fire.batch_id = run.batch_id AND outcome = 'run'), error
    FROM event JOIN run ON run.id = event.run JOIN batch ON batch.id = run.batch_id
    WHERE event.kind IN ({_KINDS}) AND event.id > ? AND run_id IS NOT NULL
    ORDER BY event.id LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A run began, or ended. `due_at`: of the fire that formed its batch."""

    id: int
    at: str
    kind: str
    run_id: str
    attempt: int
    batch: str
    trigger: str
    formed_at: str
    due_at: str | None
    error: str


@dataclass(frozen=True, slots=True)
class Made:
    """One output with its run, and the version that it was made from. A combined file has none."""

    run_id: str
    published_at: str
    is_removed: bool
    trigger: str
    name: str
    sha256: str
    size_bytes: int
    rows: int
    path: str | None
    version: int | None
    input_sha256: str | None
    input_bytes: int | None


class Lineage:
    """Questions: what was made from what, and which runs began and ended."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run_of(self, name: str) -> str | None:
        """The Run ID of the run that published an output under this name.

        The name ends with the Run ID, so no list of all outputs is searched.
        """
        parts = name.removesuffix(".csv").removesuffix(".parquet").split("_")
        tails = ["_".join(parts[start:]) for start in range(1, len(parts))]
        marks = ", ".join("?" * len(tails))
        row = self._store.row(
            "SELECT run_id FROM run JOIN output ON output.run = run.id"
            f" WHERE run_id IN ({marks}) AND name = ?",
            (*tails, name),
        )
        return row[0] if row else None

    def outputs_of(self, run_id: str) -> list[Made]:
        """Everything that a run published; the combined file first."""
        return list(self._made("WHERE run_id = ? ORDER BY file_id", (run_id,)))

    def made_of(self, path: str) -> Iterator[Made]:
        """Everything that was made of any version of a file: its own outputs, oldest run first.

        After them come the combined files of the same runs.
        """
        yield from self._made("WHERE file.path = ? ORDER BY run.id", (path,))
        # A name tells more than file_id here: by it, a run's many outputs need not be read.
        yield from self._made(
            "WHERE output.name GLOB 'final_combined_*' AND output.file_id IS NULL"
            " AND output.run IN"
            " (SELECT own.run FROM file AS mine JOIN output AS own ON own.file_id = mine.id"
            "  WHERE mine.path = ?) ORDER BY run.id",
            (path,),
        )

    def run_events(self, after: int, limit: int) -> list[RunEvent]:
        """The oldest beginnings and ends of runs after an event, of runs with a Run ID only."""
        return [RunEvent(*row) for row in self._store.rows(_RUN_EVENTS, (after, limit))]

    def last_run_event(self) -> int:
        """The id of the newest beginning or end of a run; 0 if there is none."""
        row = self._store.row(_LAST_RUN_EVENT)
        return row[0] if row else 0

    def events_before(self, at: datetime) -> int:
        """The id of the last beginning or end of a run before a time; 0 if there is none."""
        row = self._store.row(
            f"SELECT max(id) FROM event WHERE kind IN ({_KINDS}) AND at < ?", (text(at),)
        )
        return row[0] or 0 if row else 0

    def _made(self, rest: str, args: Sequence[object]) -> Iterator[Made]:
        yield from map(_made, self._store.each(f"{_MADE} {rest}", args))


def _made(row: Row) -> Made:
    run_id, at, removed, *others = row
    return Made(run_id, at, bool(removed), *others)
