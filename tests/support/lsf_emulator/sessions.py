"""Processes by session: what a job consists of, wherever its children have gone."""

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


def members(sessions: Collection[int]) -> Iterator[tuple[int, int, int]]:
    """Pid, session and resident KB of every process of these sessions; proc_pid_stat(5)."""
    for name in _pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            if int(words[3]) in sessions and words[0] != b"Z":
                yield int(name), int(words[3]), int(words[21]) * PAGE_KB


def send(session: int, number: int) -> bool:
    """Signal every process of a session; whether there was one."""
    found = [pid for pid, _, _ in members([session])]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return bool(found)


def kill_marked(mark: bytes) -> None:
    """Kill every process in whose environment a variable is set so, until there is none."""
    while True:
        found = list(_marked(mark))
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _marked(mark: bytes) -> Iterator[int]:
    for name in _pids():
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            if mark in variables and any(v.startswith(b"LSB_JOBID=") for v in variables):
                yield int(name)


def _pids() -> list[str]:
    return [entry.name for entry in os.scandir("/proc") if entry.name.isdecimal()]
