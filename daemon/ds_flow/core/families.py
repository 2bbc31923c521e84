"""Families of files: what the files of one source have had, whatever date is in their names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from ds_flow.core.formats import stem_of

FOLDED = "#"  # stands for digits and dates in a family's name

DAYS = 30
"""Days with files that a family remembers: a month, so that weekly and monthly files are known."""

SHAPES_A_DAY = 8
"""Lists of columns that it remembers of a day: a sender has one, and some have two or three."""

COMPARED_COLUMNS = 200
"""A wider file is not compared: its columns are most often data, such as a column for each day."""

FAMILIES = 1000
"""Families of one batch that are compared: the first ones, by name."""

NAMES = 20_000
"""Names of columns that a manifest repeats for all of its files together, at most."""

_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_NUMBERS = re.compile(
    rf"\d+(?:(?:[-_. :T]+|[-_. ]*(?:{_MONTHS})[a-z]{{0,6}}[-_. ]*)\d+)*", re.IGNORECASE
)
_DATED = re.compile(r"(?:19|20)\d\d(?:[-_.]?\d\d){0,2}")  # a whole folder's name


def family_of(path: str) -> str:
    """Name the family of a file: its path without its suffix, each group of digits folded.

    `data/student_north_2026-11-28.csv` is of `data/student_north_#`. Of folders, only those are
    folded that are named after a date: `school1/` and `school2/` are two sources.
    """
    *folders, name = path.split("/")
    stem = stem_of(name)
    return "/".join([*_folded_folders(folders), _NUMBERS.sub(FOLDED, stem)])


def _folded_folders(folders: Iterable[str]) -> list[str]:
    folded: list[str] = []
    for folder in folders:
        is_part = folded[-1:] == [FOLDED] and re.fullmatch(r"\d\d", folder)
        folded.append(FOLDED if is_part or _DATED.fullmatch(folder) else folder)
    return folded


def label_of(family: str) -> str:
    """Write a family's name for people: `student_north` for `data/student_north_#`."""
    name = family.rpartition("/")[2]
    return name.strip("#-_. ()") or name


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one file has. `empty` counts the empty cells of each column."""

    columns: tuple[str, ...]
    rows: int
    empty: tuple[int, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of empty cells of each column; none if there is no row."""
        return tuple(round(count / self.rows, 4) for count in self.empty) if self.rows else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What the files of one day with the same columns had: the lowest and highest figures."""

    day: str  # ISO 8601
    columns: tuple[str, ...]
    files: int
    rows: tuple[int, int]
    low: tuple[float, ...]  # share of empty cells, of each column; () if no file had a row
    high: tuple[float, ...]

    @classmethod
    def of(cls, look: Look, day: str) -> Self:
        """The day of a single file."""
        rows = (look.rows, look.rows)
        shares = look.shares
        return cls(day=day, columns=look.columns, files=1, rows=rows, low=shares, high=shares)

    def and_also(self, other: Self) -> Self:
        """The same day with the files of another one."""
        return replace(
            self,
            files=self.files + other.files,
            rows=(min(self.rows[0], other.rows[0]), max(self.rows[1], other.rows[1])),
            low=tuple(map(min, self.low or other.low, other.low or self.low)),
            high=tuple(map(max, self.high or other.high, other.high or self.high)),
        )


@dataclass(frozen=True, slots=True)
class Family:
    """What the files of a family had lately, day by day and by their columns.

    It is the same in whatever order files are added, so a ledger that is built again from the
    manifests knows the same.
    """

    days: tuple[Day, ...] = ()

    def with_files(self, looks: Iterable[Look], day: str) -> Self:
        """The family with the files of one more day."""
        known = {(one.day, one.columns): one for one in self.days}
        for look in looks:
            key, new = (day, look.columns), Day.of(look, day)
            known[key] = known[key].and_also(new) if key in known else new
        return replace(self, days=tuple(_newest(known.values())))

    def with_file(self, look: Look, day: str) -> Self:
        """The family with one more file."""
        return self.with_files([look], day)

    @property
    def files(self) -> int:
        """How many files are remembered."""
        return sum(one.files for one in self.days)

    def files_with(self, column: str) -> int:
        """How many of these had a column."""
        return sum(one.files for one in self.days if column in one.columns)

    def to_json(self) -> dict[str, Any]:
        """One JSON object. Lists of columns are written once."""
        shapes = list(dict.fromkeys(one.columns for one in self.days))
        return {
            "shapes": shapes,
            "days": [
                [one.day, shapes.index(one.columns), one.files, *one.rows, one.low, one.high]
                for one in self.days
            ],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave; raises TypeError, ValueError or LookupError on others."""
        shapes = [tuple(columns) for columns in row["shapes"]]
        return cls(
            tuple(
                Day(
                    day=day,
                    columns=shapes[shape],
                    files=files,
                    rows=(least, most),
                    low=tuple(low),
                    high=tuple(high),
                )
                for day, shape, files, least, most, low, high in row["days"]
            )
        )


def _newest(days: Iterable[Day]) -> list[Day]:
    """What is remembered: the newest days, and of each the columns that most files had."""
    by_day: dict[str, list[Day]] = {}
    for one in days:
        by_day.setdefault(one.day, []).append(one)
    kept: list[Day] = []
    for day in sorted(by_day)[-DAYS:]:
        most = sorted(by_day[day], key=lambda one: (-one.files, one.columns))
        kept += most[:SHAPES_A_DAY]
    return kept


def compared(paths: Iterable[str]) -> list[str]:
    """The families of a batch's files that are compared, in order."""
    return sorted({family_of(path) for path in paths})[:FAMILIES]


def shapes_of(looks: Sequence[Look | None]) -> tuple[list[tuple[str, ...]], list[int | None]]:
    """The different lists of columns of some files, and which of them each file has.

    A file that is not compared has None, and so do files once the names become too many.
    """
    shapes: dict[tuple[str, ...], int] = {}
    names = 0
    which: list[int | None] = []
    for look in looks:
        columns = look.columns if look and len(look.columns) <= COMPARED_COLUMNS else ()
        if columns and columns not in shapes and names + len(columns) <= NAMES:
            shapes[columns] = len(shapes)
            names += len(columns)
        which.append(shapes.get(columns) if columns else None)
    return list(shapes), which
