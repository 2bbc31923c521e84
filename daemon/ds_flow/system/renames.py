"""Moves that replace nothing, and folders that outlast a power loss."""

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from ds_flow.system.durable import sync_dir

NEW_FOLDERS = 6  # of a way that may have to be made
WAYS_KEPT = 10_000
NO_REPLACE = 1  # RENAME_NOREPLACE of renameat2(2)
OTHER_DISK = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What a rename that replaces nothing may fail with although nothing stands in its way."""

_whole_ways: set[str] = set()  # folders that this process has synced with those above them


def make_way(folder: str) -> None:
    """Make a folder and those above it, as far as they are missing."""
    if not Path(folder).is_dir():
        Path(folder).mkdir(mode=0o750, parents=True, exist_ok=True)
        _whole_ways.discard(folder)


def sync_way(folder: str) -> None:
    """Make what is in a folder, and the folder itself, outlast a power loss. Raises OSError.

    Those above it may be new, too: of each folder they are synced once, by each process anew.
    """
    place = Path(folder)
    is_whole = folder in _whole_ways
    for one in (place,) if is_whole else (place, *place.parents)[:NEW_FOLDERS]:
        with suppress(PermissionError):  # one that is not ours is not new
            sync_dir(one)
    if len(_whole_ways) >= WAYS_KEPT:
        _whole_ways.clear()
    _whole_ways.add(folder)


def rename_new(
    old: str,
    new: str,
    old_folder: int | None = None,
    new_folder: int | None = None,
    *,
    is_ours: bool = False,
) -> None:
    """Rename without replacing anything. Raises OSError, FileExistsError if the name is taken.

    Where the kernel or the file system cannot do that, a link and an unlink do it, if `is_ours`:
    only as long as nobody else can exchange the old name.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    sys.audit("os.rename", old, new, -1, -1)  # as `os.rename` does
    here = -100  # AT_FDCWD
    done = libc.renameat2(
        here if old_folder is None else old_folder,
        os.fsencode(old),
        here if new_folder is None else new_folder,
        os.fsencode(new),
        NO_REPLACE,
    )
    if done == 0:
        return
    number = ctypes.get_errno()
    error = OSError(number, os.strerror(number), old, None, new)
    if number not in OTHER_DISK or number == errno.EXDEV or not is_ours:
        raise error
    os.link(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder, follow_symlinks=False)
    os.unlink(old, dir_fd=old_folder)
