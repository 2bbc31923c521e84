"""The files of receipts: written below the inbox, where others may put links and folders.

Every folder is opened by its name in the folder above, without following a link, and must be this
user's own. So nothing is written anywhere else, whatever somebody plants.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from ds_flow.core import escape
from ds_flow.settings import RECEIPTS, RECEIPTS_MARK
from ds_flow.system import beneath, is_there

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PART = ".receipt.part"
ENDING = ".json"
SHORTENED = re.compile(r"~[0-9a-f]{12}\.json$")
NAME_BYTES = 200  # of a file's name in that of its receipt; a longer one ends in its hash
ACLS = ("system.posix_acl_access", "system.posix_acl_default")
READS_IT = b"""ds-flow writes here what became of each file, and reads nothing in this folder.
"""


class RefusedError(OSError):
    """Something else stands where receipts are to be."""


@dataclass(frozen=True, slots=True)
class Readers:
    """Who may read receipts: whoever may read the inbox itself."""

    group: int
    mode: int  # of files; folders may be entered, too

    @property
    def of_folders(self) -> int:
        return self.mode | stat.S_IXUSR | (self.mode & 0o044) >> 2


@contextmanager
def receipts_folder(inbox: str) -> Iterator["ReceiptFiles"]:
    """Open the folder of receipts, and make it if it is missing. Raises OSError, RefusedError."""
    above = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(above)
        readers = Readers(found.st_gid, 0o600 | found.st_mode & 0o044)
        folder = open_own_folder(above, RECEIPTS, readers)
    finally:
        os.close(above)
    try:
        _mark(folder, readers)
        yield ReceiptFiles(folder, readers)
    finally:
        os.close(folder)


def open_own_folder(above: int, name: str, readers: Readers) -> int:
    """Open a folder that is this user's, and make it if it is missing."""
    with suppress(FileExistsError):
        os.mkdir(name, readers.of_folders, dir_fd=above)
    try:
        folder = os.open(name, FOLDER, dir_fd=above)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise _refused(name, "is a link, or no folder") from None
        raise
    try:
        _require_own(folder, name)
        _share(folder, readers.group, readers.of_folders)
    except BaseException:
        os.close(folder)
        raise
    return folder


def _require_own(folder: int, name: str) -> None:
    if os.fstat(folder).st_uid != os.geteuid():
        raise _refused(name, "is another user's")


def _refused(name: str, why: str) -> RefusedError:
    return RefusedError(errno.EPERM, f"{escape(name)} in the inbox {why}; remove it")


def _mark(folder: int, readers: Readers) -> None:
    """Say whose folder it is, before there is anything in it that could be taken for an input."""
    with suppress(FileNotFoundError):
        os.stat(RECEIPTS_MARK, dir_fd=folder, follow_symlinks=False)
        return
    if set(os.listdir(folder)) - {PART}:
        raise RefusedError(
            errno.EEXIST, f"{RECEIPTS} in the inbox holds other files; move them elsewhere"
        )
    write(folder, RECEIPTS_MARK, READS_IT, readers)


def _share(descriptor: int, group: int, mode: int) -> None:
    """Let those read who may read the inbox, and nobody write. An inherited list would differ.

    A service may not give files away. Then they have the folder's group already, or none may read.
    """
    for name in ACLS:
        with suppress(OSError):  # there is none
            os.removexattr(descriptor, name)
    found = os.fstat(descriptor)
    if found.st_gid != group:
        try:
            os.fchown(descriptor, -1, group)
        except OSError:
            mode &= ~0o070
    if stat.S_IMODE(found.st_mode) & 0o777 != mode:
        with suppress(PermissionError):
            os.fchmod(descriptor, mode | found.st_mode & stat.S_ISGID)


def write(folder: int, name: str, text: bytes, readers: Readers) -> None:
    """Give a folder a file with this content, at once and whole."""
    with suppress(FileNotFoundError):
        os.unlink(PART, dir_fd=folder)
    descriptor = os.open(PART, NEW, readers.mode, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _share(descriptor, readers.group, readers.mode)
            file.write(text)
        os.rename(PART, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(PART, dir_fd=folder)
        raise


@dataclass(frozen=True, slots=True)
class ReceiptFiles:
    """The folder of receipts, open."""

    folder: int
    readers: Readers

    def put(self, path: str, text: bytes) -> None:
        """Write the receipt of a file. `path` is raw, and below the inbox. Raises OSError."""
        *folders, name = path.split("/")
        at = os.dup(self.folder)
        try:
            for one in folders:
                below = open_own_folder(at, one, self.readers)
                os.close(at)
                at = below
            write(at, receipt_name(name), text, self.readers)
        finally:
            os.close(at)


def receipt_name(name: str) -> str:
    """The name of a file's receipt."""
    raw = os.fsencode(name)
    if len(raw) <= NAME_BYTES:
        return f"{name}{ENDING}"
    short = raw[:NAME_BYTES].decode(errors="ignore")
    return f"{short}~{sha256(raw).hexdigest()[:12]}{ENDING}"


def old_receipts(inbox: str, before_s: float) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """The receipts that are old, and whose files are gone: path, size, and how to remove each."""
    try:
        above = os.open(inbox, FOLDER & ~os.O_NOFOLLOW)
    except OSError:
        return
    try:
        folder = os.open(RECEIPTS, FOLDER, dir_fd=above)
    except OSError:
        return
    finally:
        os.close(above)
    try:
        if os.fstat(folder).st_uid == os.geteuid() and RECEIPTS_MARK in os.listdir(folder):  # noqa: PTH208 - of a descriptor
            yield from _old_in(folder, inbox, before_s)
    finally:
        os.close(folder)


def _old_in(
    folder: int, inbox: str, before_s: float
) -> Iterator[tuple[str, int, Callable[[], None]]]:
    for below, _, names, at in os.fwalk(".", dir_fd=folder):
        for name in filter(lambda one: one.endswith(ENDING), names):
            with suppress(OSError):  # it has just gone, or nobody can tell whether its file has
                found = os.stat(name, dir_fd=at, follow_symlinks=False)
                if found.st_mtime < before_s and not _has_file(inbox, below, name):
                    path = os.path.normpath(f"{below}/{name}")
                    yield path, found.st_size, partial(os.unlink, name, dir_fd=at)


def _has_file(inbox: str, below: str, name: str) -> bool:
    """Whether the file of a receipt is in the inbox. Raises OSError if nobody can tell."""
    folder = os.path.normpath(f"{inbox}/{below}")
    if not SHORTENED.search(name):
        return is_there(inbox, f"{folder}/{name.removesuffix(ENDING)}")
    try:
        with beneath(inbox, folder) as (found, _):
            names = os.listdir(f"/proc/self/fd/{found}")  # noqa: PTH208 - of a descriptor
            return name in map(receipt_name, names)
    except (FileNotFoundError, NotADirectoryError):
        return False
