"""The single instance: whoever works on these outputs and this ledger, and how to find it."""

import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ds_flow.core import RequestError
from ds_flow.system.private_files import open_private, open_regular

if TYPE_CHECKING:
    from ds_flow.settings import Settings  # an image has no pydantic

ASKING_SECONDS = 0.5


WAKE_SIGNAL = signal.SIGUSR1  # what the CLI sends after recording a wish


def lock_files(settings: "Settings") -> tuple[Path, Path]:
    """Whoever works on these outputs and this ledger holds both, with its pid inside."""
    own = settings.work_root / "ds-flow.lock"
    return own, settings.ledger.with_name(f"{settings.ledger.name}.lock")


@contextmanager
def single_instance(settings: "Settings") -> Iterator[None]:
    """Be the only daemon here. Raises RequestError that names the pid of the other one."""
    held: list[int] = []
    try:
        held.extend(_lock(path) for path in lock_files(settings))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _lock(path: Path) -> int:
    descriptor = open_private(path)
    try:
        _take(descriptor)
    except BlockingIOError:
        pid = os.read(descriptor, 20).decode().strip()
        os.close(descriptor)
        raise RequestError(f"ds-flow is running here already, as pid {pid} ({path})") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _take(descriptor: int) -> None:
    """Take a lock at once, or within a second: one that only asks for the pid holds it briefly."""
    end_s = time.monotonic() + ASKING_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end_s:
                raise
            select.select([], [], [], 0.05)
        else:
            return


def running_pid(settings: "Settings") -> int | None:
    """The pid of the daemon that works here, or None. Raises RequestError if nobody lets us see."""
    for path in lock_files(settings):
        try:
            if pid := _holder(path):
                return pid
        except FileNotFoundError:
            continue
        except PermissionError as error:
            why = "whether ds-flow runs here cannot be told"
            raise RequestError(f"{path}: {error.strerror}: {why}") from error
    return None


def _holder(path: Path) -> int | None:
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0) or None
    return None


def told_pid(settings: "Settings") -> int | None:
    """The pid of the daemon as the kernel tells everyone, also who may not open the lock files."""
    for path in lock_files(settings):
        with suppress(OSError):
            found = path.stat()
            device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
            mark = [f"{device}:{found.st_ino}", "0", "EOF"]
            for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
                _, kind, *_, access, pid, device, start, end = line.split()
                if (kind, access, [device, start, end]) == ("FLOCK", "WRITE", mark):
                    return int(pid)
    return None


def wake_daemon(settings: "Settings") -> bool:
    """Tell the running daemon that there is a wish in the ledger; whether there is a daemon."""
    pid = running_pid(settings)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, WAKE_SIGNAL)
    return True
