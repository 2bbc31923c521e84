"""Drift: what differs in a file from what the files of its family had before."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ds_flow.core.families import Day, Family, Look, label_of
from ds_flow.core.paths import printable
from ds_flow.core.privacy import folded

KNOWN_DAYS = 3
"""Days after which a list of columns is known, and is not marked any more: a change is told on the
night it comes and on two more, which a weekend covers; then people know of it."""

LEAST_FILES = 3
"""With fewer files before, nothing is said of rows and empty cells: two say nothing of what is
normal."""

FEW_DAYS, MANY_DAYS = 10, 20
"""From so many days on, the most extreme day is left out of what is normal, then the two most
extreme. So one bad night does not make the next bad one normal, and three do."""

ROWS_BELOW_ABOVE = (0.3, 0.5), (0.45, 1.0)
"""How far below the lowest and above the highest number of rows a file must be, as a share of it.
Classes grow and shrink by less, and a half-empty night is further off. After few days little was
seen, so a file must be further off: the second pair."""

# Where figures vary, a file must also be further off than they are from each other.

ROWS_LEAST = 10
"""Fewer rows than this more or less are no jump, in however small a file."""

SHARE_LEAST = 0.2
"""How far outside the usual share of empty cells a column must be. Optional ones vary by less."""

CHANCE = 2.0
"""Over the square root of a file's rows: four standard deviations, by which a share is off by
chance alone in one of 16,000 columns, where each cell is empty or not by chance."""

MARKS_A_FILE = 10  # the others are counted
NAME_CHARACTERS = 60  # of a column's name in a text

Figure = TypeVar("Figure", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One thing that differs. `column` is "" where it is the whole file."""

    kind: str  # missing, new, renamed, reordered, rows, empty
    column: str
    text: str
    since: str = ""  # the first day with the same columns; "" if this file is the first


class Comparison:
    """A family with which files are compared. What is usual is found out once for all of them."""

    def __init__(self, name: str, family: Family) -> None:
        self._label = label_of(name)
        self._family = family
        self._files = family.files
        self._shapes: dict[tuple[str, ...], list[str]] = {}
        for one in family.days:
            self._shapes.setdefault(one.columns, []).append(one.day)
        self._row_bounds = [one.rows for one in family.days]
        self._usual_shares: dict[str, tuple[float, float] | None] = {}

    def marks(self, look: Look) -> list[Mark]:
        """Everything that differs in a file. A family without files compares nothing."""
        if not self._files:
            return []
        found = [*self._columns(look)]
        if self._files >= LEAST_FILES:
            found += [*self._rows(look), *self._empties(look)]
        kept = found[:MARKS_A_FILE]
        if more := len(found) - len(kept):
            kept.append(Mark(kind="more", column="", text=f"and {more} more"))
        return [replace(one, text=f"{self._label}: {one.text}") for one in kept]

    # ------------------------------------------------------------------ columns

    def _columns(self, look: Look) -> Iterator[Mark]:
        """Compare the columns with the known ones that are most like them."""
        days = self._shapes.get(look.columns, [])
        if len(days) >= KNOWN_DAYS or look.columns == (usual := self._usual(look.columns)):
            return
        since = min(days, default="")
        told = f"; since {since}" if since else ""
        for kind, column, text in _changes(self._family, usual, look.columns):
            yield Mark(kind=kind, column=column, text=text + told, since=since)

    def _usual(self, columns: Sequence[str]) -> tuple[str, ...]:
        """The columns to compare with: known ones, or else those of most days, or the first."""
        known = [shape for shape, days in self._shapes.items() if len(days) >= KNOWN_DAYS]
        if not known:
            return max(self._shapes, key=lambda shape: len(self._shapes[shape]))
        return min(reversed(known), key=lambda shape: _distance(shape, columns))

    # ------------------------------------------------------------------ rows and empty cells

    def _rows(self, look: Look) -> Iterator[Mark]:
        low, high = _normal(self._row_bounds)
        room = max(high - low, ROWS_LEAST)
        below, above = ROWS_BELOW_ABOVE[len(self._row_bounds) < FEW_DAYS]
        if not low - max(below * low, room) <= look.rows <= high + max(above * high, room):
            usual = " to ".join(dict.fromkeys([f"{low:,}", f"{high:,}"]))
            rows = f"{look.rows:,} row{'s' * (look.rows != 1)}"
            yield Mark(kind="rows", column="", text=f"it has {rows}; {usual} were usual")

    def _empties(self, look: Look) -> Iterator[Mark]:
        by_chance = CHANCE / math.sqrt(max(1, look.rows))
        for column, share in zip(look.columns, look.shares, strict=False):
            bounds = self._shares(column)
            if bounds is None:
                continue
            low, high = bounds
            off = max(SHARE_LEAST, high - low, by_chance)
            if not low - off <= share <= high + off:
                usual = (
                    f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
                )
                text = f"{share:.0%} of the cells of column {named(column)} are empty"
                yield Mark(kind="empty", column=column, text=f"{text}; {usual} were usual")

    def _shares(self, column: str) -> tuple[float, float] | None:
        """The usual share of empty cells of a column; None if it was in too few files."""
        if column not in self._usual_shares:
            bounds = [*_shares_of(self._family.days, column)]
            is_known = bounds and self._family.files_with(column) >= LEAST_FILES
            self._usual_shares[column] = _normal(bounds) if is_known else None
        return self._usual_shares[column]


