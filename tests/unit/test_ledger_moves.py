"""The ledger refuses every move that is not in the tables."""

import re
import sqlite3
from collections.abc import Mapping
from itertools import product
from typing import TypeVar

import pytest

from clock import NOON
from ds_flow.core.errors import LedgerError, RequestError
from ds_flow.core.retry_policy import RetryAt
from ds_flow.core.states import (
    BATCH_MOVES,
    FILE_MOVES,
    LIVE_BATCHES,
    RUN_MOVES,
    BatchState,
    Cause,
    FileState,
    RunState,
    Trigger,
)
from ds_flow.ledger.ledger import Ledger
from ledgers import admit, batched, dead, end, latest
from samples import BATCH, OTHER_BATCH, manifest, read, settled

State = TypeVar("State")


def illegal(moves: Mapping[State, frozenset[State]]) -> list[tuple[State, State]]:
    return [(old, new) for old, new in product(moves, repeat=2) if new not in moves[old]]


@pytest.mark.parametrize(("old", "new"), illegal(FILE_MOVES))
def test_an_illegal_move_of_a_file_is_refused(
    ledger: Ledger, db: sqlite3.Connection, old: FileState, new: FileState
) -> None:
    admit(ledger, "1", at=1)
    db.execute("UPDATE file SET state = ?, cause = 'gone'", (old,))

    with (
        pytest.raises(LedgerError, match=f"{old} -> {new} is not a legal move"),
        ledger._store.transaction(),
    ):
        ledger._files.move(1, new, NOON, Cause.GONE)

    assert latest(ledger).state == old


def move_batch(ledger: Ledger, new: BatchState) -> None:
    """By the public method that leads there."""
    match new:
        case BatchState.RUNNING:
            ledger.start_run(BATCH, NOON, at_least=9)
        case BatchState.SUCCEEDED:
            ledger.record(manifest("17", attempt=9), NOON)
        case BatchState.CANCELLED:
            ledger.cancel(BATCH, NOON)
        case BatchState.DEAD:
            with ledger._store.transaction():
                ledger._batches.end(BATCH, new, "", NOON)
        case _:
            with ledger._store.transaction():
                ledger._batches.retry_at(BATCH, NOON, NOON)


@pytest.mark.parametrize(
    ("old", "new"), [pair for pair in illegal(BATCH_MOVES) if pair[1] != BatchState.QUEUED]
)
def test_an_illegal_move_of_a_batch_is_refused(
    ledger: Ledger, db: sqlite3.Connection, old: BatchState, new: BatchState
) -> None:
    batched(ledger)
    ended = None if BatchState.RUNNING in BATCH_MOVES[old] or old == "running" else "now"
    db.execute("UPDATE batch SET state = ?, ended_at = ?", (old, ended))

    with pytest.raises((LedgerError, RequestError)):
        move_batch(ledger, new)

    assert (found := ledger.read.batch(BATCH))
    assert found.state == old
    assert ledger.read.counts("run") == {}


def move_run(ledger: Ledger, new: RunState) -> None:
    if new == RunState.RUNNING:
        ledger.name_run(BATCH, 1, "17", NOON)
    else:
        end(ledger, RetryAt(NOON), new)


@pytest.mark.parametrize(
    ("old", "new"), [pair for pair in illegal(RUN_MOVES) if pair[1] != RunState.STARTING]
)
def test_an_illegal_move_of_a_run_is_refused(
    ledger: Ledger, db: sqlite3.Connection, old: RunState, new: RunState
) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    ended = None if old in {RunState.STARTING, RunState.RUNNING} else "now"
    db.execute("UPDATE run SET state = ?, ended_at = ?", (old, ended))

    with pytest.raises(LedgerError):
        move_run(ledger, new)

    assert [run.state for run in ledger.read.runs_of(BATCH)] == [old]


# --------------------------------------------------------------------------- compare-and-set


def legal(moves: Mapping[State, frozenset[State]]) -> list[tuple[State, State]]:
    return [(old, new) for old, new in product(moves, repeat=2) if new in moves[old]]


@pytest.fixture
def told(ledger: Ledger) -> list[str]:
    """Every statement that the ledger makes from now on, as SQLite was told it."""
    statements: list[str] = []
    ledger._store._db.set_trace_callback(statements.append)
    return statements


STATE_CHANGE = re.compile(r"UPDATE (file|batch|run) SET (?:.*, )?state = .* WHERE (.*)")
GUARD = re.compile(r".* AND state = '(\w+)'")


