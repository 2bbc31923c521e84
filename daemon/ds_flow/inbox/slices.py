"""A scan in slices, so that the daemon's other work goes on meanwhile."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ds_flow.core import Clock
from ds_flow.inbox.pattern import Look
from ds_flow.inbox.progress import Counted

SLICE_SECONDS = 0.1
LONG_SECONDS = 0.5  # a shorter scan costs `status` no more than the start of Python
LATE_SECONDS = 60.0  # a daemon that has not scanned again by then may be stuck


@dataclass(slots=True)
class Scan:
    """A scan that is under way."""

    steps: Iterator[Look]
    clock: Clock
    began: datetime
    spent_s: float = 0.0
    found: Look = field(default_factory=lambda: Look(0))

    def go_on(self, now_s: float) -> bool:
        """Scan for one slice of time, which began at `now_s`; whether that was the end."""
        for found in self.steps:
            self.found = found
            if (used_s := self.clock.monotonic_s() - now_s) >= SLICE_SECONDS:
                self.spent_s += used_s
                return False
        self.spent_s += self.clock.monotonic_s() - now_s
        return True

    def counted(self, pattern: str, rest_s: float) -> Counted | None:
        """What a long scan has counted. That holds until the next one, which may take longer."""
        if self.spent_s < LONG_SECONDS:
            return None
        until = self.clock.now() + timedelta(seconds=rest_s + 2 * self.spent_s + LATE_SECONDS)
        ignored = len(self.found.ignored)
        return Counted(os.getpid(), pattern, self.began.isoformat(), until.isoformat(), ignored)
