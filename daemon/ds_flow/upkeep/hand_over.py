"""Run one command of publish.then, and end it with ds-flow, or when it has taken too long.

`hand_over.py LOG LOCK SECONDS PROGRAM [ARGUMENT ...]`. Standard input is a pipe that the daemon
holds: at its end, the daemon is gone. Why the command failed is said on standard error.

A program of its own, started by its path, so that it imports nothing else of ds-flow.
"""

import ctypes
import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

MOST_BYTES = 2**18  # of one try's output that are kept
LOG_BYTES = 2**20  # a log that is longer is begun anew
LAST_WORDS = 300  # bytes of output that a reason tells
PR_SET_PDEATHSIG = 1  # prctl(2)
CUT = b"\n... the rest of the output is left out\n"


class Output:
    """What the command prints: into the log as far as it may be long, and the end of it."""

    def __init__(self, path: str) -> None:
        self._log = -1
        with suppress(OSError):  # such as a full disk: the run is handed over all the same
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._log = os.open(path, flags, 0o640)
            if os.fstat(self._log).st_size > LOG_BYTES:
                os.ftruncate(self._log, 0)
        self._room = MOST_BYTES
        self.end = b""

    def put(self, text: bytes) -> None:
        """Add to the log what there is room for."""
        with suppress(OSError):
            os.write(self._log, text[: self._room])
            if self._room and len(text) > self._room:
                os.write(self._log, CUT)
        self._room = max(0, self._room - len(text))

    def take(self, pipe: int) -> bool:
        """Take what the command has printed; False once it will print nothing more."""
        text = os.read(pipe, 2**16)
        self.put(text)
        self.end = (self.end + text)[-LAST_WORDS:]
        return bool(text)


def main(log: str, lock: str, seconds: str, *command: str) -> str:
    """Do it; why it failed, or ""."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)  # the command of a daemon that was killed is about to end
    output = Output(log)
    output.put(f"--- {time.strftime('%Y-%m-%d %H:%M:%S %z')} {' '.join(command)}\n".encode())
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=partial(_die_with, ctypes.CDLL(None), os.getpid()),  # noqa: PLW1509 - no threads
        )
    except OSError as error:
        why = _not_started(command[0], error)
    else:
        why = _watch(child, output, float(seconds))
    output.put(f"--- {why or 'done'}\n".encode())
    return why


def _die_with(libc: ctypes.CDLL, helper: int) -> None:
    """Have this process killed when the helper dies, so that no second one ever runs beside it."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != helper:
        os._exit(1)


def _not_started(program: str, error: OSError) -> str:
    if error.errno == errno.ENOENT and "/" not in program:
        return f"there is no program {program} on PATH"
    return f"{program} cannot be started: {error.strerror}"


def _watch(child: "subprocess.Popen[bytes]", output: Output, limit_s: float) -> str:
    """Wait for the command's end, and end all of its processes then; why it failed, or ""."""
    pipe = child.stdout.fileno() if child.stdout else -1  # it has one, says its maker
    ended, daemon = os.pidfd_open(child.pid), sys.stdin.fileno()
    os.set_blocking(pipe, False)
    watched = select.poll()
    for descriptor in (ended, pipe, daemon):
        watched.register(descriptor, select.POLLIN)
    end_s, why = time.monotonic() + limit_s, ""
    while True:
        left_s = end_s - time.monotonic()
        found = {descriptor for descriptor, _ in watched.poll(max(0.0, left_s) * 1000)}
        if daemon in found:
            why = "it outlived ds-flow"
        elif left_s <= 0:
            why = f"it took longer than {limit_s / 60:g} minutes"
        if pipe in found and not output.take(pipe):
            watched.unregister(pipe)
        if why or ended in found:
            break
    how = _end(child.pid)  # before its end is read: its id is nobody else's so far
    code = child.wait()
    with suppress(BlockingIOError):
        while output.take(pipe):
            pass
    return f"{why}, {how}" if why else _how_it_ended(code, output.end)


def _end(group: int) -> str:
    """End all processes of a command; how they end. Those of another user cannot be ended."""
    try:
        os.killpg(group, signal.SIGKILL)
    except PermissionError:  # such as by sudo
        return "and ended by itself: it was another user's"
    except ProcessLookupError:
        pass
    return "and was ended"


def _how_it_ended(code: int, end: bytes) -> str:
    if code == 0:
        return ""
    how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
    said = " ".join(end.decode(errors="replace").split())
    return f"{how}: {said}" if said else how


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) or None)
