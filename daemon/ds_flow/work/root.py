"""The folder of all work directories, `out/.work`: this user's alone."""

import errno
import fcntl
import logging
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from ds_flow.core import WORK
from ds_flow.system import fs_type, paths_below

log = logging.getLogger(__name__)

GET_FLAGS, SET_FLAGS, TOP_FOLDER = 0x80086601, 0x40086602, 0x20000  # ioctl_iflags(2)
OTHERS, OTHERS_WRITE = 0o077, 0o022  # bits of a mode


def work_root(output_dir: Path) -> Path:
    """Name the folder of all work directories."""
    return output_dir / WORK


def make_root(output_dir: Path) -> Path:
    """Make the folder of all work directories this user's alone, whatever the umask is.

    What lies in it is run. Raises PermissionError if it is or may be another user's work.
    """
    root = work_root(output_dir)
    root.mkdir(0o700, parents=True, exist_ok=True)
    _refuse_foreign(root, root.lstat())  # the link, if it is one
    was = root.stat()
    _refuse_foreign(root, was)
    if was.st_mode & OTHERS_WRITE:
        for path in paths_below(root):
            _refuse_foreign(path, path.lstat())
    if was.st_mode & OTHERS:
        with suppress(OSError):  # its file system has no modes
            root.chmod(0o700)
        now = root.stat().st_mode
        if now & OTHERS_WRITE:
            why = "others may write to it, and so run commands here; that cannot be changed"
            raise PermissionError(errno.EPERM, why, str(root))
        if now != was.st_mode:
            why = f"others could look into it (its mode was {stat.S_IMODE(was.st_mode):o})"
            log.warning("work.closed", extra={"folder": root, "why": why})
    _spread(root)
    return root


def _spread(root: Path) -> None:
    """Let ext4 put each work directory into a part of the disk of its own, as `chattr +T` does.

    Else it makes a batch's files where it has just removed those of the batch before. For some
    minutes it passes over each inode that was removed, which doubles the CPU time of a small file.
    """
    if fs_type(root) != "ext4":
        return
    with suppress(OSError):
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = bytearray(8)
            fcntl.ioctl(folder, GET_FLAGS, flags)
            number = int.from_bytes(flags, sys.byteorder)
            if not number & TOP_FOLDER:
                fcntl.ioctl(folder, SET_FLAGS, (number | TOP_FOLDER).to_bytes(8, sys.byteorder))
        finally:
            os.close(folder)


def _refuse_foreign(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        why = (
            f"belongs to the user {status.st_uid}, and ds-flow runs as {os.geteuid()}:"
            " run it as that user, or look at this and remove it"
        )
        raise PermissionError(errno.EPERM, why, str(path))
