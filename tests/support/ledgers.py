"""Short ways to bring a ledger into a state, and to read one path's."""

from datetime import timedelta

from clock import NOON
from ds_flow.core.retry_policy import Dead, RetryAt
from ds_flow.core.states import Cause, FileState, RunState, Trigger
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.rows import FileRow
from samples import BATCH, settled

PATH = "data/a.csv"
LATER = NOON + timedelta(hours=1)
WAITING, BATCHED, PROCESSED, QUARANTINED, SUPERSEDED = FileState


def admit(ledger: Ledger, content: str | None, at: int, cause: Cause | None = None) -> FileState:
    ((path, state),) = ledger.admit([settled(PATH, content, at, cause)], NOON)
    assert path == PATH
    return state


def versions(ledger: Ledger) -> list[tuple[int, str | None, FileState]]:
    return [(row.version, row.sha256, row.state) for row in ledger.read.versions(PATH)]


def latest(ledger: Ledger, path: str = PATH) -> FileRow:
    return ledger.read.versions(path)[-1]


def batched(ledger: Ledger, content: str = "1", batch: str = BATCH) -> int:
    """A file version in a queued batch; its id."""
    admit(ledger, content, at=len(versions(ledger)) + 1)
    file = latest(ledger).id
    ledger.form(batch, [file], Trigger.ARRIVAL, NOON)
    return file


def end(
    ledger: Ledger, then: RetryAt | Dead | None, state: RunState = RunState.FAILED, attempt: int = 1
) -> None:
    ledger.end_run(BATCH, attempt, state, error="it broke", results=0, then=then, now=NOON)


def dead(ledger: Ledger, content: str = "1") -> int:
    file = batched(ledger, content)
    ledger.start_run(BATCH, NOON)
    end(ledger, Dead("3 of 3 attempts used up"))
    return file


def kinds(ledger: Ledger) -> list[str]:
    return [event.kind for event in ledger.read.events(PATH)]
