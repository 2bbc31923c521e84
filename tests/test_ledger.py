"""The ledger's moves: what each transaction does, and what it refuses."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import TypeVar

import pytest
from clock import NOON
from samples import BATCH, OTHER_BATCH, manifest, read, rejected, settled, sha256

from ds_flow.errors import LedgerError, RequestError
from ds_flow.ledger import Ledger
from ds_flow.ledger.reading import FileRow
from ds_flow.model import (
    BATCH_MOVES,
    FILE_MOVES,
    RUN_MOVES,
    BatchState,
    Cause,
    FileState,
    RunState,
    Trigger,
)
from ds_flow.retrying import Dead, RetryAt

PATH = "data/a.csv"
LATER = NOON + timedelta(hours=1)
WAITING, BATCHED, PROCESSED, QUARANTINED, SUPERSEDED = FileState


@pytest.fixture
def db(ledger: Ledger, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The same file, seen and changed past the ledger."""
    path = tmp_path / "ledger.db"
    assert ledger.read.total() == 0
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        opened.execute("PRAGMA foreign_keys = ON")
        yield opened


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


# --------------------------------------------------------------------------- admit


def test_a_new_file_waits(ledger: Ledger) -> None:
    assert admit(ledger, "1", at=1) == WAITING
    assert versions(ledger) == [(1, sha256("1"), WAITING)]
    assert kinds(ledger) == ["file.waiting"]


def test_the_same_content_again_is_nothing_new_and_its_look_is_kept(ledger: Ledger) -> None:
    admit(ledger, "1", at=1)

    assert admit(ledger, "1", at=2) == WAITING
    assert versions(ledger) == [(1, sha256("1"), WAITING)]
    assert ledger.read.known() == {PATH: settled(PATH, "1", at=2).sighting.stat}
    assert kinds(ledger) == ["file.waiting"]


def test_new_content_supersedes_a_version_that_was_not_read(ledger: Ledger) -> None:
    admit(ledger, "1", at=1)

    assert admit(ledger, "2", at=2) == WAITING
    assert versions(ledger) == [(1, sha256("1"), SUPERSEDED), (2, sha256("2"), WAITING)]
    assert ledger.read.versions(PATH)[0].cause == Cause.REPLACED


def test_new_content_leaves_a_version_in_a_batch_alone(ledger: Ledger) -> None:
    batched(ledger, "1")

    admit(ledger, "2", at=2)

    assert versions(ledger) == [(1, sha256("1"), BATCHED), (2, sha256("2"), WAITING)]


def test_content_that_an_older_version_had_is_a_version_of_its_own(ledger: Ledger) -> None:
    for at, content in enumerate("ABA"):
        admit(ledger, content, at)

    assert [row[:2] for row in versions(ledger)] == [
        (1, sha256("A")),
        (2, sha256("B")),
        (3, sha256("A")),
    ]
    assert latest(ledger).state == WAITING


@pytest.mark.parametrize("cause", [Cause.GONE, Cause.CHANGED, Cause.UNREADABLE])
def test_a_version_that_ended_unread_waits_again_when_it_is_seen_again(
    ledger: Ledger, cause: Cause
) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    ledger.record(manifest(rejects=[rejected(PATH, cause)]), NOON)
    assert latest(ledger).state == (SUPERSEDED if cause == Cause.CHANGED else QUARANTINED)
    assert ledger.read.unseen() == [PATH]

    assert admit(ledger, "1", at=3) == WAITING
    assert len(versions(ledger)) == 1
    assert ledger.read.unseen() == []


def test_a_version_that_was_read_does_not_wait_again(ledger: Ledger) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    ledger.record(manifest(rejects=[rejected(PATH, Cause.REJECTED)]), NOON)

    assert admit(ledger, "1", at=3) == QUARANTINED
    assert ledger.read.unseen() == []


def test_an_unreadable_file_is_set_aside_and_waits_once_it_can_be_read(ledger: Ledger) -> None:
    assert admit(ledger, None, at=1, cause=Cause.UNREADABLE) == QUARANTINED
    assert admit(ledger, None, at=2, cause=Cause.UNREADABLE) == QUARANTINED
    assert admit(ledger, "1", at=3) == WAITING

    assert versions(ledger) == [(1, None, SUPERSEDED), (2, sha256("1"), WAITING)]


