"""Numbers and times as people read them, and documents as programs do."""

from datetime import datetime, timedelta
from typing import Any

Document = dict[str, Any]
"""One JSON object. Keys may be added, never changed."""


def counted(count: int, noun: str) -> str:
    """Write a number with its noun, in the plural unless it is 1."""
    return f"{count} {noun}{'s' * (count != 1)}"


def local_time(at: datetime, timespec: str = "seconds") -> str:
    """Write a moment as this machine's clock shows it, with the offset, in one word."""
    return at.astimezone().isoformat(timespec=timespec)


def short_time(at: str) -> str:
    """Write a time of a document for people: as `moment`, without the offset."""
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def moment(at: str) -> str:
    """Write a time of a document for people: in local time, to the second."""
    return local_time(datetime.fromisoformat(at))


SPANS = (
    (timedelta(seconds=90), timedelta(seconds=1), "s"),
    (timedelta(minutes=90), timedelta(minutes=1), "min"),
    (timedelta(hours=36), timedelta(hours=1), "h"),
    (timedelta(days=60), timedelta(days=1), "days"),
)
"""Up to when a span of time is told in a unit, the unit, and its name."""


def ago(at: str, now: datetime) -> str:
    """Write a time of a document by how far it is from now; a date if that is far."""
    then = datetime.fromisoformat(at)
    span = abs(now - then)
    for most, unit, name in SPANS:
        if span < most:
            told = f"{span // unit} {name}"
            return f"{told} ago" if then <= now else f"in {told}"
    return then.astimezone().strftime("%Y-%m-%d")
