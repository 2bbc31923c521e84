"""A clock that a test moves."""

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
