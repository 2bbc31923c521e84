"""Files for this user alone: who could open a lock file, if only to read, could hold its lock."""

import os
from contextlib import suppress
from pathlib import Path


def open_private(path: Path) -> int:
    """Open a file for reading and writing, made if need be; its descriptor. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with suppress(OSError):  # another user's, or its file system has no modes
        os.fchmod(descriptor, 0o600)  # an older version made wider ones
    return descriptor
