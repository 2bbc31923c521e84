"""Figures: what metrics and reports tell of all files and runs. SQLite adds up, not Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ds_flow.ledger.queries import IS_NO_COPY, RUN_COLUMNS, run_row
from ds_flow.ledger.rows import RunRow, SetAside
from ds_flow.ledger.store import Store, text

_SECONDS = "(julianday({until}) - julianday({since})) * 86400"
_DURATIONS = f"""
    SELECT {_SECONDS.format(since="started_at", until="ended_at")} AS value FROM run
    WHERE ended_at > ?
"""
# Only batches of new files: a rerun publishes a file again, long after it has come. Content that
# came again after its publication has a later time than that: it took no time.
_LATENCIES = f"""
    SELECT max(0, {_SECONDS.format(since="seen_at", until="run.ended_at")}) AS value
    FROM run JOIN batch ON batch.id = run.batch_id JOIN output ON output.run = run.id
        JOIN file ON file.id = output.file_id
    WHERE run.ended_at > ? AND run.state = 'succeeded' AND trigger IN ('arrival', 'retry')
"""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values are at most each limit, how many there are, and their sum."""

    limits: Sequence[float]
    counts: Sequence[int]
    count: int
    total: float


@dataclass(frozen=True, slots=True)
class Published:
    """What was published so far: the files' own outputs, and the combined files."""

    own_bytes: int
    own_rows: int
    combined_bytes: int
    combined_rows: int


@dataclass(frozen=True, slots=True)
class RunOutput:
    """What one run published, in sum: the rows are those of the files' own outputs."""

    ended_at: str
    files: int
    rows: int
    size_bytes: int


class Figures:
    """Counts and sums. A question reads each row of its tables once at most."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def quarantined(self) -> dict[str, int]:
        """How many versions are quarantined, by cause."""
        return dict(
            self._store.rows(
                "SELECT cause, count(*) FROM file WHERE state = 'quarantined' GROUP BY cause"
            )
        )

    def ended_runs(self) -> dict[tuple[str, str], int]:
        """How many runs have ended, by end and trigger."""
        rows = self._store.rows(
            "SELECT run.state, trigger, count(*) FROM run JOIN batch ON batch.id = batch_id"
            " WHERE run.ended_at IS NOT NULL GROUP BY run.state, trigger"
        )
        return {(state, trigger): count for state, trigger, count in rows}

    def published(self) -> Published:
        """What all runs have published, also what retention removed since."""
        row = self._store.row(
            f"SELECT sum(size_bytes), sum(iif({IS_NO_COPY}, rows, 0)),"
            " sum(iif(file_id IS NULL, size_bytes, 0)),"
            f" sum(iif(file_id IS NULL AND {IS_NO_COPY}, rows, 0)) FROM output"
        )
        size, rows, combined_size, combined_rows = (number or 0 for number in row or (0,) * 4)
        return Published(size - combined_size, rows - combined_rows, combined_size, combined_rows)

    def last_success(self) -> datetime | None:
        """When a run last published."""
        return self._time(
            "SELECT ended_at FROM run WHERE state = 'succeeded' ORDER BY id DESC LIMIT 1"
        )

    def waiting_since(self) -> datetime | None:
        """Since when the oldest waiting version waits."""
        return self._time(
            "SELECT max(at) FROM event WHERE kind = 'file.waiting' AND file_id ="
            " (SELECT id FROM file WHERE state = 'waiting' ORDER BY id LIMIT 1)"
        )

    def unfinished_since(self) -> datetime | None:
        """When the oldest batch was formed that has not ended."""
        return self._time("SELECT min(formed_at) FROM batch WHERE ended_at IS NULL")

    def missed_fires(self, since: datetime) -> dict[str, int]:
        """How many fires of each schedule were missed after a time."""
        return dict(
            self._store.rows(
                "SELECT schedule, count(*) FROM fire WHERE outcome = 'missed' AND at > ?"
                " GROUP BY schedule",
                (text(since),),
            )
        )

    def durations(self, limits: Sequence[float], since: datetime) -> Histogram:
        """How long the runs took that ended after a time, in seconds."""
        return self._histogram(_DURATIONS, limits, since)

    def latencies(self, limits: Sequence[float], since: datetime) -> Histogram:
        """How long new files took from arrival to publication after a time, in seconds."""
        return self._histogram(_LATENCIES, limits, since)

    def arrived(self, since: datetime) -> int:
        """How many versions arrived after a time, for the first time or again."""
        row = self._store.row("SELECT count(*) FROM file WHERE seen_at > ?", (text(since),))
        return row[0] if row else 0

    def runs(self, since: datetime) -> list[RunRow]:
        """The runs that ended after a time, or have not ended, newest first."""
        rows = self._store.rows(
            f"SELECT {RUN_COLUMNS} FROM run JOIN batch ON batch.id = batch_id"
            " WHERE run.ended_at IS NULL OR run.ended_at > ? ORDER BY run.id DESC",
            (text(since),),
        )
        return [run_row(row) for row in rows]

    def outputs(self, since: datetime) -> list[RunOutput]:
        """What each run published that ended after a time, oldest first."""
        rows = self._store.rows(
            "SELECT ended_at, total(file_id IS NOT NULL), total(iif(file_id IS NULL, 0, rows)),"
            " total(size_bytes) FROM run JOIN output ON output.run = run.id"
            " WHERE ended_at > ? GROUP BY run.id ORDER BY run.id",
            (text(since),),
        )
        return [RunOutput(at, int(files), int(count), int(size)) for at, files, count, size in rows]

    def set_aside(self, since: datetime, limit: int) -> tuple[int, list[SetAside]]:
        """How many versions were quarantined after a time, and the newest of them."""
        new = "kind = 'file.quarantined' AND at > ?"
        count = self._store.row(f"SELECT count(*) FROM event WHERE {new}", (text(since),))
        rows = self._store.rows(
            "SELECT at, path, version, cause, detail FROM event JOIN file ON file.id = file_id"
            f" WHERE {new} ORDER BY event.id DESC LIMIT ?",
            (text(since), limit),
        )
        return (count[0] if count else 0), [SetAside(*row) for row in rows]

    def _histogram(self, values: str, limits: Sequence[float], since: datetime) -> Histogram:
        each = ", ".join(["total(value <= ?)"] * len(limits))
        row = self._store.row(
            f"WITH found AS ({values}) SELECT count(*), total(value), {each} FROM found",
            (text(since), *limits),
        )
        count, total, *counts = row or (0, 0.0, *(0 for _ in limits))
        return Histogram(limits, [int(number) for number in counts], count, total)

    def _time(self, sql: str) -> datetime | None:
        row = self._store.row(sql)
        return datetime.fromisoformat(row[0]) if row and row[0] else None
