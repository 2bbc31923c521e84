"""Elements as processes: started from the spooled script, limited, signalled and waited for."""

import contextlib
import os
import pwd
import shutil
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from lsf_emulator.config import EXIT_IF_CWD_MISSING, Config
from lsf_emulator.elements import Element
from lsf_emulator.reports import report
from lsf_emulator.sessions import members, send

BKILL_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
RUN_LIMIT_GRACE_MINUTES = 10
MEMORY_CHECK_S = 0.2
RESET_SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ, signal.SIGCHLD)
EXIT_NOT_FOUND = 127
EXIT_CWD_MISSING = 2


class Executor:
    """What runs now."""

    def __init__(self, folder: Path, config: Config) -> None:
        self._spool = folder / "spool"
        self._spool.mkdir(exist_ok=True)
        self._mark = str(folder)
        self._config = config
        self.running: dict[int, Element] = {}  # by pid
        self._signals: list[tuple[float, int, int]] = []  # at, session, signal
        self._memory_at = 0.0
        self._home = pwd.getpwuid(os.getuid()).pw_dir

    def spool(self, job_id: int, script: str) -> None:
        path = self._spool / f"{job_id}"
        path.write_text(script, encoding="utf-8", errors="surrogateescape")

    def start(self, element: Element, first_on_path: str) -> None:
        """Start an element's script in a session of its own."""
        element.status, element.started_at = "RUN", time.time()
        words = element.submission
        cwd = self._directory(words.cwd)
        if cwd is None:
            self._end(element, EXIT_CWD_MISSING, "TERM_CWD_NOTEXIST")
            return
        stem = self._spool / element.native_id
        element.stdout = f"{stem}.out" if words.stdout else os.devnull
        element.stderr = f"{stem}.err" if words.stderr else ""
        try:
            os.chdir(cwd)  # posix_spawn has no other way
            command = self._command(element.job_id)
            element.pid = os.posix_spawnp(
                command[0],
                command,
                self._environment(element, first_on_path, cwd),
                file_actions=_streams(element),
                setsid=True,
                setsigmask=[],
                setsigdef=RESET_SIGNALS,
            )
            self.running[element.pid] = element
        except OSError:
            self._end(element, EXIT_NOT_FOUND)
        finally:
            os.chdir("/")

    def _directory(self, cwd: str) -> str | None:
        """Where an element runs: /tmp in place of what is missing; None if it may not."""
        if Path(cwd).is_dir():
            return cwd
        return None if self._config.is_on(EXIT_IF_CWD_MISSING) else "/tmp"  # noqa: S108 - as LSF does

    def _command(self, job_id: int) -> list[str]:
        """The script under the interpreter of its first line, or sh."""
        path = self._spool / f"{job_id}"
        with path.open("rb") as file:
            first = os.fsdecode(file.readline())
        interpreter = first[2:].strip().split(None, 1) if first.startswith("#!") else ["/bin/sh"]
        return [*interpreter, str(path)]

    def _environment(self, element: Element, first_on_path: str, cwd: str) -> dict[str, str]:
        """The submission's environment, and what LSF adds to it."""
        words = element.submission
        path = words.env.get("PATH", os.defpath)
        return {
            **words.env,
            "PATH": f"{first_on_path}:{path}" if first_on_path else path,
            "PWD": cwd,
            "HOME": self._home,
            "LSF_EMULATOR": self._mark,
            "LSB_JOBID": str(element.job_id),
            "LSB_JOBINDEX": str(element.index),
            "LSB_BATCH_JID": element.native_id,
            "LSB_JOBNAME": element.name,
            "LSB_QUEUE": words.queue,
            "LSB_HOSTS": " ".join([element.host] * words.slots),
            "LSB_MCPU_HOSTS": f"{element.host} {words.slots}",
            "LSB_DJOB_NUMPROC": str(words.slots),
            "LSB_PROJECT_NAME": words.project,
            "LS_SUBCWD": words.cwd,
        }

    def reap(self) -> bool:
        """Take the ends of elements that have ended; whether there was one."""
        ended = False
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                element = self.running.pop(pid, None)
                if element and element.pid == pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._forget_signals(pid)
                    element.signal = max(0, -code)
                    outside = "TERM_EXTERNAL_SIGNAL" if element.signal else ""
                    self._end(element, code if code >= 0 else 128 - code, element.reason or outside)
                    ended = True
        return ended

    def _end(self, element: Element, code: int, reason: str = "") -> None:
        element.ended_at = time.time()
        element.exit_code = code
        element.reason = reason
        element.status = "DONE" if code == 0 or element.ends_done else "EXIT"
        if element.status == "DONE":
            element.reason = ""
        _deliver(element)

    def stop(self, element: Element, reason: str, numbers: Iterable[int] = BKILL_SIGNALS) -> None:
        """End an element by one signal after the other, or at once where it has not begun."""
        if element.has_ended:
            return
        element.reason = element.reason or reason
        if not element.started_at:
            element.status, element.ended_at = "EXIT", time.time()
            return
        at = time.time()
        for number in numbers:
            self._signals.append((at, element.pid, number))
            at += self._config.kill_interval_s
        self._send_due()

    def look_after(self) -> None:
        """Enforce limits, and send the signals that are due."""
        now = time.time()
        for element in list(self.running.values()):
            self._check_run_limit(element, now)
        if now - self._memory_at >= MEMORY_CHECK_S:
            self._memory_at = now
            self._check_memory()
        self._send_due()

    def _send_due(self) -> None:
        now = time.time()
        due = [entry for entry in self._signals if entry[0] <= now]
        self._signals = [entry for entry in self._signals if entry[0] > now]
        for _, session, number in due:
            if not send(session, number):
                self._signals = [entry for entry in self._signals if entry[1] != session]

    def _forget_signals(self, session: int) -> None:
        """Send nothing to a session that nobody is left in: its number is given to another."""
        if not any(members([session])):
            self._signals = [entry for entry in self._signals if entry[1] != session]

    def _check_run_limit(self, element: Element, now: float) -> None:
        minutes = element.submission.run_limit_minutes
        if minutes is None or element.has_passed_limit:
            return
        if now - element.started_at >= minutes * self._config.minute_s:
            element.has_passed_limit = True
            self.stop(element, "TERM_RUNLIMIT", [signal.SIGUSR2])
            kill_at = now + RUN_LIMIT_GRACE_MINUTES * self._config.minute_s
            self._signals.append((kill_at, element.pid, signal.SIGKILL))

    def _check_memory(self) -> None:
        below_kb = self._config.memory_checked_below_mb * 1024
        limits = {
            pid: limit
            for pid, element in self.running.items()
            if (limit := element.submission.memory_limit_kb or below_kb) < below_kb
        }
        for pid in _over(limits) if limits else ():
            if not self.running[pid].reason:
                self.stop(self.running[pid], "TERM_MEMLIMIT")