def test_a_published_file_that_could_not_be_read_for_a_while_is_nothing_new(
    ledger: Ledger,
) -> None:
    batched(ledger)
    ledger.record(manifest(inputs=[read(PATH, "1")]), NOON)
    admit(ledger, None, at=2, cause=Cause.UNREADABLE)

    for at in (3, 4, 5):
        assert admit(ledger, "1", at) == PROCESSED
    assert versions(ledger) == [(1, sha256("1"), PROCESSED), (2, None, SUPERSEDED)]
    assert ledger.read.known() == {PATH: settled(PATH, "1", at=5).sighting.stat}


def test_a_waiting_file_that_could_not_be_read_for_a_while_waits_again(ledger: Ledger) -> None:
    admit(ledger, "1", at=1)
    admit(ledger, None, at=2, cause=Cause.UNREADABLE)

    assert admit(ledger, "1", at=3) == WAITING
    assert admit(ledger, "1", at=4) == WAITING
    assert [file.id for file in ledger.read.waiting()] == [1]


def test_many_files_are_admitted_in_one_transaction_or_none(
    ledger: Ledger, db: sqlite3.Connection
) -> None:
    db.execute("CREATE TRIGGER no_b BEFORE INSERT ON file WHEN NEW.path = 'b' "
               "BEGIN SELECT RAISE(ABORT, 'no b'); END")  # fmt: skip

    with pytest.raises(LedgerError, match="no b"):
        ledger.admit([settled("a", "1"), settled("b", "1")], NOON)

    assert ledger.read.total() == 0


# --------------------------------------------------------------------------- form


def test_a_batch_claims_its_files(ledger: Ledger) -> None:
    file = batched(ledger)

    assert latest(ledger).state == BATCHED
    assert latest(ledger).batch == BATCH
    assert [planned.path for planned in ledger.read.planned(BATCH)] == [PATH]
    assert [batch.id for batch in ledger.read.due(NOON)] == [BATCH]
    assert ledger.read.waiting() == []
    assert file == 1


def test_two_live_batches_for_one_file_are_refused_and_nothing_changes(ledger: Ledger) -> None:
    file = batched(ledger)
    ledger.admit([settled("data/b.csv", "1")], NOON)
    free = latest(ledger, "data/b.csv").id

    with pytest.raises(LedgerError):
        ledger.form(OTHER_BATCH, [free, file], Trigger.ARRIVAL, NOON)

    assert ledger.read.batch(OTHER_BATCH) is None
    assert latest(ledger, "data/b.csv").state == WAITING


def test_the_schema_itself_refuses_a_second_live_claim(
    ledger: Ledger, db: sqlite3.Connection
) -> None:
    file = batched(ledger)
    db.execute("INSERT INTO batch (id, state, trigger, formed_at, due_at)"
               " VALUES (?, 'queued', 'rerun', '', '')", (OTHER_BATCH,))  # fmt: skip

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        db.execute("INSERT INTO batch_file (batch_id, file_id) VALUES (?, ?)", (OTHER_BATCH, file))


def test_a_superseded_version_is_in_no_new_batch(ledger: Ledger) -> None:
    admit(ledger, "1", at=1)
    admit(ledger, "2", at=2)

    with pytest.raises(LedgerError, match="superseded"):
        ledger.form(BATCH, [1], Trigger.ARRIVAL, NOON)


def test_a_rerun_claims_a_processed_file_which_stays_processed(ledger: Ledger) -> None:
    file = batched(ledger)
    ledger.record(manifest(inputs=[read(PATH, "1")]), NOON)

    ledger.form(OTHER_BATCH, [file], Trigger.RERUN, NOON)

    assert latest(ledger).state == PROCESSED
    assert latest(ledger).batch == OTHER_BATCH


# --------------------------------------------------------------------------- runs


def test_a_run_is_entered_before_it_exists_and_named_once_it_does(ledger: Ledger) -> None:
    batched(ledger)

    assert ledger.start_run(BATCH, NOON) == 1
    (run,) = ledger.read.live_runs()
    assert (run.state, run.run_id) == (RunState.STARTING, None)

    ledger.name_run(BATCH, 1, "17", NOON)
    (run,) = ledger.read.live_runs()
    assert (run.state, run.run_id) == (RunState.RUNNING, "17")
    with pytest.raises(LedgerError):
        ledger.name_run(BATCH, 1, "18", NOON)


