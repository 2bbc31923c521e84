"""The whole project in one document: every count, and whether the counts add up."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from ds_flow.core import BatchState, Document
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.views.health import find_problems, health_document
from ds_flow.views.inbox import InboxCheck
from ds_flow.views.look import NOT_ASKED, look_around
from ds_flow.views.night import last_night, newest_combined, next_fire
from ds_flow.views.schedules import pause_document
from ds_flow.views.sets import sets_document

COUNT_TRIES = 3  # a running daemon may move a file between two counts
NAMED_PATHS = 20  # of those unaccounted for
NAMED_ANALYSES = 5  # of those that failed


def status_document(
    settings: Settings,
    ledger: Ledger,
    pid: int | None,
    now: datetime,
    asked: Mapping[str, str] = NOT_ASKED,
) -> Document:
    """Count everything, and say what needs a person. `pid` is the running daemon's.

    `asked`: by backend, why it does not answer a question of the caller's, or "".
    """
    # The inbox first: a file that is admitted meanwhile is then counted twice, and not left out.
    look = look_around(settings, ledger, pid, now, asked)
    due_at = ledger.read.next_due()
    return {
        "daemon": {"running": pid is not None, "pid": pid},
        **_counts(ledger, look.inbox),
        **_of_inbox(look.inbox),
        "next_due_at": due_at.isoformat() if due_at else None,
        "sets": sets_document(settings, ledger, now),
        "paused": pause_document(look.paused),
        "low_space": look.low_space,
        "held_back": look.held_back,
        "jobs": look.jobs,
        **_failed_analyses(ledger),
        "ignored_paths": [one._asdict() for one in look.inbox.misnamed],
        "engine": look.engine,
        "last_night": last_night(settings, ledger, now),
        "next_fire": next_fire(settings, now),
        "newest_combined": newest_combined(settings, ledger),
        **health_document(pid, find_problems(look)),
        "drifted": look.drifted,
        "drift": list(map(asdict, look.drift)),
    }


def _counts(ledger: Ledger, inbox: InboxCheck) -> Document:
    """Count what the ledger has. If the counts do not add up, the inbox is told."""
    files, discovered = _count_files(ledger)
    if sum(files.values()) != discovered:
        inbox.reason = f"{sum(files.values())} of {discovered} files have a state"
    batches = ledger.read.counts("batch")
    return {
        "files": files,
        "batches": batches,
        "batches_repaired": ledger.overview.repaired(batches.get(BatchState.DEAD, 0)),
        "runs": ledger.read.counts("run"),
        "discovered": discovered,
    }


def _of_inbox(inbox: InboxCheck) -> Document:
    return {
        "accounted": not inbox.reason,
        "reason": inbox.reason,
        "arriving": inbox.arriving,
        "looked_at": inbox.looked_at,
        "reading": [
            {"path": path, "read_bytes": read, "size_bytes": size}
            for path, read, size in inbox.reading
        ],
        "unmarked": inbox.unmarked,
        "ignored": inbox.ignored,
        "unaccounted": inbox.unaccounted[:NAMED_PATHS],
    }


def _failed_analyses(ledger: Ledger) -> Document:
    failed = ledger.history.failed_analyses()
    named = [
        {"run_id": run.run_id, "analysis_error": run.analysis_error}
        for run in failed[:NAMED_ANALYSES]
    ]
    return {"analyses_failed": len(failed), "failed_analyses": named}


def _count_files(ledger: Ledger) -> tuple[dict[str, int], int]:
    for _ in range(COUNT_TRIES):
        files, discovered = ledger.read.counts("file"), ledger.read.total()
        if sum(files.values()) == discovered:
            break
    return files, discovered
