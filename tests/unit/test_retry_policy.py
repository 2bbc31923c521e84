"""What an ended run means for its batch."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import NOON
from ds_flow.core.retry_policy import (
    IDLE_RUNS_LIMIT,
    LONGEST_DELAY_SECONDS,
    LONGEST_HOLD_SECONDS,
    Dead,
    Ended,
    Policy,
    RetryAt,
    after_failure,
)
from ds_flow.core.states import COUNTED_RUNS, RunState

POLICY = Policy(attempts=3, first_delay_seconds=10)
PATIENT = Policy(attempts=100, first_delay_seconds=10)
FAILED, LOST, STOPPED = (
    Ended(state, 0) for state in (RunState.FAILED, RunState.LOST, RunState.STOPPED)
)

jitters = st.floats(0, 1, exclude_max=True)
unsuccessful = st.builds(
    Ended,
    st.sampled_from([RunState.FAILED, RunState.TIMED_OUT, RunState.LOST, RunState.STOPPED]),
    st.integers(0, 3),
)


def delay_s(then: RetryAt | Dead) -> float:
    assert isinstance(then, RetryAt)
    return (then.at - NOON).total_seconds()


@given(st.integers(1, 99), jitters)
def test_each_failure_doubles_the_delay_up_to_an_hour_with_jitter(
    failures: int, jitter: float
) -> None:
    whole_s = min(10 * 2 ** (failures - 1), LONGEST_DELAY_SECONDS)

    waited_s = delay_s(after_failure([FAILED] * failures, PATIENT, NOON, jitter))

    assert 0.75 * whole_s <= waited_s <= 1.25 * whole_s


def test_jitter_spreads_the_delay_over_its_whole_range() -> None:
    assert delay_s(after_failure([FAILED], POLICY, NOON, 0.0)) == 7.5
    assert delay_s(after_failure([FAILED], POLICY, NOON, 0.5)) == 10
    assert delay_s(after_failure([FAILED], POLICY, NOON, 0.9999)) == pytest.approx(12.5, abs=0.01)


@pytest.mark.parametrize("state", sorted(COUNTED_RUNS))
def test_the_last_allowed_failure_makes_the_batch_dead(state: RunState) -> None:
    runs = [Ended(state, 0)] * 3

    assert isinstance(after_failure(runs[:2], POLICY, NOON, 0), RetryAt)
    assert after_failure(runs, POLICY, NOON, 0) == Dead("3 of 3 attempts used up")


@given(st.lists(unsuccessful, max_size=15), st.sampled_from([LOST, STOPPED]), jitters)
def test_a_lost_or_stopped_run_starts_again_at_once(
    before: list[Ended], last: Ended, jitter: float
) -> None:
    assert after_failure([*before, last], POLICY, NOON, jitter) == RetryAt(NOON)


@given(st.lists(st.sampled_from([LOST, STOPPED]), min_size=20, max_size=30))
def test_twenty_idle_runs_in_a_row_make_the_batch_dead(runs: list[Ended]) -> None:
    assert isinstance(after_failure(runs[: IDLE_RUNS_LIMIT - 1], POLICY, NOON, 0), RetryAt)
    assert isinstance(after_failure(runs, POLICY, NOON, 0), Dead)


@given(st.integers(0, 25), st.integers(0, 18))
def test_finished_work_resets_the_count_of_idle_runs(idle: int, later: int) -> None:
    runs = [LOST] * idle + [Ended(RunState.LOST, 1)] * (1 + later)

    assert isinstance(after_failure(runs, POLICY, NOON, 0), RetryAt)


def test_results_of_earlier_runs_are_no_work_of_later_ones() -> None:
    runs = [Ended(RunState.FAILED, 7), *[Ended(RunState.LOST, 7)] * IDLE_RUNS_LIMIT]

    assert isinstance(after_failure(runs, PATIENT, NOON, 0), Dead)


@given(st.lists(unsuccessful, min_size=1, max_size=40), jitters)
def test_lost_and_stopped_runs_use_up_no_attempt(runs: list[Ended], jitter: float) -> None:
    failures = sum(run.state in COUNTED_RUNS for run in runs)

    then = after_failure(runs, POLICY, NOON, jitter)

    if runs[-1].state in COUNTED_RUNS:
        assert isinstance(then, Dead) == (failures >= POLICY.attempts)
    if isinstance(then, RetryAt):
        assert NOON <= then.at <= NOON + timedelta(seconds=1.25 * LONGEST_DELAY_SECONDS)


# --------------------------------------------------------------------------- never began

UNBEGUN = Ended(RunState.LOST, 0, began=False)


@given(st.lists(unsuccessful, max_size=15), st.integers(2, 2000), jitters)
def test_runs_that_never_began_wait_ever_longer_and_make_no_batch_dead(
    before: list[Ended], count: int, jitter: float
) -> None:
    whole_s = min(10 * 2.0 ** min(count - 2, 30), LONGEST_HOLD_SECONDS)

    waited_s = delay_s(after_failure([*before, *[UNBEGUN] * count], POLICY, NOON, jitter))

    assert 0.75 * whole_s <= waited_s <= 1.25 * whole_s


def test_the_first_run_that_never_began_is_followed_at_once_since_it_may_have_been_killed() -> None:
    assert after_failure([FAILED, UNBEGUN], POLICY, NOON, 0) == RetryAt(NOON)


def test_a_run_that_was_stopped_before_it_began_is_followed_at_once() -> None:
    stopped = Ended(RunState.STOPPED, 0, began=False)

    assert after_failure([*[UNBEGUN] * 5, stopped], POLICY, NOON, 0) == RetryAt(NOON)


@given(st.lists(unsuccessful, min_size=1, max_size=30), st.integers(0, 30), jitters)
def test_runs_that_never_began_count_for_nothing_afterwards(
    runs: list[Ended], place: int, jitter: float
) -> None:
    among = [*runs[:-1][:place], UNBEGUN, *runs[:-1][place:], runs[-1]]

    assert after_failure(among, POLICY, NOON, jitter) == after_failure(runs, POLICY, NOON, jitter)
