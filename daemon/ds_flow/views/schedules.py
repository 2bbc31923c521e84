"""Schedules as documents: when each fires next, and what came of its last fire."""

from datetime import datetime

from ds_flow.core import Document, FireOutcome, Timetable, is_missed
from ds_flow.ledger import Ledger
from ds_flow.settings import Schedule


def schedule_document(ledger: Ledger, schedule: Schedule, now: datetime) -> Document:
    """One schedule, with its next fire and the outcome of its last."""
    row = ledger.schedules.rows().get(schedule.name)
    next_at = Timetable(schedule.cron, schedule.timezone).next_after(now)
    return {
        **schedule.model_dump(),
        "next_at": next_at.isoformat() if next_at else None,
        "asked_at": row.asked_at.isoformat() if row and row.asked_at else None,
        **_last_fire(ledger, schedule),
    }


def _last_fire(ledger: Ledger, schedule: Schedule) -> Document:
    last = ledger.schedules.last(schedule.name)
    batch = last.fire.batch if last else None
    runs = ledger.read.runs_of(batch) if batch else []
    return {
        "last_due_at": last.fire.due_at.isoformat() if last else None,
        "last_at": last.at.isoformat() if last else None,
        "was_late": last is not None and was_late(last.fire.outcome, last.fire.due_at, last.at),
        "outcome": last.fire.outcome if last else None,
        "batch": batch,
        "run_id": runs[-1].run_id if runs else None,
        "detail": last.fire.detail if last else "",
    }


def was_late(outcome: FireOutcome, due_at: datetime, at: datetime) -> bool:
    """Whether a fire was caught up. One that a person asked for is due when it was asked for."""
    return outcome != FireOutcome.MISSED and is_missed(due_at, at)
