"""Pauses: while one is in force, nothing new starts. A person or the clock begins and ends it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from ds_flow.core.cron import Timetable
from ds_flow.core.wording import local_time

MAINTENANCE = "the settings (maintenance)"
AFTER_PAUSE = "after a pause"
"""How the detail of a fire begins that waited for the end of a pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """What is known of a pause."""

    since_at: datetime
    until_at: datetime | None  # None: until a person ends it
    who: str
    why: str = ""

    @property
    def terms(self) -> str:
        """Say by whom it is, until when, and why."""
        until = f"until {local_time(self.until_at)}" if self.until_at else "until `ds-flow resume`"
        return f"by {self.who}, {until}{f': {self.why}' if self.why else ''}"

    @property
    def sentence(self) -> str:
        """Say it all."""
        return f"paused since {local_time(self.since_at)} {self.terms}"


def planned_pause(cron: str, zone: str, length: timedelta, why: str, now: datetime) -> Pause | None:
    """The pause of a window that comes by the clock and lasts so long; None if none is open."""
    since_at = _opened(cron, zone, length, now.replace(microsecond=0))
    if since_at is None:
        return None
    return Pause(since_at=since_at, until_at=since_at + length, who=MAINTENANCE, why=why)


@lru_cache(maxsize=64)
def _opened(cron: str, zone: str, length: timedelta, second: datetime) -> datetime | None:
    """When the window opened that is open in this second. A tick asks several times."""
    return _timetable(cron, zone).latest(second - length, second)


@lru_cache(maxsize=64)
def _timetable(cron: str, zone: str) -> Timetable:
    return Timetable(cron, zone)
