"""When a schedule fires: cron in a time zone, and which of its fires is due now."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

LOCAL = "local"  # the time zone of this machine

LATE = timedelta(minutes=10)
"""A fire that is noticed later than this was missed. It runs only if the schedule catches up."""

SET_BACK = timedelta(days=2)
"""If the last fire is further in the future, the clock was wrong then. It is ignored."""

_SOON = timedelta(microseconds=1)
_NOTHING, _HOUR, _DAY = timedelta(), timedelta(hours=1), timedelta(days=1)
_LOOK_BACK = (_HOUR, _DAY, 32 * _DAY, 366 * _DAY, 366 * 9 * _DAY)  # nine years hold a leap day
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")  # cron's 0 to 7
_FIELDS = 5
_NICKNAMES = {  # as in crontab(5); @reboot is no time
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MOMENT = datetime(2024, 1, 1, tzinfo=UTC)  # any: what ever fires does so within years


# --------------------------------------------------------------------------- which fire is due


def due_fire(
    timetable: "Timetable", *, since: datetime, last: datetime | None, now: datetime
) -> datetime | None:
    """The fire that is due now, unless it was done already. None if there is none.

    If several were missed, only the newest is due. `since` is when the schedule began, `last` is
    the fire that was recorded last.
    """
    if last is not None and last - now <= SET_BACK:
        since = max(since, last)
    return timetable.latest(since, now)


def is_missed(due_at: datetime, now: datetime) -> bool:
    """Whether a fire is noticed so late that it only runs if the schedule catches up."""
    return now - due_at > LATE


# --------------------------------------------------------------------------- when it fires


class Timetable:
    """The fires of one cron expression, in UTC.

    When the clock is put forward, a time that it skips fires as much later: if there is no
    midnight, at one o'clock. When it is put back, a repeated time fires once, unless the
    expression takes every hour.
    """

    def __init__(self, cron: str, zone: str = LOCAL) -> None:
        """`zone` is `local` or an IANA name. Raises ValueError if either is not valid."""
        fields = _written_out(cron.strip().lower()).split()
        if len(fields) != _FIELDS:
            raise ValueError("should have five fields: minute hour day month weekday")
        self._takes_every_hour = fields[1].startswith("*")
        self._zone = None if zone == LOCAL else known_zone(zone)
        self._triggers = [_trigger(" ".join(one)) for one in _alternatives(fields)]
        if self.next_after(_MOMENT) is None:
            raise ValueError("never comes: the calendar has no such day")

    def next_after(self, moment: datetime) -> datetime | None:
        """The first fire after a moment."""
        found = [_next(one, self._zone, moment, self._takes_every_hour) for one in self._triggers]
        return min((at for at in found if at is not None), default=None)

    def latest(self, since: datetime, until: datetime) -> datetime | None:
        """The last fire after `since` and not after `until`."""
        for reach in _LOOK_BACK:
            start = max(since, until - reach)
            last = None
            for at in self._fires(start, until):
                last = at
            if last is not None or start == since:
                return last
        return None

    def _fires(self, since: datetime, until: datetime) -> Iterator[datetime]:
        at = self.next_after(since)
        while at is not None and at <= until:
            yield at
            at = self.next_after(at)


def _next(
    trigger: "CronTrigger",
    zone: tzinfo | None,
    moment: datetime,
    takes_every_hour: bool,  # noqa: FBT001
) -> datetime | None:
    """The first fire after a moment. The trigger knows only local times, without a zone.

    Around a change of the clock, a later local time may be an earlier moment. So the search
    begins at the earliest local time of that day, and ends when no later local time can be an
    earlier moment than the one found.
    """
    found: datetime | None = None
    face = trigger.get_next_fire_time(None, moment + min(_offsets(moment, zone)))
    while face is not None and (found is None or face - max(_offsets(face, zone)) < found):
        later = [at for at in _moments(face, zone, takes_every_hour) if at > moment]
        found = min([*later, found] if found else later, default=None)
        face = trigger.get_next_fire_time(None, face + _SOON)
    return found


def _offsets(about: datetime, zone: tzinfo | None) -> list[timedelta]:
    """How far the zone is ahead of UTC the day before, now, and the day after."""
    there = [(about + days).astimezone(zone).utcoffset() for days in (-_DAY, _NOTHING, _DAY)]
    return [offset for offset in there if offset is not None]


def _moments(
    face: datetime,
    zone: tzinfo | None,
    takes_every_hour: bool,  # noqa: FBT001
) -> list[datetime]:
    """The moments at which the zone's clock shows this time. A skipped time is moved by the gap."""
    first, second = (moment_of(face.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    return [first, second] if takes_every_hour and second > first else [first]


def moment_of(shown: datetime) -> datetime:
    """The moment in UTC at which a clock shows this time: this machine's clock if it has no zone.

    A skipped time is moved by the gap. `astimezone` does not do that for this machine's clock: it
    gives a moment before the gap.
    """
    return datetime.fromtimestamp(shown.timestamp(), UTC)


def _trigger(cron: str) -> "CronTrigger":
    from apscheduler.triggers.cron import (
        CronTrigger,  # importing it takes 20 ms, which every command would pay
    )

    try:
        return CronTrigger.from_crontab(cron, timezone=UTC)
    except ValueError as error:
        raise ValueError(
            re.sub(r"^Error validating expression (.+?): ", r"in \1, ", str(error))
        ) from None


def known_zone(zone: str) -> ZoneInfo:
    """Find a time zone. Raises ValueError if this machine does not know it."""
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not `local` and not a time zone that this machine knows") from None


def _written_out(cron: str) -> str:
    """Replace a nickname, such as `@daily`, by its five fields."""
    if cron.startswith("@") and len(cron.split()) == 1 and cron not in _NICKNAMES:
        raise ValueError(
            f"is not a time that ds-flow knows: use five fields, or one of {', '.join(_NICKNAMES)}"
        )
    return _NICKNAMES.get(cron, cron)


def _alternatives(fields: list[str]) -> list[list[str]]:
    """If both a day of the month and a weekday are given, cron takes days that match either."""
    minute, hour, day, month, weekday = fields
    weekday = _named(weekday)
    if day.startswith("*") or weekday.startswith("*"):
        return [[minute, hour, day, month, weekday]]
    return [[minute, hour, day, month, "*"], [minute, hour, "*", month, weekday]]


def _named(weekdays: str) -> str:
    """Write weekdays as names: cron counts from Sunday, APScheduler from Monday."""
    if weekdays == "*":
        return weekdays
    days = [day for part in weekdays.split(",") for day in _days(part)]
    return ",".join(dict.fromkeys(days))


def _days(part: str) -> list[str]:
    span, _, step = part.partition("/")
    first, dash, last = ("0", "-", "6") if span == "*" else span.partition("-")
    start, end = _day(first), _day(last) if dash else _day("6" if step else first)
    if end < start:  # `fri-sun`, or `sat-mon`
        end += 7
    if step and not (step.isdecimal() and int(step)):
        raise ValueError(f"has no step {step!r}: a number of days")
    return [_DAYS[day % 7] for day in range(start, end + 1, int(step or 1))]


def _day(name: str) -> int:
    if name in _DAYS:
        return _DAYS.index(name)
    if name.isdecimal() and int(name) < len(_DAYS):
        return int(name)
    raise ValueError(f"has no weekday {name!r}: 0 to 7 or sun to sat")
