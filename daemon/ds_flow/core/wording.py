"""Numbers and times as people read them, and documents as programs do."""

from datetime import datetime
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
