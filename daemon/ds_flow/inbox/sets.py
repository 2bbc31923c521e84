"""The sets that are open: what has come of each, and which ones form now."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from ds_flow.core import (
    FileState,
    Member,
    OpenSet,
    SetRule,
    Sorted,
    Trigger,
    missing_names,
    sets_to_form,
    sort_out,
)
from ds_flow.ledger import Ledger

NAMED = 20  # missing files


class Group(NamedTuple):
    """Files that make a batch now."""

    ids: list[int]
    trigger: Trigger = Trigger.ARRIVAL
    selection: str = ""
    detail: str = ""
    missing: str = ""  # what an incomplete set lacks


@dataclass(slots=True)
class OpenSets:
    """What waits, sorted into sets. It is read anew only when something has moved."""

    ledger: Ledger
    due: list[OpenSet] = field(default_factory=list)
    late: list[OpenSet] = field(default_factory=list)  # except those whose set is on its way
    found: Sorted = field(default_factory=Sorted)
    _rule: SetRule | None = None
    _event: int = -1
    _sum: tuple[int, int] = (0, 0)  # of all that was sorted: how many, and the sum of their ids
    _newest: int = 0  # the largest of these ids
    _since: datetime | None = None  # when it was last decided what is due
    _last_at: datetime | None = None  # the deadline before that
    _next_at: datetime | None = None  # the one after

    @property
    def has_loose(self) -> bool:
        """Whether files wait that no set has to be complete for."""
        return bool(self.found.loose or self.late)

    def look(self, rule: SetRule, now: datetime) -> None:
        """Sort what waits, if the ledger has moved, and decide what is due, if that may differ."""
        event = self.ledger.sets.newest_event()
        is_same_rule, is_quiet = rule == self._rule, event == self._event
        self._rule, self._event = rule, event
        if is_same_rule and (is_quiet or self._take_new(rule)):
            is_later = self._next_at is not None and now >= self._next_at
            if not (is_later or self._since is None or now < self._since):
                return
        else:
            self._sort_out(rule)
        self._since, self._next_at = now, rule.next_deadline(now)
        self._last_at = rule.last_deadline(now)
        self.due = sets_to_form(self.found.sets.values(), rule, self._last_at)

    def _take_new(self, rule: SetRule) -> bool:
        """Add what waits since; whether nothing else has changed: no other waits no more."""
        if self.found.late:  # whether they may form depends on batches
            return False
        new = self.ledger.sets.waiting(self._newest)
        count, ids = self._sum[0] + len(new), self._sum[1] + sum(member.id for member in new)
        if self.ledger.sets.sum_waiting() != (count, ids):
            return False
        values = {value for member in new if (value := rule.value_of(member.path))}
        if any(self.is_formed(rule, value) for value in values):
            return False
        self._sum, self._newest = (count, ids), _newest(new, self._newest)
        found = sort_out(new, rule, ())
        self.found.loose.extend(found.loose)
        for value, one in found.sets.items():
            self.found.sets.setdefault(value, OpenSet(value)).members.extend(one.members)
        touched = [self.found.sets[value] for value in values]
        due = {one.value for one in self.due}
        self.due += [
            one for one in sets_to_form(touched, rule, self._last_at) if one.value not in due
        ]
        return True

    def _sort_out(self, rule: SetRule) -> None:
        waiting = self.ledger.sets.waiting()
        self._sum = len(waiting), sum(member.id for member in waiting)
        self._newest = _newest(waiting, 0)
        found = sort_out(waiting, rule, ())
        late = {value: one for value, one in found.sets.items() if self.is_formed(rule, value)}
        self.found = Sorted(
            {value: one for value, one in found.sets.items() if value not in late},
            late,
            found.loose,
        )
        self.late = [one for value, one in late.items() if self._is_free(rule, value)]

    def _is_free(self, rule: SetRule, value: str) -> bool:
        """Whether late files may form now: the set again only if no live batch has a file of it."""
        return rule.late == "alone" or not self.ledger.sets.is_claimed(rule.selection(value))

    def is_formed(self, rule: SetRule, value: str) -> bool:
        """Whether a set was formed before, so that its files come late.

        It is asked anew each time: a batch that is cancelled makes its set open again.
        """
        return self.ledger.sets.is_formed(rule.selection(value))

    def due_in_s(self, now: datetime) -> float:
        """Seconds until a set forms if nothing comes; infinite if none does."""
        if self.due:
            return 0.0
        if not self.found.sets or self._next_at is None:
            return math.inf
        return max(0.0, (self._next_at - now).total_seconds())

    # ------------------------------------------------------------------ batches

    def groups(self, rule: SetRule) -> list[Group]:
        """The sets that are due, each as one batch, however many files it has."""
        return [self._group(rule, one) for one in self.due]

    def late_groups(self, rule: SetRule) -> list[Group]:
        """The files that have come late, each set's by themselves, or with the whole set again."""
        return [self._late_group(rule, one) for one in self.late]

    def _group(self, rule: SetRule, one: OpenSet) -> Group:
        lacking = rule.expect - len(one.paths)
        name, selection = rule.named(one.value), rule.selection(one.value)
        if lacking <= 0:
            return Group(_ids(one), selection=selection, detail=f"the set {name}")
        names = missing_names(one.paths, self.ledger.sets.before(selection), rule, one.value)
        more = ", …" * (len(names) > NAMED)
        which = f": {', '.join(names[:NAMED])}{more}" if names else ""
        came = f"{len(one.paths)} of {rule.expect} files of {name} have come by {rule.deadline}"
        missing = f"{came}; {lacking} missing{which}"
        detail = f"the set {name}, of which {lacking} are missing"
        return Group(_ids(one), selection=selection, detail=detail, missing=missing)

    def _late_group(self, rule: SetRule, one: OpenSet) -> Group:
        name, selection = rule.named(one.value), rule.selection(one.value)
        if rule.late == "alone":
            return Group(_ids(one), selection=selection, detail=f"late for the set {name}")
        before = self.ledger.read.latest(self.ledger.sets.paths(selection))
        again = [row.id for row in before if row.state == FileState.PROCESSED]
        ids = sorted({*_ids(one), *again})
        return Group(ids, Trigger.RERUN, selection, f"the set {name} again, since files came late")


def _newest(members: list[Member], before: int) -> int:
    return members[-1].id if members else before


def _ids(one: OpenSet) -> list[int]:
    return [member.id for member in one.members]


def first_come(groups: Iterable[Group]) -> list[Group]:
    """Sort groups by their oldest file."""
    return sorted(groups, key=lambda group: group.ids[0])
