"""`ds-flow show`: one run, with its manifest."""

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ds_flow.cli.arguments import JSON, RUN, Arguments, argument
from ds_flow.cli.report import Document, moment, output_folder, run_document
from ds_flow.core import LedgerError, RunState
from ds_flow.system import DONE, Cell, put, put_document, put_table, read_json, say

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
    *("transform", "tag", "host", "user", "git_commit", "code_fingerprint", "settings_fingerprint"),
)
MANIFEST_TABLES = {
    "inputs": ("path", "version", "rows", "columns", "bytes", "delimiter", "notes"),
    "outputs": ("name", "rows", "bytes", "compared", "because", "sha256"),
    "rejected": ("path", "version", "cause", "line", "reason"),
}
JOB_COLUMNS = (
    *("stage", "backend", "round", "index", "state", "host", "native_id", "since"),
    *("exit_code", "reason"),
)
JOB_TIMES = ("ended_at", "started_at", "submitted_at")


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
    jobs = manifest["jobs"] if manifest else _jobs_so_far(settings, ledger, row)
    return {
        **run_document(output_folder(settings), long),
        "analysis": _analysis_again(settings, row) or (manifest and manifest["analysis"]),
        "manifest": manifest,
        "jobs": [{"state": "failed" if job.get("failure") else "done", **job} for job in jobs],
    }


def _jobs_so_far(settings: "Settings", ledger: "Ledger", row: "RunRow") -> list[Document]:
    """The jobs of a run without a manifest, and those of the attempts before it.

    Once a later attempt has published the batch, they are in its manifest.
    """
    from ds_flow.dispatch import jobs_in
    from ds_flow.work import Batch, find_manifest

    jobs = [asdict(job) for job in jobs_in(Batch.at(settings.output_dir, row.batch).jobs)]
    later = [run for run in ledger.read.runs_of(row.batch) if run.state == RunState.SUCCEEDED]
    path = find_manifest(settings.output_dir, later[-1].run_id or "") if later else None
    if not jobs and path:
        jobs = read_json(path)["jobs"]
    return [job for job in jobs if _attempt(job) <= row.attempt]


def _attempt(job: Document) -> int:
    """The attempt that opened the job's round; 0 for one by hand."""
    number = str(job.get("opened_by")).rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


def _analysis_again(settings: "Settings", row: "RunRow") -> Document | None:
    """The newest analysis that was done again, if there is one."""
    from ds_flow.work import find_analysis, read_analysis

    path = find_analysis(settings.output_dir, row.run_id or "", row.analyses)
    if path is None:
        return None
    try:
        return {**read_analysis(path), "file": os.path.relpath(path, settings.root)}
    except (LedgerError, OSError) as error:  # the rest can be shown
        say(str(error))
        return None


def _put_run(run: Document) -> None:
    _put_fields(run, RUN_FIELDS)
    manifest = run["manifest"]
    if manifest is None:
        _put_section("inputs", run["inputs"])
        _put_section("outputs", run["outputs"])
        _put_jobs(run["jobs"])
        return
    _put_fields(manifest, MANIFEST_FIELDS)
    for part, columns in MANIFEST_TABLES.items():
        _put_rows(part, columns, manifest[part])
    _put_jobs(run["jobs"])
    if analysis := run["analysis"]:
        name = f"analysis, done again ({analysis['file']})" if "file" in analysis else "analysis"
        why = analysis.get("error")
        heading = f"{name} failed: {why}" if why else name
        _put_section(heading, analysis["stdout"].splitlines())


def _put_jobs(jobs: Sequence[Document]) -> None:
    rows = [{**job, "since": next(filter(None, map(job.get, JOB_TIMES)), "")} for job in jobs]
    _put_rows("jobs", JOB_COLUMNS, rows)


def _put_rows(heading: str, columns: Sequence[str], rows: Sequence[Document]) -> None:
    if rows:
        put()
        put(heading)
        put_table(columns, ([_cell(row.get(name)) for name in columns] for row in rows))


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
