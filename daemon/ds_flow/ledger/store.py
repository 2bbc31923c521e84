"""The SQLite file: opening, creating, migrating, and one transaction at a time."""

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import Any

from ds_flow.core import BatchError, DispatchError, LedgerError
from ds_flow.system import (
    IS_LINK,
    NOT_REGULAR,
    fs_type,
    is_network_fs,
    link_new,
    open_private,
    sync_dir,
    sync_file,
)

SCHEMA_VERSION = 5
MIGRATIONS = {
    old: files("ds_flow.ledger").joinpath(f"migrations/from_{old}_to_{old + 1}.sql").read_text()
    for old in range(1, SCHEMA_VERSION)
}
"""For each older `user_version`, the script that leads to the next one."""

APPLICATION_ID = 0x6473466C  # "dsFl" in the header of the file; 0 in ledgers of earlier versions
TABLES = frozenset({"file", "batch", "batch_file", "run", "output", "event"})

BUSY_SECONDS = 30
BATCH_ROWS = 500  # bound variables of one statement

REMEDY = (
    "stop ds-flow, move the file (with its -wal and -shm) away and start again: "
    "the ledger is rebuilt from out/manifest_*.json"
)

Row = tuple[Any, ...]


class Store:
    """One connection. WAL lets readers never wait; synchronous=FULL makes a commit last."""

    def __init__(self, path: Path) -> None:
        """Open the ledger, making or migrating it as needed. Raises LedgerError, DispatchError."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_network(path)
        refuse_links(path)
        with _one_opener(path), translated(path):
            _create_private(path)
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            refuse_foreign(self._db, path)
            self._db.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            )
            migrate(self._db, path, SCHEMA_VERSION, MIGRATIONS)
        self._identity = _identity(path)

    def require_in_place(self) -> None:
        """Raise LedgerError if the file was removed or replaced: what we write would be lost."""
        if _identity(self.path) != self._identity:
            raise LedgerError(
                f"ledger {self.path}: removed or replaced while in use; start ds-flow again:"
                " it takes up from what is there"
            )

    def back_up(self, file: Path) -> None:
        """Copy the ledger to a new file while others use it. Raises FileExistsError."""
        part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        _create_private(part)
        try:
            with translated(self.path), closing(sqlite3.connect(part)) as copy:
                self._db.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # else it would be three files
                _check(copy)
            sync_file(part)
            link_new(part, file)
            sync_dir(file.parent)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all or nothing. Other writers wait for up to 30 s."""
        with translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # after a full disk SQLite has rolled it back already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """All rows of one query."""
        with translated(self.path):
            return self._db.execute(sql, args).fetchall()

    def each(self, sql: str, args: Sequence[Any] = ()) -> Iterator[Row]:
        """Rows one by one, for queries whose answer may be large."""
        with translated(self.path):
            cursor = self._db.execute(sql, args)
            while row := cursor.fetchone():  # `yield from` might close it after the ledger
                yield row

    def row(self, sql: str, args: Sequence[Any] = ()) -> Row | None:
        """Fetch the first row of one query, or None."""
        with translated(self.path):
            found: Row | None = self._db.execute(sql, args).fetchone()
            return found

    def value(self, sql: str, key: object, what: str) -> str:
        """The one value of a row. Raises BatchError if no row is found."""
        row = self.row(sql, (key,))
        if row is None:
            raise BatchError(f"no {what}")
        return str(row[0])

    def change(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Run one statement. Returns how many rows it changed."""
        return self._db.execute(sql, args).rowcount

    def change_one(self, sql: str, args: Sequence[Any], what: str) -> None:
        """Run a compare-and-set. Raises BatchError if it did not change exactly one row."""
        if self.change(sql, args) != 1:
            raise BatchError(f"{what}: another process moved it first")

    def insert(self, sql: str, args: Sequence[Any]) -> int:
        """Insert one row. Returns its id."""
        return self._db.execute(sql, args).lastrowid or 0

    def change_many(self, sql: str, args: Iterable[Sequence[Any]]) -> int:
        """Run one statement with many arguments. Returns how many rows it changed."""
        return self._db.executemany(sql, args).rowcount

    def note(
        self,
        now: datetime,
        kind: str,
        *,
        file_id: int | None = None,
        batch_id: str | None = None,
        run: int | None = None,
        detail: str = "",
    ) -> None:
        """Append one event to the history. Each move of a state does so in its transaction."""
        self.insert(
            "INSERT INTO event (at, kind, file_id, batch_id, run, detail)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (text(now), kind, file_id, batch_id, run, detail),
        )


def _refuse_network(path: Path) -> None:
    kind = fs_type(path.parent)
    if is_network_fs(kind):
        raise LedgerError(f"{path}: on {kind}; set paths.ledger to a local disk (WAL needs one)")


def refuse_links(path: Path) -> None:
    """Raise LedgerError if a link stands for a file of the ledger: SQLite would follow it.

    This uses lstat, since closing a ledger file gives back this process's locks on it.
    """
    for end in ("", "-wal", "-shm", "-journal", ".opening"):
        file = path.with_name(f"{path.name}{end}")
        with suppress(OSError):  # SQLite's own error is clearer
            if not S_ISREG(mode := file.lstat().st_mode):
                raise LedgerError(f"{file} {IS_LINK if S_ISLNK(mode) else NOT_REGULAR}")


def fault_of(path: Path) -> str:
    """Read a whole ledger without changing it.

    Returns why it cannot be used and what to do, or "" if it can be used.
    """
    if not os.path.lexists(path):
        return ""
    # Without a -wal file nobody has it open. SQLite would make one, unless opened as immutable.
    mode = "ro" if path.with_name(f"{path.name}-wal").exists() else "ro&immutable=1"
    try:
        _refuse_network(path)
        refuse_links(path)
        with translated(path), closing(read_only(path, mode)) as db:
            refuse_foreign(db, path)
            refuse_newer(schema_of(db), path, SCHEMA_VERSION)
            _check(db)
    except (LedgerError, DispatchError) as error:
        return str(error)
    return ""


def _check(db: sqlite3.Connection) -> None:
    (result,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok":
        raise sqlite3.DatabaseError(result)


def read_only(path: Path, mode: str, busy_s: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open a file without changing it."""
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, timeout=busy_s, isolation_level=None, uri=True)


