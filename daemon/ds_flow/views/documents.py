"""What the documents have in common: one JSON object each, whoever shows it."""

import os
from contextlib import suppress
from dataclasses import fields

from ds_flow.core import Document
from ds_flow.dispatch import StageJobs, stages_in
from ds_flow.ledger import FileRow, LongRun
from ds_flow.settings import Settings
from ds_flow.work import Batch


def run_document(folder: str, long: LongRun) -> Document:
    """One run. `folder`: the output folder, as `output_folder` writes it."""
    row = long.row
    return {
        "run_id": row.run_id,
        "batch": row.batch,
        "attempt": row.attempt,
        "state": row.state,
        "trigger": row.trigger,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "inputs": long.inputs,
        "outputs": [folder + name for name in long.outputs],
        "error": row.error,
        "analysis_error": row.analysis_error,
        "removed_at": row.removed_at,
    }


def jobs_by_stage(settings: Settings, batch_id: str) -> list[StageJobs]:
    """The jobs of a batch that is worked on. Empty once its work directory is gone.

    Also for a user who may not look into it.
    """
    with suppress(PermissionError):
        return stages_in(Batch.at(settings.output_dir, batch_id).jobs)
    return []


def output_folder(settings: Settings) -> str:
    """Write the output folder as the start of a path, relative to the root if below it."""
    below = os.path.relpath(settings.output_dir, settings.root)
    if below == ".":
        return ""
    return f"{settings.output_dir if below.split('/')[0] == '..' else below}/"


def file_document(row: FileRow) -> Document:
    """One version of a file."""
    return {key.name: getattr(row, key.name) for key in fields(row) if key.name != "id"}
