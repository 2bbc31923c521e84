"""How one published file leaves the inbox: into a folder of ours, or for good.

Whoever may drop files may replace, change or remove one at any moment, and this process may die at
any moment. So a file is taken away by a rename first, and judged again where nobody else has its
name. What turns out to be another file is put back without replacing anything.

Everything is done again from what is on the disk: `depart` may be called any number of times.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ds_flow.inbox.hashing import Hash
from ds_flow.inbox.scan import is_open_for_writing, opened_folder, stat_of
from ds_flow.system import (
    OTHER_DISK,
    OutsideError,
    make_way,
    rename_new,
    reopen,
    sync_way,
    write_bytes,
)

PRIVATE = ".ds-flow-leaving-"  # a hidden name, so it is no input
REPLACED = "it was replaced at that very moment"
COPY_BYTES = 2**20
LONGEST_NAME = 200  # bytes of it before `.reason.txt`
SEEN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


class End(StrEnum):
    """What became of one file."""

    GONE = "gone"  # it is where it should be, and not in the inbox
    STAYS = "stays"  # it is another file by now, or somebody writes to it
    MISSING = "missing"  # somebody else has removed it
    FAILED = "failed"  # the system refused; it is tried again
    UNSURE = "unsure"  # so it did, after something was done


@dataclass(frozen=True, slots=True)
class Leaving:
    """A file that is to leave. `raw` and `to` are absolute; without `to` it is deleted."""

    id: int
    raw: str
    base: str  # the folder that the way to it must not leave
    stat: str  # as it was when it was last looked at
    sha256: str
    to: str
    note: str = ""  # what is written beside it where it goes
    is_again: bool = False  # it was begun before, by a process that may have died


@dataclass(frozen=True, slots=True)
class Left:
    """What became of it, and why if it is still there."""

    leaving: Leaving
    end: End
    why: str = ""


def depart(one: Leaving) -> Left:
    """Let a file leave, or say why it stays. A refusal of the system is an outcome, too."""
    try:
        end, why = _Departure(one).go()
    except OSError as error:
        is_begun = bool(one.to) and os.path.lexists(one.to)
        return Left(one, End.UNSURE if is_begun else End.FAILED, error.strerror or str(error))
    return Left(one, end, why)


def sync_departures(done: list[Left]) -> None:
    """Make what was done outlast a power loss: before it is recorded. Raises OSError."""
    gone = [left.leaving for left in done if left.end == End.GONE]
    for folder in {os.path.split(one.to)[0] for one in gone if one.to}:
        sync_way(folder)
    for base, folder in {(one.base, os.path.split(one.raw)[0]) for one in gone}:
        with (
            suppress(FileNotFoundError, NotADirectoryError, OutsideError),
            _folder(base, folder) as at,
        ):
            again = reopen(at, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(again)
            finally:
                os.close(again)


@dataclass(slots=True)
class _Departure:
    one: Leaving
    at: int = -1  # the folder that the file is in, open
    aside: str = ""  # where a file is kept that could not be put back

    def go(self) -> tuple[End, str]:
        """Do what is left to do.

        1. A copy that stands at its place is kept if it is the published content; if not, it is
           put back: a crash came before it was judged.
        2. So is a file under the private name.
        3. The file is judged by its descriptor: as it was last seen, the published content, no
           writer.
        4. On the same disk it is renamed to its place, and judged again there. On another one, it
           is copied, and then removed.
        """
        with ExitStack() as stack:
            try:
                folder = os.path.split(self.one.raw)[0]
                self.at = stack.enter_context(_folder(self.one.base, folder))
            except (FileNotFoundError, NotADirectoryError, OutsideError):
                return self._not_there(is_kept=self._is_kept())
            return self._go()

    def _go(self) -> tuple[End, str]:
        is_kept = self._settle_place()
        self._settle_private(is_kept=is_kept or not self.one.to)
        descriptor = self._open(self._name)
        if descriptor < 0:
            return self._not_there(is_kept=is_kept)
        try:
            if why := self._why_it_stays(descriptor):
                return (End.GONE, "") if is_kept else (End.STAYS, why)
            if self.one.to and not is_kept:
                return self._move(descriptor)
            return self._remove(descriptor)
        finally:
            os.close(descriptor)

    def _not_there(self, *, is_kept: bool) -> tuple[End, str]:
        """Say who has taken a file that is not in the inbox: this, before a crash, or others."""
        is_ours = is_kept or (self.one.is_again and not self.one.to)
        return (End.GONE if is_ours else End.MISSING), self.aside

    # ------------------------------------------------------------------ names

    @property
    def _name(self) -> str:
        return os.path.split(self.one.raw)[1]

    @property
    def _private(self) -> str:
        return f"{PRIVATE}{self.one.id}"

    @property
    def _to_folder(self) -> str:
        return os.path.split(self.one.to)[0] or "\0"

    # ------------------------------------------------------------------ judge

    def _open(self, name: str) -> int:
        """Open a regular file in the folder, following no link; -1 if there is none."""
        return _open_regular(name, self.at)

    def _why_it_stays(self, descriptor: int) -> str:
        """Say why a file must not be taken away; "" if it is the published one, at rest."""
        if str(stat_of(os.fstat(descriptor))) != self.one.stat:
            return "it has changed since it was published"
        if is_open_for_writing(descriptor):
            return "a process has it open for writing"
        if _sha256(descriptor) != self.one.sha256:
            return "its content is not what was published"
        if str(stat_of(os.fstat(descriptor))) != self.one.stat:
            return "it changed while it was read"
        return ""

    def _is_same(self, descriptor: int, folder: int, name: str) -> bool:
        """Whether a name stands for the very file that was judged, and nobody has touched it.

        A rename changes the time of the inode, so that one is not compared.
        """
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        judged = os.fstat(descriptor)
        is_it = os.path.samestat(found, judged)
        device_inode_size_mtime = str(stat_of(judged)).split()[:4]
        is_unchanged = device_inode_size_mtime == self.one.stat.split()[:4]
        return is_it and is_unchanged and not is_open_for_writing(descriptor)

    def _is_kept(self) -> bool:
        """Whether the published content stands where it should go."""
        if not self.one.to:
            return False
        descriptor = _open_regular(self.one.to)
        if descriptor < 0:
            return False
        try:
            return _sha256(descriptor) == self.one.sha256
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------------ after a crash

    def _settle_place(self) -> bool:
        """See what stands where the file should go; whether that is the published content."""
        if not self.one.to or not os.path.lexists(self.one.to):
            return False
        if self._is_kept():
            return True
        self._put_back(self.one.to)
        return False

    def _settle_private(self, *, is_kept: bool) -> None:
        """Remove what stands under the private name if it is the published content and kept."""
        descriptor = self._open(self._private)
        if descriptor < 0:
            return
        try:
            is_it = not is_open_for_writing(descriptor) and _sha256(descriptor) == self.one.sha256
        finally:
            os.close(descriptor)
        if is_it and is_kept:
            os.unlink(self._private, dir_fd=self.at)
        else:
            self._put_back(self._private, self.at)

    # ------------------------------------------------------------------ act

    def _move(self, descriptor: int) -> tuple[End, str]:
        """Take the file to its place."""
        make_way(self._to_folder)
        self._write_note()
        try:
            rename_new(self._name, self.one.to, self.at)
        except FileNotFoundError:
            return End.MISSING, ""
        except OSError as error:
            if error.errno not in OTHER_DISK:
                raise
            if not self._copy(descriptor):
                return End.STAYS, "it changed while it was copied"
            return self._remove(descriptor)
        to_folder = os.open(self._to_folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            is_same = self._is_same(descriptor, to_folder, os.path.split(self.one.to)[1])
        finally:
            os.close(to_folder)
        if is_same:
            return End.GONE, ""
        self._put_back(self.one.to)
        return End.STAYS, self.aside or REPLACED

    def _remove(self, descriptor: int) -> tuple[End, str]:
        """Remove the file, whose content is kept or need not be."""
        try:  # nothing has the private name now, unless somebody tries to be clever with it
            os.rename(self._name, self._private, src_dir_fd=self.at, dst_dir_fd=self.at)
        except FileNotFoundError:
            return (End.GONE, "") if self.one.to else (End.MISSING, "")
        if self._is_same(descriptor, self.at, self._private):
            os.unlink(self._private, dir_fd=self.at)
            return End.GONE, ""
        self._put_back(self._private, self.at)
        return End.STAYS, self.aside or REPLACED

    def _copy(self, descriptor: int) -> bool:
        """Copy the file to its place on another disk, durably; whether that is what was published.

        Whoever looks there sees the whole copy or none.
        """
        part = Path(self._to_folder, f"{PRIVATE}{self.one.id}.part")
        part.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(part, flags, 0o640)
        try:
            at = 0
            while piece := os.pread(descriptor, COPY_BYTES, at):
                at += _write_all(copy, piece)
            os.fsync(copy)
            is_same = _sha256(copy) == self.one.sha256
        finally:
            os.close(copy)
        if is_same:
            rename_new(str(part), self.one.to, is_ours=True)
            sync_way(self._to_folder)
        else:
            part.unlink()
        return is_same

    def _write_note(self) -> None:
        if self.one.note:
            name = os.fsdecode(os.fsencode(self._name)[:LONGEST_NAME])
            note = Path(self._to_folder, f"{name}.reason.txt")
            write_bytes(note, self.one.note.encode(errors="replace"), is_durable=False)

    def _put_back(self, name: str, folder: int | None = None) -> None:
        """Give what is not ours to take its name again, and replace nothing by that.

        If another file has the name by now, this one was replaced by whoever dropped that: it is
        kept where it is, under a name that says so.
        """
        try:
            rename_new(name, self._name, folder, self.at, is_ours=_is_ours(name))
        except FileExistsError:
            aside = os.path.join(os.path.split(name)[0], f"{PRIVATE}replaced-{os.urandom(6).hex()}")
            rename_new(name, aside, folder, folder, is_ours=_is_ours(name))
            where = os.path.join(os.path.split(self.one.raw)[0], aside)
            self.aside = f"it was replaced at that very moment, twice; the first is kept as {where}"


def _is_ours(name: str) -> bool:
    """Whether nobody who drops files can exchange what has this name."""
    return name.startswith(("/", PRIVATE))


def _write_all(descriptor: int, piece: bytes) -> int:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]
    return len(piece)


def _sha256(descriptor: int) -> str:
    found = Hash()
    while not found.go_on(descriptor, 64 * COPY_BYTES):
        pass
    return found.hex


def _open_regular(name: str, folder: int | None = None) -> int:
    """Open a regular file without following a link; -1 if it is anything else, or not there."""
    try:
        seen = os.open(name, SEEN, dir_fd=folder)
    except FileNotFoundError:
        return -1
    try:
        if not stat.S_ISREG(os.fstat(seen).st_mode):
            return -1
        return reopen(seen, READ & ~os.O_NOFOLLOW)
    finally:
        os.close(seen)


@contextmanager
def _folder(base: str, folder: str) -> Iterator[int]:
    """Open a folder of the inbox, with no link on the way from the base."""
    real = os.path.realpath(base).rstrip("/") + folder.removeprefix(base.rstrip("/"))
    with opened_folder(base, folder, real.rstrip("/") or "/") as descriptor:
        yield descriptor
