"""Schedules: since when each exists, requests to fire one now, and what its fires did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ds_flow.core import FireOutcome, Trigger
from ds_flow.ledger.batches import Batches
from ds_flow.ledger.store import Row, Store, text

RUN_PREFIX = "run:"  # a selection of the files of one run
KEPT_FIRES = 10_000  # for each schedule: a week, if it fires every minute


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """One schedule, as a daemon read it from the settings."""

    timetable: str
    since_at: datetime
    asked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """One fire of one schedule, and what it did. `batch` is the one it formed or verified."""

    schedule: str
    due_at: datetime
    outcome: FireOutcome
    batch: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run that published a rerun over some selection."""

    run_id: str
    batch: str
    analysis_error: str  # why its newest analysis failed


@dataclass(frozen=True, slots=True)
class FireRow:
    """A recorded fire."""

    fire: Fire
    at: datetime


class Schedules:
    """Moves and questions. Each move is one transaction."""

    def __init__(self, store: Store, batches: Batches) -> None:
        self._store = store
        self._batches = batches

    # ------------------------------------------------------------------ moves

    def keep(self, timetables: Mapping[str, str], now: datetime) -> None:
        """Begin schedules that are new or changed, and forget those that no longer exist.

        A schedule that began in the future begins again: the clock was wrong then.
        """
        with self._store.transaction():
            for name in self.rows().keys() - timetables.keys():
                self._store.change("DELETE FROM schedule WHERE name = ?", (name,))
            self._store.change_many(
                "INSERT INTO schedule (name, timetable, since_at) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE"
                " SET timetable = excluded.timetable, since_at = excluded.since_at"
                " WHERE timetable <> excluded.timetable OR since_at > excluded.since_at",
                ((name, timetable, text(now)) for name, timetable in timetables.items()),
            )

    def ask(self, name: str, timetable: str, now: datetime) -> None:
        """Record a person's request to fire now."""
        with self._store.transaction():
            asked_at = now
            while self.is_done(name, asked_at):  # the clock was set back to that very moment
                asked_at += timedelta(milliseconds=1)
            self._store.change(
                "INSERT INTO schedule (name, timetable, since_at, asked_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET asked_at = excluded.asked_at",
                (name, timetable, text(now), text(asked_at)),
            )
            self._store.note(now, "schedule.asked", detail=name)

    def record(self, fire: Fire, now: datetime) -> None:
        """Enter a fire that formed no batch."""
        with self._store.transaction():
            self._enter(fire, now)

    def form(self, fire: Fire, selection: str, file_ids: Sequence[int], now: datetime) -> int:
        """Enter a fire with its batch, of those files that are free. Returns how many.

        Without any there is no batch, and the fire is not entered.
        """
        if fire.batch is None:
            return 0
        with self._store.transaction():
            files = self._batches.form(
                fire.batch,
                file_ids,
                Trigger.SCHEDULE,
                now,
                detail=f"by schedule {fire.schedule}",
                selection=selection,
            )
            if files:
                self._enter(fire, now)
            return files

    def _enter(self, fire: Fire, now: datetime) -> None:
        name, due_at = fire.schedule, text(fire.due_at)
        self._store.insert(
            "INSERT INTO fire (schedule, due_at, at, outcome, batch_id, detail)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (name, due_at, text(now), fire.outcome, fire.batch, fire.detail),
        )
        self._store.change(
            "UPDATE schedule SET asked_at = NULL WHERE name = ? AND asked_at = ?", (name, due_at)
        )
        self._store.change(
            "DELETE FROM fire WHERE id <= (SELECT id FROM fire WHERE schedule = ?"
            " ORDER BY id DESC LIMIT 1 OFFSET ?) AND schedule = ?",
            (name, KEPT_FIRES, name),
        )
        detail = ": ".join(filter(None, (name, fire.detail)))
        self._store.note(now, f"schedule.{fire.outcome}", batch_id=fire.batch, detail=detail)

    # ------------------------------------------------------------------ questions

    def rows(self) -> dict[str, ScheduleRow]:
        """Every schedule by its name."""
        rows = self._store.rows("SELECT name, timetable, since_at, asked_at FROM schedule")
        return {
            name: ScheduleRow(
                timetable=timetable,
                since_at=datetime.fromisoformat(since_at),
                asked_at=datetime.fromisoformat(asked_at) if asked_at else None,
            )
            for name, timetable, since_at, asked_at in rows
        }

    def last(self, name: str) -> FireRow | None:
        """The fire of a schedule that was recorded last."""
        row = self._store.row(
            "SELECT due_at, outcome, batch_id, detail, at FROM fire WHERE schedule = ?"
            " ORDER BY id DESC LIMIT 1",
            (name,),
        )
        return _fire_row(name, row) if row else None

    def is_done(self, name: str, due_at: datetime) -> bool:
        """Whether this fire was recorded."""
        row = self._store.row(
            "SELECT 1 FROM fire WHERE schedule = ? AND due_at = ?", (name, text(due_at))
        )
        return row is not None

    def live_batch(self, selection: str) -> str | None:
        """The rerun over this selection that has not ended, if there is one."""
        row = self._store.row(
            "SELECT id FROM batch WHERE selection = ? AND selection <> '' AND ended_at IS NULL",
            (selection,),
        )
        return row[0] if row else None

    def last_run(self, selection: str) -> LastRun | None:
        """The newest run that published a rerun over this selection.

        For the files of one run, that run itself counts as the first.
        """
        run_id = selection.removeprefix(RUN_PREFIX) if selection.startswith(RUN_PREFIX) else None
        row = self._store.row(
            "SELECT run_id, batch_id, analysis_error FROM run"
            " WHERE state = 'succeeded' AND (run_id = ?"
            " OR batch_id IN (SELECT id FROM batch WHERE selection = ? AND selection <> ''))"
            " ORDER BY run.id DESC LIMIT 1",
            (run_id, selection),
        )
        return LastRun(*row) if row else None


def _fire_row(name: str, row: Row) -> FireRow:
    """A fire of a schedule from a row of the ledger."""
    due_at, outcome, batch, detail, at = row
    fire = Fire(
        schedule=name,
        due_at=datetime.fromisoformat(due_at),
        outcome=FireOutcome(outcome),
        batch=batch,
        detail=detail,
    )
    return FireRow(fire, datetime.fromisoformat(at))