def _create_private(path: Path) -> None:
    """Create it so that no other user can read it: reasons may quote files.

    SQLite's other files take over its mode. An existing file is not opened, since closing it
    gives back this process's locks on it.
    """
    if not path.exists():
        with suppress(OSError):  # SQLite's own error is clearer
            os.close(open_private(path))


@contextmanager
def _one_opener(path: Path) -> Iterator[None]:
    """Let processes open it one at a time: SQLite fails if two switch a new file to WAL."""
    with ExitStack() as stack:
        with suppress(OSError):  # SQLite's own error is clearer
            descriptor = open_private(path.with_name(f"{path.name}.opening"))
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def migrate(db: sqlite3.Connection, path: Path, version: int, migrations: dict[int, str]) -> None:
    """Bring a ledger to `version`: create it, or keep a copy and run each migration."""
    found = schema_of(db)
    if found == version:
        return
    refuse_newer(found, path, version)
    if found:
        copy = path.with_name(f"{path.name}.schema-{found}")
        copy.unlink(missing_ok=True)
        _create_private(copy)
        db.execute("VACUUM INTO ?", (str(copy),))
    scripts = {0: files("ds_flow.ledger").joinpath("schema.sql").read_text(), **migrations}
    steps = [scripts[step] for step in range(found, version)] if found else [scripts[0]]
    db.execute("BEGIN IMMEDIATE")
    try:
        if schema_of(db) == found:  # another process may have got there first
            for statement in (one for step in steps for one in statements(step)):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {version:d}")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def refuse_foreign(db: sqlite3.Connection, path: Path) -> None:
    """Raise LedgerError if another program made the file: ours would change it."""
    found = db.execute("PRAGMA application_id").fetchone()[0]
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    is_unmarked_one = found == 0 and (not tables or tables >= TABLES)
    if found != APPLICATION_ID and not is_unmarked_one:
        raise LedgerError(
            f"{path}: a SQLite file of another program; move it away, or set paths.ledger"
        )


def refuse_newer(found: int, path: Path, version: int) -> None:
    if found > version:
        raise LedgerError(
            f"{path}: written by a newer ds-flow (schema {found}, this one knows {version}); "
            "install that version again"
        )


def statements(script: str) -> Iterator[str]:
    """Split a script into statements: `executescript` would commit the transaction around it."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def schema_of(db: sqlite3.Connection) -> int:
    """The version of the schema that a ledger has; 0 for none."""
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours. A full disk or a lock passes by itself, the rest does not."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "").startswith(PASSING):
            raise DispatchError(f"ledger {path}: {error}") from error
        if getattr(error, "sqlite_errorname", "").startswith(NOT_ALLOWED):
            why = "may this user read and write it, and its folder?"
            raise LedgerError(f"ledger {path}: {error}: {why}") from error
        raise LedgerError(f"ledger {path}: {error}; {REMEDY}") from error
    except sqlite3.IntegrityError as error:
        why = "another process got there first; look at `ds-flow status`, then try again"
        raise BatchError(f"ledger {path}: {error}: {why}") from error
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"ledger {path}: {error}; {REMEDY}") from error


NOT_ALLOWED = ("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")
PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")


def text(at: datetime) -> str:
    """Write a time as the ledger keeps it."""
    return at.isoformat(timespec="milliseconds")
