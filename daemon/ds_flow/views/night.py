"""What the last day brought, what comes next, and the newest combined file."""

from dataclasses import asdict
from datetime import datetime, timedelta

from ds_flow.core import Document, Timetable
from ds_flow.ledger import FAILURES, Ledger
from ds_flow.settings import Settings
from ds_flow.views.documents import output_folder

DAY = timedelta(days=1)
NAMED_FIRES = 5  # of each schedule


def last_night(settings: Settings, ledger: Ledger, now: datetime) -> Document:
    """What the last fires did, and what the last 24 hours brought."""
    since = now - DAY
    day = ledger.overview.since(since)
    fires = [
        fire
        for one in settings.schedule
        for fire in ledger.overview.fires(one.name, since, NAMED_FIRES)
    ]
    return {
        "since": since.isoformat(),
        "fires": sorted(map(asdict, fires), key=lambda fire: fire["due_at"], reverse=True),
        "runs": sum(day.runs.values()),
        "runs_by_state": day.runs,
        "failures": sum(day.runs.get(state, 0) for state in FAILURES),
        "repaired": day.repaired,
        "files": day.files,
        "rows": day.rows,
        "set_aside": day.set_aside,
    }


def next_fire(settings: Settings, now: datetime) -> Document | None:
    """The schedule that fires next."""
    coming = [
        (at, one.name)
        for one in settings.schedule
        if (at := Timetable(one.cron, one.timezone).next_after(now))
    ]
    if not coming:
        return None
    at, name = min(coming)
    return {"schedule": name, "at": at.isoformat()}


def newest_combined(settings: Settings, ledger: Ledger) -> Document | None:
    """The combined file that was published last."""
    found = ledger.overview.newest_combined()
    if found is None:
        return None
    return {
        "file": f"{output_folder(settings)}{found.name}",
        "run_id": found.run_id,
        "rows": found.rows,
        "bytes": found.bytes,
        "published_at": found.at,
    }
