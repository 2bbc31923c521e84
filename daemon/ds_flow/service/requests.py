"""What a person asks for, by a command or on the page: recorded in the ledger for the daemon."""

import os
import secrets
from datetime import datetime

from ds_flow.core import BatchState, FileState, RequestError, Trigger, counted
from ds_flow.dispatch import has_jobs_elsewhere
from ds_flow.ledger import RUN_PREFIX, Ledger, RunRow
from ds_flow.runs import cancel_batch_jobs, tidy_work_dir
from ds_flow.schedules import choose_files
from ds_flow.settings import Settings
from ds_flow.work import Batch

CANCEL_SECONDS = 60.0  # how long a person waits for a cluster


def retry(ledger: Ledger, batch: str, at: datetime) -> str:
    """Try a batch again now. A dead one cannot come back: its files form a new one."""
    new = ledger.retry(batch, secrets.token_hex(5), at)
    return f"batch {batch}: retried now" + (f", as batch {new}" if new != batch else "")


def release(ledger: Ledger, path: str, at: datetime) -> tuple[int, str]:
    """Release the newest quarantined version of a path; its id, and what came of it."""
    versions = ledger.read.versions(path)
    if not versions:
        raise RequestError(f"{path} is not in the ledger; `ds-flow explain` says why")
    quarantined = [row for row in versions if row.state == FileState.QUARANTINED]
    row = quarantined[-1] if quarantined else versions[-1]
    state = ledger.release(row.id, at)
    result = "the next scan reads it again" if state == FileState.QUARANTINED else state
    return row.id, f"{row.path} version {row.version}: {result}"


def cancel(settings: Settings, ledger: Ledger, batch: str, at: datetime) -> tuple[bool, str]:
    """Cancel a batch; whether it ends only with its live run, and what came of it."""
    if ledger.cancel(batch, at) == BatchState.CANCELLED:
        return False, f"batch {batch}: cancelled{_end_jobs(settings, ledger, batch)}"
    return True, f"batch {batch}: its run is told to stop"


def _end_jobs(settings: Settings, ledger: Ledger, batch_id: str) -> str:
    """End the jobs that a batch without a run has left on a backend; a remark if some stay."""
    batch = Batch.at(settings.output_dir, batch_id)
    is_elsewhere = has_jobs_elsewhere(batch.jobs)
    environ = settings.run_environment(os.environ)
    live = cancel_batch_jobs(batch, environ, CANCEL_SECONDS) if is_elsewhere else []
    if not live:
        tidy_work_dir(ledger, batch)
    return f"; some jobs of {', '.join(live)} may still be alive" if live else ""


def deliver(ledger: Ledger, run: RunRow, at: datetime) -> str:
    """Hand a run over again; what comes of it. Raises RequestError."""
    run_id = _run_id(run)
    anew = ledger.deliveries.again(run_id, at)
    still = len(ledger.deliveries.commands) - anew
    words = [f"{counted(anew, 'command')} after what waits"] * bool(anew)
    words += [f"{counted(still, 'command')} without further wait"] * bool(still)
    return f"run {run_id}: handed over to {', '.join(words)}"


def give_up_delivery(ledger: Ledger, run: RunRow, at: datetime) -> str:
    """Give up what waits of a run; what comes of it. Raises RequestError."""
    run_id = _run_id(run)
    count = ledger.deliveries.skip(run_id, at)
    return f"run {run_id}: {counted(count, 'command')} will not get it"


def _run_id(run: RunRow) -> str:
    if run.run_id is None:
        raise RequestError(f"run {run.batch}/{run.attempt} has published nothing")
    return run.run_id


def rerun(settings: Settings, ledger: Ledger, run_id: str, batch: str, at: datetime) -> str:
    """Process the files of one run again, as a new batch, in their newest versions."""
    rows = ledger.read.latest(ledger.read.batch_paths(batch))
    choice = choose_files(settings, rows)
    new, ids = secrets.token_hex(5), [row.id for row in choice.free]
    files = ledger.form(new, ids, Trigger.RERUN, at, f"{RUN_PREFIX}{run_id}")
    if not files:
        raise RequestError(
            "nothing to rerun: no such file is published, still there, and in no other batch"
        )
    left_out = "".join(f"; left out: {path} {why}" for path, why in choice.left_out.items())
    return f"batch {new}: {counted(files, 'file')}{left_out}"
