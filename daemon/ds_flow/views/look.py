"""One look at everything from which the problems follow, so that each thing is asked once."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from ds_flow.core import BatchState, Document, Pause
from ds_flow.ledger import DriftRow, Ledger
from ds_flow.runs import pause_of, why_must_wait
from ds_flow.settings import Settings
from ds_flow.system import space_shortage
from ds_flow.upkeep import Record, read_record
from ds_flow.views.documents import jobs_by_stage
from ds_flow.views.engine import engine_document
from ds_flow.views.inbox import InboxCheck, check_inbox

NAMED_BATCHES = 5
NAMED_DRIFTED = 20  # of the files that were marked
DRIFT_TOLD = timedelta(days=7)  # a mark is told for so long
RETRY_WAIT = timedelta(minutes=1)
NOT_ASKED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Seen:
    """What a daemon knows without looking."""

    inbox: InboxCheck
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is the case now."""

    settings: Settings
    ledger: Ledger
    pid: int | None  # of the running daemon
    now: datetime
    inbox: InboxCheck
    record: Record | None  # what that daemon has left
    paused: Pause | None  # nothing new starts
    low_space: str
    held_back: list[str]
    jobs: list[Document]
    engine: Document
    drifted: int  # files that were marked in the last week and not corrected
    drift: list[DriftRow]  # the newest of them


def look_around(
    settings: Settings,
    ledger: Ledger,
    pid: int | None,
    now: datetime,
    asked: Mapping[str, str] = NOT_ASKED,
    seen: Seen | None = None,
) -> Look:
    """Look at the inbox, the disks, the batches and the daemon's word.

    The daemon itself passes what it has `seen`: it has looked at the inbox already.
    """
    record = seen.record if seen else read_record(settings.work_root, pid)
    inbox = seen.inbox if seen else check_inbox(settings, ledger, pid, now, record)
    jobs = list(_jobs(settings, ledger))
    drifted, drift = ledger.families.newest_drifted(now - DRIFT_TOLD, NAMED_DRIFTED)
    return Look(
        settings=settings,
        ledger=ledger,
        pid=pid,
        now=now,
        inbox=inbox,
        record=record,
        paused=pause_of(settings, ledger, now),
        low_space=space_shortage(settings),
        held_back=list(_held_back(settings, ledger, now)),
        jobs=jobs,
        engine=engine_document(settings, record, jobs, asked, now),
        drifted=drifted,
        drift=drift,
    )


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
