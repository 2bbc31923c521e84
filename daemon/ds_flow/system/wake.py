"""A wake-up call: made from any thread or signal handler, waited for by one thread."""

import os
import select
from contextlib import suppress

CALLED = 255  # no signal has this number


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
            os.write(self._writer, bytes([CALLED]))

    def wait(self, timeout_s: float) -> frozenset[int]:
        """Wait at most `timeout_s` seconds until set, then clear it; return who has set it.

        That is the numbers of signals, and `CALLED` for `set`.
        """
        ready, _, _ = select.select([self._reader], [], [], max(0.0, timeout_s))
        return self.clear() if ready else frozenset()

    def clear(self) -> frozenset[int]:
        """Forget all calls so far; return who has made them."""
        callers: frozenset[int] = frozenset()
        while True:
            try:
                callers |= frozenset(os.read(self._reader, 4096))
            except BlockingIOError:
                return callers

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self._reader)
        os.close(self._writer)