def require_guarded(told: list[str], table: str, old: str) -> None:
    """Each change of a state names the state that was read, and one is of this table's."""
    changes = [found for one in told if (found := STATE_CHANGE.fullmatch(" ".join(one.split())))]
    guards = [(change[1], GUARD.fullmatch(change[2])) for change in changes]
    assert all(guard for _, guard in guards), told
    assert (table, old) in [(moved, guard[1]) for moved, guard in guards if guard]


@pytest.mark.parametrize(("old", "new"), legal(FILE_MOVES))
def test_a_file_moves_only_from_the_state_that_was_read(
    ledger: Ledger, db: sqlite3.Connection, told: list[str], old: FileState, new: FileState
) -> None:
    admit(ledger, "1", at=1)
    db.execute("UPDATE file SET state = ?, cause = 'gone'", (old,))

    with ledger._store.transaction():
        ledger._files.move(1, new, NOON, Cause.GONE)

    assert latest(ledger).state == new
    require_guarded(told, "file", old)


@pytest.mark.parametrize(("old", "new"), legal(BATCH_MOVES))
def test_a_batch_moves_only_from_the_state_that_was_read(
    ledger: Ledger, db: sqlite3.Connection, told: list[str], old: BatchState, new: BatchState
) -> None:
    batched(ledger)
    ended = None if old in LIVE_BATCHES else "now"
    db.execute("UPDATE batch SET state = ?, ended_at = ?", (old, ended))

    if (old, new) == (BatchState.RUNNING, BatchState.CANCELLED):  # once its run has ended
        with ledger._store.transaction():
            ledger._batches.end(BATCH, new, "", NOON)
    else:
        move_batch(ledger, new)

    assert (found := ledger.read.batch(BATCH))
    assert found.state == new
    require_guarded(told, "batch", old)


@pytest.mark.parametrize(("old", "new"), legal(RUN_MOVES))
def test_a_run_moves_only_from_the_state_that_was_read(
    ledger: Ledger, db: sqlite3.Connection, told: list[str], old: RunState, new: RunState
) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    ended = None if old in {RunState.STARTING, RunState.RUNNING} else "now"
    db.execute("UPDATE run SET state = ?, ended_at = ?", (old, ended))

    if new == RunState.SUCCEEDED:
        ledger.record(manifest("17"), NOON)
    else:
        move_run(ledger, new)

    assert [run.state for run in ledger.read.runs_of(BATCH)] == [new]
    require_guarded(told, "run", old)


# --------------------------------------------------------------------------- before the first run


def two_files(ledger: Ledger) -> None:
    for path in ("data/a.csv", "data/b.csv"):
        ledger.admit([settled(path, "1")], NOON)
    ledger.form(BATCH, [1, 2], Trigger.ARRIVAL, NOON)


def claims(db: sqlite3.Connection) -> list[tuple[str, int, int]]:
    return db.execute("SELECT batch_id, file_id, live FROM batch_file ORDER BY file_id").fetchall()


def test_a_queued_batch_gives_some_of_its_files_to_a_new_one(
    ledger: Ledger, db: sqlite3.Connection
) -> None:
    two_files(ledger)
    ledger.split(BATCH, {"data/b.csv"}, OTHER_BATCH, NOON)

    assert claims(db) == [(BATCH, 1, 1), (OTHER_BATCH, 2, 1)]
    assert ledger.read.counts("batch") == {"queued": 2}
    assert [row.state for row in ledger.read.latest()] == [FileState.BATCHED] * 2
    assert ledger.read.events("data/b.csv")[-1].kind == "file.batched"


def test_a_queued_batch_gives_up_what_was_replaced_and_ends_when_nothing_is_left(
    ledger: Ledger, db: sqlite3.Connection
) -> None:
    two_files(ledger)
    assert ledger.leave_replaced(BATCH, NOON) == 2
    ledger.admit([settled("data/a.csv", "2", at=2)], NOON)
    assert ledger.leave_replaced(BATCH, NOON) == 1
    assert claims(db) == [(BATCH, 2, 1)]
    assert ledger.read.counts("batch") == {"queued": 1}

    ledger.admit([settled("data/b.csv", "2", at=2)], NOON)
    assert ledger.leave_replaced(BATCH, NOON) == 0
    assert claims(db) == [(BATCH, 2, 0)]
    assert ledger.read.counts("batch") == {"cancelled": 1}
    assert {row.state for row in ledger.read.files()} == {FileState.SUPERSEDED, FileState.WAITING}


