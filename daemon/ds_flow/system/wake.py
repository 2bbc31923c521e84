"""A reason to look now: set from any thread or signal handler, waited for by one thread."""

import os
import select
from contextlib import suppress


class Wake:
    """What `threading.Event` is, but safe in a signal handler: a pipe that holds at most a byte."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor to write to, for `signal.set_wakeup_fd`."""
        return self._writer

    def set(self) -> None:
        """Wake the waiter, now or at its next wait."""
        with suppress(BlockingIOError):  # it is full of reasons already
            os.write(self._writer, b"!")

    def wait(self, timeout_s: float) -> bool:
        """Wait until set, at most `timeout_s` seconds, and clear; whether it was set."""
        ready, _, _ = select.select([self._reader], [], [], max(0.0, timeout_s))
        return bool(ready) and self.clear()

    def clear(self) -> bool:
        """Forget the reasons so far; whether there were any."""
        was_set = False
        while True:
            try:
                was_set = bool(os.read(self._reader, 4096)) or was_set
            except BlockingIOError:
                return was_set

    def close(self) -> None:
        """Give both descriptors back."""
        os.close(self._reader)
        os.close(self._writer)