def test_a_batch_has_one_live_run(ledger: Ledger, db: sqlite3.Connection) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)

    with pytest.raises(LedgerError, match="running -> running"):
        ledger.start_run(BATCH, NOON)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        db.execute("INSERT INTO run (batch_id, attempt, state, started_at)"
                   " VALUES (?, 2, 'starting', '')", (BATCH,))  # fmt: skip


def test_attempts_are_numbered_on_and_pass_over_numbers_taken_on_disk(ledger: Ledger) -> None:
    batched(ledger)

    assert ledger.start_run(BATCH, NOON) == 1
    end(ledger, RetryAt(NOON))
    assert ledger.start_run(BATCH, NOON, at_least=4) == 4
    end(ledger, RetryAt(NOON), attempt=4)
    assert ledger.start_run(BATCH, NOON, at_least=2) == 5


def test_a_retrying_batch_is_due_when_its_delay_is_over(ledger: Ledger) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    end(ledger, RetryAt(LATER))

    assert ledger.read.due(NOON) == []
    assert ledger.read.next_due() == LATER
    assert [batch.state for batch in ledger.read.due(LATER)] == [BatchState.RETRYING]
    assert latest(ledger).state == BATCHED


def test_a_dead_batch_quarantines_its_files_with_the_cause(ledger: Ledger) -> None:
    dead(ledger)

    row = latest(ledger)
    assert (row.state, row.cause) == (QUARANTINED, Cause.DEAD)
    assert row.reason == f"batch {BATCH}: 3 of 3 attempts used up; last: it broke"
    assert row.batch is None


def test_arrivals_run_before_reruns_and_the_oldest_first(ledger: Ledger) -> None:
    ledger.admit([settled(name, "1") for name in "abc"], NOON)
    ledger.form("1" * 10, [1], Trigger.RERUN, NOON)
    ledger.form("2" * 10, [2], Trigger.ARRIVAL, LATER)
    ledger.form("3" * 10, [3], Trigger.ARRIVAL, NOON)

    assert [batch.id[0] for batch in ledger.read.due(LATER)] == ["3", "2", "1"]


# --------------------------------------------------------------------------- wishes


def test_a_released_version_waits_again(ledger: Ledger) -> None:
    file = dead(ledger)

    assert ledger.release(file, NOON) == WAITING
    assert latest(ledger).state == WAITING
    assert latest(ledger).cause is None


def test_a_released_version_that_was_never_read_is_looked_at_again_first(ledger: Ledger) -> None:
    admit(ledger, None, at=1, cause=Cause.UNREADABLE)

    assert ledger.release(1, NOON) == QUARANTINED
    assert ledger.read.unseen() == [PATH]
    assert ledger.read.known() == {}


def test_a_released_version_that_is_not_the_latest_gives_way_to_it(ledger: Ledger) -> None:
    file = dead(ledger)
    admit(ledger, "2", at=2)

    assert ledger.release(file, NOON) == SUPERSEDED
    assert [row.version for row in ledger.read.files_in(WAITING)] == [2]


def test_what_is_not_quarantined_cannot_be_released(ledger: Ledger) -> None:
    file = batched(ledger)

    with pytest.raises(RequestError, match="is batched, not quarantined"):
        ledger.release(file, NOON)


def test_a_bad_name_cannot_be_released(ledger: Ledger) -> None:
    admit(ledger, None, at=1, cause=Cause.NAME)

    with pytest.raises(RequestError, match="rename it"):
        ledger.release(1, NOON)


def test_a_queued_batch_is_cancelled_at_once(ledger: Ledger) -> None:
    batched(ledger)

    assert ledger.cancel(BATCH, NOON) == BatchState.CANCELLED
    assert latest(ledger).cause == Cause.CANCELLED
    assert ledger.read.next_due() is None


