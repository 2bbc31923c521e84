"""Numbers and times as people read them."""

from datetime import datetime


def counted(count: int, noun: str) -> str:
    """Write a number with its noun, in the plural unless it is 1."""
    return f"{count} {noun}{'s' * (count != 1)}"


def local_time(at: datetime, timespec: str = "seconds") -> str:
    """Write a moment as this machine's clock shows it, with the offset, in one word."""
    return at.astimezone().isoformat(timespec=timespec)
