"""The whole project in one document: every count, and whether the counts add up."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

from ds_flow.core import BatchState, Document
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.system import space_shortage
from ds_flow.views.documents import jobs_by_stage
from ds_flow.views.health import find_problems, health_document, held_back
from ds_flow.views.inbox import check_inbox
from ds_flow.views.night import last_night, newest_combined, next_fire

COUNT_TRIES = 3  # a running daemon may move a file between two counts
NAMED_PATHS = 20  # of those unaccounted for
NAMED_ANALYSES = 5  # of those that failed


def status_document(settings: Settings, ledger: Ledger, pid: int | None, now: datetime) -> Document:
    """Count everything. `pid` is the running daemon's."""
    # The inbox first: a file that is admitted meanwhile is then counted twice, and not left out.
    inbox = check_inbox(settings, ledger, pid, now)
    files, discovered = _count_files(ledger)
    if sum(files.values()) != discovered:
        inbox.reason = f"{sum(files.values())} of {discovered} files have a state"
    due_at = ledger.read.next_due()
    failed = ledger.history.failed_analyses()
    return {
        "daemon": {"running": pid is not None, "pid": pid},
        "files": files,
        "batches": ledger.read.counts("batch"),
        "runs": ledger.read.counts("run"),
        "discovered": discovered,
        "accounted": not inbox.reason,
        "reason": inbox.reason,
        "arriving": inbox.arriving,
        "looked_at": inbox.looked_at,
        "reading": [
            {"path": path, "read_bytes": read, "size_bytes": size}
            for path, read, size in inbox.reading
        ],
        "ignored": inbox.ignored,
        "unaccounted": inbox.unaccounted[:NAMED_PATHS],
        "next_due_at": due_at.isoformat() if due_at else None,
        "low_space": space_shortage(settings),
        "held_back": list(held_back(settings, ledger, now)),
        "jobs": list(_jobs(settings, ledger)),
        "analyses_failed": len(failed),
        "failed_analyses": [
            {"run_id": run.run_id, "analysis_error": run.analysis_error}
            for run in failed[:NAMED_ANALYSES]
        ],
        "ignored_paths": [one._asdict() for one in inbox.misnamed],
        "engine": {"backends": []},
        "last_night": last_night(settings, ledger, now),
        "next_fire": next_fire(settings, now),
        "newest_combined": newest_combined(settings, ledger),
        **health_document(pid, find_problems(settings, ledger, pid, now, inbox)),
    }


def _jobs(settings: Settings, ledger: Ledger) -> Iterator[Document]:
    """The jobs of each live run; of a batch between two runs, those that go on elsewhere."""
    for run in ledger.read.live_runs():
        for stage in jobs_by_stage(settings, run.batch):
            yield {"batch": run.batch, "run_id": run.run_id, **asdict(stage)}
    for batch in ledger.read.batches_in(BatchState.RETRYING):
        for stage in jobs_by_stage(settings, batch.id):
            if stage.backend != "local" and stage.pending + stage.running:
                yield {"batch": batch.id, "run_id": None, **asdict(stage)}


def _count_files(ledger: Ledger) -> tuple[dict[str, int], int]:
    for _ in range(COUNT_TRIES):
        files, discovered = ledger.read.counts("file"), ledger.read.total()
        if sum(files.values()) == discovered:
            break
    return files, discovered
