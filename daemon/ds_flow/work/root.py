"""The folder of all work directories, `out/.work`: this user's alone."""

import errno
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

from ds_flow.core import WORK
from ds_flow.system import paths_below

log = logging.getLogger(__name__)

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
    return root


def _refuse_foreign(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        why = (
            f"belongs to the user {status.st_uid}, and ds-flow runs as {os.geteuid()}:"
            " run it as that user, or look at this and remove it"
        )
        raise PermissionError(errno.EPERM, why, str(path))
