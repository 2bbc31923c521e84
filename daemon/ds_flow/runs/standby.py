"""The standby: the next run's process, started while its files settle. It imports everything.

It has the mark, the environment and the command line of its batch's first attempt from the start.
What it waits for on its standard input is a word that its batch is there. It ends with the daemon,
which holds the other end of that pipe, and by itself after a minute.
"""

import os
import secrets
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ds_flow.core import CHECKOUT, STANDBY
from ds_flow.system import open_log

BEGIN = b"begin\n"
OWN_CODE = ("flows", "daemon", "bash")
DEATH_SECONDS = 5.0  # after SIGKILL

Command = tuple[Sequence[str], Mapping[str, str], Path]
"""How an attempt is started: its arguments, its environment, its folder."""


def new_id() -> str:
    """Choose a batch's id."""
    return secrets.token_hex(5)


@dataclass(frozen=True, slots=True)
class Standby:
    """A process that waits for a batch."""

    mark: str
    process: subprocess.Popen[bytes]
    command: Command
    code: frozenset[tuple[str, int, int, int]]
    log: Path

    @classmethod
    def start(cls, mark: str, command: Command, log: Path) -> Self:
        """Start one, in a process group of its own. Raises OSError."""
        code = frozenset(_code())  # before the process reads any
        log.parent.mkdir(parents=True, exist_ok=True)
        words, environment, folder = command
        with os.fdopen(open_log(log, 0o640), "ab") as output:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**environment, STANDBY: str(log)},
                process_group=0,
                bufsize=0,
            )
        return cls(mark, process, command, code, log)

    @property
    def batch(self) -> str:
        """The id that its batch will have."""
        return self.mark.partition("/")[0]

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def fits(self, command: Command) -> bool:
        """Whether it is alive, and is what this command would start now."""
        return self.is_alive and command == self.command and self.code == frozenset(_code())

    def begin(self) -> subprocess.Popen[bytes]:
        """Tell it that its batch is there. One that has just died is a run that never began."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.write(BEGIN)
        self._close()
        return self.process

    def bury(self) -> None:
        """Wait for its end after it was killed, and remove its log, of which nobody knows."""
        with suppress(subprocess.TimeoutExpired):  # the kernel will not let it go yet
            self.process.wait(DEATH_SECONDS)
        self._close()
        self.log.unlink(missing_ok=True)

    def _close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


def _code() -> Iterator[tuple[str, int, int, int]]:
    """Yield how each file of ds-flow's own code looks, and the folders of installed packages.

    A team's own code is no part of that: jobs read it, after the batch has begun.
    """
    for name in OWN_CODE:
        for folder, _, files in os.walk(CHECKOUT / name):
            yield from (_look(os.path.join(folder, file)) for file in files if _is_code(file))
    yield _look(str(CHECKOUT / ".git" / "logs" / "HEAD"))  # what is checked out
    yield from (_look(sysconfig.get_path(name)) for name in ("purelib", "platlib"))


def _is_code(file: str) -> bool:
    return file.endswith((".py", ".sh", ".json"))


def _look(path: str) -> tuple[str, int, int, int]:
    with suppress(FileNotFoundError, NotADirectoryError):
        found = os.stat(path)
        return path, found.st_ino, found.st_size, found.st_mtime_ns
    return path, 0, 0, 0
