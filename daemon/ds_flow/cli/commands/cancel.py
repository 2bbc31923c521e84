"""`ds-flow cancel`: end a batch and its run."""

import argparse
import os
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import BATCHES, NO_WAIT, Arguments
from ds_flow.core import BatchState
from ds_flow.system import DONE, FAILED, INTERRUPTED, put

if TYPE_CHECKING:
    from ds_flow.ledger import Ledger
    from ds_flow.service import Service
    from ds_flow.settings import Settings

HELP = "cancel batches and end their runs"
ARGUMENTS: Arguments = (BATCHES, NO_WAIT)

POLL_SECONDS = 0.1
CANCEL_SECONDS = 60.0  # how long a person waits for a cluster


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import carry_out, record_each, wake
    from ds_flow.service import service
    from ds_flow.views import find_batch

    settings, at = load(args), now()
    running: list[str] = []
    with open_ledger(settings, at) as ledger:
        recorded, refused = record_each(
            args.batches,
            lambda name: _cancel(settings, ledger, find_batch(ledger, name), running, at),
        )
    code = min(refused, FAILED)
    if not recorded or wake(settings) or not running:
        return code
    if args.no_wait:
        return carry_out(settings, no_wait=True) or code
    with service(settings) as process:
        return _await_ends(process, running) or code


def _cancel(
    settings: "Settings", ledger: "Ledger", batch: str, running: list[str], at: datetime
) -> str:
    """Cancel a batch. If it has a live run, add it to `running`: it ends with that run."""
    if ledger.cancel(batch, at) == BatchState.CANCELLED:
        return f"batch {batch}: cancelled{_end_jobs(settings, ledger, batch)}"
    running.append(batch)
    return f"batch {batch}: its run is told to stop"


def _end_jobs(settings: "Settings", ledger: "Ledger", batch_id: str) -> str:
    """End the jobs that a batch without a run has left on a backend; a remark if some stay."""
    from ds_flow.dispatch import has_jobs_elsewhere
    from ds_flow.runs import cancel_batch_jobs, tidy_work_dir
    from ds_flow.work import Batch

    batch = Batch.at(settings.output_dir, batch_id)
    is_elsewhere = has_jobs_elsewhere(batch.jobs)
    environ = settings.run_environment(os.environ)
    live = cancel_batch_jobs(batch, environ, CANCEL_SECONDS) if is_elsewhere else []
    if not live:
        tidy_work_dir(ledger, batch)
    return f"; some jobs of {', '.join(live)} may still be alive" if live else ""


def _await_ends(process: "Service", batches: Collection[str]) -> int:
    """Wait until the runs of these batches have ended, and start nothing; the exit code."""
    process.engine.is_draining = True
    read = process.engine.ledger.read
    while any(map(read.has_live_run, batches)):
        if process.stops:
            return INTERRUPTED
        if not process.engine.tick():
            process.wake.wait(POLL_SECONDS)
    for batch in map(read.batch, batches):
        if batch is not None:
            put(f"batch {batch.id}: {batch.state}")
    return DONE
