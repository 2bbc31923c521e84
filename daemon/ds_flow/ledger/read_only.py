"""The SQLite file for a process that may not write, such as the page's."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from ds_flow.core import DispatchError, LedgerError
from ds_flow.ledger.store import (
    SCHEMA_VERSION,
    Store,
    read_only,
    refuse_foreign,
    refuse_links,
    refuse_newer,
    schema_of,
    translated,
)

TRIES = 5
BUSY_SECONDS = 2.0

Answer = TypeVar("Answer")
Identity = tuple[int, int, int, int]


class ReadOnlyStore(Store):
    """One connection that creates, changes and locks out nothing.

    1. While a `-wal` file is there, somebody may be writing. SQLite then reads beside the writer,
       also where it may not write to the `-shm` file.
    2. Without one, nobody has the ledger open. SQLite would make one, so the file is opened as
       immutable. `is_sound` then says whether it stayed as it was.
    3. A project without a ledger has an empty one, in memory.
    """

    def __init__(self, path: Path) -> None:
        """Open the ledger. Raises LedgerError, DispatchError."""
        self.path = path
        self._was = _identity(path)
        self._is_immutable = self._was is not None and not _has_wal(path)
        refuse_links(path)
        with translated(path):
            if self._was is None:
                self._db = sqlite3.connect(":memory:", isolation_level=None)
                self._db.executescript(files("ds_flow.ledger").joinpath("schema.sql").read_text())
                return
            mode = "ro&immutable=1" if self._is_immutable else "ro"
            self._db = read_only(path, mode, BUSY_SECONDS)
            try:
                self._db.execute("PRAGMA query_only = ON")
                self._require_schema()
            except BaseException:
                self._db.close()
                raise

    def _require_schema(self) -> None:
        refuse_foreign(self._db, self.path)
        found = schema_of(self._db)
        refuse_newer(found, self.path, SCHEMA_VERSION)
        if found < SCHEMA_VERSION:
            why = f"of an older ds-flow (schema {found}, this one needs {SCHEMA_VERSION})"
            raise LedgerError(f"{self.path}: {why}; start the daemon: it migrates the ledger")

    def is_sound(self) -> bool:
        """Whether nobody can have changed under us what was read as immutable."""
        if not self._is_immutable and self._was is not None:
            return True
        return _identity(self.path) == self._was and not _has_wal(self.path)


def ask(path: Path, question: Callable[[ReadOnlyStore], Answer]) -> Answer:
    """Open the ledger, ask, and close it. Asks again if somebody began to write meanwhile."""
    for _ in range(TRIES):
        try:
            with closing(ReadOnlyStore(path)) as store:
                try:
                    answer = question(store)
                except LedgerError:  # perhaps half of what it was, half of what it is now
                    if store.is_sound():
                        raise
                    continue
                if store.is_sound():
                    return answer
        except FileNotFoundError:
            continue
    raise DispatchError(f"ledger {path}: it is opened and closed all the time; try again")


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _has_wal(path: Path) -> bool:
    return _identity(_wal(path)) is not None
