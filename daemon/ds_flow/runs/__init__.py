"""From queued batches to recorded outcomes: start, supervise, record."""

from ds_flow.runs.analysis import analyze_again
from ds_flow.runs.kill_jobs import cancel_batch_jobs
from ds_flow.runs.launch import Runs, processes
from ds_flow.runs.recovery import (
    admit_commits,
    adopt_batches,
    disown_batches,
    rebuild_ledger,
    tidy_work_dir,
    tidy_work_dirs,
    try_held_batches,
)
from ds_flow.runs.start import Starter, pause_of, why_must_wait, why_no_slot, why_not_started
from ds_flow.runs.supervise import POLL_SECONDS, Supervisor
from ds_flow.runs.trial import Trial, try_file

__all__ = [
    "POLL_SECONDS",
    "Runs",
    "Starter",
    "Supervisor",
    "Trial",
    "admit_commits",
    "adopt_batches",
    "analyze_again",
    "cancel_batch_jobs",
    "disown_batches",
    "pause_of",
    "processes",
    "rebuild_ledger",
    "tidy_work_dir",
    "tidy_work_dirs",
    "try_file",
    "try_held_batches",
    "why_must_wait",
    "why_no_slot",
    "why_not_started",
]
