"""How much may come out of a packed file: a small file must not fill a disk or a memory."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csv_io.errors import TableError

MEMORY_BYTES = 2 * 2**30
"""So much more memory than there is at the time may be taken to read a part of a file."""

FREE_BYTES = 64 * 2**20
"""So much may come out of any file: a ratio says nothing of a small one."""


class Allowance:
    """Counts what comes out of one file."""

    def __init__(self, packed_bytes: int, max_mb: int, max_ratio: int) -> None:
        self._packed_bytes = packed_bytes
        self._max_mb = max_mb
        self._max_ratio = max_ratio
        self._used = 0

    def take(self, size_bytes: int) -> None:
        """Allow so many bytes more.

        Raises:
            TableError: it is more than the settings allow.
        """
        self._used += size_bytes
        if self._used > self._max_mb * 2**20:
            raise TableError(
                f"unpacked, it has over {self._max_mb:,} MB; if it is good, raise"
                " csv.max_unpacked_mb"
            )
        if self._used > max(FREE_BYTES, self._packed_bytes * self._max_ratio):
            raise TableError(
                f"unpacked, it is over {self._max_ratio:,} times as large; if it is good, raise"
                " csv.max_unpacked_ratio"
            )


@contextmanager
def little_memory(more_bytes: int = MEMORY_BYTES) -> Iterator[None]:
    """Let this process take only so much more memory within.

    What a packed file claims of itself need not be true, and readers that are not ours believe it.

    Raises:
        TableError: it would take more.
        MemoryError: this host gives less.
    """
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more_bytes
    is_ours = before == resource.RLIM_INFINITY or limit < before
    if is_ours:
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    try:
        yield
    except MemoryError as error:
        if not is_ours:
            raise
        raise TableError(
            f"it needs over {more_bytes // 2**20:,} MB of memory to be read"
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))
