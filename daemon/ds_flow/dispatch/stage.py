"""Run a stage's jobs on a backend and wait for them: `run_stage` is what flow steps call."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ds_flow.core import (
    SITES_LIMIT,
    STARVED,
    DispatchError,
    FailureClass,
    JobState,
    Site,
    place_of,
)
from ds_flow.dispatch.backends import make_backends
from ds_flow.dispatch.commands import print_note
from ds_flow.dispatch.exit_codes import RUN_LIMIT_REACHED
from ds_flow.dispatch.local_jobs import rest
from ds_flow.dispatch.protocol import Backend
from ds_flow.dispatch.rounds import JobSpec, Outcome, Report, Round, open_round, rounds_in
from ds_flow.dispatch.trim_logs import cut_logs

ROUNDS_LIMIT = 3
"""Rounds that one attempt opens for a job which failed for a reason in `RETRIED`."""

RETRIED = frozenset({FailureClass.INFRASTRUCTURE, FailureClass.MEMORY, FailureClass.KILLED})
LIVE = frozenset({JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN})
WAITED_SHARE = 0.1  # pause between two polls, as a share of the time waited so far


def run_stage(
    stage_dir: Path,
    *,
    executor: str,
    site: Site,
    batch: str,
    attempt: str,
    jobs: Sequence[JobSpec],
) -> list[Outcome]:
    """Run a stage's jobs to their ends. Returns the last outcome of each, in the jobs' order.

    This may be killed at any moment and called again.

    1. Take the outcomes of closed rounds; wait for the open round, and close it.
    2. If a job has no success yet and may be tried again (`_needs_round`), open a further round.
       A job that had too little memory gets more there.
    3. Repeat until no job is left.
    """
    on = make_backends(site)
    while True:
        outcomes: dict[str, Outcome] = {}
        asked: dict[str, JobSpec] = {}
        rounds = list(rounds_in(stage_dir))
        for batch_round in rounds:
            found = batch_round.outcomes()
            if found is None:
                found = _finish(batch_round, on[batch_round.executor])
            _release(batch_round, on[batch_round.executor])
            outcomes |= {outcome.key: outcome for outcome in found}
            asked |= {job.key: job for job in batch_round.jobs}
        mine = [batch_round for batch_round in rounds if batch_round.opened_by == attempt]
        left = [job for job in jobs if _needs_round(job, outcomes.get(job.key), mine)]
        if left:
            left = _with_more_memory(left, outcomes, asked, mine, on[executor], site)
        if not left:
            return [outcomes[job.key] for job in jobs]
        for last in (outcomes[job.key] for job in left if job.key in outcomes):
            _tell_of_another_round(executor, last)
        commands = [on[executor].command(job) for job in left]
        open_round(stage_dir, batch, attempt, executor, left, commands)


def _tell_of_another_round(executor: str, last: Outcome) -> None:
    where = place_of(asdict(last))
    print_note(executor, f"job {last.round}[{last.index}]{where}: {last.reason}; it is done again")


def _needs_round(job: JobSpec, last: Outcome | None, mine: Sequence[Round]) -> bool:
    """Whether a job needs a further round. Only this attempt's failures count.

    A job whose own code failed is not tried again within an attempt.
    """
    if last is None:
        return True
    if last.failure is None:
        return False
    tries = sum(any(tried.key == job.key for tried in opened.jobs) for opened in mine)
    return tries == 0 or (last.failure in RETRIED and tries < ROUNDS_LIMIT)


def _with_more_memory(
    jobs: Sequence[JobSpec],
    outcomes: Mapping[str, Outcome],
    asked: Mapping[str, JobSpec],
    mine: Sequence[Round],
    backend: Backend,
    site: Site,
) -> list[JobSpec]:
    """The jobs, with more memory where that was too little. One that can get no more is left out.

    Each attempt tries every job once, so a job is left out only after a round of this attempt.
    """
    starved = {job.key for job in jobs if _is_starved(outcomes.get(job.key))}
    most_mb = (backend.most_memory_mb() if starved else None) or math.inf
    tried = {job.key for opened in mine for job in opened.jobs}
    grown = [
        _grown(job, asked[job.key].memory_mb, site, most_mb) if job.key in starved else job
        for job in jobs
    ]
    return [
        job
        for job in grown
        if job.key not in starved & tried
        or outcomes[job.key].reason.startswith(STARVED)
        or job.memory_mb > asked[job.key].memory_mb
    ]


def _is_starved(last: Outcome | None) -> bool:
    return last is not None and last.failure == FailureClass.MEMORY


def _grown(job: JobSpec, asked_mb: int, site: Site, most_mb: float) -> JobSpec:
    """The job with more memory than last time.

    The most is what the rounds of one attempt come to, so that it does not grow with each attempt,
    and never more than the setting allows or the backend has.
    """
    rounds_mb = math.ceil(job.memory_mb * site.memory_factor ** (ROUNDS_LIMIT - 1))
    most_mb = min(rounds_mb, site.memory_limit_mb or math.inf, most_mb)
    more_mb = math.ceil(asked_mb * site.memory_factor)
    memory_mb = max(job.memory_mb, int(min(more_mb, most_mb)))
    return replace(job, memory_mb=memory_mb, has_more_memory=memory_mb > job.memory_mb)


def _finish(batch_round: Round, backend: Backend) -> list[Outcome]:
    """Submit a round's jobs, wait until each has ended, and close the round."""
    began_s = time.monotonic()
    ended: dict[int, Report] = {}
    while True:
        all_submitted = backend.submit(batch_round)
        reports = backend.ask(batch_round, set(batch_round.indices) - ended.keys())
        cut_logs(batch_round.folder)
        ended |= {index: report for index, report in reports.items() if report.state not in LIVE}
        if all_submitted and len(ended) == len(batch_round.jobs):
            break
        first_s, longest_s = backend.poll_seconds
        pause_s = WAITED_SHARE * (time.monotonic() - began_s)
        rest(batch_round.folder, min(max(pause_s, first_s), longest_s))
    outcomes = [_outcome(batch_round, index, ended[index]) for index in batch_round.indices]
    batch_round.close(outcomes)
    return outcomes


