"""The ledger's files, batches and runs: what each transaction does."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from clock import NOON
from ds_flow.core.errors import LedgerError
from ds_flow.core.retry_policy import RetryAt
from ds_flow.core.states import BatchState, Cause, RunState, Trigger
from ds_flow.ledger.ledger import Ledger
from ledgers import (
    BATCHED,
    LATER,
    PATH,
    PROCESSED,
    QUARANTINED,
    SUPERSEDED,
    WAITING,
    admit,
    batched,
    dead,
    end,
    kinds,
    latest,
    versions,
)
from samples import BATCH, OTHER_BATCH, manifest, read, rejected, settled, sha256

# --------------------------------------------------------------------------- admit


def test_a_new_file_waits(ledger: Ledger) -> None:
    assert admit(ledger, "1", at=1) == WAITING
    assert versions(ledger) == [(1, sha256("1"), WAITING)]
    assert kinds(ledger) == ["file.waiting"]


def test_the_same_content_again_is_nothing_new_and_its_look_is_kept(ledger: Ledger) -> None:
    admit(ledger, "1", at=1)

    assert admit(ledger, "1", at=2) == WAITING
    assert versions(ledger) == [(1, sha256("1"), WAITING)]
    assert dict(ledger.read.known()) == {PATH: str(settled(PATH, "1", at=2).sighting.stat)}
    assert kinds(ledger) == ["file.waiting"]


@pytest.mark.parametrize(
    ("mtime_ns", "came"), [(20, [PATH]), (10, [])], ids=["delivered again", "only its mode changed"]
)
def test_the_same_content_delivered_again_has_come_again(
    ledger: Ledger, mtime_ns: int, came: list[str]
) -> None:
    first = settled(PATH, "1", at=10)
    ledger.admit([first], NOON)
    stat = first.sighting.stat._replace(mtime_ns=mtime_ns, ctime_ns=20)
    ledger.admit([replace(first, sighting=first.sighting._replace(stat=stat))], LATER)
    assert list(ledger.history.seen_since(NOON)) == came
    assert dict(ledger.read.known()) == {PATH: str(stat)}


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


def test_what_a_disk_refused_is_looked_at_until_it_can_be_read(ledger: Ledger) -> None:
    refused = replace(settled(PATH, None, cause=Cause.UNREADABLE), look_again=True)

    for _ in range(2):
        assert ledger.admit([refused], NOON) == [(PATH, QUARANTINED)]
        assert ledger.read.unseen() == [PATH]

    assert admit(ledger, "1", at=1) == WAITING
    assert ledger.read.unseen() == []
    assert [row.state for row in ledger.read.versions(PATH)] == [SUPERSEDED, WAITING]


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
    assert dict(ledger.read.known()) == {PATH: str(settled(PATH, "1", at=5).sighting.stat)}


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
    assert [batch.id for batch in ledger.read.due_batches(NOON)] == [BATCH]
    assert ledger.read.waiting() == []
    assert file == 1


def test_a_batch_leaves_out_what_another_claims(ledger: Ledger) -> None:
    file = batched(ledger)
    ledger.admit([settled("data/b.csv", "1")], NOON)
    free = latest(ledger, "data/b.csv").id

    assert ledger.form(OTHER_BATCH, [free, file], Trigger.ARRIVAL, NOON) == 1

    assert ledger.read.batch_paths(OTHER_BATCH) == ["data/b.csv"]
    assert latest(ledger).batch == BATCH


def test_a_file_published_by_hand_before_it_is_claimed_is_published_no_more(ledger: Ledger) -> None:
    admit(ledger, "1", at=1)
    (seen,) = ledger.read.waiting()
    by_hand = manifest("900", inputs=[read(PATH, "1", None)], trigger="manual")
    ledger.record(by_hand, NOON)  # by whatever command comes between

    assert ledger.form(OTHER_BATCH, [seen.id], Trigger.ARRIVAL, NOON) == 0

    assert ledger.read.batch(OTHER_BATCH) is None
    assert latest(ledger).state == PROCESSED


def test_a_file_set_aside_before_it_is_claimed_stays_so(ledger: Ledger) -> None:
    admit(ledger, "1", at=1)
    (seen,) = ledger.read.waiting()
    reject = rejected(PATH, Cause.REJECTED, "1")
    ledger.record(manifest("900", rejects=[reject], trigger="manual"), NOON)

    assert ledger.form(OTHER_BATCH, [seen.id], Trigger.ARRIVAL, NOON) == 0

    assert latest(ledger).state == QUARANTINED


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

    assert ledger.form(BATCH, [1], Trigger.ARRIVAL, NOON) == 0


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

    assert ledger.read.due_batches(NOON) == []
    assert ledger.read.next_due() == LATER
    assert [batch.state for batch in ledger.read.due_batches(LATER)] == [BatchState.RETRYING]
    assert latest(ledger).state == BATCHED


def test_no_batch_waits_for_a_clock_that_was_set_back(ledger: Ledger) -> None:
    batched(ledger)
    yesterday = NOON - timedelta(days=1)
    assert [batch.id for batch in ledger.read.due_batches(yesterday)] == [BATCH]

    ledger.start_run(BATCH, NOON)
    end(ledger, RetryAt(LATER))

    assert [batch.id for batch in ledger.read.due_batches(yesterday)] == [BATCH]


def test_a_dead_batch_quarantines_its_files_with_the_cause(ledger: Ledger) -> None:
    dead(ledger)

    row = latest(ledger)
    assert (row.state, row.cause) == (QUARANTINED, Cause.DEAD)
    assert row.reason == f"batch {BATCH}: 3 of 3 attempts used up; last: it broke"
    assert row.batch is None


def test_arrivals_run_before_reruns_and_the_oldest_first(ledger: Ledger) -> None:
    ledger.admit([settled(name, "1") for name in "abc"], NOON)
    ledger.record(manifest(inputs=[read("a", "1")]), NOON)
    ledger.form("1" * 10, [1], Trigger.RERUN, NOON)
    ledger.form("2" * 10, [2], Trigger.ARRIVAL, LATER)
    ledger.form("3" * 10, [3], Trigger.ARRIVAL, NOON)

    assert [batch.id[0] for batch in ledger.read.due_batches(LATER)] == ["3", "2", "1"]


def test_a_retry_waits_for_its_time_but_not_for_a_clock_that_was_set_back(ledger: Ledger) -> None:
    batched(ledger)
    ledger.start_run(BATCH, NOON)
    end(ledger, RetryAt(LATER))

    assert not ledger.read.due_batches(NOON)
    assert [batch.id for batch in ledger.read.due_batches(LATER)] == [BATCH]
    assert [batch.id for batch in ledger.read.due_batches(NOON - timedelta(seconds=1))] == [BATCH]


def test_a_new_batch_is_due_whatever_the_clock_says(ledger: Ledger) -> None:
    batched(ledger)

    assert [batch.id for batch in ledger.read.due_batches(NOON - timedelta(days=1))] == [BATCH]


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
