"""The ledger's file: opened, made, migrated, refused, waited for."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread

import pytest

from clock import NOON
from ds_flow.core.errors import DispatchError, LedgerError
from ds_flow.ledger import store
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.store import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    Store,
    fault_of,
    migrate,
    statements,
)
from power import Power
from project import Gate, until
from samples import BATCH, manifest, read, settled, sha256

SCHEMA_1 = Path(__file__).with_name("schema_1.sql")
AT = NOON.isoformat()
BEGUN = [
    ("file", 1, "data/a.csv", 1, sha256("1"), 1, "1 1 1 1 1", AT, "batched", None, ""),
    ("batch", BATCH, "running", "arrival", AT, AT, None, ""),
    ("batch_file", BATCH, 1, 1),
    ("run", 1, BATCH, 1, "starting", None, None, AT, None, 0, ""),
    ("event", 1, AT, "file.batched", 1, BATCH, None, ""),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ledger.db"


@pytest.fixture
def old(path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger as the first version made it, with one file in a batch that has begun to run."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        opened.executescript(SCHEMA_1.read_text() + "PRAGMA user_version = 1;")
        for table, *row in BEGUN:
            marks = ", ".join("?" * len(row))
            opened.execute(f"INSERT INTO {table} VALUES ({marks})", row)  # noqa: S608 - our own
        yield opened


def answer(path: Path, question: str) -> object:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(question).fetchone()[0]


def test_a_new_ledger_is_made_where_there_is_none(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        assert ledger.read.total() == 0

    assert answer(path, "PRAGMA user_version") == SCHEMA_VERSION
    assert answer(path, "PRAGMA journal_mode") == "wal"


def test_a_commit_reaches_the_disk_before_it_returns(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        assert ledger._store.row("PRAGMA synchronous") == (2,)  # FULL
        assert ledger._store.row("PRAGMA foreign_keys") == (1,)


def test_the_ledger_of_a_newer_program_is_refused_in_words(path: Path) -> None:
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")

    with pytest.raises(LedgerError, match=r"newer ds-flow .* install that version"):
        Ledger(path)


@pytest.mark.parametrize(
    "made_by",
    [
        "PRAGMA application_id = 252006674; PRAGMA user_version = 1;",
        "CREATE TABLE bookmark (id INTEGER);",
        "CREATE TABLE file (id INTEGER); PRAGMA user_version = 2;",
        "CREATE TABLE file (id INTEGER); PRAGMA user_version = 99;",
    ],
)
def test_a_sqlite_file_of_another_program_is_refused_in_words_and_not_changed(
    path: Path, made_by: str
) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.executescript(made_by)
    before = path.read_bytes()

    with pytest.raises(LedgerError, match="a SQLite file of another program; move it away"):
        Ledger(path)

    assert "of another program" in fault_of(path)
    assert path.read_bytes() == before


def test_a_ledger_its_copy_and_a_migrated_one_say_whose_they_are(
    old: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    assert answer(path, "PRAGMA application_id") == 0
    with closing(Ledger(path)) as ledger:
        ledger.back_up(tmp_path / "copy.db")
    with closing(Ledger(tmp_path / "new.db")):
        pass

    for file in (path, tmp_path / "copy.db", tmp_path / "new.db"):
        assert answer(file, "PRAGMA application_id") == APPLICATION_ID
    old.execute("PRAGMA application_id = 0")
    assert fault_of(path) == ""  # as a version before made it


def test_a_copy_of_the_ledger_is_kept_by_a_power_loss(
    path: Path, tmp_path: Path, power: Power
) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.back_up(tmp_path / "copy.db")

    assert power.keeps(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_mode & 0o077 == 0


def test_a_broken_file_is_refused_with_the_remedy(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 1000)

    with pytest.raises(LedgerError, match="rebuilt from out/manifest"):
        Ledger(path)


def test_a_check_finds_what_only_a_reading_of_the_whole_ledger_shows(path: Path) -> None:
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("DELETE FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")

    assert "never used" in fault_of(path)
    with closing(Ledger(path)) as ledger, pytest.raises(LedgerError, match="never used"):
        ledger.back_up(path.with_name("copy.db"))


def test_a_page_that_breaks_later_is_a_ledger_error_too(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.admit([settled(f"{i}", "1") for i in range(500)], NOON)
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 60_000)

    with pytest.raises(LedgerError, match="rebuilt from"), closing(Ledger(path)) as ledger:
        ledger.read.versions("17")


def test_a_locked_ledger_is_waited_for_and_then_a_matter_of_time(path: Path) -> None:
    with closing(Ledger(path)) as ledger, closing(sqlite3.connect(path)) as other:
        ledger._store._db.execute("PRAGMA busy_timeout = 50")
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(DispatchError, match="locked"):
            ledger.admit([settled("a", "1")], NOON)
        assert ledger.read.total() == 0  # readers do not wait

        other.rollback()
        ledger.admit([settled("a", "1")], NOON)
        assert ledger.read.total() == 1


def test_a_writer_waits_for_half_a_minute(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        assert ledger._store.row("PRAGMA busy_timeout") == (30_000,)


def test_a_full_disk_is_a_matter_of_time_and_loses_nothing(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.admit([settled("a", "1")], NOON)
        pages = ledger._store.row("PRAGMA page_count")
        assert pages
        ledger._store._db.execute(f"PRAGMA max_page_count = {pages[0]}")

        with pytest.raises(DispatchError, match="full"):
            ledger.admit([settled(f"{i}", "1") for i in range(2000)], NOON)
        assert ledger.read.total() == 1

        ledger._store._db.execute("PRAGMA max_page_count = 1000000")
        ledger.admit([settled("b", "1")], NOON)
        assert ledger.read.total() == 2


def test_a_transaction_that_fails_changes_nothing(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        with suppress(KeyError), ledger._store.transaction():
            ledger._files.admit(settled("a", "1"), NOON)
            raise KeyError

        assert ledger.read.total() == 0


# --------------------------------------------------------------------------- migration

MIGRATIONS = {
    1: "CREATE TABLE note (text TEXT) STRICT;\nINSERT INTO note VALUES ('two; too');\n",
    2: "ALTER TABLE note ADD COLUMN at TEXT;\nUPDATE note SET at = 'now';\n",
}


def test_an_older_ledger_is_migrated_step_by_step_after_a_copy(
    old: sqlite3.Connection, path: Path
) -> None:
    migrate(old, path, 3, MIGRATIONS)

    assert old.execute("SELECT text, at FROM note").fetchall() == [("two; too", "now")]
    assert old.execute("SELECT count(*) FROM file").fetchone() == (1,)
    assert old.execute("PRAGMA user_version").fetchone() == (3,)
    copy = path.with_name("ledger.db.schema-1")
    assert answer(copy, "PRAGMA user_version") == 1
    assert answer(copy, "SELECT count(*) FROM file") == 1


def test_a_migration_that_fails_leaves_the_old_ledger(old: sqlite3.Connection, path: Path) -> None:
    broken = {**MIGRATIONS, 2: "ALTER TABLE nothing ADD COLUMN at TEXT;\n"}

    with pytest.raises(sqlite3.OperationalError, match="nothing"):
        migrate(old, path, 3, broken)

    assert old.execute("PRAGMA user_version").fetchone() == (1,)
    assert not old.execute("SELECT 1 FROM sqlite_master WHERE name = 'note'").fetchall()
    migrate(old, path, 3, MIGRATIONS)
    assert old.execute("PRAGMA user_version").fetchone() == (3,)


def test_a_ledger_of_this_version_is_left_as_it_is(old: sqlite3.Connection, path: Path) -> None:
    migrate(old, path, 1, {})

    assert not path.with_name("ledger.db.schema-1").exists()


@pytest.mark.usefixtures("old")
def test_work_that_an_older_version_began_is_finished_in_its_ledger(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        assert [run.batch for run in ledger.read.live_runs()] == [BATCH]
        assert ledger.read.batch_paths(BATCH) == ["data/a.csv"]

        assert ledger.record(manifest("17", inputs=[read("data/a.csv", "1")]), NOON)
        assert ledger.read.counts("file")["processed"] == 1

    assert answer(path, "PRAGMA user_version") == SCHEMA_VERSION
    copy = path.with_name("ledger.db.schema-1")
    assert answer(copy, "PRAGMA user_version") == 1
    assert answer(copy, "SELECT state FROM run") == "starting"


def test_an_analysis_that_failed_before_the_migration_is_known_after_it(
    old: sqlite3.Connection, path: Path
) -> None:
    migrate(old, path, 2, store.MIGRATIONS)
    for kind, detail in (("analysis.failed", "exit code 3"), ("run.removed", "replaced")):
        old.execute(
            "INSERT INTO event (at, kind, batch_id, run, detail) VALUES (?, ?, ?, 1, ?)",
            (AT, kind, BATCH, detail),
        )

    with closing(Ledger(path)) as ledger:
        (run,) = ledger.read.runs()
    assert (run.analysis_error, run.analyses) == ("exit code 3", 0)


def shape(path: Path) -> dict[str, list[object]]:
    """Every table's and index's columns, and what each trigger and view says."""
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        listed = {"table": "table_xinfo", "index": "index_xinfo"}
        return {
            name: db.execute(f"PRAGMA {listed[kind]}({name})").fetchall()
            if kind in listed
            else [sql]
            for kind, name, sql in found
        }


@pytest.mark.usefixtures("old")
def test_a_migrated_ledger_is_like_a_new_one(path: Path, tmp_path: Path) -> None:
    Ledger(path).close()
    Ledger(tmp_path / "new.db").close()
    assert shape(path) == shape(tmp_path / "new.db")


def test_a_ledger_that_is_new_needs_no_copy(path: Path) -> None:
    Ledger(path).close()

    assert not path.with_name("ledger.db.schema-1").exists()


def test_a_script_is_split_at_statements_and_not_inside_a_trigger() -> None:
    script = (
        "CREATE TABLE t (a);\n"
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN\n  DELETE FROM t;\n  DELETE FROM t;\nEND;\n"
    )

    assert len(list(statements(script))) == 2


# --------------------------------------------------------------------------- two at once

OPEN_AND_ADMIT = """
import sys
from pathlib import Path
from clock import NOON
from samples import BATCH, manifest, read, settled, sha256
from ds_flow.ledger import Ledger
for path in sys.argv[2:]:
    print("ready", flush=True)
    sys.stdin.readline()
    ledger = Ledger(Path(path))
    ledger.admit([settled(sys.argv[1], "1")], NOON)
    ledger.close()
