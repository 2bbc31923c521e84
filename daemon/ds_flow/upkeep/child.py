"""A command of ds-flow in a process of its own, for what the daemon does not wait for."""

import fcntl
import io
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO

from ds_flow.core import PYTHON, RequestError
from ds_flow.settings import Settings
from ds_flow.system import open_private
from ds_flow.work import make_root

LAST_SECONDS = 5.0  # for one that is ended with the daemon
LAST_WORDS = 300  # characters of what it said that are kept
_COMMAND = "import sys; from ds_flow.cli import main; sys.exit(main())"


@dataclass(slots=True)
class Child:
    """At most one process at a time."""

    _process: "subprocess.Popen[bytes] | None" = None
    _said: IO[bytes] = field(default_factory=io.BytesIO)

    @property
    def is_there(self) -> bool:
        """Whether a process was started whose end nobody has asked for yet."""
        return self._process is not None

    def start(self, settings: Settings, *words: str) -> None:
        """Run a command at a low priority, with the settings file of the daemon."""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - read and closed at its end
        self._process = subprocess.Popen(
            ["nice", *PYTHON, "-c", _COMMAND, *words, "--config", str(settings.file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            process_group=0,
        )

    def ended(self) -> tuple[int, str] | None:
        """Its exit code and its last words, once; None while it lives."""
        if self._process is None or self._process.poll() is None:
            return None
        code, self._process = self._process.returncode, None
        with self._said as said:
            return code, last_words(said, LAST_WORDS)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End it, and wait for that; but not for one that hangs on a disk and cannot be killed."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LAST_SECONDS)
            self._process.kill()  # which does nothing to one that has ended


def last_words(said: IO[bytes], characters: int) -> str:
    """Read the end of what a process has said, however long the whole is."""
    most_bytes = 4 * characters
    said.seek(max(0, said.seek(0, os.SEEK_END) - most_bytes))
    return said.read(most_bytes).decode(errors="replace").strip()[-characters:]


@contextmanager
def only_one(settings: Settings, name: str, refusal: str) -> Iterator[None]:
    """Keep others from the same work meanwhile. Raises RequestError if another process is at it."""
    descriptor = open_private(make_root(settings.output_dir) / f"{name}.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RequestError(refusal) from None
    finally:
        os.close(descriptor)
