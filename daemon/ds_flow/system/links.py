"""Where a path leads, in folders whose names other users may exchange at any moment."""

import errno
import os


def real_path(path: str | os.PathLike[str]) -> str:
    """Resolve the links of a path. Raises OSError, whatever happens to them meanwhile."""
    try:
        return os.path.realpath(path)
    except RecursionError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        why = "replaced while its links were followed"
        raise FileNotFoundError(errno.ENOENT, why, path) from None


def is_at(descriptor: int, real: str) -> bool:
    """Whether an open file has this path, without a link in it."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == real
    except OSError:  # the path is longer than the kernel can return
        return False