def test_a_running_batch_is_cancelled_when_its_run_has_ended(ledger: Ledger) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)

    assert ledger.cancel(BATCH, NOON) == BatchState.RUNNING
    assert ledger.read.live_runs()[0].ending == RunState.CANCELLED
    end(ledger, None, RunState.CANCELLED)

    assert (found := ledger.read.batch(BATCH))
    assert found.state == BatchState.CANCELLED
    assert latest(ledger).state == QUARANTINED


def test_a_cancellation_goes_over_an_end_asked_for_before_and_no_other_does(
    ledger: Ledger,
) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    ledger.ask_end(BATCH, RunState.STOPPED, "stopped", NOON)
    ledger.cancel(BATCH, NOON)
    ledger.ask_end(BATCH, RunState.TIMED_OUT, "too slow", NOON)

    assert ledger.read.live_runs()[0].ending == RunState.CANCELLED


def test_an_ended_batch_cannot_be_cancelled(ledger: Ledger) -> None:
    dead(ledger)

    with pytest.raises(RequestError, match="is dead already"):
        ledger.cancel(BATCH, NOON)


def test_a_retrying_batch_is_retried_at_once(ledger: Ledger) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    end(ledger, RetryAt(LATER))

    assert ledger.retry(BATCH, OTHER_BATCH, NOON) == BATCH
    assert [batch.id for batch in ledger.read.due(NOON)] == [BATCH]


def test_a_dead_batch_stays_dead_and_what_it_left_is_a_new_batch(ledger: Ledger) -> None:
    dead(ledger)

    assert ledger.retry(BATCH, OTHER_BATCH, NOON) == OTHER_BATCH
    assert ledger.read.counts("batch") == {"queued": 1, "dead": 1}
    assert latest(ledger).batch == OTHER_BATCH
    with pytest.raises(RequestError, match="none of its files"):
        ledger.retry(BATCH, "9" * 10, NOON)


def test_a_retry_leaves_out_what_has_a_newer_version(ledger: Ledger) -> None:
    dead(ledger)
    admit(ledger, "2", at=2)

    with pytest.raises(RequestError, match="none of its files"):
        ledger.retry(BATCH, OTHER_BATCH, NOON)


def test_a_live_or_unknown_batch_cannot_be_retried(ledger: Ledger) -> None:
    batched(ledger)

    with pytest.raises(RequestError, match="queued; only"):
        ledger.retry(BATCH, OTHER_BATCH, NOON)
    with pytest.raises(LedgerError, match="no batch"):
        ledger.retry(OTHER_BATCH, BATCH, NOON)


# --------------------------------------------------------------------------- a commit


def test_a_commit_is_recorded_once(ledger: Ledger) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    published = manifest("17", inputs=[read(PATH, "1")])

    assert ledger.record(published, NOON)
    assert not ledger.record(published, LATER)

    assert latest(ledger).state == PROCESSED
    assert latest(ledger).run_id == "17"
    assert ledger.read.outputs("17") == ["processed_0_17.csv"]
    assert ledger.read.counts("batch") == {"succeeded": 1}
    assert ledger.read.counts("run") == {"succeeded": 1}


@pytest.mark.parametrize("content", ["1", "other"])
def test_a_run_by_hand_is_recorded_with_the_versions_that_it_read(
    ledger: Ledger, content: str
) -> None:
    admit(ledger, "1", at=1)

    ledger.record(manifest(inputs=[read(PATH, content, version=None)], trigger="manual"), NOON)

    assert latest(ledger).sha256 == sha256(content)
    assert latest(ledger).state == PROCESSED


def test_a_commit_unknown_to_an_empty_ledger_brings_all_it_names(ledger: Ledger) -> None:
    published = manifest(
        attempt=3,
        inputs=[read(PATH, "1", version=4)],
        rejects=[rejected("data/b.csv", Cause.REJECTED, "2"), rejected("data/c.csv", Cause.GONE)],
    )

    assert ledger.record(published, NOON)
    assert ledger.read.counts("file") == {
        "waiting": 0,
        "batched": 0,
        "processed": 1,
        "quarantined": 1,
        "superseded": 0,
    }
    assert [run.attempt for run in ledger.read.runs_of(BATCH)] == [3]
    assert ledger.read.unseen() == ["data/a.csv", "data/b.csv"]


