"""The last step of the inbox: waiting files form batches."""

import logging
import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ds_flow.core import (
    Ages,
    Arrival,
    Clock,
    Limits,
    Settled,
    Sighting,
    Trigger,
    holds_up,
    seconds_until_due,
)
from ds_flow.inbox.known import Pile
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.system import require_space

log = logging.getLogger(__name__)


class Coming(NamedTuple):
    """What does not wait yet, but will soon."""

    arriving: Mapping[str, Arrival]
    is_soon_through: bool  # what has settled and is being read


@dataclass(slots=True)
class Forming:
    """Which files have come since the last batch, and when the next one is due.

    All times in seconds are monotonic.
    """

    settings: Settings
    ledger: Ledger
    clock: Clock

    name_batch: Callable[[], str] = lambda: secrets.token_hex(5)
    looked_at_s: float | None = None  # when this turn's look began
    _burst: dict[str, float] = field(default_factory=dict)
    """When each path was first seen, of those that have come since the last batch."""
    _newest_s: float = 0.0  # when the last of them was first seen
    _oldest_s: float | None = None  # when the oldest waiting file was admitted
    _pile: Pile = field(default_factory=Pile)  # what waits
    _has_room: bool = True  # a run may start

    def see(self, new: Iterable[Sighting], now_s: float) -> None:
        """Note files that have come. One that changes again and again is no news."""
        for seen in new:
            if seen.path not in self._burst:
                self._burst[seen.path] = self._newest_s = now_s

    def add(self, items: Sequence[Settled], now_s: float) -> None:
        """Note files that wait from now on."""
        self._oldest_s = self._oldest_s if self._oldest_s is not None else now_s
        self._pile.add(items)

    def due_in_s(self, coming: Coming, now_s: float) -> float:
        """Seconds until the next batch may form, by what is known now; infinite if by nothing."""
        if self._oldest_s is None or not self._has_room:
            return math.inf
        return seconds_until_due(self._ages(coming, now_s), self._limits())

    def form(self, coming: Coming, room: int, inbox_error: str) -> int:
        """Claim waiting files for the batches that are due, `room` of them at most.

        While no run may start, no batch forms: what comes meanwhile is in the next one.
        """
        has_waiting = self.ledger.read.has_waiting()
        if not has_waiting:
            self._end_burst(coming)
        self._has_room = room > 0
        if not has_waiting or inbox_error or not self._has_room:
            return 0
        now_s = self.clock.monotonic_s()
        if self._oldest_s is None:  # waiting since before this daemon, or released
            self._oldest_s = now_s
        # What has come since this turn's look is not known yet, and hashing may have taken long.
        seen_s, self.looked_at_s = self.looked_at_s, None
        ages = self._ages(coming, now_s if seen_s is None else seen_s)
        groups = self._pile.to_form(self.ledger.read.waiting, ages, self._limits())[:room]
        if groups:
            require_space(self.settings)
        for group in groups:
            batch = self.name_batch()
            ids = [file.id for file in group]
            if files := self.ledger.form(batch, ids, Trigger.ARRIVAL, self.clock.now()):
                log.info("batch.queued", extra={"batch": batch, "files": files})
        if groups:
            self._end_burst(coming)
        return len(groups)

    def _end_burst(self, coming: Coming) -> None:
        """Take the next file for the first of a new drop. What is still arriving is no news."""
        self._oldest_s = None
        if len(self._burst) > len(coming.arriving):
            self._burst = {path: at for path, at in self._burst.items() if path in coming.arriving}

    def _ages(self, coming: Coming, now_s: float) -> Ages:
        oldest_s = now_s if self._oldest_s is None else self._oldest_s
        patience_s = self.settings.watch.quiet_seconds + self.settings.batch.quiet_seconds
        is_settling = coming.is_soon_through or any(
            holds_up(arrival, self._burst.get(path, now_s), patience_s)
            for path, arrival in coming.arriving.items()
        )
        return Ages(now_s - self._newest_s, now_s - oldest_s, is_settling)

    def _limits(self) -> Limits:
        batch = self.settings.batch
        return Limits(
            quiet_s=batch.quiet_seconds,
            max_wait_s=batch.max_wait_seconds,
            max_files=batch.max_files,
            max_bytes=batch.max_mb * 2**20,
        )
