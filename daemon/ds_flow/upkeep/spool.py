"""Messages that are not sent yet, one file each in the work folder, so that none is lost."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ds_flow.system import open_own, put_file

FOLDER = "alerts"
MESSAGES = 100  # of each way; more are dropped, and logged
MOST_BYTES = 2**17  # of one message; ours are shorter
LONGEST_SECONDS = 86_400.0  # after that a message is no news
LATE = timedelta(minutes=15)  # a receiver may be away for a moment
DIGITS = 20  # of the nanoseconds in a name
LAST_SECOND = 253_402_300_800  # of the year 9999


class Spool:
    """The folder. A full disk keeps no message from being sent at once."""

    def __init__(self, work_root: Path) -> None:
        self._folder = work_root / FOLDER
        self._count = 0

    def put(self, way: str, text: str) -> Path:
        """Keep a message until it is sent, if the disk takes it; give its name."""
        self._count += 1
        path = self._folder / f"{time.time_ns():0{DIGITS}}-{self._count}.{way}"
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with put_file(path, mode=0o600) as file:
                file.write(text.encode())
        return path

    def left(self) -> Iterator[tuple[str, str, Path]]:
        """Give the way, the text and the file of what an earlier daemon left, oldest first."""
        with suppress(OSError):
            for path in sorted(self._folder.iterdir())[: 4 * MESSAGES]:
                if path.name.startswith(".") or self.is_outdated(path):
                    self.remove(path)
                    continue
                with suppress(OSError):
                    yield path.suffix.removeprefix("."), _read(path), path

    def late(self, now: datetime) -> tuple[int, str]:
        """How many messages could not be sent for long, and since when the oldest waits."""
        with suppress(OSError):  # nothing was ever kept, or this is another user's
            names = [path.name for path in self._folder.iterdir()]
            waiting = sorted(filter(None, map(_put_at, names)))
            if late := [at for at in waiting if now - at > LATE]:
                return len(late), late[0].isoformat()
        return 0, ""

    def is_outdated(self, path: Path | None) -> bool:
        """Whether a message is too old to be of use."""
        number = path.name.partition("-")[0] if path else ""
        return number.isdecimal() and time.time() - int(number) / 1e9 > LONGEST_SECONDS

    def remove(self, path: Path | None) -> None:
        """Forget a message."""
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _put_at(name: str) -> datetime | None:
    """When a message was kept, by its name; None for any other name."""
    number, mark, _ = name.partition("-")
    if not (mark and number.isdecimal() and len(number) == DIGITS):
        return None
    seconds = int(number) / 1e9
    return datetime.fromtimestamp(seconds, UTC) if seconds < LAST_SECOND else None


def _read(path: Path) -> str:
    """Read a message. Raises OSError for a file that no daemon of this user has left."""
    with os.fdopen(open_own(path), "rb") as file:
        said = file.read(MOST_BYTES + 1)
    if len(said) > MOST_BYTES:
        raise OSError(errno.EFBIG, "longer than any message", str(path))
    return said.decode(errors="replace")
