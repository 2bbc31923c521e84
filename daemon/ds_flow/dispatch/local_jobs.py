"""The jobs of a local round as forks: what bash/run_job.sh does for jobs that are other programs.

A forked job is a process of its own, with its own log, exit code and run limit. What it does to
itself (a crash, `os._exit`, closed files, all memory) touches no other process.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ds_flow.core import CHECKOUT
from ds_flow.dispatch.exit_codes import LIMIT_EXIT_CODE
from ds_flow.dispatch.rounds import JobSpec, Round
from ds_flow.system import count_oom_kills, fork, open_streams

OOM_KILLS = CHECKOUT / "bash" / "oom_kills.sh"
KILL_AFTER_SECONDS = 10  # from SIGTERM to SIGKILL, at the run limit
PROCESS_NAME = "ds-flow-job"

Program = Callable[[Sequence[str]], int]
"""A job's main function: it takes its arguments and returns its exit code."""

_programs: dict[str, Program] = {}
_runners: dict[Path, int] = {}  # by round: the pid of a child


def fork_program(script: str, program: Program) -> None:
    """From now on, run local jobs of this Python script as forks of this process."""
    _programs[script] = program


def can_fork(jobs: Sequence[JobSpec]) -> bool:
    """Whether each of these jobs can be a fork."""
    return all(_script(job) in _programs for job in jobs)


def _script(job: JobSpec) -> str:
    return job.command[1] if job.command[0] == sys.executable and len(job.command) > 1 else ""


def is_forked_job(pid: int) -> bool:
    """Whether a process is a forked job. Its environment in /proc is that of its run's start."""
    return Path(f"/proc/{pid}/comm").read_bytes().strip() == PROCESS_NAME.encode()


def fork_jobs(batch_round: Round, lock: int) -> int:
    """Run a round's jobs, one after the other, in a child that leads a process group; its pid."""
    return fork(lambda: _run_jobs(batch_round, lock), PROCESS_NAME)


def note_runner(folder: Path, pid: int) -> None:
    """Note which child of this process runs a round's jobs, so that `rest` can wait for its end."""
    _runners[folder] = pid


def rest(folder: Path, seconds: float) -> None:
    """Wait so long; less if a child of this process runs the round's jobs, and ends meanwhile."""
    try:
        child = os.pidfd_open(_runners[folder])
    except (KeyError, OSError):
        time.sleep(seconds)  # noqa: TID251 - no event tells of a job's end elsewhere
        return
    try:
        ended = select.poll()
        ended.register(child, select.POLLIN)
        if ended.poll(seconds * 1000):
            del _runners[folder]  # of what it has left alive, if it was killed, no event tells
    finally:
        os.close(child)


def _run_jobs(batch_round: Round, lock: int) -> int:
    """Run every job once. They and the programs that they start hold the round's lock."""
    os.setpgid(0, 0)
    os.set_inheritable(lock, True)  # noqa: FBT003 - it has no keyword
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.environ["DS_FLOW_JOB"] = batch_round.name
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    return max(_run_job(batch_round, index) for index in batch_round.indices)


def _run_job(batch_round: Round, index: int) -> int:
    folder = batch_round.folder
    try:
        with (folder / f"{index}.claim").open("x") as claim:
            claim.write(f"{socket.gethostname()} {os.getpid()} {int(time.time())}\n")
    except FileExistsError:
        return 0  # it runs or ran elsewhere
    job = batch_round.jobs[index - 1]
    kills = count_oom_kills()
    pid = fork(lambda: _be_job(batch_round, index, job), PROCESS_NAME)
    with suppress(OSError):  # it does so itself, perhaps later; it may have ended
        os.setpgid(pid, pid)
    code = _wait(pid, job.limit_minutes * 60)
    if code == 128 + signal.SIGKILL and count_oom_kills() > kills:
        with (folder / f"{index}.starved").open("xb") as file:
            script = ("bash", "-c", '. "$0"; memory_allowed', str(OOM_KILLS))
            subprocess.run(script, stdout=file, check=False)
    part = folder / f"{index}.exit.part"
    part.write_text(f"{code} {int(time.time())}\n")
    part.rename(folder / f"{index}.exit")
    return code


def _be_job(batch_round: Round, index: int, job: JobSpec) -> int:
    """Take the place of the job's program, with its standard streams and arguments."""
    os.setpgid(0, 0)  # it may signal its group
    log = os.open(batch_round.folder / f"{index}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    given = os.open(job.stdin or os.devnull, os.O_RDONLY)
    for descriptor, wanted in enumerate((given, log, log)):
        os.dup2(wanted, descriptor)
    os.close(log)
    os.close(given)
    open_streams()
    sys.argv = list(job.command[1:])
    return _programs[_script(job)](sys.argv[1:])


def _wait(pid: int, limit_s: float) -> int:
    """Wait for a child until its run limit, and end it there. Returns its exit code, as in bash."""
    status = _end_within(pid, limit_s)
    if status is None:
        os.killpg(pid, signal.SIGTERM)
        if _end_within(pid, KILL_AFTER_SECONDS) is None:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return LIMIT_EXIT_CODE
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _end_within(pid: int, seconds: float) -> int | None:
    """Wait so long for a child. Returns its wait status, or None. SIGCHLD must be blocked."""
    until_s = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            return None
        signal.sigtimedwait({signal.SIGCHLD}, left_s)
