"""The local backend: a round's jobs as child processes, one after the other.

Jobs of programs that this process has imported are forks of it (`local_jobs`).
"""

import fcntl
import os
import signal
import subprocess
from collections.abc import Collection
from datetime import datetime

from ds_flow.core import JobState
from ds_flow.dispatch.exit_codes import LIMIT_EXIT_CODE, NO_EXIT_CODE, of_exit_code
from ds_flow.dispatch.local_jobs import can_fork, fork_jobs, note_runner
from ds_flow.dispatch.rounds import RUN_JOB, JobSpec, Report, Round
from ds_flow.system import open_private

KILLED = 128 + signal.SIGKILL

poll_seconds = (0.02, 1.0)


def command(job: JobSpec) -> tuple[str, ...]:
    """The job under its run limit, in a process group of its own: it may signal its group."""
    limit = f"{job.limit_minutes:g}m"
    return ("timeout", "--kill-after=10", limit, *job.command)


def most_memory_mb() -> int | None:
    """Nothing is reserved for a local job."""
    return None


def submit(batch_round: Round) -> bool:
    """Start the jobs once, in a process group of their own but in this session.

    The jobs inherit the round's lock from here. So it is held from before the first job starts
    until the last one is dead, and no pid has to be trusted.
    """
    handed_over = batch_round.folder / "handed_over"
    if handed_over.exists():
        return True
    lock = _lock_file(batch_round)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        handed_over.touch()
        start = fork_jobs if can_fork(batch_round.jobs) else _start_script
        note_runner(batch_round.folder, start(batch_round, lock))
    finally:
        os.close(lock)
    return True


def _start_script(batch_round: Round, lock: int) -> int:
    return subprocess.Popen(
        ["bash", str(RUN_JOB), str(batch_round.folder), *map(str, batch_round.indices)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
        pass_fds=[lock],
        env={**os.environ, "DS_FLOW_JOB": batch_round.name},
    ).pid


def ask(batch_round: Round, indices: Collection[int]) -> dict[int, Report]:
    """Every job's state. A job without a process and without an exit code has failed."""
    alive = is_alive(batch_round)  # before the exit codes: a job may end between the two looks
    return {index: _report(batch_round, index, alive=alive) for index in indices}


def _report(batch_round: Round, index: int, *, alive: bool) -> Report:
    ended = batch_round.exit_of(index)
    if ended is None and alive:
        is_claimed = batch_round.claim_of(index) is not None
        return Report(state=JobState.RUNNING if is_claimed else JobState.PENDING)
    if ended is None:
        return Report.of_end(NO_EXIT_CODE)
    code, ended_at = ended
    if code == KILLED and _was_over_limit(batch_round, index, ended_at):
        code = LIMIT_EXIT_CODE
    return Report.of_end(of_exit_code(code))


def _was_over_limit(batch_round: Round, index: int, ended_at: str) -> bool:
    """Whether a job outlived its limit. timeout(1) kills one that ignores SIGTERM."""
    claim = batch_round.claim_of(index)
    if claim is None or batch_round.starved(index):
        return False
    took = datetime.fromisoformat(ended_at) - datetime.fromisoformat(claim[2])
    return took.total_seconds() >= 60 * batch_round.jobs[index - 1].limit_minutes


def cancel(batch_round: Round) -> bool:
    """Returns whether all jobs have ended. They are the run's processes and are killed with it."""
    return not is_alive(batch_round)


def release(_batch_round: Round) -> bool:
    """Nothing to do: a local round holds nothing outside its folder."""
    return True


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
    return open_private(batch_round.folder / "lock")
