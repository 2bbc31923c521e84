"""Expected files: when they are due, and which of the files that came count."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from ds_flow.core import local_time, moment_of, unescape
from ds_flow.ledger import Ledger
from ds_flow.settings import Expected, Settings, matches

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK = 7


@dataclass(frozen=True, slots=True)
class Window:
    """From one deadline to the next. Files that come in between count for the second one."""

    since: datetime
    until: datetime


def last_window(expected: Expected, now: datetime) -> Window:
    """Return the window that ends with the last deadline that has passed."""
    zone = None if expected.timezone == "local" else ZoneInfo(expected.timezone)
    passed = [at for at in _deadlines(expected, now, zone) if at <= now]
    return Window(passed[-2], passed[-1])


def _deadlines(expected: Expected, now: datetime, zone: tzinfo | None) -> list[datetime]:
    """List the deadlines from two weeks ago until tomorrow, in order."""
    here = now.astimezone(zone)
    at = time.fromisoformat(expected.by)
    days = (here.date() - timedelta(days=back) for back in range(2 * WEEK + 1, -1, -1))
    return [
        moment_of(datetime.combine(day, at, zone))
        for day in days
        if DAYS[day.weekday()] in expected.days
    ]


def came(settings: Settings, expected: Expected, paths: Iterable[str]) -> int:
    """Count the different files among these that are expected. Paths are as in the ledger."""
    pattern = settings.whole(expected.pattern)
    raw = (os.path.join(settings.root, unescape(path)) for path in {*paths})
    return sum(matches(pattern, path) for path in raw)


def subject_of(expected: Expected, window: Window) -> str:
    """Write how the events about one deadline begin."""
    return f"{expected.pattern} by {window.until.isoformat()}:"


def still_missing(
    settings: Settings, expected: Expected, ledger: Ledger, now: datetime
) -> tuple[str, str] | None:
    """Say which files have not come even after the last deadline, and since when; else None."""
    window = last_window(expected, now)
    found = ledger.history.last("files.missing", subject_of(expected, window))
    if found is None:
        return None
    count = came(settings, expected, ledger.history.seen_since(window.since))
    if count >= expected.count:
        return None
    by = local_time(window.until)
    return f"{count} of {expected.count} {expected.pattern} by {by}", window.until.isoformat()
