"""The whole project in one document: every count, and whether the counts add up."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from ds_flow.core import BatchState, DispatchError, Document, Sighting, counted, unescape
from ds_flow.inbox import Known, Pattern, being_read, last_look, needed_quiet_s, scan_files
from ds_flow.ledger import Ledger
from ds_flow.runs import why_must_wait
from ds_flow.settings import Settings
from ds_flow.system import space_shortage
from ds_flow.views.documents import jobs_by_stage

COUNT_TRIES = 3  # a running daemon may move a file between two counts
NAMED_PATHS = 20  # of those unaccounted for
NAMED_BATCHES = 5  # of those that are due
NAMED_ANALYSES = 5  # of those that failed
RETRY_WAIT = timedelta(minutes=1)
SCANS = 2  # a running daemon has seen a file after so many: it may come while one is under way
BACKLOG_SECONDS = 600.0  # a running daemon may need so long to read many or large files


@dataclass(slots=True)
class InboxCheck:
    """The inbox compared with the ledger."""

    arriving: int = 0
    ignored: int = 0
    unaccounted: list[str] = field(default_factory=list)
    reading: list[tuple[str, int, int]] = field(default_factory=list)  # how far, of how much
    looked_at: str | None = None  # when a daemon last did, whose counts these are
    reason: str = ""  # why the counts cannot add up; "" if they do


def status_document(settings: Settings, ledger: Ledger, pid: int | None, now: datetime) -> Document:
    """Count everything. `pid` is the running daemon's."""
    # The inbox first: a file that is admitted meanwhile is then counted twice, and not left out.
    inbox = _check_inbox(settings, ledger, pid, now)
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
        "held_back": list(_held_back(settings, ledger, now)),
        "jobs": list(_jobs(settings, ledger)),
        "analyses_failed": len(failed),
        "failed_analyses": [
            {"run_id": run.run_id, "analysis_error": run.analysis_error}
            for run in failed[:NAMED_ANALYSES]
        ],
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


def _held_back(settings: Settings, ledger: Ledger, now: datetime) -> Iterator[str]:
    """Say why batches cannot start: disks and folders that refuse, runs that never began."""
    soon = now + RETRY_WAIT  # a run that has just met a full disk is to be followed by another
    for batch in ledger.read.due_batches(soon)[:NAMED_BATCHES]:
        if why := why_must_wait(settings, ledger, batch.id):
            yield why
    read = ledger.read
    tried = [*read.batches_in(BatchState.RETRYING), *read.batches_in(BatchState.RUNNING)]
    for batch in tried[:NAMED_BATCHES]:
        if why := read.never_began(batch.id):
            yield f"batch {batch.id} waits: {why}"


def _count_files(ledger: Ledger) -> tuple[dict[str, int], int]:
    for _ in range(COUNT_TRIES):
        files, discovered = ledger.read.counts("file"), ledger.read.total()
        if sum(files.values()) == discovered:
            break
    return files, discovered


def _check_inbox(settings: Settings, ledger: Ledger, pid: int | None, now: datetime) -> InboxCheck:
    """Take a daemon's word for a large inbox, else look."""
    if pid is None:
        return _look(settings, ledger, InboxCheck(), is_watched=False, now=now)
    check = InboxCheck(reading=[*being_read(settings.work_root)])
    if last := last_look(settings.work_root, pid, settings.pattern, now):
        check.arriving, check.ignored = last.arriving, last.ignored
        check.looked_at = last.looked_at
        return check
    return _look(settings, ledger, check, is_watched=True, now=now)


def _look(
    settings: Settings, ledger: Ledger, check: InboxCheck, *, is_watched: bool, now: datetime
) -> InboxCheck:

    pattern, known = Pattern.parse(settings.pattern, settings.root), Known()
    known.add(ledger.read.known())
    try:
        found = scan_files(pattern, is_known=known.has)
    except DispatchError as error:
        return InboxCheck(reason=str(error))
    check.ignored = len(found.ignored)
    reading = {path for path, *_ in check.reading}
    limit_s = arriving_s(settings, is_watched=is_watched)
    for seen in _unknown(ledger, found.sightings):
        path = os.path.join(settings.root, unescape(seen.path))
        # By the wall clock, which may jump: these numbers are for people only.
        age_s = max(0.0, now.timestamp() - seen.stat.ctime_ns / 1e9)
        if (
            seen.path in reading
            or age_s < limit_s
            or age_s < needed_quiet_s(path, str(pattern.base), limit_s)
        ):
            check.arriving += 1
        else:
            check.unaccounted.append(seen.path)
    if check.unaccounted:
        number = counted(len(check.unaccounted), "file")
        check.reason = f"{number} in the inbox that the ledger does not know"
    return check


def _unknown(ledger: Ledger, sightings: list[Sighting]) -> Iterator[Sighting]:
    """Keep what is new or changed. A known file with an empty stat is about to be read again."""
    known = ledger.read.seen([seen.path for seen in sightings])
    return (seen for seen in sightings if known.get(seen.path) not in {"", str(seen.stat)})


def arriving_s(settings: Settings, *, is_watched: bool) -> float:
    """How long after its last change a file may still be arriving."""
    watch = settings.watch
    quiet_s = max(watch.quiet_seconds, settings.batch.quiet_seconds)
    scans_s = SCANS * max(watch.rescan_seconds, watch.poll_seconds)
    return quiet_s + (max(scans_s, BACKLOG_SECONDS) if is_watched else 0)