def named(column: str) -> str:
    """Write a column's name for people."""
    cut = column if len(column) <= NAME_CHARACTERS else f"{column[:NAME_CHARACTERS]}..."
    return f"`{printable(cut)}`"


def sentence(texts: Sequence[str]) -> str:
    """Several marks of one file in one sentence, which names the family once."""
    label = texts[0].partition(": ")[0] + ": "
    return "; ".join([texts[0], *(text.removeprefix(label) for text in texts[1:])])


def plain(column: str) -> str:
    """A column's name without what people write differently: case, blanks and punctuation."""
    return "".join(char for char in folded(column) if char.isalnum()) or column


# --------------------------------------------------------------------------- columns


def _distance(shape: Sequence[str], columns: Sequence[str]) -> tuple[int, bool]:
    return len(set(shape) ^ set(columns)), tuple(shape) != tuple(columns)


def _changes(
    family: Family, usual: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """What was renamed, is missing, is new, or stands elsewhere: the kind, the column, a text."""
    lost = [name for name in usual if name not in columns]
    gained = [name for name in columns if name not in usual]
    renamed = _renamed(usual, columns, lost, gained)
    for old in lost:
        missing = f"column {named(old)} is missing; {_was_there(family, old)}"
        if old in renamed:
            yield "renamed", old, f"{missing}; a new column {named(renamed[old])} is there"
        else:
            yield "missing", old, missing
    for name in gained:
        if name not in renamed.values():
            yield "new", name, f"a new column {named(name)} is there"
    before = [renamed.get(name, name) for name in usual if name not in lost or name in renamed]
    after = [name for name in columns if name in before]
    if before != after:
        moved = next(new for old, new in zip(before, after, strict=True) if old != new)
        yield "reordered", moved, f"the columns are in another order, from {named(moved)} on"


def _renamed(
    usual: Sequence[str], columns: Sequence[str], lost: Sequence[str], gained: Sequence[str]
) -> dict[str, str]:
    """Old names with their new ones: spelt otherwise, or the only one lost and in its place."""
    spelt = {plain(name): name for name in reversed(gained)}
    pairs = {old: spelt.pop(plain(old)) for old in lost if plain(old) in spelt}
    old = [name for name in lost if name not in pairs]
    new = [name for name in gained if name not in pairs.values()]
    if len(old) == len(new) == 1 and usual.index(old[0]) == columns.index(new[0]):
        pairs[old[0]] = new[0]
    return pairs


def _was_there(family: Family, column: str) -> str:
    return f"it was there in {family.files_with(column)} of {family.files} files"


def _shares_of(days: Iterable[Day], column: str) -> Iterator[tuple[float, float]]:
    for one in days:
        if one.low and column in one.columns:
            at = one.columns.index(column)
            yield one.low[at], one.high[at]


def _normal(bounds: Sequence[tuple[Figure, Figure]]) -> tuple[Figure, Figure]:
    """The lowest and the highest figure, without those of the most extreme days."""
    out = (len(bounds) >= FEW_DAYS) + (len(bounds) >= MANY_DAYS)
    return sorted(low for low, _ in bounds)[out], sorted(high for _, high in bounds)[-1 - out]
