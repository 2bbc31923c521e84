"""Where a path leads, in folders whose names other users may exchange at any moment."""

import errno
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ds_flow.system import mounts

MOST_TURNS = 40  # links and `..` on the way to one file, as many as the kernel follows

FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class OutsideError(OSError):
    """A symbolic link leads out of the folder. What it leads to has not been touched."""


class NowhereError(FileNotFoundError):
    """A symbolic link leads to something that does not exist."""


@contextmanager
def beneath(base: str, path: str) -> Iterator[tuple[int, str]]:
    """Give an O_PATH descriptor of what a path below a folder leads to, and its real path.

    1. One name is opened at a time, in a folder that is held open, without following it.
    2. A link is read. Only if it stays below the folder is the next name opened. So a link to a
       mount that does not answer is refused and does not block.
    3. The base itself is followed: it is the operator's. If it did not answer when it was last
       asked, it is not touched.

    Raises OSError: OutsideError, NowhereError, or what the system said.
    """
    if mounts.is_silent(base):
        raise OSError(errno.EHOSTDOWN, "its file system does not answer", path)
    if path.startswith("/") and _below(base.rstrip("/"), path) is None:
        raise OutsideError(errno.EXDEV, f"it is outside {base}", path, None, path)
    root = os.open(base, FOLDER)
    try:
        way = _Way(root, base, path)
        try:
            descriptor = way.walk()
        except BaseException:
            os.close(way.at)
            raise
    finally:
        os.close(root)
    try:
        if mounts.is_silent_point(way.real):
            raise OSError(errno.EHOSTDOWN, "its file system does not answer", path)
        if not _is_at(descriptor, way.real):
            raise FileNotFoundError(errno.ENOENT, "moved while its links were followed", path)
        yield descriptor, way.real
    finally:
        os.close(descriptor)


def open_beneath(base: str, path: str, flags: int) -> int:
    """Open what a path below a folder leads to, as `beneath` finds it."""
    with beneath(base, path) as (descriptor, _):
        return reopen(descriptor, flags)


def reopen(descriptor: int, flags: int) -> int:
    """Open the very file of an O_PATH descriptor, whatever its name is by now."""
    return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)


def is_there(base: str, path: str) -> bool:
    """Whether a path below a folder leads to anything. Raises OSError if nobody can tell."""
    try:
        with beneath(base, path):
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False


@dataclass(slots=True)
class _Way:
    """The names that are still to be followed from a folder, and those that have been."""

    root: int
    base: str
    path: str
    names: list[str] = field(default_factory=list)  # below the base, none of them a link
    at: int = -1  # the open folder, or at the end the file
    _real_base: str = ""
    _left: deque[str] = field(default_factory=deque)
    _turns: int = 0

    def __post_init__(self) -> None:
        self._real_base = os.readlink(f"/proc/self/fd/{self.root}").rstrip("/")
        self.at = os.dup(self.root)
        below = _below(self.base.rstrip("/"), self.path)
        self._left.extend(_split(self.path if below is None else below))

    @property
    def real(self) -> str:
        return "/".join([self._real_base, *self.names]) or "/"

    def walk(self) -> int:
        while self._left:
            name = self._left.popleft()
            if name == "..":
                self._turn(self._above())
                continue
            child = self._open(name)
            target = _target(child)
            if target is None:
                self.names.append(name)
                os.close(self.at)
                self.at = child
                if self._left and mounts.is_silent_point(self.real):
                    raise OSError(errno.EHOSTDOWN, "its file system does not answer", self.path)
            else:
                os.close(child)
                self._turn(self._led(target))
        return self.at

    def _open(self, name: str) -> int:
        try:
            return os.open(name, STEP, dir_fd=self.at)
        except FileNotFoundError:
            if not self._turns:
                raise
            raise NowhereError(errno.ENOENT, "a link leads nowhere", self.path) from None

    def _turn(self, names: list[str]) -> None:
        """Go on with other names. Their number is limited, and so is the time that this takes."""
        self._turns += 1
        if self._turns > MOST_TURNS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self.path)
        self._left.extendleft(reversed(names))

    def _above(self) -> list[str]:
        """Start again for `..`: a folder that was moved meanwhile may be below another one."""
        if not self.names:
            raise self._outside("..")
        names = self.names[:-1]
        self._restart()
        return names

    def _led(self, target: str) -> list[str]:
        """The names by which a link goes on, from where it lies or from the base."""
        if not target.startswith("/"):
            return _split(target)
        for base in (self._real_base, self.base.rstrip("/")):
            if (below := _below(base, target)) is not None:
                self._restart()
                return _split(below)
        raise self._outside(target)

    def _restart(self) -> None:
        self.names.clear()
        before, self.at = self.at, os.dup(self.root)
        os.close(before)

    def _outside(self, target: str) -> OutsideError:
        """The error for a link that leaves, with where it leads as far as names say."""
        where = os.path.normpath("/".join([self.real, target, *self._left]))
        if target.startswith("/"):
            where = os.path.normpath("/".join([target, *self._left]))
        return OutsideError(errno.EXDEV, "a link leaves the folder", self.path, None, where)


def _below(base: str, path: str) -> str | None:
    """The rest of an absolute path below a folder; None if it is elsewhere."""
    return path[len(base) + 1 :] if f"{path}/".startswith(f"{base}/") else None


def _split(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]


def _target(descriptor: int) -> str | None:
    """Where a symbolic link leads; None for anything else, which is not touched."""
    try:
        return os.readlink("", dir_fd=descriptor)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL}:
            return None
        raise


def _is_at(descriptor: int, real: str) -> bool:
    """Whether an open file has this path, without a link in it."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == real
    except OSError:  # the path is longer than the kernel can return
        return False