"""
OPENERS, ROUNDS = 4, 30


def test_a_ledger_is_opened_by_one_at_a_time(path: Path) -> None:
    gate = Gate(path.with_name("ledger.db.opening"))
    opened: list[str] = []

    def open_it() -> None:
        with closing(Ledger(path)) as ledger:
            opened.append(str(ledger.read.total()))

    other = Thread(target=open_it)
    other.start()
    until("it waits", lambda: gate.is_reached or opened)

    assert not opened
    assert not path.exists()
    gate.open()
    other.join()
    assert opened == ["0"]


def test_processes_that_open_a_new_ledger_together_all_work(tmp_path: Path) -> None:
    ledgers = [tmp_path / f"{number}.db" for number in range(ROUNDS)]
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_ADMIT, str(number), *map(str, ledgers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        for number in range(OPENERS)
    ]
    for _ in ledgers:
        for opener in openers:
            assert opener.stdout
            opener.stdout.readline()
        for opener in openers:
            assert opener.stdin
            with suppress(BrokenPipeError):  # it failed already
                opener.stdin.write("go\n")
                opener.stdin.flush()

    assert [opener.communicate()[1] for opener in openers] == [""] * OPENERS
    assert [answer(path, "SELECT count(*) FROM file") for path in ledgers] == [OPENERS] * ROUNDS


def test_a_ledger_that_was_removed_while_in_use_is_noticed(tmp_path: Path) -> None:
    opened = Store(tmp_path / "ledger.db")
    opened.require_in_place()
    (tmp_path / "ledger.db").unlink()

    with pytest.raises(LedgerError, match="removed or replaced while in use"):
        opened.require_in_place()

    Store(tmp_path / "ledger.db").close()
    with pytest.raises(LedgerError, match="removed or replaced while in use"):
        opened.require_in_place()
    opened.close()


def test_a_check_reads_what_is_only_in_the_log_beside_a_ledger(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        ledger._store._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")

        assert "newer" in fault_of(path)


def test_a_check_of_a_ledger_that_nobody_has_open_makes_no_file_beside_it(path: Path) -> None:
    Ledger(path).close()
    before = set(path.parent.iterdir())

    assert fault_of(path) == ""
    assert set(path.parent.iterdir()) == before
