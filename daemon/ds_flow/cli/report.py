"""What the answers of several commands have in common."""

import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ds_flow.core import local_time

if TYPE_CHECKING:
    from ds_flow.dispatch import StageJobs
    from ds_flow.ledger import LongRun
    from ds_flow.settings import Settings

Document = dict[str, Any]
"""One JSON object. Keys may be added, never changed."""


def run_document(folder: str, long: "LongRun") -> Document:
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


def jobs_by_stage(settings: "Settings", batch_id: str) -> "list[StageJobs]":
    """The jobs of a batch that is worked on. Empty once its work directory is gone."""
    from ds_flow.dispatch import stages_in
    from ds_flow.work import Batch

    return stages_in(Batch.at(settings.output_dir, batch_id).jobs)


def output_folder(settings: "Settings") -> str:
    """Write the output folder as the start of a path, relative to the root if below it."""
    below = os.path.relpath(settings.output_dir, settings.root)
    if below == ".":
        return ""
    return f"{settings.output_dir if below.split('/')[0] == '..' else below}/"


def moment(at: str) -> str:
    """Write a time of a document for people: in local time, to the second."""
    return local_time(datetime.fromisoformat(at))
