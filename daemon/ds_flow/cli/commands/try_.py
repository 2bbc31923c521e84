"""`ds-flow try`: what a run would make of one file, without a run."""

import argparse
import os
import re
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import JSON, Arguments, argument
from ds_flow.core import Document, counted, unescape
from ds_flow.system import DONE, FAILED, put, put_document, put_sentence, put_table

if TYPE_CHECKING:
    from ds_flow.settings import Settings

HELP = "read and transform one file as a run would, and publish nothing"
ARGUMENTS: Arguments = (
    argument("file", metavar="FILE", help="any file, in the inbox or elsewhere"),
    argument(
        "--rows",
        type=int,
        default=5,
        metavar="N",
        help="how many rows to show (default: %(default)s)",
    ),
    argument(
        "--minutes",
        type=float,
        default=10.0,
        metavar="N",
        help="how long it may take (default: %(default)g)",
    ),
    JSON,
)

PACKAGE_FRAME = re.compile(r'  File "([^"]*/(site|dist)-packages/|[^"]*[.]p[yx][xi]")')
FACT_WIDTH = 11
CELL_WIDTH = 24
GAP = 3  # between two columns
HIDDEN = "(hidden)"
MORE = "+16384 more"
MOST_ROWS = 2**31  # to show: a file of CSV text has no more


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load
    from ds_flow.runs import Trial, try_file

    settings = load(args, to_work=False)
    file = _place(args.file, settings.root)
    rows = min(max(0, args.rows), MOST_ROWS)
    trial = Trial(file=file, rows=rows, limit_minutes=max(0.01, args.minutes))
    answer = {**try_file(settings, trial), **_remarks(settings, file)}
    if args.json:
        put_document(answer)
    else:
        _put_answer(answer)
    return DONE if answer["published"] else FAILED


def _place(name: str, root: Path) -> Path:
    """Find a file from the current folder, or else from the project, as commands print it."""
    here, *there = (Path.cwd() / name, root / name, root / unescape(name))
    found = next((path for path in (here, *there) if path.exists()), here)
    return Path(os.path.normpath(found))


def _remarks(settings: "Settings", file: Path) -> Document:
    """What differs from a run of this file, and what would keep one from it."""
    from ds_flow.inbox import Pattern

    stage = settings.stages["process"]
    remarks = []
    if Pattern.parse(settings.pattern, settings.root).name_of(str(file)) is None:
        where = f"it does not match {settings.paths.input_pattern}"
        remarks.append(f"{where}: under this name, in this place, it would not be taken")
    if stage.executor != "local":
        remarks.append(f"runs process files on {stage.executor}; this was tried here")
    return {"transform": settings.compute.transform, "remarks": remarks}


def _put_answer(answer: Document) -> None:
    is_to_blame = answer["cause"] is not None  # the file, and not the code or this host
    refused = "would be set aside" if is_to_blame else "would not be published"
    verdict = "would be published" if answer["published"] else refused
    reason = f": {answer['reason']}" if answer["reason"] else ""
    put_sentence(f"{answer['file']} {verdict}{reason}")
    for line in _without_packages(answer["printed"].splitlines()):
        put(f"  | {line}")
    for name, fact in _facts(answer):
        put(f"  {name.ljust(FACT_WIDTH)}{fact}")
    for title, table in (("as read", answer["before"]), ("to publish", answer["after"])):
        if table is not None and table["columns"]:
            put()
            put(f"{title}: the first {counted(len(table['rows']), 'row')}")
            _put_rows(table["columns"], table["rows"])


def _without_packages(lines: Sequence[str]) -> Iterator[str]:
    """Leave out of a traceback what lies in installed packages."""
    is_in_package = False
    for line in lines:
        if not line.startswith("    "):
            is_in_package = PACKAGE_FRAME.match(line) is not None
        if not is_in_package:
            yield line


def _facts(answer: Document) -> Iterator[tuple[str, object]]:
    if answer["before"] is not None:
        if answer["delimiter"]:  # a workbook has none
            yield "delimiter", {"\t": "tab"}.get(answer["delimiter"], answer["delimiter"])
            yield "encoding", answer["encoding"]
        yield "columns", str(len(answer["before"]["columns"]))
    if answer["published"]:
        yield "rows", f"{answer['rows_read']} read, {answer['rows']} to publish"
        yield from (("note", note) for note in answer["notes"])
    file = answer["transform_file"]
    yield "transform", answer["transform"] + (f" in {file}" if file else "")
    yield from (("remark", remark) for remark in answer["remarks"])


def _put_rows(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> None:
    """Print as many columns as the terminal has room for, and how many more there are."""
    texts = [list(map(_cut, line)) for line in (columns, *rows)]
    widths = [max(map(len, column)) + GAP for column in zip(*texts, strict=True)]
    room = shutil.get_terminal_size().columns
    ends = list(accumulate(widths))
    shown = len(columns)
    if ends[-1] > room:
        shown = max(1, bisect_right(ends, room - len(MORE)))
    more = len(columns) - shown
    lines = [line[:shown] + ["…"] * bool(more) for line in texts[1:]]
    put_table([*texts[0][:shown], *[f"+{more} more"] * bool(more)], lines)


def _cut(cell: str | None) -> str:
    text = HIDDEN if cell is None else cell
    return text if len(text) <= CELL_WIDTH else f"{text[: CELL_WIDTH - 1]}…"
