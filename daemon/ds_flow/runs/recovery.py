"""What lies on disk and the ledger does not know: commits, manifests, batches."""

import logging
import secrets
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from ds_flow.core import (
    LIVE_BATCHES,
    RERUN_TRIGGERS,
    BatchError,
    BatchState,
    LedgerError,
    Manifest,
    Problems,
    RetryAt,
    RunState,
    Trigger,
    is_disk_error,
)
from ds_flow.ledger import ANALYSIS_FAILED, BATCH_DRIFTED, JOBS_REDONE, Ledger
from ds_flow.work import (
    REMOVED,
    Batch,
    analysis_name,
    batches_in,
    by_run_id,
    find_analysis,
    is_committed,
    manifest_name,
    manifest_names,
    newest_analyses,
    read_analysis,
    read_manifest,
    reveal,
)

log = logging.getLogger(__name__)


def admit_commits(
    ledger: Ledger, output_dir: Path, now: datetime, problems: Problems | None = None
) -> int:
    """Reveal and record every committed batch that the ledger does not know; how many were news.

    A run by hand leaves its commit for whoever opens the ledger next. A batch whose run is live
    is left to the daemon that follows it. A problem with a batch is logged unless `problems` knows
    it.

    1. Finish revealing it. Its commit is then durable, as the ledger's row will be.
    2. Record the commit.
    3. Remove the work directory.
    """
    count = 0
    for batch in batches_in(output_dir):
        if ledger.read.has_live_run(batch.id):
            continue
        with _named_if_bad(batch, problems):
            manifest = reveal(batch)
            if manifest is None:
                continue
            if ledger.record(manifest, now):
                log_commit(ledger, manifest)
                count += 1
            tidy_work_dir(ledger, batch)
    return count


def log_commit(ledger: Ledger, manifest: Manifest) -> None:
    """Say that a run has published, and which files of its batch it has not."""
    ids = {"run_id": manifest.run_id, "batch": manifest.batch}
    log.info("run.succeeded", extra={**ids, **_figures(manifest)})
    for kind, why in (
        (ANALYSIS_FAILED, manifest.analysis_error),
        (JOBS_REDONE, manifest.redone),
        (BATCH_DRIFTED, "" if manifest.trigger in RERUN_TRIGGERS else manifest.drifted),
    ):
        if why:
            log.warning(kind, extra={**ids, "why": why})
    log_set_aside(ledger, manifest.batch, {item.path for item in manifest.rejected})


def _figures(manifest: Manifest) -> Mapping[str, object]:
    started, published = map(datetime.fromisoformat, (manifest.started_at, manifest.published_at))
    return {
        "seconds": round((published - started).total_seconds(), 1),
        "files": len(manifest.inputs),
        "rows": sum(item.rows for item in manifest.inputs),
        "outputs": len(manifest.outputs),
    }


def log_set_aside(ledger: Ledger, batch: str, paths: Container[str]) -> None:
    """Say which of these files of a batch were set aside, and why."""
    for kind, path, why in ledger.history.set_aside(batch):
        if path in paths:
            log.warning(kind, extra={"path": path, "batch": batch, "why": why})


@contextmanager
def _named_if_bad(batch: Batch, problems: Problems | None = None) -> Iterator[None]:
    """Say that a work directory was changed by someone or is refused, and let the others go on.

    One that another process removes is the next look's.
    """
    try:
        yield
    except FileNotFoundError:
        pass
    except (LedgerError, OSError) as error:
        if is_disk_error(error):
            raise
        if problems is None or problems.report(batch.id, str(error)):
            log.error("batch.unreadable", extra={"batch": batch.id, "why": str(error)})


def rebuild_ledger(ledger: Ledger, output_dir: Path, now: datetime) -> int:
    """Record every published manifest that the ledger does not know, oldest first; how many.

    A manifest that cannot be read is named and passed over; a live run's is left to the daemon.
    Then record the analyses that were done again, where the ledger knows an older one.
    """
    count = sum(_take_in(ledger, path, now) for path in _unknown(ledger, output_dir))
    for run_id, number in newest_analyses(output_dir).items():
        run = ledger.read.run(run_id)
        if run is not None and run.analyses < number:
            _take_in_analysis(ledger, output_dir, run_id, number, now)
    return count


def _take_in_analysis(
    ledger: Ledger, output_dir: Path, run_id: str, number: int, now: datetime
) -> None:
    path = find_analysis(output_dir, run_id, number)
    try:
        if path is not None:
            ledger.record_analysis(run_id, number, read_analysis(path)["error"], now)
    except (LedgerError, OSError) as error:
        if is_disk_error(error):
            raise
        name = analysis_name(run_id, number)
        log.error("analysis.unreadable", extra={"analysis": name, "why": str(error)})


