"""The history: all runs, alerts that are due, and what retention removes."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ds_flow.core import RunState
from ds_flow.ledger.deliveries import DeliveryRow, delivery_row
from ds_flow.ledger.queries import RUN_COLUMNS, run_row
from ds_flow.ledger.rows import RunRow
from ds_flow.ledger.store import Row, Store, text

LEFT_OUT = "file.left_out"  # a rerun did not publish it; the earlier output stays
ANALYSIS_FAILED = "analysis.failed"
JOBS_REDONE = "jobs.done_again"  # they failed, such as those that somebody killed
ANALYSIS_SUCCEEDED = "analysis.succeeded"  # one that was done again

REMOVED_AT_ONCE = 5000  # events in one transaction
ALERT_AGE = timedelta(days=1)  # older events, such as those before an upgrade, raise no alert
ALERT_EXAMPLES = 5
MEASURED_OUTPUTS = 200  # the newest, to see how files grow

_NOT_LATEST = """
    CASE
        WHEN file_id IS NOT NULL
            THEN id < (SELECT max(id) FROM event WHERE file_id = old.file_id)
        WHEN batch_id IS NOT NULL
            THEN id < (SELECT max(id) FROM event WHERE batch_id = old.batch_id
                       AND run IS old.run AND file_id IS NULL)
        ELSE id < (SELECT max(id) FROM event WHERE kind = old.kind)
    END
"""
_REPLACED = """
    SELECT run_id FROM run
    WHERE state = 'succeeded' AND removed_at IS NULL AND ended_at < ?
        AND NOT EXISTS (SELECT 1 FROM delivery WHERE run = run.id AND state = 'waiting')
        AND EXISTS (SELECT 1 FROM output WHERE output.run = run.id AND file_id IS NOT NULL)
        AND NOT EXISTS (
            SELECT 1 FROM output AS mine JOIN file ON file.id = mine.file_id
            WHERE mine.run = run.id AND ? > (
                SELECT count(DISTINCT newer.run)
                FROM file AS other JOIN output AS newer ON newer.file_id = other.id
                WHERE other.path = file.path
                    AND (other.version, newer.run) > (file.version, mine.run)))
    ORDER BY run.id
"""

_FAILED_ANALYSES = f"""
    SELECT {RUN_COLUMNS} FROM run JOIN batch ON batch.id = batch_id
    WHERE analysis_error <> '' AND removed_at IS NULL
        AND EXISTS (
            SELECT 1 FROM output AS mine JOIN file ON file.id = mine.file_id
            WHERE mine.run = run.id AND NOT EXISTS (
                SELECT 1 FROM file AS other JOIN output AS newer ON newer.file_id = other.id
                WHERE other.path = file.path AND newer.run > mine.run))
    ORDER BY run.id DESC
"""

LONG_RUN = f"""
    SELECT {RUN_COLUMNS},
        (SELECT json_group_array(path) FROM
            (SELECT path FROM batch_file JOIN file ON file.id = file_id
             WHERE batch_file.batch_id = run.batch_id ORDER BY file_id)),
        (SELECT json_group_array(name) FROM
            (SELECT name FROM output WHERE output.run = run.id ORDER BY name)),
        (SELECT json_group_array(json_array(id, run.run_id, run.batch_id, command, state, attempts,
            due_at, ended_at, reason)) FROM
            (SELECT * FROM delivery WHERE delivery.run = run.id ORDER BY id))
    FROM run JOIN batch ON batch.id = batch_id
"""


@dataclass(frozen=True, slots=True)
class LongRun:
    """One run with the paths of its batch, the names it published, and its deliveries."""

    row: RunRow
    inputs: list[str]
    outputs: list[str]
    deliveries: list[DeliveryRow]


@dataclass(frozen=True, slots=True)
class Told:
    """One event of an alert: what it is about, and what was noted."""

    path: str  # "" if it is about no file
    cause: str | None  # of a file that is quarantined
    batch: str
    run_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Events of one kind since the last alert of that kind: how many, and the first few."""

    kind: str
    count: int
    first_at: str
    last_at: str
    examples: tuple[str, ...]
    told: tuple[Told, ...] = ()  # the same events, in parts


