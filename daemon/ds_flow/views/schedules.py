"""Schedules as documents: when each fires next, and what came of its last fire."""

from datetime import datetime

from ds_flow.core import AFTER_PAUSE, Document, FireOutcome, Pause, Timetable, is_missed
from ds_flow.ledger import Ledger
from ds_flow.settings import Schedule


def schedule_document(ledger: Ledger, schedule: Schedule, now: datetime) -> Document:
    """One schedule, with its next fire and the outcome of its last."""
    row = ledger.schedules.rows().get(schedule.name)
    next_at = Timetable(schedule.cron, schedule.timezone).next_after(now)
    return {
        **schedule.model_dump(),
        "next_at": next_at.isoformat() if next_at else None,
        "paused": pause_document(ledger.pauses.of(schedule.name, now)),
        "asked_at": row.asked_at.isoformat() if row and row.asked_at else None,
        **_last_fire(ledger, schedule),
    }


def pause_document(pause: Pause | None) -> Document | None:
    """A pause that is in force, as an object."""
    if pause is None:
        return None
    return {
        "since_at": pause.since_at.isoformat(),
        "until_at": pause.until_at.isoformat() if pause.until_at else None,
        "who": pause.who,
        "why": pause.why,
    }


def _last_fire(ledger: Ledger, schedule: Schedule) -> Document:
    last = ledger.schedules.last(schedule.name)
    batch = last.fire.batch if last else None
    runs = ledger.read.runs_of(batch) if batch else []
    return {
        "last_due_at": last.fire.due_at.isoformat() if last else None,
        "last_at": last.at.isoformat() if last else None,
        "was_late": last is not None
        and was_late(last.fire.outcome, last.fire.due_at, last.at, last.fire.detail),
        "outcome": last.fire.outcome if last else None,
        "batch": batch,
        "run_id": runs[-1].run_id if runs else None,
        "detail": last.fire.detail if last else "",
    }


def was_late(outcome: FireOutcome, due_at: datetime, at: datetime, detail: str) -> bool:
    """Whether a fire was caught up. One that a person asked for is due when it was asked for.

    One that waited for the end of a pause, or was skipped in it, is as it was meant.
    """
    is_meant = outcome == FireOutcome.SKIPPED or detail.startswith(AFTER_PAUSE)
    return outcome != FireOutcome.MISSED and not is_meant and is_missed(due_at, at)
