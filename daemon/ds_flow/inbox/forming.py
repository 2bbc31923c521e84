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
    FileState,
    Limits,
    SetRule,
    Settled,
    Sighting,
    Waiting,
    holds_up,
    seconds_until_due,
)
from ds_flow.inbox.known import Pile
from ds_flow.inbox.sets import Group, OpenSets, first_come
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
    sets: OpenSets = field(init=False)

    def __post_init__(self) -> None:
        self.sets = OpenSets(self.ledger)

    @property
    def _rule(self) -> SetRule | None:
        return self.settings.batch.rule

    def has_waiting(self) -> bool:
        """Whether files wait that become a batch without any others."""
        return self._has_loose() or bool(self._rule and self.sets.due)

    def _has_loose(self) -> bool:
        """Whether files wait that belong to no open set."""
        if (rule := self._rule) is None:
            return self.ledger.read.has_waiting()
        self.sets.look(rule, self.clock.now())
        return self.sets.has_loose

    def see(self, new: Iterable[Sighting], now_s: float) -> None:
        """Note files that have come. One that changes again and again is no news."""
        for seen in new:
            if seen.path not in self._burst:
                self._burst[seen.path] = self._newest_s = now_s

    def add(self, items: Sequence[Settled], now_s: float) -> None:
        """Note files that wait from now on. Those of open sets wait for something else."""
        loose = [item for item in items if not self._is_of_open_set(item)]
        if loose and self._oldest_s is None:
            self._oldest_s = now_s
        self._pile.add(loose)

    def _is_of_open_set(self, item: Settled) -> bool:
        if (rule := self._rule) is None:
            return False
        value = rule.value_of(item.sighting.path)
        return value is not None and not self.sets.is_formed(rule, value)

    def due_in_s(self, coming: Coming, now_s: float) -> float:
        """Seconds until the next batch may form, by what is known now; infinite if by nothing."""
        if not self._has_room:
            return math.inf
        set_in_s = self._set_due_in_s()
        if self._oldest_s is None:
            return set_in_s
        return min(set_in_s, seconds_until_due(self._ages(coming, now_s), self._limits()))

    def _set_due_in_s(self) -> float:
        if (rule := self._rule) is None:
            return math.inf
        now = self.clock.now()
        self.sets.look(rule, now)
        return self.sets.due_in_s(now)

    def form(self, coming: Coming, room: int, inbox_error: str) -> int:
        """Claim waiting files for the batches that are due, `room` of them at most.

        While no run may start, no batch forms: what comes meanwhile is in the next one.
        """
        has_loose, rule = self._has_loose(), self._rule
        if not has_loose:
            self._end_burst(coming)
        self._has_room = room > 0
        has_due = rule is not None and bool(self.sets.due)
        if not (has_loose or has_due) or inbox_error or not self._has_room:
            return 0
        loose = self._loose_groups(coming) if has_loose else []
        groups = first_come([*loose, *(self.sets.groups(rule) if rule else [])])[:room]
        if groups:
            require_space(self.settings)
        for group in groups:
            self._form(group)
        if any(group in loose for group in groups):
            self._end_burst(coming)
        return len(groups)

    def _loose_groups(self, coming: Coming) -> list[Group]:
        """Group the files that belong to no open set, if they are due."""
        now_s = self.clock.monotonic_s()
        if self._oldest_s is None:  # waiting since before this daemon, or released
            self._oldest_s = now_s
        # What has come since this turn's look is not known yet, and hashing may have taken long.
        seen_s, self.looked_at_s = self.looked_at_s, None
        ages, limits = self._ages(coming, now_s if seen_s is None else seen_s), self._limits()
        rule, read = self._rule, self.ledger.read.waiting
        if rule is not None:
            read = self._read_loose
        found = self._pile.to_form(read, ages, limits)
        groups = [Group([file.id for file in group]) for group in found]
        if rule is not None and seconds_until_due(ages, limits) <= 0:
            groups += self.sets.late_groups(rule)
        return groups

    def _read_loose(self) -> list[Waiting]:
        return self.sets.found.loose

    def _form(self, group: Group) -> None:
        batch = self.name_batch()
        files = self.ledger.form(
            batch,
            group.ids,
            group.trigger,
            self.clock.now(),
            group.selection,
            detail=group.detail,
            also={FileState.WAITING},
            notes={"set.incomplete": group.missing} if group.missing else {},
        )
        if files:
            log.info("batch.queued", extra={"batch": batch, "files": files})
        if files and group.missing:
            log.warning("set.incomplete", extra={"batch": batch, "why": group.missing})

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