def _release(batch_round: Round, backend: Backend) -> bool:
    """Release a closed round once. Returns whether its backend holds nothing any more."""
    if not batch_round.is_released and backend.release(batch_round):
        batch_round.mark_released()
    return batch_round.is_released


def _outcome(batch_round: Round, index: int, report: Report) -> Outcome:
    job = batch_round.jobs[index - 1]
    exit_code, ended_at = batch_round.exit_of(index) or (None, "")
    host, native_id, started_at = batch_round.claim_of(index) or ("", "", "")
    failure, reason = report.failure, report.reason
    if failure == FailureClass.KILLED and (starved := batch_round.starved(index)):
        failure, reason = FailureClass.MEMORY, starved
    elif failure == FailureClass.MEMORY and not reason.startswith(SITES_LIMIT):
        what = "needed more than" if host else "asked for"
        reason = f"{reason}: it {what} {job.memory_mb:,} MB"
    elif failure == FailureClass.LIMIT:
        limit = f"run limit of {job.limit_minutes:g} minutes reached"
        reason = reason.replace(RUN_LIMIT_REACHED, limit)
    return Outcome(
        key=job.key,
        index=index,
        round=batch_round.name,
        opened_by=batch_round.opened_by,
        failure=failure,
        reason=reason,
        exit_code=exit_code,
        host=host,
        native_id=native_id or report.native_id,
        started_at=started_at,
        ended_at=ended_at,
        image_id=report.image_id,
        image_digest=report.image_digest,
        backend=batch_round.executor,
    )


def cancel_jobs(jobs_dir: Path, on: Mapping[str, Backend]) -> list[str]:
    """End a batch's jobs and release its rounds. Returns the names of rounds that are not done."""
    unfinished: list[str] = []
    for stage_dir in sorted(jobs_dir.iterdir()) if jobs_dir.is_dir() else ():
        for batch_round in rounds_in(stage_dir):
            backend = on[batch_round.executor]
            is_open = batch_round.outcomes() is None
            if not (backend.cancel(batch_round) if is_open else _release(batch_round, backend)):
                unfinished.append(batch_round.name)
    return unfinished


def has_jobs_elsewhere(jobs_dir: Path) -> bool:
    """Whether a batch has jobs, or what they left, on a backend whose jobs outlive their run."""
    return any(
        batch_round.executor != "local" and not batch_round.is_released
        for stage_dir in (jobs_dir.iterdir() if jobs_dir.is_dir() else ())
        for batch_round in rounds_in(stage_dir)
    )


def log_of(stage_dir: Path, outcome: Outcome) -> str:
    """The end of the log of the job with this outcome."""
    for batch_round in rounds_in(stage_dir):
        if batch_round.name == outcome.round:
            return batch_round.log_of(outcome.index)
    raise DispatchError(f"{stage_dir}: no round {outcome.round}")
