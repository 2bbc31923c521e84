"""The local backend: a round's jobs as child processes, one after the other."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Sequence

from ds_flow import CHECKOUT
from ds_flow.dispatch.rounds import JobSpec, Round
from ds_flow.model import FailureClass, JobState

RUN_JOB = CHECKOUT / "bash" / "run_job.sh"

FIRST_POLL_SECONDS = 0.02
LONGEST_POLL_SECONDS = 1.0

LIMIT_EXIT_CODE = 124  # timeout(1)
OUTSIDE_SIGNALS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})


def command(job: JobSpec) -> tuple[str, ...]:
    """What really runs: the job under its run limit."""
    limit = f"{job.limit_minutes}m"
    return ("timeout", "--foreground", "--kill-after=10", limit, *job.command)


def submit(batch_round: Round, indices: Sequence[int]) -> None:
    """Start the jobs in a process group of their own, never a session of their own.

    The round's lock is taken here and inherited, so that it is held from before the first job
    lives until the last one is dead, and needs no pid to be trusted.
    """
    lock = _lock_file(batch_round)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        subprocess.Popen(
            ["bash", str(RUN_JOB), str(batch_round.folder), *map(str, indices)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
            pass_fds=[lock],
            env={**os.environ, "DS_FLOW_JOB": batch_round.name},
        )
    finally:
        os.close(lock)


def ask(batch_round: Round) -> dict[int, JobState]:
    """Every job's state. One that is neither alive nor ended has failed."""
    alive = is_alive(batch_round)
    return {index: _state(batch_round, index, alive=alive) for index in batch_round.indices}


def _state(batch_round: Round, index: int, *, alive: bool) -> JobState:
    ended = batch_round.exit_of(index)
    if ended is not None:
        return JobState.FAILED if ended[0] else JobState.SUCCEEDED
    if not alive:
        # it may have ended between the two looks
        return JobState.FAILED if batch_round.exit_of(index) is None else JobState.UNKNOWN
    return JobState.RUNNING if batch_round.claim_of(index) else JobState.PENDING


def is_alive(batch_round: Round) -> bool:
    """Whether a process of the round holds its lock."""
    lock = _lock_file(batch_round)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _lock_file(batch_round: Round) -> int:
    return os.open(batch_round.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def classify(exit_code: int | None) -> tuple[FailureClass | None, str]:
    """Sort a job's end by what treats it; the reason is for people."""
    if exit_code is None:
        return FailureClass.INFRASTRUCTURE, "ended without leaving an exit code"
    if exit_code == 0:
        return None, ""
    if exit_code == LIMIT_EXIT_CODE:
        return FailureClass.LIMIT, "run limit reached"
    if exit_code <= signal.SIGHUP + 127:
        return FailureClass.USER_CODE, f"exit code {exit_code}"
    try:
        killer = signal.Signals(exit_code - 128)
    except ValueError:
        return FailureClass.USER_CODE, f"exit code {exit_code}"
    if killer in OUTSIDE_SIGNALS:
        return FailureClass.KILLED, f"killed by {killer.name}"
    return FailureClass.CRASH, f"crashed by {killer.name}"
