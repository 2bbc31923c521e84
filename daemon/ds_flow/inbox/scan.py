"""The scan: walk the input directory and find what matches the input pattern."""

import errno
import fcntl
import fnmatch
import math
import os
import re
import signal
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ds_flow.core import DispatchError, Sighting, Stat, escape, unescape
from ds_flow.inbox.markers import Marks, why_held
from ds_flow.inbox.misnamed import NAMED, Misnamed, judge_name
from ds_flow.inbox.pattern import Look, Pattern, holds_receipts
from ds_flow.settings import RECEIPTS, TEMPORARY
from ds_flow.system import (
    NowhereError,
    OutsideError,
    ask_mounts,
    beneath,
    is_only_looking,
    reopen,
)

FILES_A_STEP = 1000

UNLEASED_QUIET_SECONDS = 10.0
"""How long a file must be unchanged where the kernel cannot say who has it open for writing."""

LINKED_FOLDER = "a symbolic link to a folder, and scans do not follow it"

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def scan_files(pattern: Pattern, is_known: Callable[[Sighting], bool] = lambda _: False) -> Look:
    """Find every regular file that matches the pattern, except those that are known.

    Raises DispatchError if base is missing.
    """
    *_, found = scan_in_steps(pattern, is_known=is_known)
    return found


def scan_in_steps(
    pattern: Pattern,
    watch: Callable[[int, str], None] = lambda *_: None,
    is_known: Callable[[Sighting], bool] = lambda _: False,
) -> Iterator[Look]:
    """Scan as `scan_files` does, in steps: a slow server may take minutes for a million files.

    Each step gives the same look, which grows until the last one. `watch` is called with each
    folder, open, before it is listed.
    """
    require_answer(pattern)
    try:
        found = Look(pattern.base.stat().st_dev)
        base = str(pattern.base)
        marks = Marks(pattern.marker, found.held, found.alone) if pattern.marker else None
        walk = _Walk(found, base, os.path.realpath(base), watch, is_known, marks)
        for _ in walk.tree((base, _prefix(pattern), pattern.parts)):
            yield found
    except OSError as error:
        todo = "create it or make it readable, or change paths.input_pattern"
        raise DispatchError(f"inbox {pattern.base}: {error.strerror}; {todo}") from error
    if pattern.parts.count("**") > 1:  # a file may be reached in two ways
        found.sightings[:] = {seen.path: seen for seen in found.sightings}.values()
    yield found


def require_answer(pattern: Pattern) -> None:
    """Raise DispatchError if the base is on a mount that does not answer."""
    if why := ask_mounts(str(pattern.base)):
        raise DispatchError(f"inbox {pattern.base}: {why}; mend or unmount it")


def sight_file(raw: str, base: str) -> Stat | str:
    """Stat one path whose name matches, or say why it is not an input. Raises OSError.

    A symbolic link counts as its target if that lies below `base`, the folder that the pattern
    names. A link that leaves it is never touched: what it leads to may not answer.
    """
    try:
        with beneath(base, raw) as (descriptor, _):
            status = os.fstat(descriptor)
    except OutsideError as error:
        return _leaves(error)
    except NowhereError:
        return "a symbolic link that leads nowhere"
    if not stat.S_ISREG(status.st_mode):
        return f"{KINDS.get(stat.S_IFMT(status.st_mode), 'not a regular file')}, not a file"
    return stat_of(status)


def why_unready(pattern: Pattern, seen: Sighting) -> str:
    """Say for which marker a file waits; "" if it waits for none."""
    if pattern.marker is None:
        return ""
    raw = os.path.join(pattern.root, unescape(seen.path))
    try:
        with opened_folder(str(pattern.base), raw.rpartition("/")[0]) as folder:
            return why_held(folder, pattern.marker, seen)
    except OSError as error:
        return f"waits for its marker, whose folder cannot be opened: {error.strerror}"


def _leaves(error: OutsideError) -> str:
    return f"a symbolic link that leaves the inbox (to {escape(str(error.filename2))})"