def test_rejected_files_are_quarantined_with_the_reason(ledger: Ledger) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)

    ledger.record(manifest(rejects=[rejected(PATH, Cause.REJECTED, "1")]), NOON)

    row = latest(ledger)
    assert (row.state, row.cause, row.reason) == (QUARANTINED, Cause.REJECTED, "it is rejected")


def test_a_file_that_a_commit_does_not_account_for_is_set_aside(ledger: Ledger) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)

    ledger.record(manifest("17"), NOON)

    assert latest(ledger).state == QUARANTINED
    assert latest(ledger).reason == "run 17 does not account for it"


@pytest.mark.parametrize("state", [BatchState.DEAD, BatchState.CANCELLED])
def test_a_commit_wins_over_a_batch_given_up(ledger: Ledger, state: BatchState) -> None:
    if state == BatchState.DEAD:
        dead(ledger)
    else:
        batched(ledger)
        ledger.cancel(BATCH, NOON)

    assert ledger.record(manifest("17", inputs=[read(PATH, "1")]), NOON)

    assert latest(ledger).state == PROCESSED
    assert ledger.read.counts("batch") == {"succeeded": 1}


def test_a_second_commit_of_one_batch_is_refused(ledger: Ledger) -> None:
    batched(ledger)
    ledger.record(manifest("17", inputs=[read(PATH, "1")]), NOON)

    with pytest.raises(LedgerError, match="succeeded already"):
        ledger.record(manifest("18", attempt=2, inputs=[read(PATH, "1")]), NOON)

    assert ledger.read.run("18") is None


def test_a_run_whose_batch_another_run_published_ends_without_moving_it(ledger: Ledger) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    ledger.record(manifest("17", attempt=2, inputs=[read(PATH, "1")]), NOON)

    end(ledger, RetryAt(NOON))

    assert ledger.read.counts("batch") == {"succeeded": 1}
    assert ledger.read.counts("run") == {"succeeded": 1, "failed": 1}


# --------------------------------------------------------------------------- illegal moves


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
        ledger._moves.move_file(1, new, NOON, Cause.GONE)

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
                ledger._end_batch(BATCH, new, "", NOON)
        case _:
            with ledger._store.transaction():
                ledger._retry_at(BATCH, NOON, NOON)


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


# --------------------------------------------------------------------------- the account


def test_every_move_leaves_one_event(ledger: Ledger) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    ledger.name_run(BATCH, 1, "17", NOON)
    end(ledger, RetryAt(NOON))
    ledger.start_run(BATCH, NOON)
    ledger.record(manifest("18", attempt=2, inputs=[read(PATH, "1")]), NOON)

    assert kinds(ledger) == [
        "file.waiting",
        "batch.queued",
        "file.batched",
        "run.starting",
        "run.running",
        "run.failed",
        "batch.retrying",
        "run.starting",
        "run.succeeded",
        "file.processed",
        "batch.succeeded",
    ]


def test_events_are_only_ever_added(ledger: Ledger, db: sqlite3.Connection) -> None:
    admit(ledger, "1", at=1)

    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        db.execute("UPDATE event SET detail = ''")


def test_the_counts_of_all_states_add_up(ledger: Ledger) -> None:
    dead(ledger)
    for at, name in enumerate(["data/b.csv", "data/c.csv", "data/b.csv"]):
        ledger.admit([settled(name, f"{at}", at)], NOON)

    assert ledger.read.counts("file") == {
        "waiting": 2,
        "batched": 0,
        "processed": 0,
        "quarantined": 1,
        "superseded": 1,
    }
    assert ledger.read.total() == 4
    assert ledger.read.counts("batch") == {"dead": 1}


def test_a_version_number_stands_once_under_a_path(ledger: Ledger, db: sqlite3.Connection) -> None:
    admit(ledger, "1", at=1)

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        db.execute("INSERT INTO file (path, version, size_bytes, stat, seen_at, state)"
                   " VALUES (?, 1, 0, '', '', 'waiting')", (PATH,))  # fmt: skip


def test_what_was_committed_is_still_there_for_the_next_opener(
    ledger: Ledger, tmp_path: Path
) -> None:
    batched(ledger)

    with closing(Ledger(tmp_path / "ledger.db")) as other:
        assert latest(other).state == BATCHED
