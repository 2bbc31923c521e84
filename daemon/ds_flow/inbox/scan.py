"""The scan: walk the input directory and find what matches the input pattern."""

import errno
import fcntl
import fnmatch
import math
import os
import re
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

from ds_flow.core import DispatchError, Sighting, Stat, escape
from ds_flow.settings import TEMPORARY, matches, split
from ds_flow.system import real_path

FILES_A_PULSE = 1000

UNLEASED_QUIET_SECONDS = 10.0
"""How long a file must be unchanged where the kernel cannot say who has it open for writing."""

TWICE = ("**", "**")  # no more than once

LINKED_FOLDER = "a symbolic link to a folder, and scans do not follow it"

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed input pattern: the folder where the walk starts, and what matches below it."""

    root: Path  # the project root: the ledger's paths are relative to it
    base: Path  # the deepest folder that the pattern names without a wildcard
    parts: tuple[str, ...]  # one glob per path component below base; "**" is any number of folders

    @classmethod
    def parse(cls, pattern: str, root: Path) -> Self:
        """Parse an absolute glob: `*`, `?`, `[..]`, and `**` for any number of folders."""
        base, globs = split(pattern)
        before = ["", *globs]
        parts = (glob for last, glob in zip(before, globs, strict=False) if (last, glob) != TWICE)
        return cls(root, Path(base), tuple(parts))

    def name_of(self, raw: str) -> str | None:
        """Return the ledger's name for a raw absolute path, or None if the path does not match."""
        if not matches(str(Path(self.base, *self.parts)), raw):
            return None
        return escape(raw.removeprefix(f"{self.root}/"))

    @property
    def is_recursive(self) -> bool:
        """Whether files may lie below subfolders of base."""
        return len(self.parts) > 1


@dataclass(frozen=True, slots=True)
class Look:
    """What one scan found."""

    device: int  # of the base
    sightings: list[Sighting] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # path -> why it is no input


def scan_files(pattern: Pattern, pulse: Callable[[], None] = lambda: None) -> Look:
    """Find every regular file that matches the pattern. Raises DispatchError if base is missing.

    `pulse` is called from time to time: a slow server may take minutes for a million files.
    """
    try:
        found = Look(pattern.base.stat().st_dev)
        walk = _Walk(found, os.path.realpath(pattern.base), pulse)
        walk.tree((str(pattern.base), _prefix(pattern), pattern.parts))
    except OSError as error:
        todo = "create it or make it readable, or change paths.input_pattern"
        raise DispatchError(f"inbox {pattern.base}: {error.strerror}; {todo}") from error
    if pattern.parts.count("**") > 1:  # a file may be reached in two ways
        found.sightings[:] = {seen.path: seen for seen in found.sightings}.values()
    return found


def sight_file(raw: str, base: str) -> Stat | str:
    """Stat one path whose name matches, or say why it is not an input. Raises OSError.

    A symbolic link counts as its target if that lies below `base`, a real path.
    """
    status = os.lstat(raw)
    if stat.S_ISLNK(status.st_mode):
        target = real_path(raw)
        if not target.startswith(f"{base}/"):
            return f"a symbolic link that leaves the inbox (to {escape(target)})"
        if not os.path.exists(target):
            return "a symbolic link that leads nowhere"
        status = os.stat(target)
    if not stat.S_ISREG(status.st_mode):
        return f"{KINDS.get(stat.S_IFMT(status.st_mode), 'not a regular file')}, not a file"
    return stat_of(status)


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


def needed_quiet_s(raw: str, quiet_s: float) -> float:
    """Seconds that a file must be unchanged to count as whole; infinite while it is written.

    A file that cannot be opened need not wait longer: whoever reads it reports the problem.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent to us if a writer opens the file in between
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(real_path(raw), flags)
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


@dataclass(frozen=True, slots=True)
class _Walk:
    found: Look
    base: str  # real path
    pulse: Callable[[], None]

    def tree(self, base: Place) -> None:
        """Scan a folder, then the folders below it that the pattern reaches."""
        left = self._folder(*base)
        while left:
            left += self._below(*left.pop())

    def _folder(self, folder: str, prefix: str, parts: tuple[str, ...]) -> list[Place]:
        """Scan one folder; return the folders in it that the pattern reaches."""
        here = parts[1:] if parts[0] == "**" else parts
        is_match = _matcher(here[0])
        below: list[tuple[str, tuple[str, ...]]] = []
        self.pulse()
        with os.scandir(folder) as entries:
            for entry in entries:
                if TEMPORARY.fullmatch(entry.name):
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                if len(here) == 1 and is_match(entry.name):
                    self._file(entry, prefix)
                elif is_folder and len(here) > 1 and is_match(entry.name):
                    below.append((entry.name, here[1:]))
                if is_folder and parts[0] == "**":
                    below.append((entry.name, parts))
                elif parts[0] == "**" or (len(here) > 1 and is_match(entry.name)):
                    self._note_link(entry, prefix)
        return [
            (f"{folder}/{name}", f"{prefix}{name}/", rest) for name, rest in dict.fromkeys(below)
        ]

    def _below(self, folder: str, prefix: str, parts: tuple[str, ...]) -> list[Place]:
        try:
            return self._folder(folder, prefix, parts)
        except FileNotFoundError:
            pass  # removed since it was listed
        except OSError as error:
            self.found.ignored[escape(prefix)] = f"a folder that cannot be read: {error.strerror}"
        return []

    def _note_link(self, entry: os.DirEntry[str], prefix: str) -> None:
        """Name a link to a folder that the pattern would reach."""
        with suppress(OSError):
            if entry.is_symlink() and entry.is_dir():
                self.found.ignored.setdefault(escape(prefix + entry.name), LINKED_FOLDER)

    def _file(self, entry: os.DirEntry[str], prefix: str) -> None:
        path = escape(prefix + entry.name)
        try:
            if entry.is_file(follow_symlinks=False):
                seen: Stat | str = stat_of(entry.stat(follow_symlinks=False))
            else:
                seen = sight_file(entry.path, self.base)
        except FileNotFoundError:
            return  # gone since it was listed
        except OSError as error:
            seen = f"cannot be looked at: {error.strerror}"
        if isinstance(seen, str):
            self.found.ignored[path] = seen
        else:
            self.found.sightings.append(Sighting(path, seen))
            if len(self.found.sightings) % FILES_A_PULSE == 0:
                self.pulse()


@cache
def _matcher(glob: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(glob)).match