class History:
    """All runs and events together. `Reading` answers questions about single ones."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, kind: str, detail: str, now: datetime) -> None:
        """Append an event that belongs to no file, batch or run."""
        with self._store.transaction():
            self._store.note(now, kind, detail=detail)

    def last(self, kind: str, start: str = "") -> tuple[datetime, str] | None:
        """Time and detail of the last event of this kind whose detail starts with `start`."""
        row = self._store.row(
            "SELECT at, detail FROM event WHERE kind = ? AND substr(detail, 1, ?) = ?"
            " ORDER BY id DESC LIMIT 1",
            (kind, len(start), start),
        )
        return (datetime.fromisoformat(row[0]), row[1]) if row else None

    def begun_at(self) -> datetime | None:
        """The time of the oldest event that is kept."""
        row = self._store.row("SELECT at FROM event ORDER BY id LIMIT 1")
        return datetime.fromisoformat(row[0]) if row else None

    def seen_since(self, at: datetime) -> Iterator[str]:
        """The paths of versions that arrived after a time, for the first time or again."""
        for (path,) in self._store.each("SELECT path FROM file WHERE seen_at > ?", (text(at),)):
            yield path

    def newest_runs(self, state: RunState | None, limit: int | None) -> Iterator[LongRun]:
        """The newest runs, or all of them, oldest first, each with what it read and published."""
        newest = "SELECT id FROM run WHERE ?1 IS NULL OR state = ?1 ORDER BY id DESC LIMIT ?2"
        for row in self._store.each(
            f"{LONG_RUN} WHERE run.id IN ({newest}) ORDER BY run.id",
            (state, -1 if limit is None else limit),
        ):
            yield long_run(row)

    def set_aside(self, batch: str) -> list[tuple[str, str, str]]:
        """The files that a batch did not publish: the kind of event, the path, and the reason."""
        rows = self._store.rows(
            "SELECT kind, path, detail FROM event JOIN file ON file.id = file_id"
            f" WHERE batch_id = ? AND kind IN ('{LEFT_OUT}', 'file.quarantined', 'file.superseded')"
            " ORDER BY path",
            (batch,),
        )
        return [(kind, path, detail) for kind, path, detail in rows]

    def failed_analyses(self) -> list[RunRow]:
        """The runs whose analysis failed, newest first, except replaced and removed ones."""
        return [run_row(row) for row in self._store.rows(_FAILED_ANALYSES)]

    def growth(self) -> float:
        """How many bytes of output a byte of input has become lately; 0 if nothing is known."""
        row = self._store.row(
            "SELECT sum(made.size_bytes), sum(file.size_bytes) FROM"
            " (SELECT file_id, size_bytes FROM output WHERE file_id IS NOT NULL"
            "  ORDER BY run DESC LIMIT ?) AS made JOIN file ON file.id = file_id",
            (MEASURED_OUTPUTS,),
        )
        made, read = row or (0, 0)
        return made / read if read else 0.0

    # ------------------------------------------------------------------ alerts

    def take_alert(
        self, kind: str, now: datetime, *, every: timedelta, gather: timedelta
    ) -> Alert | None:
        """Take the new events of one kind as an alert, and record it. None if it is not due yet.

        There is at most one alert of a kind in `every`. The first waits until its oldest event is
        `gather` old, so that one alert covers what happens together.
        """
        found = self._new_events(kind, now, every)
        if found is None or found.first_at > text(now - gather):
            return None
        with self._store.transaction():
            found = self._new_events(kind, now, every)  # another process may have been first
            if found is not None:
                self._store.note(now, f"alert.{kind}", detail=f"{found.count} since the last")
            return found

    def _new_events(self, kind: str, now: datetime, every: timedelta) -> Alert | None:
        last = self._store.row(
            "SELECT id, at FROM event WHERE kind = ? ORDER BY id DESC LIMIT 1", (f"alert.{kind}",)
        )
        after, alerted_at = last or (0, "")
        if text(now - every) < alerted_at <= text(now):
            return None
        args = (kind, after, text(now - ALERT_AGE))
        new = "kind = ? AND event.id > ? AND at > ?"
        row = self._store.row(f"SELECT count(*), min(at), max(at) FROM event WHERE {new}", args)
        if row is None or not row[0]:
            return None
        examples = self._store.rows(
            "SELECT coalesce(path, ''), cause, coalesce(event.batch_id, ''), coalesce(run_id, ''),"
            " detail FROM event LEFT JOIN file ON file.id = file_id LEFT JOIN run ON run.id = run"
            f" WHERE {new} ORDER BY event.id LIMIT ?",
            (*args, ALERT_EXAMPLES),
        )
        told = tuple(Told(*example) for example in examples)
        shown = tuple(": ".join(filter(None, (one.path or one.batch, one.detail))) for one in told)
        return Alert(
            kind=kind, count=row[0], first_at=row[1], last_at=row[2], examples=shown, told=told
        )

    # ------------------------------------------------------------------ retention

    def replaced_runs(self, before: datetime, by_count: int) -> list[str]:
        """The runs that ended before a time and whose every file was published again since.

        At least `by_count` runs must have published a newer version, or the same one later.
        """
        rows = self._store.rows(_REPLACED, (text(before), by_count))
        return [row[0] for row in rows]

    def remove_outputs(self, run_ids: Iterable[str], why: str, now: datetime) -> None:
        """Record that retention removed the outputs of runs."""
        with self._store.transaction():
            for run_id in run_ids:
                self._remove_outputs(run_id, why, now)

    def _remove_outputs(self, run_id: str, why: str, now: datetime) -> None:
        changed = self._store.change(
            "UPDATE run SET removed_at = ? WHERE run_id = ? AND removed_at IS NULL",
            (text(now), run_id),
        )
        if changed:
            run, batch = self._store.rows(
                "SELECT id, batch_id FROM run WHERE run_id = ?", (run_id,)
            )[0]
            self._store.note(now, "run.removed", batch_id=batch, run=run, detail=why)

    def old_events(self, before: datetime) -> Iterator[list[int]]:
        """The ids of events before a time, except the last of each file, run, batch or kind.

        They come in lists, each for one call of `forget`.
        """
        last = 0
        while rows := self._store.rows(
            f"SELECT id FROM event AS old WHERE id > ? AND at < ? AND {_NOT_LATEST}"
            " ORDER BY id LIMIT ?",
            (last, text(before), REMOVED_AT_ONCE),
        ):
            last = rows[-1][0]
            yield [row[0] for row in rows]

    def forget(self, events: Sequence[int]) -> None:
        """Remove events."""
        with self._store.transaction():
            self._store.change_many("DELETE FROM event WHERE id = ?", ((one,) for one in events))


def long_run(row: Row) -> LongRun:
    """A run from a row of `LONG_RUN`."""
    *run, inputs, outputs, deliveries = row
    return LongRun(
        run_row(tuple(run)),
        json.loads(inputs),
        json.loads(outputs),
        [delivery_row(one) for one in json.loads(deliveries)],
    )