@contextmanager
def opened_folder(base: str, folder: str = "", real: str = "") -> Iterator[int]:
    """Open a folder of the inbox that must have this real path, if one is given.

    So below the base no link is followed, not even one that was swapped in.
    """
    with beneath(base, folder or base) as (found, where):
        if real and real != where:
            raise FileNotFoundError(errno.ENOENT, "replaced by a link", folder)
        descriptor = reopen(found, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(raw: str, base: str) -> int:
    """Open one path for reading as `sight_file` finds it, without blocking. Raises OSError.

    Only a regular file is opened: to open a device may set it going.
    """
    with beneath(base, raw) as (descriptor, _):
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(errno.ENOENT, "replaced by what is no file", raw)
        return reopen(descriptor, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)


def stat_of(status: os.stat_result) -> Stat:
    """Keep those parts of a stat that two looks compare."""
    return Stat(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def is_open_for_writing(descriptor: int) -> bool | None:
    """Whether a process on this host has the file open for writing; None if that is unknown.

    While it has, the kernel refuses a read lease with EAGAIN (fcntl(2)). A lease needs the file's
    owner or CAP_LEASE, and a local file system. It is given back at once. A writer that opens the
    file in between makes the kernel send SIGIO, which this process must ignore.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def needed_quiet_s(raw: str, base: str, quiet_s: float) -> float:
    """Seconds that a file must be unchanged to count as whole; infinite while it is written.

    A file that cannot be opened need not wait longer: whoever reads it reports the problem. Who
    only looks takes no lease, and so waits as where there are none.
    """
    if is_only_looking():
        return max(quiet_s, UNLEASED_QUIET_SECONDS)
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent to us if a writer opens the file in between
    try:
        descriptor = open_file(raw, base)
    except BlockingIOError:  # under a lease: only a process that has it open can hold one
        return math.inf
    except OSError:
        return quiet_s
    try:
        is_being_written = is_open_for_writing(descriptor)
    finally:
        os.close(descriptor)
    if is_being_written is None:
        return max(quiet_s, UNLEASED_QUIET_SECONDS)
    return math.inf if is_being_written else quiet_s


def _prefix(pattern: Pattern) -> str:
    """Return the raw text before a name below base in the ledger's paths."""
    if pattern.base.is_relative_to(pattern.root):
        relative = pattern.base.relative_to(pattern.root)
        return "" if relative == Path() else f"{relative}/"
    return f"{pattern.base}/"


Place = tuple[str, str, tuple[str, ...]]
"""A folder, the text before a name in it in the ledger's paths, and what its files match."""

Below = tuple[str, tuple[str, ...]]
"""The name of a folder in the folder at hand, and what its files match."""


@dataclass(frozen=True, slots=True)
class _Walk:
    found: Look
    base: str
    real_base: str
    watch: Callable[[int, str], None]
    is_known: Callable[[Sighting], bool]
    marks: Marks | None

    def tree(self, base: Place) -> Iterator[None]:
        """Scan a folder, then the folders below it that the pattern reaches, step by step."""
        left = yield from self._folder(*base)
        while left:
            left += yield from self._below(*left.pop())

    def _folder(
        self, folder: str, prefix: str, parts: tuple[str, ...]
    ) -> Generator[None, None, list[Place]]:
        """Scan one folder; return the folders in it that the pattern reaches."""
        yield
        below: list[Below] = []
        before = len(self.found.sightings)
        with self._listed(folder) as (descriptor, entries):
            for number, entry in enumerate(entries, 1):
                if not (self._is_marker(entry) or self._is_ours(entry.name, folder)):
                    below += self._entry(entry, folder, prefix, parts)
                if number % FILES_A_STEP == 0:
                    yield
            if self.marks:
                yield from self._sort_out(self.marks, descriptor, prefix, before)
        return [
            (f"{folder}/{name}", f"{prefix}{name}/", rest) for name, rest in dict.fromkeys(below)
        ]

    def _sort_out(self, marks: Marks, folder: int, prefix: str, before: int) -> Iterator[None]:
        """Keep those of a folder's new files, the last of all, that are ready."""
        sightings = self.found.sightings
        new = sightings[before:]
        del sightings[before:]
        for number, ready in enumerate(marks.sort_out(folder, prefix, new), 1):
            if ready:
                sightings.append(ready)
            if number % FILES_A_STEP == 0:
                yield

    def _is_ours(self, name: str, folder: str) -> bool:
        if name == RECEIPTS and folder == self.base:
            return holds_receipts(self.base)
        return TEMPORARY.fullmatch(name) is not None

    def _is_marker(self, entry: os.DirEntry[str]) -> bool:
        if self.marks is None or entry.is_dir(follow_symlinks=False):
            return False
        return self.marks.takes(entry.name)

    def _entry(
        self, entry: os.DirEntry[str], folder: str, prefix: str, parts: tuple[str, ...]
    ) -> list[Below]:
        here = parts[1:] if parts[0] == "**" else parts
        is_match = _matcher(here[0])
        below: list[Below] = []
        is_folder = entry.is_dir(follow_symlinks=False)
        if len(here) == 1 and is_match(entry.name):
            self._file(entry, folder, prefix)
        elif is_folder and len(here) > 1 and is_match(entry.name):
            below.append((entry.name, here[1:]))
        if is_folder and parts[0] == "**":
            below.append((entry.name, parts))
        elif parts[0] == "**" or (len(here) > 1 and is_match(entry.name)):
            self._note_link(entry, folder, prefix)
        if not (is_folder or (len(here) == 1 and is_match(entry.name))):
            self._note_misnamed(entry.name, prefix, parts[-1])
        return below

    def _note_misnamed(self, name: str, prefix: str, glob: str) -> None:
        if len(self.found.misnamed) < NAMED and (judged := judge_name(name, glob)):
            self.found.misnamed.append(Misnamed(escape(prefix + name), *judged))

    def _below(
        self, folder: str, prefix: str, parts: tuple[str, ...]
    ) -> Generator[None, None, list[Place]]:
        try:
            return (yield from self._folder(folder, prefix, parts))
        except FileNotFoundError:
            pass  # removed since it was listed
        except OSError as error:
            self.found.ignored[escape(prefix)] = f"a folder that cannot be read: {error.strerror}"
        return []

    @contextmanager
    def _listed(self, folder: str) -> Iterator[tuple[int, Iterator[os.DirEntry[str]]]]:
        real = f"{self.real_base}{folder.removeprefix(self.base)}"
        with opened_folder(self.base, folder, real) as descriptor:
            self.watch(descriptor, folder)
            with os.scandir(descriptor) as entries:
                yield descriptor, entries

    def _note_link(self, entry: os.DirEntry[str], folder: str, prefix: str) -> None:
        """Name a link to a folder that the pattern would reach, or to what may be one."""
        if not entry.is_symlink():
            return
        why = LINKED_FOLDER
        try:
            with beneath(self.base, f"{folder}/{entry.name}") as (descriptor, _):
                if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    return
        except OutsideError as error:
            why = _leaves(error)
        except OSError:
            return
        self.found.ignored.setdefault(escape(prefix + entry.name), why)

    def _file(self, entry: os.DirEntry[str], folder: str, prefix: str) -> None:
        path = escape(prefix + entry.name)
        try:
            if entry.is_file(follow_symlinks=False):
                seen: Stat | str = stat_of(entry.stat(follow_symlinks=False))
            else:
                seen = sight_file(f"{folder}/{entry.name}", self.base)
        except FileNotFoundError:
            return  # gone since it was listed
        except OSError as error:
            seen = f"cannot be looked at: {error.strerror}"
        if isinstance(seen, str):
            self.found.ignored[path] = seen
            return
        if self.marks:
            self.marks.want(entry.name)
        if not self.is_known(sighting := Sighting(path, seen)):
            self.found.sightings.append(sighting)


@cache
def _matcher(glob: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(glob)).match
