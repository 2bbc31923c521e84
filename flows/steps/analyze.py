"""The analyze step: run the configured program on the combined file."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ds_flow.core import FailureClass, NoRoomError, program_of
from ds_flow.dispatch import log_of
from ds_flow.system import masked, refusal
from ds_flow.work import Batch, analyzing, why_no_analysis
from steps.jobs import error_of, job_for, run_jobs


def analyze_combined(batch: Batch, combined: Path | None) -> dict[str, Any] | None:
    """Run the analysis on the combined file. Returns its command, its output and its error.

    A failed analysis does not spoil the data, so the run goes on. Raises DispatchError if the
    analysis could not be run at all: the next attempt tries again. Once that is given up, it is
    a failed analysis like any other.
    """
    options = batch.plan.options.stages["analyze"]
    command = program_of(options.command, options.executor)
    if combined is None or not command:
        return None
    if why := why_no_analysis(batch):
        return _analysis(command, "", why)
    with analyzing(batch):
        job = job_for(batch.plan, "analyze", combined.stem, (*command, str(combined)))
        job = replace(job, reads=(combined.parent,))
        (outcome,) = run_jobs(batch, "analyze", "analyze", [job])
        if outcome.failure == FailureClass.INFRASTRUCTURE:
            raise error_of(batch, "analyze", "analyze", outcome)
        if outcome.failure and (full := refusal(batch.folder)):
            raise NoRoomError(f"no room on a disk: {full}: the analysis failed: {outcome.reason}")
    printed = log_of(batch.jobs / "analyze", outcome)
    error = str(error_of(batch, "analyze", "analyze", outcome)) if outcome.failure else ""
    return _analysis(command, printed, error)


def _analysis(command: Sequence[str], printed: str, error: str) -> dict[str, Any]:
    return {
        "command": list(command),
        "stdout": masked(printed, os.environ),
        "error": masked(error, os.environ),
    }
