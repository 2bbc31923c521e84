"""How far large files have been read: the daemon writes it down, and `status` tells it."""

import json
from contextlib import suppress
from pathlib import Path

from ds_flow.core import BatchError
from ds_flow.inbox.hashing import Progress
from ds_flow.system import read_json, write_bytes

NAME = "reading.json"
EVERY_SECONDS = 1.0
NAMED = 1000  # files


class ProgressFile:
    """The file in the work folder that says which large files are being read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._next_s = 0.0
        self._is_there = True  # a killed daemon may have left it

    def tell(self, begun: list[Progress], now_s: float) -> None:
        """Write it anew now and then. Nobody depends on it, so a full disk does not matter."""
        if not begun and self._is_there:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._is_there, self._next_s = False, 0.0
        elif begun and now_s >= self._next_s:
            self._is_there, self._next_s = True, now_s + EVERY_SECONDS
            with suppress(OSError):
                rows = [one._asdict() for one in begun[:NAMED]]
                write_bytes(self._path, json.dumps(rows).encode(), is_durable=False)


def being_read(folder: Path) -> list[Progress]:
    """The large files that a running daemon is reading."""
    try:
        found = read_json(folder / NAME)
        return [Progress(**row) for row in found]
    except (OSError, BatchError, TypeError):
        return []


def told(read_bytes: int, size_bytes: int) -> str:
    """Say how far a file has been read."""
    return f"{read_bytes / 10**9:.1f} of {size_bytes / 10**9:.1f} GB is read"
