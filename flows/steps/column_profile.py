"""What the cells of a table look like: pure, over the rows that were looked at."""

import re
from collections.abc import Sequence
from typing import Any

from ds_flow.core import hides

COLUMNS = 50  # of a table that are described; the others are counted
FIRST_ROWS = 5  # that are shown
CELL_CHARACTERS = 100  # of a cell, or a name, that are shown
MEASURED_CHARACTERS = 40  # a longer cell is text, whatever is in it

WHOLE = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
ISO_DATE = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9](?:[T ][0-9]{2}:[0-9]{2}.*)?")
DOTTED_DATE = re.compile(r"[0-3]?[0-9]\.[01]?[0-9]\.[0-9]{4}")

Profile = dict[str, Any]


def describe(
    names: Sequence[str],
    cells: Sequence[Sequence[str]],
    *,
    rows: int,
    empty: Sequence[int] | None,
    hidden: Sequence[str],
) -> Profile:
    """Describe a table by the cells of some of its rows, column by column.

    `rows` counts all rows, and `empty` the empty cells of all rows, where that is known.
    """
    looked_at = len(cells[0]) if cells else 0
    is_whole = looked_at == rows
    columns = []
    for number, (name, column) in enumerate(zip(names[:COLUMNS], cells, strict=False)):
        blank = empty[number] / rows if empty and rows else column.count("") / max(looked_at, 1)
        columns.append(
            {
                "name": name[:CELL_CHARACTERS],
                "empty": round(blank, 4),
                **_values(column, is_hidden=hides(hidden, name)),
                "approximate": not is_whole,
            }
        )
    return {
        "rows": rows,
        "rows_looked_at": looked_at,
        "columns": columns,
        "columns_left_out": max(0, len(names) - COLUMNS),
        "first_rows": _first_rows(columns, cells, looked_at),
    }


def _values(column: Sequence[str], *, is_hidden: bool) -> Profile:
    distinct = set(column)
    distinct.discard("")
    kind, key = _kind(distinct)
    smallest = largest = None
    if distinct and not is_hidden:
        smallest = min(distinct, key=key)[:CELL_CHARACTERS]
        largest = max(distinct, key=key)[:CELL_CHARACTERS]
    return {
        "distinct": len(distinct),
        "smallest": smallest,
        "largest": largest,
        "looks_like": kind,
        "hidden": is_hidden,
    }


def _kind(distinct: set[str]) -> tuple[str, Any]:
    """What all cells look like, and how they are compared."""
    if not distinct:
        return "empty", None
    if max(map(len, distinct)) <= MEASURED_CHARACTERS:
        for kind, pattern, key in KINDS:
            if all(map(pattern.fullmatch, distinct)):
                return kind, key
    return "text", None


def _day(cell: str) -> tuple[int, ...]:
    return tuple(map(int, reversed(cell.split("."))))


KINDS = (
    ("whole number", WHOLE, int),
    ("number", NUMBER, lambda cell: float(cell.replace(",", "."))),
    ("date", ISO_DATE, None),
    ("date", DOTTED_DATE, _day),
)


def _first_rows(
    columns: Sequence[Profile], cells: Sequence[Sequence[str]], looked_at: int
) -> list[list[str | None]]:
    """The first rows. A hidden column has null in them."""
    return [
        [
            None if column["hidden"] else cells[number][row][:CELL_CHARACTERS]
            for number, column in enumerate(columns)
        ]
        for row in range(min(FIRST_ROWS, looked_at))
    ]


# --------------------------------------------------------------------------- one that was written


def checked(made: Any, hidden: Sequence[str]) -> Profile | None:
    """Read a description that a job has left, or None if it is not one.

    A job may be a stranger's, and columns may have been hidden since: nothing is taken over that is
    not of the right kind and as short as it should be, and no value of a hidden column.
    """
    try:
        columns = [_checked_column(one, hidden) for one in made["columns"][:COLUMNS]]
        rows = [
            [
                None if column["hidden"] else _text(cell)
                for column, cell in zip(columns, row, strict=True)
            ]
            for row in made["first_rows"][:FIRST_ROWS]
        ]
        return {
            "rows": _count(made["rows"]),
            "rows_looked_at": _count(made["rows_looked_at"]),
            "columns": columns,
            "columns_left_out": _count(made["columns_left_out"]),
            "first_rows": rows,
        }
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        return None


def _checked_column(one: Any, hidden: Sequence[str]) -> Profile:
    name = _text(one["name"]) or ""
    is_hidden = bool(one["hidden"]) or hides(hidden, name)
    return {
        "name": name,
        "empty": min(1.0, max(0.0, float(one["empty"]))),
        "distinct": _count(one["distinct"]),
        "smallest": None if is_hidden else _text(one["smallest"]),
        "largest": None if is_hidden else _text(one["largest"]),
        "looks_like": one["looks_like"] if one["looks_like"] in LOOKS else "text",
        "hidden": is_hidden,
        "approximate": bool(one["approximate"]),
    }


LOOKS = ("empty", "whole number", "number", "date", "text")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text: str = value.encode(errors="replace").decode()
    return text[:CELL_CHARACTERS]


def _count(value: Any) -> int:
    return min(max(0, int(value)), 2**53)
