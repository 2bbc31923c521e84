"""Tables: whole, aligned columns for a program, and no wider than a terminal for a person."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ds_flow.core import ago, moment, printable
from ds_flow.system.terminal import put, put_lines

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2  # between two columns
INDENT = 4  # of a note
SHORT_HASH, NARROW, NARROWEST = 9, 12, 4  # columns: to what a hash, a name, any cell is cut

NOTES = frozenset({"reason", "error", "detail", "finding", "text"})
"""Sentences: where a terminal is too narrow, the last column stands below its row."""

NAMES = frozenset({"path", "name", "source", "host", "native_id"})
"""What is cut first where a terminal is too narrow; `--json` has it whole. A Run ID never is."""

STYLES = {
    **dict.fromkeys(("processed", "succeeded", "ok"), "green"),
    **dict.fromkeys(("quarantined", "dead", "failed", "timed_out", "fault"), "red"),
    **dict.fromkeys(("retrying", "lost", "stopped", "cancelled", "warning"), "yellow"),
}
"""How a terminal shows a word."""


class Moment(str):
    """A time of a document, in ISO 8601. A terminal shows how long ago it was."""

    __slots__ = ()


Cell = str | int | None


def put_table(headings: Sequence[str], rows: Iterable[Iterable[Cell]]) -> None:
    """Print a table: fitted to a terminal, else as whole, aligned columns."""
    is_terminal = sys.stdout.isatty()
    now = datetime.now(UTC) if is_terminal else None
    table = [[_text(cell, now) for cell in row] for row in rows]
    if is_terminal:
        _put_fitted(headings, table)
        return
    texts = [[*headings], *table]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        put((" " * GAP).join(cells).rstrip())


def put_sentence(text: str) -> None:
    """Print a sentence for people: whole in a pipe, broken between words on a terminal."""
    shown = printable(text)
    put_lines(_wrapped(shown, "") if sys.stdout.isatty() else shown)


def _wrapped(text: str, indent: str) -> str:
    room = max(20, shutil.get_terminal_size().columns)
    return textwrap.fill(
        text,
        room,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _text(cell: Cell, now: datetime | None) -> str:
    """Leave no cell empty, so that columns can be counted."""
    if cell in {None, ""}:
        return "-"
    if isinstance(cell, Moment):
        return ago(cell, now) if now else moment(cell)
    return printable(str(cell))


def _put_fitted(headings: Sequence[str], table: Sequence[Sequence[str]]) -> None:
    from rich.console import Console

    is_plain = bool(os.environ.get("NO_COLOR"))  # rich would still print bold
    screen = Console(soft_wrap=True, color_system=None if is_plain else "auto")
    room = shutil.get_terminal_size().columns
    texts = [[heading.removesuffix("_at") for heading in headings], *table]
    widths = [max(map(_width, column)) for column in zip(*texts, strict=True)]
    has_notes = _total(widths) > room and headings[-1] in NOTES
    if has_notes:
        headings, widths = headings[:-1], widths[:-1]
    _narrow(headings, widths, room)
    for number, line in enumerate(texts):
        cells = [_cut(cell, width) for cell, width in zip(line, widths, strict=False)]
        screen.print(_line(cells, widths, "" if number else "bold"))
        if has_notes and number and line[-1] != "-":
            screen.print(_note(line[-1]))


def _narrow(headings: Sequence[str], widths: list[int], room: int) -> None:
    """Take from the widest column until all fit: from hashes first, then from names."""
    hashes = [place for place, heading in enumerate(headings) if heading == "sha256"]
    names = [place for place, heading in enumerate(headings) if heading in NAMES]
    every = [place for place, heading in enumerate(headings) if heading != "run_id"]
    for places, least in ((hashes, SHORT_HASH), (names, NARROW), (every, NARROWEST)):
        while _total(widths) > room and places:
            widest = max(places, key=widths.__getitem__)
            if widths[widest] <= least:
                break
            widths[widest] -= 1


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, width: int) -> str:
    """Leave out the middle of a text that is too wide: names often differ at their ends."""
    from rich.cells import cell_len, chop_cells

    if cell_len(text) <= width:
        return text
    before = chop_cells(text, (width - 1) // 2)[0]
    after = chop_cells(text[::-1], width - 1 - cell_len(before))[0][::-1]
    return f"{before}…{after}"


def _line(cells: Sequence[str], widths: Sequence[int], style: str) -> "Text":
    from rich.text import Text

    line = Text()
    for cell, width in zip(cells, widths, strict=True):
        # A Text of its own, since a cell must never be read as markup.
        line.append_text(Text(cell, style=style or STYLES.get(cell, "")))
        line.append(" " * (width - _width(cell) + GAP))
    line.rstrip()
    return line


def _note(text: str) -> "Text":
    from rich.text import Text

    return Text(_wrapped(text, " " * INDENT), style="dim")
