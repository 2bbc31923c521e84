"""ds-flow's own files in folders where others may write: opened without following links.

A lock file is for this user alone: whoever can open it, if only to read, can hold its lock.
"""

import errno
import os
import pwd
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

OTHERS_WRITE = 0o022  # bits of a mode
IS_LINK = "is a symbolic link, and links are not followed here; remove it"
NOT_REGULAR = "is not a regular file; remove it"
NOT_OWN = "is another user's, or others may write to it"


def user_name(number: int) -> str:
    """The name of a user, or `#` and the number, which sudo and chown take without the `#`, too."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"


class NotRegularError(PermissionError):
    """A link, a FIFO, a folder or a device stands where a regular file should."""


def open_regular(path: Path, access: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file, not a link; return its descriptor. A FIFO there does not block.

    Raises OSError; NotRegularError, with a sentence, for anything but a regular file.
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


def open_own(path: Path) -> int:
    """Open a regular file that nobody but this user has written, for reading.

    Raises OSError; PermissionError for one that another user owns or may write to.
    """
    descriptor = open_regular(path)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & OTHERS_WRITE:
        os.close(descriptor)
        raise PermissionError(errno.EPERM, NOT_OWN, str(path))
    return descriptor


def open_log(path: Path, mode: int = 0o666) -> int:
    """Open a log for appending, and create it if needed; return its descriptor. Raises OSError."""
    return open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode)


def open_private(path: Path) -> int:
    """Open a file of mode 0600 for reading and writing, and create it if needed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    with suppress(OSError):  # another user's, or its file system has no modes
        os.fchmod(descriptor, 0o600)  # an older version made wider ones
    return descriptor
