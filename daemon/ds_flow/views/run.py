"""Runs as documents: one with its manifest, or many of them."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict

from ds_flow.core import LIVE_RUNS, Document, LedgerError, RunState
from ds_flow.dispatch import StageJobs, jobs_in
from ds_flow.ledger import Ledger, LongRun, RunRow
from ds_flow.settings import Settings
from ds_flow.system import read_json, say
from ds_flow.views.deliveries import delivery_document
from ds_flow.views.documents import jobs_by_stage, output_folder, run_document
from ds_flow.views.profile import profile_document
from ds_flow.work import Batch, find_analysis, find_manifest, read_analysis


def newest_runs(
    settings: Settings, ledger: Ledger, state: RunState | None, limit: int | None
) -> Iterator[tuple[Document, list[StageJobs]]]:
    """The newest runs, oldest first, each with the jobs of a live one."""
    return run_documents(settings, ledger.history.newest_runs(state, limit))


def run_documents(
    settings: Settings, runs: Iterable[LongRun]
) -> Iterator[tuple[Document, list[StageJobs]]]:
    """Yield runs as documents, each with the jobs of a live one."""
    folder = output_folder(settings)
    for one in runs:
        live = one.row.state in LIVE_RUNS
        jobs = jobs_by_stage(settings, one.row.batch) if live else []
        document = {**run_document(folder, one), **_handed_over(settings, one)}
        yield {**document, "jobs": [asdict(stage) for stage in jobs]}, jobs


def whole_run(settings: Settings, ledger: Ledger, row: RunRow) -> Document:
    """One run with its manifest, which is None until it is published."""
    names = ledger.read.outputs(row.run_id) if row.run_id else []
    handed = ledger.deliveries.of_run(row.run_id) if row.run_id else []
    long = LongRun(row, ledger.read.batch_paths(row.batch), names, handed)
    path = find_manifest(settings.output_dir, row.run_id or "")
    manifest = read_json(path) if row.state == RunState.SUCCEEDED and path else None
    jobs = manifest["jobs"] if manifest else _jobs_so_far(settings, ledger, row)
    return {
        **run_document(output_folder(settings), long),
        **_handed_over(settings, long),
        "analysis": _analysis_again(settings, row) or (manifest and manifest["analysis"]),
        "manifest": manifest,
        "profile": profile_document(settings, row.run_id) if manifest and row.run_id else None,
        "jobs": [{"state": "failed" if job.get("failure") else "done", **job} for job in jobs],
    }


def _handed_over(settings: Settings, long: LongRun) -> Document:
    return {"deliveries": [delivery_document(settings, one) for one in long.deliveries]}


def _jobs_so_far(settings: Settings, ledger: Ledger, row: RunRow) -> list[Document]:
    """The jobs of a run without a manifest, and those of the attempts before it.

    Once a later attempt has published the batch, they are in its manifest.
    """
    jobs: list[Document] = []
    with suppress(PermissionError):  # another user's
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


def _analysis_again(settings: Settings, row: RunRow) -> Document | None:
    """The newest analysis that was done again, if there is one."""
    path = find_analysis(settings.output_dir, row.run_id or "", row.analyses)
    if path is None:
        return None
    try:
        return {**read_analysis(path), "file": os.path.relpath(path, settings.root)}
    except (LedgerError, OSError) as error:  # the rest can be shown
        say(str(error))
        return None