def _unknown(ledger: Ledger, output_dir: Path) -> Iterator[Path]:
    """Every manifest that the ledger does not know, oldest Run ID first."""
    folders = (output_dir / REMOVED, output_dir)
    found = {name: folder for folder in folders for name in manifest_names(folder)}
    unknown = found.keys() - {manifest_name(run_id) for run_id in ledger.read.run_ids()}
    return (found[name] / name for name in sorted(unknown, key=by_run_id))


def published(ledger: Ledger, output_dir: Path, batch: str) -> Manifest | None:
    """Find a batch's manifest among those that the ledger does not know.

    A ledger that was restored from a backup may take a batch for running that was published, and
    whose work directory is gone.
    """
    for path in _unknown(ledger, output_dir):
        with suppress(LedgerError, OSError):  # named when the ledger is opened
            manifest = read_manifest(path)
            if manifest.batch == batch:
                return manifest
    return None


def _take_in(ledger: Ledger, path: Path, now: datetime) -> bool:
    try:
        manifest = read_manifest(path)
        if ledger.read.has_live_run(manifest.batch):
            return False
        is_news = ledger.record(manifest, now, is_old=True)
        if path.parent.name == REMOVED:
            ledger.history.remove_outputs([manifest.run_id], "known from its manifest", now)
    except (LedgerError, OSError) as error:
        if is_disk_error(error):
            raise
        log.error("manifest.unreadable", extra={"manifest": path.name, "why": str(error)})
        return False
    return is_news


def adopt_batches(ledger: Ledger, output_dir: Path, now: datetime) -> int:
    """Take up the uncommitted batches that a lost ledger knew; how many.

    Their runs may be alive. A run by hand is its person's, not ours.
    """
    count = 0
    for batch in batches_in(output_dir):
        if ledger.read.batch(batch.id) is not None:
            continue
        with _named_if_bad(batch):
            if batch.plan.trigger != Trigger.MANUAL and not is_committed(batch):
                ledger.adopt(batch.plan, max(1, batch.last_attempt()), now)
                why = "the ledger was lost"
                log.warning("batch.running", extra={"batch": batch.id, "why": why})
                count += 1
    return count


def try_held_batches(ledger: Ledger, now: datetime) -> None:
    """Let each batch start at once whose last run never began: what was wrong may be mended."""
    for batch in ledger.read.batches_in(BatchState.RETRYING):
        if ledger.read.never_began(batch.id):
            ledger.retry(batch.id, batch.id, now)


def disown_batches(ledger: Ledger, output_dir: Path, now: datetime) -> int:
    """Make a copied project's open batches its own; how many. No run of them can be alive here.

    Marks, jobs and containers are named by their batch, so the old names are the other project's.

    1. Record what is committed. It stays what it is.
    2. End the live runs, and give the files of open batches to new ones.
    3. Remove the work directories.
    4. Give up what waits to be handed over.
    """
    why = "it is of the project that this one was copied from"
    for run in ledger.read.live_runs():
        manifest = None
        with suppress(BatchError):  # then it is no commit
            manifest = reveal(Batch.at(output_dir, run.batch))
        if manifest := manifest or published(ledger, output_dir, run.batch):
            ledger.record(manifest, now)
        if manifest is None or manifest.attempt != run.attempt:
            ended = RunState.LOST
            ledger.end_run(
                run.batch, run.attempt, ended, error=why, results=0, then=RetryAt(now), now=now
            )
    live = [row.id for state in LIVE_BATCHES for row in ledger.read.batches_in(state)]
    for batch_id in live:
        ledger.restart(batch_id, secrets.token_hex(5), why, now)
    for batch in batches_in(output_dir):
        batch.remove()
    ledger.deliveries.give_up_all(why, now)
    return len(live)


def tidy_work_dirs(ledger: Ledger, output_dir: Path) -> None:
    """Remove the work directories that nothing needs any more.

    Only for the holder of the single-instance lock: nobody else starts runs meanwhile.
    """
    for batch in batches_in(output_dir):
        with _named_if_bad(batch):
            tidy_work_dir(ledger, batch)


def tidy_work_dir(ledger: Ledger, batch: Batch) -> None:
    """Remove the work directory of a batch that is over, and that no `retry` needs."""
    row = ledger.read.batch(batch.id)
    if row is None or row.state in LIVE_BATCHES or ledger.read.has_live_run(batch.id):
        return
    if row.state != BatchState.DEAD or not ledger.read.has_dead_files(batch.id):
        batch.remove()
