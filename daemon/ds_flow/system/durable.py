"""Files that survive a power loss, and links that never replace a foreign file."""

import ctypes
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ds_flow.core import BatchError
from ds_flow.system.mounts import fs_type
from ds_flow.system.private_files import NotRegularError, open_own, open_regular

COPY_BYTES = 2**20  # at once
MANY_FILES = 500  # whose fsyncs take longer than to write out whatever else is not on the disk yet
FLUSHED = frozenset({"btrfs", "ext4", "xfs"})
SYNC_THREADS = 16  # fsyncs that wait at the same time share one flush of the disk
CANNOT_LINK = frozenset({1, 18, 31, 38, 95})  # EPERM, EXDEV, EMLINK, ENOSYS, EOPNOTSUPP


def sync_dir(folder: Path) -> None:
    """Make the names in a directory survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's bytes survive a power loss."""
    descriptor = open_regular(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(paths: Iterable[Path]) -> None:
    """Make many files' bytes survive a power loss; very many by one flush of their file system."""
    paths = list(paths)
    if len(paths) >= MANY_FILES and all(map(_flush, {path.parent for path in paths})):
        return
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        list(pool.map(sync_file, paths))


def _flush(folder: Path) -> bool:
    """Write out all of a folder's file system, if that is sure to last; else return False.

    It is where syncfs(2) waits for the disk and tells of what could not be written, which it does
    since Linux 5.8.
    """
    if fs_type(folder) not in FLUSHED or not _is_kernel((5, 8)):
        return False
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
    return True


def _is_kernel(at_least: tuple[int, int]) -> bool:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return found is not None and (int(found[1]), int(found[2])) >= at_least


def write_json(path: Path, content: Any) -> None:
    """Put a whole JSON file in place, durably: readers see the old one or the new one."""
    write_bytes(path, f"{json.dumps(content, ensure_ascii=False, indent=1)}\n".encode())


def write_bytes(
    path: Path, content: bytes, *, is_durable: bool = True, is_new: bool = False
) -> None:
    """Put a whole file in place by one rename. A link that stands there is replaced, not followed.

    A file that is not durable may be torn after a power loss; whoever reads it must expect that.
    A new file replaces nothing: raises FileExistsError if the name is taken.
    """
    with put_file(path, is_durable=is_durable, is_new=is_new) as file:
        file.write(content)


@contextmanager
def put_file(
    path: Path, *, is_durable: bool = True, is_new: bool = False, mode: int = 0o666
) -> Iterator[BinaryIO]:
    """Open a file that gets its name at the end of the block, by one rename, unless it raises.

    A new file gets it by one link, which fails if the name is taken.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(part, "x+b", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        if is_new:
            link_new(part, path)
            part.unlink()
        else:
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if is_durable:
        sync_dir(path.parent)


def read_json(path: Path, limit_bytes: int | None = None, *, is_own: bool = False) -> Any:
    """Read a JSON file of at most `limit_bytes`. `is_own`: only one that no other user wrote.

    Raises BatchError if it is longer, not JSON or not a regular file, FileNotFoundError if gone,
    PermissionError if it is or may be another user's.
    """
    try:
        with os.fdopen((open_own if is_own else open_regular)(path), "rb") as file:
            if limit_bytes is not None and os.fstat(file.fileno()).st_size > limit_bytes:
                raise BatchError(f"{path}: longer than {limit_bytes} bytes")
            return json.loads(file.read())
    except NotRegularError as error:
        raise BatchError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BatchError(f"{path}: not JSON: {error}") from error


def read_word(path: Path) -> str | None:
    """Read a one-word file such as run_id or exit_code; None while it is missing or empty.

    It is also None where a power loss has left something else: these files are not synced.
    """
    try:
        with os.fdopen(open_regular(path), encoding="utf-8") as file:
            word = file.read().strip()
    except (FileNotFoundError, UnicodeDecodeError, NotRegularError):
        return None
    return word if word and "\0" not in word else None


def write_word(path: Path, word: str) -> None:
    """Put a one-word file in place, not durably."""
    write_bytes(path, f"{word}\n".encode(), is_durable=False)


def link_new(source: Path, target: Path) -> None:
    """Give a file a second name. Raises FileExistsError if the name is taken by another file.

    Where the file system has no links (FAT, some FUSE and SMB mounts), it makes a durable copy.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samestat(target.lstat(), source.lstat()):
            raise
    except OSError as error:
        if error.errno not in CANNOT_LINK:
            raise
        _copy_new(source, target)


def part_name(name: str) -> str:
    """Name the unfinished copy of a file; whoever copies to that name again goes on with it."""
    return f".{name[:200]}.part"


def _copy_new(source: Path, target: Path) -> None:
    part = target.with_name(part_name(target.name))
    descriptor = open_regular(part, os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(open_regular(source), "rb") as old, os.fdopen(descriptor, "r+b") as new:
        # Another process may copy to this name now. Once it is done, the target is there; if it
        # died, its half of a copy is overwritten.
        fcntl.flock(new, fcntl.LOCK_EX)
        if os.path.lexists(target):
            part.unlink(missing_ok=True)
            raise FileExistsError(target)
        new.truncate(0)
        shutil.copyfileobj(old, new, COPY_BYTES)
        new.flush()
        os.fsync(new.fileno())
        part.rename(target)
