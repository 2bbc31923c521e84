"""Stages on backends: `run_stage`, the one verb that flows call, and the waiting in it."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ds_flow.dispatch import local
from ds_flow.dispatch.rounds import JobSpec, Outcome, Round, open_round, rounds_in
from ds_flow.errors import DispatchError
from ds_flow.model import FailureClass, JobState

ROUNDS_LIMIT = 3
"""So many rounds an attempt opens for a job that infrastructure, memory or a kill has failed."""

RETRIED = frozenset({FailureClass.INFRASTRUCTURE, FailureClass.MEMORY, FailureClass.KILLED})
LIVE = frozenset({JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN})


class Backend(Protocol):
    """Where jobs run: verbs over many jobs at once, without waiting or state of their own."""

    FIRST_POLL_SECONDS: float
    LONGEST_POLL_SECONDS: float

    def command(self, job: JobSpec) -> tuple[str, ...]:
        """What a job's args file holds."""

    def submit(self, batch_round: Round, indices: Sequence[int]) -> None:
        """Hand one round's jobs over. Raises DispatchError if none was accepted."""

    def ask(self, batch_round: Round) -> Mapping[int, JobState]:
        """One question for all jobs of a round."""

    def classify(self, exit_code: int | None) -> tuple[FailureClass | None, str]:
        """Sort a job's end by what treats it."""


BACKENDS: dict[str, Backend] = {"local": local}


def run_stage(
    stage_dir: Path, *, executor: str, batch: str, attempt: str, jobs: Sequence[JobSpec]
) -> list[Outcome]:
    """Run a stage's jobs to their ends; the last outcome of each, in the jobs' order.

    It may be killed at any moment and called again: it takes the outcomes of closed rounds,
    continues the open one, and opens further rounds for what has not succeeded. A job that its
    own code failed is not tried again within an attempt.
    """
    backend = BACKENDS[executor]
    while True:
        outcomes: dict[str, Outcome] = {}
        rounds = list(rounds_in(stage_dir))
        for batch_round in rounds:
            found = batch_round.verdict()
            outcomes |= {o.key: o for o in (found or _wait(batch_round, backend))}
        mine = [batch_round for batch_round in rounds if batch_round.opened_by == attempt]
        left = [job for job in jobs if _is_open(job, outcomes.get(job.key), mine)]
        if not left:
            return [outcomes[job.key] for job in jobs]
        commands = [backend.command(job) for job in left]
        batch_round = open_round(stage_dir, batch, attempt, left, commands)
        backend.submit(batch_round, batch_round.indices)


def _is_open(job: JobSpec, last: Outcome | None, mine: Sequence[Round]) -> bool:
    """Whether a job needs a further round: this attempt's failures count, older ones do not."""
    if last is None:
        return True
    if last.failure is None:
        return False
    tries = sum(any(tried.key == job.key for tried in opened.jobs) for opened in mine)
    return tries == 0 or (last.failure in RETRIED and tries < ROUNDS_LIMIT)


def _wait(batch_round: Round, backend: Backend) -> list[Outcome]:
    """Wait until every job of a round has ended, ever less often; close the round."""
    pause_s = backend.FIRST_POLL_SECONDS
    while any(state in LIVE for state in backend.ask(batch_round).values()):
        time.sleep(pause_s)  # noqa: TID251 - a task has nothing else to do
        pause_s = min(pause_s * 1.2, backend.LONGEST_POLL_SECONDS)
    outcomes = [_outcome(batch_round, index, backend) for index in batch_round.indices]
    batch_round.close(outcomes)
    return outcomes


def _outcome(batch_round: Round, index: int, backend: Backend) -> Outcome:
    exit_code, ended_at = batch_round.exit_of(index) or (None, "")
    host, native_id, started_at = batch_round.claim_of(index) or ("", "", "")
    failure, reason = backend.classify(exit_code)
    return Outcome(
        key=batch_round.jobs[index - 1].key,
        index=index,
        round=batch_round.name,
        opened_by=batch_round.opened_by,
        failure=failure,
        reason=reason,
        exit_code=exit_code,
        host=host,
        native_id=native_id,
        started_at=started_at,
        ended_at=ended_at,
    )


def log_of(stage_dir: Path, outcome: Outcome) -> str:
    """The end of what a job printed in the round of this outcome."""
    for batch_round in rounds_in(stage_dir):
        if batch_round.name == outcome.round:
            return batch_round.log_of(outcome.index)
    raise DispatchError(f"{stage_dir}: no round {outcome.round}")


__all__ = ["Backend", "JobSpec", "Outcome", "log_of", "run_stage"]
