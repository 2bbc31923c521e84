"""Complete sets: which waiting files belong together, and which of their sets form now."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from ds_flow.core.batching import Waiting
from ds_flow.core.cron import LOCAL, Timetable

SET_PREFIX = "set:"
"""How the selection of a set's batch begins."""

_DAYS = timedelta(days=3)  # in which each time of day comes, whatever the clock does
_WORD = r"\pL\pM\pN_"  # what \w stands for: RE2 itself takes it for ASCII


class Member(NamedTuple):
    """A waiting version, and what its set is known by."""

    id: int
    size_bytes: int
    path: str
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRule:
    """Which files make a set, and when it forms: `batch.set` of the settings."""

    by: str
    key: str
    expect: int
    at_latest: str | None = None  # HH:MM
    timezone: str = LOCAL
    late: str = "alone"

    def value_of(self, path: str) -> str | None:
        """The set of a file, by its name; None if it belongs to none."""
        found = compiled(self.by).match(path.rpartition("/")[2])
        return (found.group(self.key) or None) if found else None

    @property
    def groups(self) -> frozenset[str]:
        """The names of the groups of the expression."""
        return frozenset(compiled(self.by).groupindex)

    def selection(self, value: str) -> str:
        """The selection of a set's batches."""
        return f"{SET_PREFIX}{self.key}={value}"

    def named(self, value: str) -> str:
        """The set as people read it."""
        return f"{self.key}={value}"

    @property
    def timetable(self) -> Timetable | None:
        """When sets form that are not complete."""
        return _timetable(self.at_latest, self.timezone) if self.at_latest else None

    def last_deadline(self, now: datetime) -> datetime | None:
        """The last time at which incomplete sets were due."""
        timetable = self.timetable
        return timetable.latest(now - _DAYS, now) if timetable else None

    def next_deadline(self, now: datetime) -> datetime | None:
        """The next time at which incomplete sets are due."""
        timetable = self.timetable
        return timetable.next_after(now) if timetable else None

    @property
    def deadline(self) -> str:
        """The time of day as people read it; "" if there is none."""
        zone = "" if self.timezone == LOCAL else f" {self.timezone}"
        return f"{self.at_latest}{zone}" if self.at_latest else ""


@dataclass(slots=True)
class OpenSet:
    """The waiting files of one set."""

    value: str
    members: list[Member] = field(default_factory=list)

    @property
    def paths(self) -> set[str]:
        """The files that have come. A newer version takes the place of the one before."""
        return {member.path for member in self.members}

    @property
    def began_at(self) -> datetime:
        """When its first file came."""
        return min(member.seen_at for member in self.members)


@dataclass(frozen=True, slots=True)
class Sorted:
    """What waits: sets, files of sets that were formed before, and files that belong to none."""

    sets: dict[str, OpenSet] = field(default_factory=dict)
    late: dict[str, OpenSet] = field(default_factory=dict)
    loose: list[Waiting] = field(default_factory=list)


@lru_cache(maxsize=8)
def compiled(by: str) -> Any:
    """Compile a regular expression. Raises ValueError.

    RE2 needs time in proportion to a name, whatever the expression: strangers write the names.
    """
    import re2  # type: ignore[import-untyped]  # images have none, and need none

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(_for_re2(by), options)
    except re2.error as error:
        why = error.args[0]
        said = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise ValueError(f"is not a regular expression of RE2: {said}") from None


def _for_re2(by: str) -> str:
    r"""Let `\w` stand for the letters of every script."""
    made, is_in_class, at = "", False, 0
    while at < len(by):
        piece = by[at : at + 2] if by[at] == "\\" else by[at]
        if piece == r"\w":
            made += _WORD if is_in_class else f"[{_WORD}]"
        else:
            is_in_class = piece == "[" or (is_in_class and piece != "]")
            made += piece
        at += len(piece)
    return made


@lru_cache(maxsize=8)
def _timetable(at: str, zone: str) -> Timetable:
    hour, _, minute = at.partition(":")
    return Timetable(f"{int(minute)} {int(hour)} * * *", zone)


def sort_out(waiting: Iterable[Member], rule: SetRule, formed: Iterable[str]) -> Sorted:
    """Sort what waits into sets. `formed`: the values of those that were formed before."""
    found, known = Sorted(), {*formed}
    for member in waiting:
        value = rule.value_of(member.path)
        if value is None:
            found.loose.append(Waiting(member.id, member.size_bytes))
            continue
        sets = found.late if value in known else found.sets
        sets.setdefault(value, OpenSet(value)).members.append(member)
    return found


def sets_to_form(
    sets: Iterable[OpenSet], rule: SetRule, last_deadline: datetime | None
) -> list[OpenSet]:
    """Give the sets that are complete, and those that began before the last deadline."""
    return [
        one
        for one in sets
        if len(one.paths) >= rule.expect
        or (last_deadline is not None and one.began_at < last_deadline)
    ]


def missing_names(
    came: Iterable[str], earlier: Sequence[str], rule: SetRule, value: str
) -> list[str]:
    """Name the files that a set lacks, after those of an earlier set; [] if they do not tell.

    They tell if they are as many as the set lacks, once their key is that of this set.
    """
    there = {path.rpartition("/")[2] for path in came}
    expected = {_with_key(path.rpartition("/")[2], rule, value) for path in earlier}
    lacking = sorted(expected - there - {""})
    return lacking if len(lacking) == rule.expect - len(there) else []


def _with_key(name: str, rule: SetRule, value: str) -> str:
    pattern = compiled(rule.by)
    found = pattern.match(name)
    if found is None:
        return ""
    start, end = found.span(pattern.groupindex[rule.key])
    return f"{name[:start]}{value}{name[end:]}"


def told_wait(rule: SetRule, one: OpenSet) -> str:
    """Say what an open set waits for."""
    left = rule.expect - len(one.paths)
    until = f", at the latest {rule.deadline}" if rule.deadline else ""
    return f"waits for {left} more of {rule.named(one.value)}{until}"
