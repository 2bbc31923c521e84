"""An answer that is made by one thread at a time, kept for a moment, and given to all."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, TypeVar

REST = 4  # times as long as an answer took, none is made anew

Value = TypeVar("Value")


@dataclass(slots=True)
class Kept(Generic[Value]):
    """Whoever asks gets an answer that is new, or waits a moment for one, or gets the last one.

    So many who ask cost no more than one, and an answer that takes long keeps nobody waiting.
    """

    make: Callable[[], Value]
    mark: Callable[[], object]  # another one means that the answer may be another
    keep_s: float  # how long an answer lasts, also if the mark stays
    wait_s: float  # how long somebody waits who could have the last answer
    _lock: Lock = field(default_factory=Lock)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "kept"))
    _last: Value | None = None
    _mark: object = None
    _made_s: float = 0.0
    _took_s: float = 0.0
    _coming: "Future[Value] | None" = None

    def prepare(self) -> None:
        """Begin to make the first answer."""
        with self._lock:
            self._start()

    def get(self) -> Value:
        """The answer."""
        with self._lock:
            last, is_new = self._last, self._is_new()
            if last is not None and is_new:
                return last
            coming = self._start()
        if last is None:
            return coming.result()
        try:
            return coming.result(self.wait_s)
        except NotYetError:
            return last

    def renew(self) -> Value:
        """Make the answer anew, and wait for it."""
        with self._lock:
            before = self._coming
        if before is not None:
            before.result()  # it may have begun before what has changed
        with self._lock:
            coming = self._start()
        return coming.result()

    def close(self) -> None:
        """End its thread."""
        self._pool.shutdown(cancel_futures=True)

    def _is_new(self) -> bool:
        age_s = time.monotonic() - self._made_s
        return age_s < self._took_s * REST or (age_s < self.keep_s and self._mark == self.mark())

    def _start(self) -> "Future[Value]":
        if self._coming is None:
            self._coming = self._pool.submit(self._make)
        return self._coming

    def _make(self) -> Value:
        start_s, mark = time.monotonic(), self.mark()
        try:
            value = self.make()
        except BaseException:
            with self._lock:
                self._coming = None
            raise
        with self._lock:
            self._last, self._mark, self._coming = value, mark, None
            self._made_s = time.monotonic()
            self._took_s = self._made_s - start_s
        return value
