"""Numbers and times as the page writes them."""

import math
from datetime import datetime, timedelta

UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")
STEP = 1000
EXACT = 10  # below, one decimal
MINUTE, HOUR, DAY = 60, 3600, 86_400

GOOD = frozenset({"processed", "succeeded", "verified", "done", "run", "identical"})
BAD = frozenset({"quarantined", "dead", "failed", "timed_out", "missed", "lost"})
ODD = frozenset({"retrying", "stopped", "cancelled", "superseded", "changed", "nothing", "skipped"})
LIVE = frozenset({"waiting", "batched", "queued", "running", "starting", "pending", "new"})


def tone(state: str) -> str:
    """The colour of a state. Its word stands beside it."""
    tones = {"good": GOOD, "bad": BAD, "odd": ODD, "live": LIVE}
    return next((name for name, states in tones.items() if state in states), "odd")


def size(count: float) -> str:
    """Write a number of bytes."""
    unit = 0
    while count >= STEP and unit < len(UNITS) - 1:
        count, unit = count / STEP, unit + 1
    shown = f"{count:.1f}" if unit and count < EXACT else f"{count:.0f}"
    return f"{shown} {UNITS[unit]}"


def number(count: float) -> str:
    """Write a whole number with commas."""
    return f"{count:,.0f}"


def span(seconds: float) -> str:
    """Write a length of time in at most two units."""
    if seconds < EXACT:
        return f"{max(seconds, 0):.1f} s"
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    for unit, below, name, inner in (
        (MINUTE, HOUR, "min", "s"),
        (HOUR, DAY, "h", "min"),
        (DAY, math.inf, "d", "h"),
    ):
        if seconds < below:
            whole, rest = divmod(seconds, unit)
            part = rest // {"s": 1, "min": MINUTE, "h": HOUR}[inner]
            return f"{whole:.0f} {name}" + (f" {part:.0f} {inner}" if part else "")
    return ""


def between(start: str | None, end: str | None) -> str:
    """Write how long something took; "" if it has not ended."""
    if not start or not end:
        return ""
    return span((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def ago(at: str, now: datetime) -> str:
    """Say how long ago a time was, or in how long it is."""
    away = now - datetime.fromisoformat(at)
    if away < timedelta(0):
        return f"in {_rough(-away)}"
    return f"{_rough(away)} ago"


def _rough(away: timedelta) -> str:
    seconds = away.total_seconds()
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds:.0f} s"
