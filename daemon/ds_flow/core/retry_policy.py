"""What an ended run means for its batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ds_flow.core.states import COUNTED_RUNS, RunState

IDLE_RUNS_LIMIT = 20
"""So many lost or stopped runs in a row, none of which finished any work, make a batch dead."""

LONGEST_DELAY_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`run.attempts` and `run.retry_first_seconds` of the settings."""

    attempts: int
    first_delay_seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How one run of a batch ended, and how many results its batch had by then."""

    state: RunState
    results: int


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
    """Decide what follows the last of a batch's unsuccessful runs, oldest first.

    `jitter` is a random number in [0, 1): it spreads a delay over 75 % to 125 % of itself.
    """
    if runs[-1].state not in COUNTED_RUNS:
        idle = _idle_in_a_row(runs)
        if idle >= IDLE_RUNS_LIMIT:
            return Dead(f"{idle} runs in a row were lost or stopped without finishing any work")
        return RetryAt(now)
    failures = sum(run.state in COUNTED_RUNS for run in runs)
    if failures >= policy.attempts:
        return Dead(f"{failures} of {policy.attempts} attempts used up")
    delay = min(policy.first_delay_seconds * 2 ** (failures - 1), LONGEST_DELAY_SECONDS)
    return RetryAt(now + timedelta(seconds=delay * (0.75 + jitter / 2)))


def _idle_in_a_row(runs: Sequence[Ended]) -> int:
    count = 0
    for run, before in zip(
        reversed(runs), [*reversed(runs[:-1]), Ended(RunState.LOST, 0)], strict=True
    ):
        if run.state in COUNTED_RUNS or run.results > before.results:
            break
        count += 1
    return count
