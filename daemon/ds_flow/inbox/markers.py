"""Which files wait for their markers, and which markers wait for their files."""

import heapq
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple

from ds_flow.core import Marker, Sighting, escape, unescape

ALONE = 1000  # markers without a file that a look keeps: the newest ones
NAMED = 20  # that are told


class Held(NamedTuple):
    """A file that waits for its marker."""

    sighting: Sighting
    marker: str  # its path, as in the ledger
    why: str


class Alone(NamedTuple):
    """A marker without a file."""

    changed_ns: int  # the marker's ctime
    path: str  # as in the ledger


class Late(NamedTuple):
    """A file that waits too long for its marker, or a marker whose file does not come."""

    path: str  # as in the ledger
    why: str
    since: str
    is_marker: bool = False


def _name(path: str) -> str:
    return unescape(path).rpartition("/")[2]


def marker_path(marker: Marker, path: str) -> str:
    """The path of a file's marker, as in the ledger."""
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{escape(marker.of(_name(path)))}"


def why_held(folder: int, marker: Marker, seen: Sighting) -> str:
    """Say why a file is not ready, by its marker in an open folder; "" if it is.

    The marker must have been made, or touched, after the file's last change. Both times are the
    file system's own (ctime), which no program can set.
    """
    name = marker.of(_name(seen.path))
    shown = escape(name)
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return f"waits for its marker {shown}"
    except OSError as error:
        return f"waits for its marker {shown}, which cannot be looked at: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return f"waits for its marker {shown}, and what has that name is not a regular file"
    if status.st_ctime_ns < seen.stat.ctime_ns:
        return f"waits for a new marker {shown}: it has changed since the marker was made"
    return ""


class Waiting:
    """The files that wait for their markers, as far as looks have found them."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self._files: dict[str, set[str]] = {}  # by the path of their marker

    def __len__(self) -> int:
        return len(self.held)

    def put(self, held: Held) -> None:
        """Let a file wait."""
        self.held[held.sighting.path] = held
        self._files.setdefault(held.marker, set()).add(held.sighting.path)

    def drop(self, path: str) -> None:
        """Forget a file: it is ready, or gone."""
        if (held := self.held.pop(path, None)) is None:
            return
        files = self._files[held.marker]
        files.discard(path)
        if not files:
            del self._files[held.marker]

    def replace(self, held: Iterable[Held]) -> list[Held]:
        """Take what a whole scan has found for all that waits; return what is new of it."""
        before = self.held
        self.held, self._files = {}, {}
        for one in held:
            self.put(one)
        return [
            one
            for path, one in self.held.items()
            if path not in before or before[path].sighting != one.sighting
        ]

    def files_of(self, marker: str) -> set[str]:
        """The files that wait for this marker."""
        return set(self._files.get(marker, ()))


@dataclass(slots=True)
class Marks:
    """The markers of one folder while a scan lists it, and the files that they are for."""

    marker: Marker
    held: list[Held] = field(default_factory=list)  # of all folders so far
    alone: list[Alone] = field(default_factory=list)  # of all folders so far
    _there: set[str] = field(default_factory=set)
    _wanted: set[str] = field(default_factory=set)

    def takes(self, name: str) -> bool:
        """Note a name if it is that of a marker; whether it is."""
        if is_marker := self.marker.fits(name):
            self._there.add(name)
        return is_marker

    def want(self, name: str) -> None:
        """Note that there is a file of this name."""
        self._wanted.add(self.marker.of(name))

    def sort_out(
        self, folder: int, prefix: str, new: Iterable[Sighting]
    ) -> Iterator[Sighting | None]:
        """End a folder: give each of its new files that is ready, and None for any other look."""
        for seen in new:
            if why := self._why_held(folder, seen):
                self.held.append(Held(seen, marker_path(self.marker, seen.path), why))
            yield None if why else seen
        for name in self._there - self._wanted:
            if one := self._alone(folder, prefix, name):
                self.alone.append(one)
            if len(self.alone) >= 2 * ALONE:
                self._leave_newest()
            yield None
        self._leave_newest()
        self._there, self._wanted = set(), set()

    def _leave_newest(self) -> None:
        if len(self.alone) > ALONE:
            self.alone[:] = heapq.nlargest(ALONE, self.alone)

    def _why_held(self, folder: int, seen: Sighting) -> str:
        name = self.marker.of(_name(seen.path))
        if name not in self._there:
            return f"waits for its marker {escape(name)}"
        return why_held(folder, self.marker, seen)

    def _alone(self, folder: int, prefix: str, name: str) -> Alone | None:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return None  # gone since it was listed
        return Alone(status.st_ctime_ns, escape(prefix + name))


def late_ones(
    held: Iterable[Held],
    alone: Iterable[Alone],
    now: datetime,
    after: timedelta,
    has_come: Callable[[str], bool],
) -> list[Late]:
    """Name what waits for longer than that, files first; the first of each.

    `has_come` says of a marker whether the ledger knows its file: that was taken, and is gone.
    """
    limit_ns = int((now - after).timestamp() * 1e9)
    files = (
        Late(one.sighting.path, one.why, _time(one.sighting.stat.ctime_ns))
        for one in held
        if one.sighting.stat.ctime_ns <= limit_ns
    )
    markers = (
        Late(one.path, "a marker without a file", _time(one.changed_ns), is_marker=True)
        for one in sorted({*alone}, reverse=True)
        if one.changed_ns <= limit_ns and not has_come(one.path)
    )
    return [*_first(files), *_first(markers)]


def _first(late: Iterable[Late]) -> list[Late]:
    return [*islice(late, NAMED)]


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="seconds")
