"""Try one file as a run would process it: `try_file.py WORK PUBLISHED ROWS`.

WORK is the work directory of a batch of this one file, PUBLISHED the project's output folder, ROWS
how many rows are shown. It leaves WORK/tried.json, whole. Nothing is published.
"""

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: its packages are beside steps/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from csv_io.errors import TableError
from csv_io.inputs import is_table, records_of
from csv_io.table import Source, read_tables
from ds_flow.core import DsFlowError, InputError, Rejected, format_of, hides, unescape
from ds_flow.system import write_json
from ds_flow.work import Batch, Result
from steps.file_results import file_results
from steps.process import process_shards
from steps.process_job import allowance_of, opened
from steps.transform import APPENDED

CELL_LENGTH = 1000  # characters of a cell that are shown
NOTHING_READ = {"delimiter": None, "encoding": None, "before": None}
NOTHING_PUBLISHED: dict[str, Any] = {
    "rows_read": None,
    "rows": None,
    "notes": [],
    "transform_file": None,
}

Table = dict[str, Any]


def tried(batch: Batch, published: Path, rows: int) -> dict[str, Any]:
    """What a run makes of the batch's one file, and why it sets it aside, if it does."""
    printed = io.StringIO()
    verdict: Result | Rejected | None = None
    problem = ""
    try:
        with redirect_stdout(printed):
            process_shards(batch, "1of1", [(0, 0)])
        good, bad = file_results(batch, published)
        verdict = (good or bad)[0]
    except DsFlowError as error:
        problem = str(error)
    return {
        "published": isinstance(verdict, Result),
        "cause": verdict.cause if isinstance(verdict, Rejected) else None,
        "reason": verdict.sentence if isinstance(verdict, Rejected) else problem,
        **(_of_result(verdict) if isinstance(verdict, Result) else NOTHING_PUBLISHED),
        **_read(batch, rows, verdict),
        "after": _written(batch, verdict, rows) if isinstance(verdict, Result) else None,
        "printed": _own_part(printed.getvalue(), verdict),
    }


def _of_result(result: Result) -> dict[str, Any]:
    return {
        "rows_read": result.rows_read,
        "rows": result.rows,
        "notes": list(result.notes),
        "transform_file": result.transform,
    }


def _read(batch: Batch, rows: int, verdict: Result | Rejected | None) -> dict[str, Any]:
    """How the file is read, and its first rows; nothing if not even its header can be."""
    options, planned = batch.plan.options, batch.plan.files[0]
    path = Path(options.root, unescape(planned.path))
    reading = options.reading(unescape(planned.path))
    found = (verdict.encoding if isinstance(verdict, Result) else "") or reading.encodings[0]
    with suppress(InputError), opened(path, options.inbox) as stream:
        source = Source(stream)
        allowance = allowance_of(source, options)
        reading = replace(reading, encoding=found)
        records = records_of(source, planned.path, reading, allowance, batch.folder)
        first: list[dict[str, str]] = []
        with suppress(TableError):  # it is the reason why the file is set aside
            first = next(read_tables(records)).slice(0, rows).to_pylist()
        columns = [name for name in records.header if name]
        cells = ([row[name] for name in columns] for row in first)
        is_text = not is_table(format_of(planned.path))
        return {
            "delimiter": records.delimiter if is_text else None,
            "encoding": records.encoding if is_text else None,
            "before": _table(columns, cells, options.hide_columns),
        }
    return NOTHING_READ


def _written(batch: Batch, result: Result, rows: int) -> Table:
    """Give the first rows to publish, without the columns that every output has."""
    with (batch.results.folder / result.output).open(encoding="utf-8", newline="") as stream:
        lines = csv.reader(stream)
        columns = next(lines)[: -len(APPENDED)]
        cells = [line[: -len(APPENDED)] for line in islice(lines, rows)]
    return _table(columns, cells, batch.plan.options.hide_columns)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], hidden: Sequence[str]) -> Table:
    shown = [not hides(hidden, name) for name in columns]
    cells = ([cell[:CELL_LENGTH] for cell in row] for row in rows)
    seen = (
        [cell if is_shown else None for cell, is_shown in zip(row, shown, strict=True)]
        for row in cells
    )
    return {"columns": list(columns), "rows": list(seen)}


def _own_part(printed: str, verdict: Result | Rejected | None) -> str:
    """What the team's code printed, without what our own job said of it."""
    ours = {f"{verdict.path}: {verdict.sentence}"} if isinstance(verdict, Rejected) else set()
    return "\n".join(_without(printed.splitlines(), ours))


def _without(lines: Iterable[str], ours: set[str]) -> Iterator[str]:
    for line in lines:
        is_head = line.startswith("[dsf-") and line.endswith("]")
        if not is_head and not line.endswith(" had a result") and line not in ours:
            yield line


def main(argv: Sequence[str]) -> None:
    batch = Batch(Path(argv[0]))
    write_json(batch.folder / "tried.json", tried(batch, Path(argv[1]), int(argv[2])))


if __name__ == "__main__":
    main(sys.argv[1:])