def _over(limits: dict[int, int]) -> Collection[int]:
    """The sessions whose processes together hold more KB than their limit."""
    used = dict.fromkeys(limits, 0)
    for _, session, resident_kb in members(limits):
        used[session] += resident_kb
    return [session for session, limit in limits.items() if used[session] > limit]


def _streams(element: Element) -> list[tuple[int, int, str, int, int] | tuple[int, int, int]]:
    """Where an element's standard streams go, as posix_spawn wants it."""
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return [
        (os.POSIX_SPAWN_OPEN, 0, expand(element, element.submission.stdin), os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, element.stdout, write, 0o644),
        (os.POSIX_SPAWN_OPEN, 2, element.stderr, write, 0o644)
        if element.stderr
        else (os.POSIX_SPAWN_DUP2, 1, 2),
    ]


def expand(element: Element, path: str) -> str:
    """%J and %I, which LSF replaces in -o, -e and -i, and nowhere else."""
    return path.replace("%J", str(element.job_id)).replace("%I", str(element.index))


def _deliver(element: Element) -> None:
    """Copy spooled output to its place. What cannot be written there is lost, without a word."""
    words = element.submission
    for spooled, place in ((element.stdout, words.stdout), (element.stderr, words.stderr)):
        target = Path(words.cwd, expand(element, place))
        if not place or not spooled or str(target) == os.devnull:
            continue
        mode = "wb" if words.overwrites else "ab"
        with contextlib.suppress(OSError), target.open(mode) as out, Path(spooled).open("rb") as of:
            if words.reports and place == words.stdout:
                out.write(report(element).encode(errors="surrogateescape"))
            shutil.copyfileobj(of, out)
