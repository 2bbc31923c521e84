"""`ds-flow show`: one run, with its manifest."""

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ds_flow.cli.arguments import JSON, RUN, Arguments, argument
from ds_flow.cli.report import Document, moment, output_folder, run_document
from ds_flow.core import RunState
from ds_flow.system import DONE, Cell, put, put_document, put_table, read_json

if TYPE_CHECKING:
    from ds_flow.ledger import Ledger, RunRow
    from ds_flow.settings import Settings

HELP = "show one run, with its manifest once it is published"
ARGUMENTS: Arguments = (argument("run_name", metavar="RUN", help=RUN), JSON)

RUN_FIELDS = (
    *("run_id", "batch", "attempt", "state", "trigger", "started_at", "ended_at"),
    *("removed_at", "error"),
)
MANIFEST_FIELDS = (
    *("selection", "compared_with"),
    *("tag", "host", "user", "git_commit", "code_fingerprint", "settings_fingerprint"),
)
MANIFEST_TABLES = {
    "inputs": ("path", "version", "rows", "columns", "bytes", "delimiter", "notes"),
    "outputs": ("name", "rows", "bytes", "compared", "because", "sha256"),
    "rejected": ("path", "version", "cause", "line", "reason"),
    "jobs": ("stage", "backend", "round", "index", "host", "native_id", "exit_code"),
}


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.lookup import find_run
    from ds_flow.cli.project import reading

    with reading(args) as (settings, ledger):
        document = _document(settings, ledger, find_run(ledger, args.run_name))
    if args.json:
        put_document(document)
    else:
        _put_run(document)
    return DONE


def _document(settings: "Settings", ledger: "Ledger", row: "RunRow") -> Document:
    """One run with its manifest, which is None until it is published."""
    from ds_flow.ledger import LongRun
    from ds_flow.work import find_manifest

    names = ledger.read.outputs(row.run_id) if row.run_id else []
    long = LongRun(row, ledger.read.batch_paths(row.batch), names)
    path = find_manifest(settings.output_dir, row.run_id or "")
    manifest = read_json(path) if row.state == RunState.SUCCEEDED and path else None
    return {**run_document(output_folder(settings), long), "manifest": manifest}


def _put_run(run: Document) -> None:
    _put_fields(run, RUN_FIELDS)
    manifest = run["manifest"]
    if manifest is None:
        _put_section("inputs", run["inputs"])
        _put_section("outputs", run["outputs"])
        return
    _put_fields(manifest, MANIFEST_FIELDS)
    for part, columns in MANIFEST_TABLES.items():
        if manifest[part]:
            put()
            put(part)
            rows = ([_cell(row.get(name)) for name in columns] for row in manifest[part])
            put_table(columns, rows)
    if analysis := manifest["analysis"]:
        why = analysis.get("error")
        heading = f"analysis failed: {why}" if why else "analysis"
        _put_section(heading, analysis["stdout"].splitlines())


def _cell(value: Any) -> Cell:
    if isinstance(value, list):
        return ", ".join(value)
    return "tab" if value == "\t" else value


def _put_fields(document: Document, names: Iterable[str]) -> None:
    for name in names:
        value = document.get(name)
        if value not in {None, ""}:
            put(f"{name:<22}{moment(value) if name.endswith('_at') else value}")


def _put_section(heading: str, lines: Iterable[str]) -> None:
    put()
    put(heading)
    for line in lines:
        put(f"  {line}")