@pytest.mark.parametrize("is_batched", [True, False])
def test_a_look_that_could_not_read_a_file_replaces_nothing(
    ledger: Ledger, *, is_batched: bool
) -> None:
    admit(ledger, "1", at=1)
    if is_batched:
        ledger.form(BATCH, [1], Trigger.ARRIVAL, NOON)
    admit(ledger, None, at=2, cause=Cause.UNREADABLE)
    admit(ledger, "1", at=3)
    ledger.form(OTHER_BATCH, [1], Trigger.ARRIVAL, NOON)
    batch = BATCH if is_batched else OTHER_BATCH

    assert ledger.read.replaced(batch) == set()
    assert ledger.leave_replaced(batch, NOON) == 1
    assert [row.state for row in ledger.read.versions("data/a.csv")] == ["batched", "superseded"]


def could_not_be_read_once(ledger: Ledger) -> None:
    admit(ledger, None, at=2, cause=Cause.UNREADABLE)
    admit(ledger, "1", at=3)
    assert latest(ledger).state == FileState.SUPERSEDED


def test_a_published_file_that_could_not_be_read_once_is_rerun_all_the_same(
    ledger: Ledger,
) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    ledger.record(manifest("17", inputs=[read("data/a.csv", "1")]), NOON)
    could_not_be_read_once(ledger)

    found = [*ledger.read.newest(FileState.PROCESSED), *ledger.read.unpublished("all")]
    assert [row.version for row in found] == [1, 1]
    assert [row.version for row in ledger.read.latest(["data/a.csv"])] == [1]


def test_a_file_that_cannot_be_read_a_second_time_is_set_aside_again(ledger: Ledger) -> None:
    admit(ledger, "1", at=1)
    for at in (2, 4):
        assert admit(ledger, None, at, Cause.UNREADABLE) == FileState.QUARANTINED
        assert admit(ledger, "1", at + 1) == FileState.WAITING
    assert [row.state for row in ledger.read.versions("data/a.csv")] == ["waiting", "superseded"]


def test_an_unread_file_that_could_not_be_read_once_is_looked_at_again_by_request(
    ledger: Ledger, db: sqlite3.Connection
) -> None:
    admit(ledger, "1", at=1)
    could_not_be_read_once(ledger)
    db.execute("UPDATE file SET state = 'quarantined', cause = 'unreadable' WHERE version = 1")

    assert ledger.release(1, NOON) == FileState.QUARANTINED
    assert ledger.read.unseen() == ["data/a.csv"]
    assert admit(ledger, "1", at=3) == FileState.WAITING
    assert ledger.read.unseen() == []


def test_a_dead_file_that_could_not_be_read_once_is_released_all_the_same(
    ledger: Ledger,
) -> None:
    file = dead(ledger)
    could_not_be_read_once(ledger)

    assert ledger.release(file, NOON) == FileState.WAITING


def test_a_dead_file_that_could_not_be_read_once_is_retried_all_the_same(
    ledger: Ledger,
) -> None:
    dead(ledger)
    could_not_be_read_once(ledger)

    assert ledger.retry(BATCH, OTHER_BATCH, NOON) == OTHER_BATCH
    assert ledger.read.counts("batch") == {"queued": 1, "dead": 1}


def test_a_batch_that_has_started_keeps_its_files(ledger: Ledger, db: sqlite3.Connection) -> None:
    two_files(ledger)
    ledger.admit([settled("data/a.csv", "2", at=2)], NOON)
    ledger.start_run(BATCH, NOON)
    before = claims(db)

    with pytest.raises(LedgerError, match="is running, no longer queued"):
        ledger.split(BATCH, {"data/b.csv"}, OTHER_BATCH, NOON)
    with pytest.raises(LedgerError, match="is running, no longer queued"):
        ledger.leave_replaced(BATCH, NOON)

    assert claims(db) == before


def test_a_batch_that_is_begun_anew_is_cancelled_and_gives_its_files_to_the_new_one(
    ledger: Ledger,
) -> None:
    batched(ledger)

    ledger.restart(BATCH, OTHER_BATCH, "its project was copied", NOON)

    old, new = ledger.read.batch(BATCH), ledger.read.batch(OTHER_BATCH)
    assert old is not None
    assert new is not None
    assert (old.state, new.state) == (BatchState.CANCELLED, BatchState.QUEUED)
    assert ledger.read.batch_paths(OTHER_BATCH) == ["data/a.csv"]
