"""A clock that a test moves, and the time zone of the machine."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass(slots=True)
class MovedClock:
    """Both clocks of `model.Clock`; they move only when told to."""

    elapsed_s: float = 1000.0
    set_by_s: float = 0.0  # how far somebody has set the wall clock

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.elapsed_s + self.set_by_s)

    def monotonic_s(self) -> float:
        return self.elapsed_s


@contextmanager
def machine_in(zone: str) -> Iterator[None]:
    """Let this process take its machine to be in a time zone."""
    before = os.environ.get("TZ")
    _set_zone(zone)
    try:
        yield
    finally:
        _set_zone(before)


def _set_zone(zone: str | None) -> None:
    if zone is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = zone
    time.tzset()
