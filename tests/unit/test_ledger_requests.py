"""What people ask of the ledger, and what a commit makes of it."""

import pytest

from clock import NOON
from ds_flow.core.errors import LedgerError, RequestError
from ds_flow.core.retry_policy import RetryAt
from ds_flow.core.states import BatchState, Cause, FireOutcome, RunState
from ds_flow.ledger import Fire, Ledger
from ledgers import (
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
    latest,
)
from samples import BATCH, OTHER_BATCH, manifest, read, rejected, sha256

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
    assert dict(ledger.read.known()) == {}


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
    assert [batch.id for batch in ledger.read.due_batches(NOON)] == [BATCH]


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


def test_a_fire_that_finds_no_free_file_is_not_entered(ledger: Ledger) -> None:
    fire = Fire(schedule="nightly", due_at=NOON, outcome=FireOutcome.RUN, batch="fedcba9876")

    assert ledger.schedules.form(fire, "all", [], NOON) == 0
    assert not ledger.schedules.is_done("nightly", NOON)
