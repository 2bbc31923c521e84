"""Metaflow runs as processes: start them, find them again by their mark, end them."""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ds_flow.core import ATTEMPT_MARK, PYTHON, DispatchError, Trigger, attempt_command
from ds_flow.dispatch import is_forked_job
from ds_flow.runs.standby import Command, Standby, new_id
from ds_flow.settings import Settings
from ds_flow.system import open_log
from ds_flow.work import Batch, attempt_log

log = logging.getLogger(__name__)


class Life(StrEnum):
    """Which of an attempt's processes are alive."""

    ALIVE = "alive"
    ORPHANED = "orphaned"  # its leader is dead, some of its tasks or jobs are not
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Process:
    """A live process that carries an attempt's mark."""

    pid: int
    group: int
    is_job: bool

    @property
    def is_leader(self) -> bool:
        """Whether it is bash/run_attempt.sh, which leads the attempt's group."""
        return self.pid == self.group and not self.is_job


class Runs:
    """All attempts, those of earlier daemons too: found by the mark in their environment."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._cancellers: dict[str, subprocess.Popen[bytes]] = {}
        self._standby: Standby | None = None
        self._named = ""  # the last batch that got a standby's id
        self._begun: set[str] = set()  # marks of standbys whose batch has come

    # ------------------------------------------------------------------ the next run

    def get_ready(self, settings: Settings) -> None:
        """Start the process of the next batch's first attempt. Raises OSError."""
        batch_id = new_id()
        log_file = attempt_log(settings.log_dir, batch_id, 1)
        command = _command(settings, batch_id, 1, Trigger.ARRIVAL)
        self._standby = Standby.start(f"{batch_id}/1", command, log_file)

    @property
    def has_standby(self) -> bool:
        """Whether a process waits for its batch."""
        return self._standby is not None and self._standby.is_alive

    def is_standby(self, batch_id: str, attempt: int) -> bool:
        """Whether what carries an attempt's mark is this daemon's standby: no run has begun."""
        return self._standby is not None and self._standby.mark == f"{batch_id}/{attempt}"

    def next_batch(self) -> str:
        """Choose the next batch's id: the one that the standby has, which one batch gets."""
        standby = self._standby
        if standby is None or not standby.is_alive or standby.batch == self._named:
            return new_id()
        self._named = standby.batch
        return standby.batch

    def dismiss(self) -> int:
        """End the standby, if there is one; how many."""
        standby, self._standby = self._standby, None
        if standby is None:
            return 0
        kill_marked(standby.mark)
        standby.bury()
        return 1

    def make_way(self, settings: Settings, batch_id: str, attempt: int, trigger: str) -> None:
        """End what carries the mark of an attempt that is to start, unless it fits.

        It is a standby: this daemon's, or a killed daemon's that has not noticed yet.
        """
        mark = f"{batch_id}/{attempt}"
        standby = self._standby
        if standby is not None and standby.batch == batch_id:
            is_next = standby.mark == mark
            if is_next and standby.fits(_command(settings, batch_id, attempt, trigger)):
                return
            self.dismiss()
        kill_marked(mark)

    # ------------------------------------------------------------------ attempts

    def prepare(self, settings: Settings, batch_id: str, attempt: int) -> None:
        """Make an attempt's folder and log."""
        path = attempt_log(settings.log_dir, batch_id, attempt)
        Batch.at(settings.output_dir, batch_id).attempt_dir(attempt).mkdir(exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(open_log(path, 0o640))  # it repeats what jobs print

    def start(self, settings: Settings, batch_id: str, attempt: int, trigger: str) -> None:
        """Start a prepared attempt in a process group of its own. Raises DispatchError."""
        mark = f"{batch_id}/{attempt}"
        standby = self._standby
        if standby is not None and standby.mark == mark:
            self._standby = None
            self._begun.add(mark)
            self._children[mark] = standby.begin()
            return
        words, environment, folder = _command(settings, batch_id, attempt, trigger)
        path = attempt_log(settings.log_dir, batch_id, attempt)
        try:
            with os.fdopen(open_log(path), "ab") as output:
                self._children[mark] = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env=environment,
                    process_group=0,
                )
        except OSError as error:
            raise DispatchError(f"run {mark} could not be started: {error}") from error

    def life(self, batch: str, attempt: int) -> Life:
        """Say which of an attempt's processes are alive."""
        mark = f"{batch}/{attempt}"
        child = self._children.get(mark)
        if child is not None and child.poll() is None:
            return Life.ALIVE
        self._children.pop(mark, None)
        self._begun.discard(mark)
        left = list(processes(mark))
        if any(process.is_leader for process in left):
            return Life.ALIVE
        return Life.ORPHANED if left else Life.DEAD

    def was_standby(self, batch: str, attempt: int) -> bool:
        """Whether a live attempt's process was there before its batch."""
        return f"{batch}/{attempt}" in self._begun

    def interrupt(self, batch: str, attempt: int) -> None:
        """Ask an attempt's group to end: Metaflow ends its tasks within a second of SIGINT."""
        for process in processes(f"{batch}/{attempt}"):
            if process.is_leader:
                _signal_group(process.pid, signal.SIGINT)

    def kill(self, batch: str, attempt: int) -> None:
        """Kill every process that carries the mark, whole groups at once.

        The run dies before its jobs, so that it cannot record their deaths as failures.
        """
        kill_marked(f"{batch}/{attempt}")

    def cancel_jobs(self, settings: Settings, batch: Batch, log_file: Path) -> int | None:
        """End a batch's jobs elsewhere: None while that goes on, then 0, or 1 if some are left.

        A daemon that dies meanwhile loses nothing: the next one starts this again, and ending a
        job that has ended changes nothing.
        """
        child = self._cancellers.get(batch.id)
        if child is None:
            with os.fdopen(open_log(log_file), "ab") as output:
                child = self._cancellers[batch.id] = subprocess.Popen(
                    [*PYTHON, "-m", "ds_flow.runs.kill_jobs", str(batch.folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=settings.run_environment(os.environ),
                    process_group=0,
                )
        code = child.poll()
        if code is not None:
            del self._cancellers[batch.id]
        return code


def _command(settings: Settings, batch_id: str, attempt: int, trigger: str) -> Command:
    batch = Batch.at(settings.output_dir, batch_id)
    words = attempt_command(
        batch.attempt_dir(attempt),
        "run",
        *("--batch", batch.id, "--output-dir", settings.options().portable().output_dir),
        *("--tag", f"batch:{batch.id}", "--tag", f"trigger:{trigger}"),
    )
    own = {ATTEMPT_MARK: f"{batch_id}/{attempt}", "TMPDIR": str(batch.scratch)}
    return words, {**settings.run_environment(os.environ), **own}, settings.root


def kill_marked(mark: str) -> None:
    """Kill every process that carries the mark, whole groups at once, jobs last."""
    for process in sorted(processes(mark), key=lambda found: found.is_job):
        if process.pid == process.group:
            _signal_group(process.pid, signal.SIGKILL)
        else:
            _signal(process.pid, signal.SIGKILL)


def processes(mark: str) -> Iterator[Process]:
    """Find every live process of this user that carries the mark, in /proc. No pid is trusted.

    A zombie has no environment any more, so it does not count as alive.
    """
    wanted = f"\0{ATTEMPT_MARK}={mark}\0".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            environment = b"\0" + Path(entry.path, "environ").read_bytes()
            if wanted in environment:
                pid = int(entry.name)
                is_job = b"\0DS_FLOW_JOB=" in environment or is_forked_job(pid)
                yield Process(pid, os.getpgid(pid), is_job)
        except OSError:  # gone, or another user's
            continue


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
