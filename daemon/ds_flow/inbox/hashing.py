"""Hashes in pieces: large files take turns, so that none keeps the daemon from its other work."""

import errno
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ds_flow.core import Arrival, Settled, Sighting

PIECE_BYTES = 64 * 2**20  # read in one turn: a tenth of a second, where the disk keeps up
LARGE_BYTES = 2**20  # of two files, one larger and one smaller than this, neither waits long
FILES_A_TURN = 1000  # of each size
SOON_BYTES = 2**30  # some seconds, where the disk keeps up

_BUFFER = memoryview(bytearray(2**20))
_ZEROS = memoryview(bytes(2**20))
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own


@dataclass(slots=True)
class Hash:
    """The SHA-256 of a file, as far as it has been read."""

    read_bytes: int = 0
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def go_on(self, descriptor: int, at_most: int) -> bool:
        """Read on, so many bytes at most; return whether that was the end of the file.

        A hole in a sparse file is hashed as the zeros that it stands for, and not read: that would
        be slower and would fill the page cache.
        """
        end, status = self.read_bytes + at_most, os.fstat(descriptor)
        is_sparse = status.st_blocks * _BLOCK_BYTES < status.st_size
        while self.read_bytes < end:
            room = min(len(_BUFFER), end - self.read_bytes)
            hole = _hole_at(descriptor, self.read_bytes, status.st_size) if is_sparse else 0
            if hole > 0:
                piece = _ZEROS[: min(room, hole)]
            else:
                piece = _BUFFER[: os.preadv(descriptor, [_BUFFER[:room]], self.read_bytes)]
            if not piece:
                return True
            self._digest.update(piece)
            self.read_bytes += len(piece)
        return False

    @property
    def hex(self) -> str:
        """The hash of what has been read."""
        return self._digest.hexdigest()


def _hole_at(descriptor: int, at: int, size: int) -> int:
    """How many bytes of a hole follow; 0 in data, and where the file system does not say."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA) - at
    except OSError as error:
        return size - at if error.errno == errno.ENXIO else 0


@dataclass(frozen=True, slots=True)
class StillArriving:
    """Why a file has not settled, although two looks found it unchanged."""

    reason: str
    is_settling: bool = True  # False: nobody knows how long it takes


@dataclass(slots=True)
class Reading:
    """A file that has settled, and how far it has been read."""

    arrival: Arrival
    so_far: Hash = field(default_factory=Hash)


class Progress(NamedTuple):
    """How far a large file has been read."""

    path: str
    read_bytes: int
    size_bytes: int


Judged = Settled | StillArriving


class Turns:
    """Settled files that wait for their hash. Small ones and large ones have turns of their own.

    Every large file is read one piece at a time, in rotation. It is opened anew for each piece. So
    a file that was removed or changed is given up at its next turn, and holds no descriptor.
    """

    def __init__(self) -> None:
        self._readings: dict[str, Reading] = {}
        self._small: deque[Reading] = deque()
        self._large: deque[Reading] = deque()
        self._through: list[tuple[Reading, Settled]] = []  # and not entered yet

    def __len__(self) -> int:
        return len(self._readings)

    def has(self, seen: Sighting) -> bool:
        """Whether a file waits here as it was seen. If it has changed, it is given up."""
        known = self._readings.get(seen.path)
        if known is None:
            return False
        if known.arrival.sighting == seen:
            return True
        del self._readings[seen.path]
        return False

    def add(self, arrival: Arrival) -> None:
        """Let a file wait for its turn."""
        made = self._readings[arrival.sighting.path] = Reading(arrival)
        is_large = arrival.sighting.stat.size_bytes > LARGE_BYTES
        (self._large if is_large else self._small).append(made)

    def turn(
        self, read: Callable[[Reading, int], Judged | None]
    ) -> Iterator[tuple[Arrival, Judged]]:
        """Read one piece of small files and one of large ones; give those that are through.

        Those that have settled stay until they are `entered`. If that fails, or a file cannot be
        read now, the next turn gives them again and reads nothing.
        """
        self._through = [(item, judged) for item, judged in self._through if self._is_wanted(item)]
        yield from [(item.arrival, judged) for item, judged in self._through]
        for queue in () if self._through else (self._small, self._large):
            left, done = PIECE_BYTES, 0
            while queue and left > 0 and done < FILES_A_TURN:
                item = queue[0]
                before = item.so_far.read_bytes
                judged = read(item, left) if self._is_wanted(item) else None
                queue.popleft()  # not before: what could not be read now keeps its place
                left -= item.so_far.read_bytes - before
                if not self._is_wanted(item):
                    continue
                if judged is None:
                    queue.append(item)
                    continue
                done += 1
                if isinstance(judged, Settled):
                    self._through.append((item, judged))
                else:
                    del self._readings[item.arrival.sighting.path]
                yield item.arrival, judged

    def entered(self) -> None:
        """Forget those that have settled and are in the ledger now."""
        for item, _ in self._through:
            if self._is_wanted(item):
                del self._readings[item.arrival.sighting.path]
        self._through.clear()

    @property
    def is_soon_through(self) -> bool:
        """Whether a file will have been read soon, so that a batch can wait for it."""
        return any(
            item.arrival.sighting.stat.size_bytes - item.so_far.read_bytes <= SOON_BYTES
            for item in self._readings.values()
        )

    def _is_wanted(self, item: Reading) -> bool:
        return self._readings.get(item.arrival.sighting.path) is item

    def progress(self) -> list[Progress]:
        """The files that have been read in part."""
        begun = (item for item in self._large if item.so_far.read_bytes and self._is_wanted(item))
        return [
            Progress(
                item.arrival.sighting.path,
                item.so_far.read_bytes,
                item.arrival.sighting.stat.size_bytes,
            )
            for item in begun
        ]
