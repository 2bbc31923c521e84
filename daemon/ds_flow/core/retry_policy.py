"""What follows for a batch when its run has ended without success."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from ds_flow.core.states import COUNTED_RUNS, RunState

IDLE_RUNS_LIMIT = 20
"""After this many lost or stopped runs in a row that finished no work, a batch is dead."""

LONGEST_DELAY_SECONDS = 3600.0
LONGEST_HOLD_SECONDS = 600.0
LONGEST_DELIVERY_WAIT = timedelta(seconds=1.25 * LONGEST_HOLD_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`run.attempts` and `run.retry_first_seconds` of the settings."""

    attempts: int
    first_delay_seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run of a batch ended, and how many results the batch had then."""

    state: RunState
    results: int
    began: bool = True  # it had a Run ID


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The batch starts again at this time."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Dead:
    """The batch is given up."""

    why: str


def after_failure(
    runs: Sequence[Ended], policy: Policy, now: datetime, jitter: float
) -> RetryAt | Dead:
    """Decide what follows the last of a batch's unsuccessful runs (oldest first).

    1. A run that never began has read no file: its environment is to blame. It counts for nothing,
       and the batch waits, ever longer, however often that happens.
    2. A lost or stopped run starts again at once, unless too many in a row finished no work.
    3. A failed or timed out run uses up an attempt. The batch is dead if none is left.
    4. Otherwise it waits. The delay doubles each time, up to an hour. `jitter`, a random number
       in [0, 1), spreads it over 75 % to 125 %.
    """
    if not runs[-1].began:
        return RetryAt(now + _spread(_hold_s(runs, policy), jitter))
    runs = [run for run in runs if run.began]
    if runs[-1].state not in COUNTED_RUNS:
        idle = _idle_in_a_row(runs)
        if idle >= IDLE_RUNS_LIMIT:
            return Dead(f"{idle} runs in a row were lost or stopped without finishing any work")
        return RetryAt(now)
    failures = sum(run.state in COUNTED_RUNS for run in runs)
    if failures >= policy.attempts:
        return Dead(f"{failures} of {policy.attempts} attempts used up")
    delay_s = min(policy.first_delay_seconds * 2 ** (failures - 1), LONGEST_DELAY_SECONDS)
    return RetryAt(now + _spread(delay_s, jitter))


def _spread(delay_s: float, jitter: float) -> timedelta:
    return timedelta(seconds=delay_s * (0.75 + jitter / 2))


def _hold_s(runs: Sequence[Ended], policy: Policy) -> float:
    """How long to wait after runs that never began. The first one may have been killed by chance.

    `stop` of the daemon is no fault of the environment.
    """
    count = unbegun_in_a_row(runs)
    if count <= 1 or runs[-1].state == RunState.STOPPED:
        return 0.0
    return min(policy.first_delay_seconds * 2.0 ** min(count - 2, 30), LONGEST_HOLD_SECONDS)


def next_delivery(
    failures: int, first_delay_seconds: float, now: datetime, jitter: float
) -> datetime:
    """When a run is handed over again after so many failures. It is never given up by itself."""
    delay_s = min(first_delay_seconds * 2.0 ** min(failures - 1, 30), LONGEST_HOLD_SECONDS)
    return now + _spread(delay_s, jitter)


def unbegun_in_a_row(runs: Sequence[Ended]) -> int:
    """How many of the last runs never began."""
    return sum(1 for _ in takewhile(lambda run: not run.began, reversed(runs)))


def _idle_in_a_row(runs: Sequence[Ended]) -> int:
    count = 0
    for run, before in zip(
        reversed(runs), [*reversed(runs[:-1]), Ended(RunState.LOST, 0)], strict=True
    ):
        if run.state in COUNTED_RUNS or run.results > before.results:
            break
        count += 1
    return count
