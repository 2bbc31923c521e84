"""`ds-flow show`: one run, with its manifest."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ds_flow.cli.arguments import JSON, RUN, Arguments, argument, flag
from ds_flow.core import Document, moment
from ds_flow.system import DONE, Cell, put, put_document, put_table

HELP = "show one run, with its manifest once it is published"
ARGUMENTS: Arguments = (
    argument("run_name", metavar="RUN", nargs="?", default="last", help=f"{RUN} (default: last)"),
    flag("--all", help="list all inputs, outputs and jobs of a large run"),
    JSON,
)

RUN_FIELDS = (
    *("run_id", "batch", "attempt", "state", "trigger", "started_at", "ended_at"),
    *("removed_at", "error"),
)
MANIFEST_FIELDS = (
    *("selection", "compared_with"),
    *("transform", "tag", "host", "user", "git_commit", "code_fingerprint", "settings_fingerprint"),
)
MANIFEST_TABLES = {
    "inputs": (
        "path",
        "version",
        "rows",
        "columns",
        "bytes",
        "format",
        "encoding",
        "delimiter",
        "notes",
    ),
    "outputs": ("name", "rows", "bytes", "compared", "because", "sha256"),
    "rejected": ("path", "version", "cause", "line", "reason"),
    "drift": ("path", "version", "kind", "text"),
}
PROFILE_COLUMNS = ("name", "looks_like", "empty", "distinct", "smallest", "largest")
DELIVERY_COLUMNS = ("command", "state", "failures", "next_try", "reason", "log")
JOB_COLUMNS = (
    *("stage", "backend", "round", "index", "state", "host", "native_id", "since"),
    *("exit_code", "reason"),
)
LISTED = 20  # rows of each part that are shown without --all
JOB_TIMES = ("ended_at", "started_at", "submitted_at")


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import reading
    from ds_flow.views import find_run, whole_run

    with reading(args) as (settings, ledger):
        document = whole_run(settings, ledger, find_run(ledger, args.run_name))
    if args.json:
        put_document(document)
    else:
        _put_run(document, sys.maxsize if args.all else LISTED)
    return DONE


def _put_run(run: Document, listed: int) -> None:
    _put_fields(run, RUN_FIELDS)
    manifest = run["manifest"]
    if manifest is None:
        _put_section("inputs", run["inputs"], listed)
        _put_section("outputs", run["outputs"], listed)
        _put_jobs(run["jobs"], listed)
        return
    _put_fields(manifest, MANIFEST_FIELDS)
    for part, columns in MANIFEST_TABLES.items():
        _put_rows(part, columns, manifest.get(part, ()), listed)
    _put_profile(run["profile"])
    _put_deliveries(run["deliveries"])
    _put_jobs(run["jobs"], listed)
    if analysis := run["analysis"]:
        name = f"analysis, done again ({analysis['file']})" if "file" in analysis else "analysis"
        why = analysis.get("error")
        heading = f"{name} failed: {why}" if why else name
        _put_section(heading, analysis["stdout"].splitlines(), sys.maxsize)


def _put_profile(profile: Document | None) -> None:
    """Show what the combined file looks like. Of the inputs, --json tells."""
    if profile and (combined := profile["combined"]):
        some = f", by {combined['rows_looked_at']:,} of {combined['rows']:,} rows"
        is_whole = combined["rows_looked_at"] == combined["rows"]
        rows = [{**one, "empty": f"{one['empty']:.0%}"} for one in combined["columns"]]
        _put_rows(f"combined file{'' if is_whole else some}", PROFILE_COLUMNS, rows, len(rows))


def _put_deliveries(deliveries: Sequence[Document]) -> None:
    for one in deliveries:
        one["next_try"] = moment(one["next_try_at"]) if one["next_try_at"] else ""
    shown = [{**one, "command": " ".join(one["command"])} for one in deliveries]
    _put_rows("handed over to", DELIVERY_COLUMNS, shown, len(shown))


def _put_jobs(jobs: Sequence[Document], listed: int) -> None:
    rows = [{**job, "since": next(filter(None, map(job.get, JOB_TIMES)), "")} for job in jobs]
    _put_rows("jobs", JOB_COLUMNS, rows, listed)


def _put_rows(heading: str, columns: Sequence[str], rows: Sequence[Document], listed: int) -> None:
    if rows:
        put()
        put(f"{heading}{_sums(rows) if len(rows) > listed else ''}")
        some = rows[:listed]
        put_table(columns, ([_cell(row.get(name)) for name in columns] for row in some))
        _put_left(len(rows) - len(some))


def _sums(rows: Sequence[Document]) -> str:
    """What the rows are together, where not all of them are listed."""
    sums = {name: sum(row.get(name) or 0 for row in rows) for name in ("rows", "bytes")}
    told = [f"{total:,} {name}" for name, total in sums.items() if total]
    return f": {', '.join([f'{len(rows):,} in all', *told])}"


def _put_left(left: int) -> None:
    if left > 0:
        put(f"... and {left:,} more: --all lists them")


def _cell(value: Any) -> Cell:
    if isinstance(value, list):
        return ", ".join(value)
    return "tab" if value == "\t" else value


def _put_fields(document: Document, names: Iterable[str]) -> None:
    for name in names:
        value = document.get(name)
        if value not in {None, ""}:
            put(f"{name:<22}{moment(value) if name.endswith('_at') else value}")


def _put_section(heading: str, lines: Sequence[str], listed: int) -> None:
    put()
    put(heading)
    for line in lines[:listed]:
        put(f"  {line}")
    _put_left(len(lines) - listed)
