"""Durable steps, told and died at: outside of ds-flow, in every process of a project under test.

Each change of a file below `STEPS_ROOT`, each fsync, commit of the ledger and start of a process
adds a line to `STEPS_LOG`, before it happens. At the step that `STEPS_DIE` names, by its line or by
its number from 0, the process kills itself, or (`STEPS_ALL`) every process of the project. A death
is died once.
"""

import os
import re
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import disk  # type: ignore[import-not-found] # it stands beside this file

ROOT = os.environ.get("STEPS_ROOT", "")
LOG = os.environ.get("STEPS_LOG", "")
STORE = os.environ.get("STEPS_STORE", "")  # what lies on disk at each step goes there

# docs.python.org/3/library/audit_events.html
CHANGES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

SAME = (  # what differs between two runs that do the same
    (re.compile(r"\d{16,}"), "RUN"),
    (re.compile(r"(?<![^/._-])[0-9a-f]{16}(?![0-9a-z])"), "CODE"),
    (re.compile(r"(?<![^/._-])[0-9a-f]{10}(?![0-9a-z])"), "BATCH"),
    (re.compile(r"(?<![^/._-])[0-9a-f]{8}(?![0-9a-z])"), "TOKEN"),
    (re.compile(r"\d+of\d+"), "GROUP"),
    (re.compile(r"(?<=\.csv)\.\w{6}$"), ".TEMP"),  # mktemp's
    (re.compile(r"(?<=/tmp/)\w+$"), "TEMP"),  # Metaflow's
)
seen: Counter[str] = Counter()


def role() -> str:
    """What this process is in the project."""
    words = sys.argv or sys.orig_argv  # a task or a job may be a fork, with arguments of its own
    script = next((Path(word).name for word in words if word.endswith((".py", "ds-flow"))), "")
    if script == "student_flow.py" and "step" in words:
        return words[words.index("step") + 1]
    return {"student_flow.py": "metaflow", "ds-flow": "daemon"}.get(script, script or "python")


def step(what: str, path: str = "", who: str = "") -> None:
    """Tell one step, and die at it if that is what the test wants."""
    place = path.removeprefix(ROOT)
    for pattern, same in SAME:
        place = pattern.sub(same, place)
    line = f"{who or role()} {what} {place}".strip()
    seen[line] += 1
    line = f"{line} #{seen[line]}"
    number = _tell(line)
    if STORE:
        disk.photograph(Path(ROOT, "out"), Path(STORE), number, line, path)
    if os.environ.get("STEPS_DIE") in {line, str(number)} and _first():
        _die()


def _tell(line: str) -> int:
    """Add a line to the log; its number."""
    descriptor = os.open(LOG, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
        end = os.lseek(descriptor, 0, os.SEEK_CUR)  # of this line: others may have told theirs
        return os.pread(descriptor, end, 0).count(b"\n") - 1
    finally:
        os.close(descriptor)


def _first() -> bool:
    try:
        os.close(os.open(f"{LOG}.died", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _die() -> None:
    if os.environ.get("STEPS_ALL"):
        mark = f"\0STEPS_LOG={LOG}\0".encode()
        own, alive = os.getpid(), True
        while alive:
            alive = False
            for entry in os.scandir("/proc"):
                if entry.name.isdecimal() and int(entry.name) != own and _carries(entry, mark):
                    os.kill(int(entry.name), signal.SIGKILL)
                    alive = True
    os.kill(os.getpid() if not _is_for_parent() else os.getppid(), signal.SIGKILL)


def _carries(entry: "os.DirEntry[str]", mark: bytes) -> bool:
    try:
        return mark in b"\0" + Path(entry.path, "environ").read_bytes()
    except OSError:
        return False


def _is_for_parent() -> bool:
    """Whether this process stands for its shell, as bin/mv does."""
    return Path(sys.argv[0]).name == "mv"


# --------------------------------------------------------------------------- what is watched


def watch() -> None:
    """Tell of every durable step of this process from now on."""
    if not LOG:
        return
    sys.addaudithook(_audit)
    os.fsync = _told("fsync", os.fsync)  # type: ignore[assignment] # it has no audit event
    if role() == "daemon":
        sqlite3.connect = _connect  # type: ignore[assignment] # nor has a commit


class Telling(threading.local):
    """Whether this thread tells of a step now: that is none itself."""

    inside = False


telling = Telling()


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if telling.inside:
        return
    telling.inside = True
    try:
        if event in CHANGES or (event == "open" and _writes(*args)):
            path = _absolute(
                args[1] if event in {"os.link", "os.rename", "os.symlink"} else args[0]
            )
            if path.startswith((f"{ROOT}/out", f"{ROOT}/log")) and not _is_looked_at(event, path):
                step(event.removeprefix("os."), path)
        elif event == "subprocess.Popen" and args[0] != "git":
            step("spawn", Path(os.fsdecode(args[0])).name)
        elif event == "os.fork":
            step("fork")
    finally:
        telling.inside = False


def _is_looked_at(event: str, path: str) -> bool:
    """Whether this only asks: a job's lock, that it holds; a folder that is there already."""
    is_poll = event == "open" and path.endswith("/lock")
    return is_poll or (event == "os.mkdir" and Path(path).is_dir())


def _writes(path: object, _mode: object, flags: object) -> bool:
    """Whether it writes a file that has a name: one without (O_TMPFILE) is gone when it is shut."""
    how = int(flags or 0)  # type: ignore[call-overload] # an int
    is_named = how & os.O_TMPFILE != os.O_TMPFILE
    return isinstance(path, str | bytes | os.PathLike) and is_named and bool(how & WRITES)


def _absolute(path: Any) -> str:
    return str(Path(os.fsdecode(path)).absolute()) if not isinstance(path, int) else ""


def _told(what: str, act: Callable[[int], None]) -> Callable[[int], None]:
    def told(descriptor: int) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        was, telling.inside = telling.inside, True
        try:
            if os.fstat(number).st_nlink:  # what has no name is not there to be lost
                step(what, os.readlink(f"/proc/self/fd/{number}"))
        finally:
            telling.inside = was
        act(descriptor)

    return told


class Told(sqlite3.Connection):
    """A connection that tells of its commits, before and after."""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """As ever."""
        if sql != "COMMIT":
            return super().execute(sql, *args)
        step("before commit")
        done = super().execute(sql, *args)
        step("after commit")
        return done


real_connect = sqlite3.connect


def _connect(*args: Any, **named: Any) -> sqlite3.Connection:
    return real_connect(*args, **named, factory=Told)
