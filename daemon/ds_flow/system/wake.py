"""A wake-up call: made from any thread or signal handler, waited for by one thread."""

import os
import select
from contextlib import suppress


class Wake:
    """Like `threading.Event`, but safe in a signal handler: a pipe with a few bytes in it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor to write to, for `signal.set_wakeup_fd`."""
        return self._writer

    def set(self) -> None:
        """Wake the waiter, now or at its next wait."""
        with suppress(BlockingIOError):  # the pipe is full: the waiter wakes all the same
            os.write(self._writer, b"!")

    def wait(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` seconds until set, then clear it; return whether it was set."""
        ready, _, _ = select.select([self._reader], [], [], max(0.0, timeout_s))
        return bool(ready) and self.clear()

    def clear(self) -> bool:
        """Forget all calls so far; return whether there were any."""
        was_set = False
        while True:
            try:
                was_set = bool(os.read(self._reader, 4096)) or was_set
            except BlockingIOError:
                return was_set

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self._reader)
        os.close(self._writer)
