"""What the daemon writes down so that `status` can tell it.

How far large files have been read, and what its looks at a large inbox have counted.
"""

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ds_flow.core import BatchError
from ds_flow.inbox.hashing import Progress
from ds_flow.system import read_json, write_bytes

NAME = "reading.json"
EVERY_SECONDS = 1.0
NAMED = 1000  # files

LOOK = "look.json"


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


class Counted(NamedTuple):
    """What the looks of a daemon have counted, and for how long that holds."""

    pid: int
    pattern: str
    looked_at: str  # when the last scan of the whole inbox began
    until: str  # the next one has ended by then
    ignored: int
    arriving: int = 0  # seen, and not yet in the ledger


class LookFile:
    """The file in the work folder that says what the daemon's looks have counted."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOOK
        self._told: Counted | None = None
        self._remove()  # a killed daemon may have left it

    def tell(self, counted: Counted | None) -> None:
        """Write it anew if it has changed. An old count must not stay, not even on a full disk."""
        if counted == self._told:
            return
        try:
            if counted is not None:
                write_bytes(self._path, json.dumps(counted._asdict()).encode(), is_durable=False)
            else:
                self._remove()
        except OSError:
            self._remove()
            counted = None
        self._told = counted

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def last_look(folder: Path, pid: int, pattern: str, now: datetime) -> Counted | None:
    """What a running daemon's looks have counted; None if that is not known, or no longer true."""
    try:
        found = Counted(**read_json(folder / LOOK))
        holds = datetime.fromisoformat(found.looked_at) <= now
        holds = holds and now <= datetime.fromisoformat(found.until)
    except (OSError, BatchError, TypeError, ValueError):
        return None
    return found if holds and (found.pid, found.pattern) == (pid, pattern) else None


def told(read_bytes: int, size_bytes: int) -> str:
    """Say how far a file has been read."""
    return f"{read_bytes / 10**9:.1f} of {size_bytes / 10**9:.1f} GB is read"
