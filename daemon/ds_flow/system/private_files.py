"""Files of ours where others may write, too: opened without following links, never waiting.

Who could open a lock file, if only to read, could hold its lock: those are for this user alone.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

IS_LINK = "is a symbolic link, and none is followed here; remove it"
NOT_REGULAR = "is not a regular file; remove it"


class NotRegularError(PermissionError):
    """A link, a FIFO, a folder or a device stands where a file of ours should."""


def open_regular(path: Path, access: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file that is no link; its descriptor. A FIFO in its place blocks nobody.

    Raises OSError; NotRegularError with a sentence for a link and for what is no file.
    """
    flags = access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise NotRegularError(errno.EPERM, IS_LINK, str(path)) from None
        raise
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(errno.EPERM, NOT_REGULAR, str(path))
    return descriptor


def open_log(path: Path, mode: int = 0o666) -> int:
    """Open a log to write at its end, made if need be; its descriptor. Raises OSError."""
    return open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode)


def open_private(path: Path) -> int:
    """Open a file for reading and writing, made if need be; its descriptor. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    with suppress(OSError):  # another user's, or its file system has no modes
        os.fchmod(descriptor, 0o600)  # an older version made wider ones
    return descriptor
