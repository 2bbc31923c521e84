"""`flows/deliver/load_sql.py`: each row of each run once, on PostgreSQL and SQLite."""

import csv
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import project as real
from ds_flow.core.program import CHECKOUT
from postgres import OWNER, Postgres, postgres
from project import until

SCRIPT = CHECKOUT / "flows" / "deliver" / "load_sql.py"
ODD = ("id", "na me", 'q"uote', "100%", "%s", "a:b", "(x)", "ü", "select", "Id;--")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as made:
        yield made


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/students.db"
    server: Postgres = request.getfixturevalue("server")
    engine = sa.create_engine(server.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return server.url


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def published(out: Path, run_id: str, *rows: tuple[str, ...], told: int | None = None) -> Path:
    """A run whose combined file has these rows, the header first."""
    combined = out / f"final_combined_{run_id}.csv"
    with combined.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return manifest_of(combined, run_id, len(rows) - 1 if told is None else told)


def manifest_of(combined: Path, run_id: str, rows: int) -> Path:
    with combined.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    other = {"name": f"processed_x_{run_id}.csv", "sha256": "0" * 64, "rows": rows}
    outputs = [{"name": combined.name, "sha256": sha256, "rows": rows}, other]
    path = combined.with_name(f"manifest_{run_id}.json")
    path.write_text(json.dumps({"run_id": run_id, "outputs": outputs}))
    return path


def load(
    url: str, manifest: Path, *words: str, megabytes: int = 0
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    return subprocess.run(
        [sys.executable, str(SCRIPT), "--table", "students", *words, str(manifest)],
        env={**os.environ, "SQL_URL": url},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit if megabytes else None,
    )


def loaded(url: str, manifest: Path, *words: str) -> None:
    done = load(url, manifest, *words)
    assert done.returncode == 0, done.stderr


def refused(url: str, manifest: Path, *words: str) -> str:
    done = load(url, manifest, *words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def ask(url: str, question: str) -> list[tuple[Any, ...]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(question))]


# --------------------------------------------------------------------------- what is loaded


def test_a_table_is_made_and_each_row_is_there_once_however_often_a_run_is_loaded(
    url: str, out: Path
) -> None:
    first = published(out, "17", ("id", "name"), ("1", "Ann"), ("2", ""))
    second = published(out, "18", ("id", "name"), ("1", "Ann"))
    for manifest in (first, second, first, first):
        loaded(url, manifest)
    rows = ask(url, "SELECT run_id, id, name FROM students ORDER BY run_id, id")
    assert rows == [("17", "1", "Ann"), ("17", "2", ""), ("18", "1", "Ann")]


def test_a_combined_file_as_parquet_beside_the_one_as_csv_is_left_alone(
    url: str, out: Path
) -> None:
    manifest = published(out, "17", ("id",), ("1",))
    document = json.loads(manifest.read_text())
    (out / "final_combined_17.parquet").write_bytes(b"PAR1\x88\xff")
    parquet = {"name": "final_combined_17.parquet", "sha256": "0" * 64, "rows": 1}
    document["outputs"].insert(0, parquet)
    manifest.write_text(json.dumps(document))
    loaded(url, manifest)
    assert ask(url, "SELECT run_id, id FROM students") == [("17", "1")]


def test_rows_are_there_once_in_a_table_that_writes_the_column_of_the_run_in_capitals(
    tmp_path: Path, out: Path
) -> None:
    url = f"sqlite:///{tmp_path}/students.db"
    with sa.create_engine(url).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE students (RUN_ID TEXT, id TEXT)")
    manifest = published(out, "17", ("id",), ("1",))
    for _ in range(2):
        loaded(url, manifest)
    assert ask(url, "SELECT run_id, id FROM students") == [("17", "1")]


def test_a_column_whose_letter_beyond_ascii_is_of_the_other_case_is_another_one(
    url: str, out: Path
) -> None:
    loaded(url, published(out, "17", ("é",), ("1",)))
    loaded(url, published(out, "18", ("É", "é"), ("2", "3")))
    assert ask(url, 'SELECT "é", "É" FROM students ORDER BY run_id') == [("1", None), ("3", "2")]


def test_cells_come_as_they_are(url: str, out: Path) -> None:
    cells = ("\\N", "\\", "a\tb", "a\nb", "a\r\nb", '"', "'; --", "é😀", " ", "NULL", "%s", ":x")
    loaded(url, published(out, "17", ("cell",), *((cell,) for cell in cells)))
    found = {row[0] for row in ask(url, "SELECT cell FROM students")}
    assert found == set(cells)


def test_names_of_columns_come_as_they_are(url: str, out: Path) -> None:
    names = ODD if url.startswith("postgresql") else ODD[:-1]
    loaded(url, published(out, "17", names, tuple(map(str, range(len(names))))))
    loaded(url, published(out, "18", (*names, "new %% one"), tuple("x" for _ in [*names, ""])))
    inspector = sa.inspect(sa.create_engine(url))
    columns = [column["name"] for column in inspector.get_columns("students")]
    assert columns == ["run_id", *names, "new %% one"]
    assert [str(column["type"]) for column in inspector.get_columns("students")] == ["TEXT"] * len(
        columns
    )


@pytest.mark.exhaustive
def test_a_column_that_is_new_is_added_or_refused_and_one_that_is_missing_is_empty(
    url: str, out: Path
) -> None:
    loaded(url, published(out, "17", ("id", "name"), ("1", "Ann")))
    wider = published(out, "18", ("score", "id"), ("7", "2"))
    said = refused(url, wider, "--new-columns", "refuse")
    assert "table students has no column 'score'" in said
    loaded(url, wider)
    rows = ask(url, "SELECT run_id, id, name, score FROM students ORDER BY run_id")
    assert rows == [("17", "1", "Ann", None), ("18", "2", None, "7")]


def test_a_run_that_published_no_row_takes_out_what_was_there(url: str, out: Path) -> None:
    manifest = published(out, "17", ("id",), ("1",))
    loaded(url, manifest)
    manifest.write_text(json.dumps({"run_id": "17", "outputs": []}))
    loaded(url, manifest)
    assert ask(url, "SELECT count(*) FROM students") == [(0,)]


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (("id", "run_id"), "two columns are named 'run_id'; choose another --run-id-column"),
        (("id", "id"), "two columns are named 'id' for this database"),
        (("id", ""), "a column has no name"),
    ],
)
def test_names_that_a_table_cannot_have_are_refused_and_nothing_is_changed(
    url: str, out: Path, header: tuple[str, ...], why: str
) -> None:
    assert why in refused(url, published(out, "17", header, ("1", "2")))
    assert not sa.inspect(sa.create_engine(url)).has_table("students")


def test_the_column_of_the_run_may_have_another_name(url: str, out: Path) -> None:
    manifest = published(out, "17", ("run_id",), ("1",))
    for _ in range(2):
        loaded(url, manifest, "--run-id-column", "ds_flow_run")
    assert ask(url, "SELECT ds_flow_run, run_id FROM students") == [("17", "1")]


def test_names_that_the_database_would_take_for_one_another_are_refused(
    url: str, out: Path
) -> None:
    if url.startswith("sqlite"):
        assert "two columns are named" in refused(
            url, published(out, "17", ("id", "ID"), ("1", "2"))
        )
    else:
        long = "x" * 64
        assert "is longer than 63 bytes" in refused(url, published(out, "17", (long,), ("1",)))


def test_bytes_or_rows_that_are_not_those_of_the_manifest_leave_the_table_as_it_was(
    url: str, out: Path
) -> None:
    loaded(url, published(out, "17", ("id",), ("1",)))
    assert "3 rows, and 9 in its manifest" in refused(
        url, published(out, "17", ("id",), ("2",), ("3",), ("4",), told=9)
    )
    changed = published(out, "17", ("id",), ("2",))
    (out / "final_combined_17.csv").write_text("id\n3\n")
    assert "its bytes are not those that were published" in refused(url, changed)
    assert ask(url, "SELECT id FROM students") == [("1",)]


def test_a_database_that_is_not_there_is_said_in_one_line(out: Path, tmp_path: Path) -> None:
    manifest = published(out, "17", ("id",), ("1",))
    for address in (f"sqlite:///{tmp_path}/no/such.db", f"postgresql://u:pw@/x?host={tmp_path}"):
        said = refused(address, manifest)
        assert said.startswith("the database: ")
        assert said.count("\n") == 1
        assert "pw" not in said
    assert "is not like postgresql" in refused("nonsense", manifest)
    assert "SQL_URL is not set" in refused("", manifest)


@pytest.mark.exhaustive
def test_a_large_run_is_loaded_in_bounded_memory(url: str, out: Path) -> None:
    combined, rows = out / "final_combined_17.csv", 300_000
    with combined.open("w") as file:
        file.write("id,text\n")
        file.writelines(f"{number},{'x' * 400}\n" for number in range(rows))
    manifest = manifest_of(combined, "17", rows)
    small = load(url, published(out, "18", ("id", "text"), ("1", "x")), megabytes=400)
    assert small.returncode == 0, small.stderr
    large = load(url, manifest, megabytes=400)
    assert large.returncode == 0, large.stderr
    assert ask(url, "SELECT count(DISTINCT id) FROM students WHERE run_id = '17'") == [(rows,)]


# --------------------------------------------------------------------------- when things die


@pytest.mark.exhaustive
def loading(folder: Path, server: Postgres) -> real.Project:
    """A project that hands each run over to the database."""
    command = ["python3", str(SCRIPT), "--table", "students"]
    project = real.Project(folder, publish={"then": [command], "retry_first_seconds": 0.2})
    project.environment["SQL_URL"] = server.url
    project.environment["DS_FLOW_RUN__INHERIT"] = '["SQL_URL"]'
    return project


def test_every_row_is_there_once_though_server_daemon_and_loader_die(tmp_path: Path) -> None:
    with postgres() as server:
        project = loading(tmp_path, server)
        try:
            project.drop("student_a.csv", real.table("a"))
            project.start()
            project.wait_processed("student_a.csv")
            until("the first run was loaded", lambda: is_loaded(project))

            with psycopg.connect(host=str(server.folder), user=OWNER, dbname="postgres") as one:
                one.execute("CREATE UNIQUE INDEX once ON students (id)")
            with locked(server, "b-1"):
                project.drop("student_b.csv", real.table("b"))
                until("the second run was being loaded", lambda: waits(server))
                project.wait_processed("student_b.csv")
                server.kill()  # in the middle of a delivery
                with_failure(project)
                project.kill()
                project.drop("student_c.csv", real.table("c"))
                project.start()  # while the database is down
                project.wait_processed("student_c.csv")
                with_failure(project)
            server.start()
            until("all runs were loaded", lambda: is_loaded(project))

            with locked(server, "d-1"):
                project.drop("student_d.csv", real.table("d"))
                until("a run was being loaded", lambda: waits(server))
                project.wait_processed("student_d.csv")
                project.kill()
                until("the loader was gone", lambda: not project.processes("load_sql"))
            project.start()
            until("all runs were loaded", lambda: is_loaded(project))
            found = sorted(row[0] for row in ask(server.url, "SELECT id FROM students"))
            assert found == sorted(one for name in "abcd" for one in real.ids(name))
            project.signal(signal.SIGTERM)
            project.stopped()
        finally:
            project.end_everything()


@contextmanager
def locked(server: Postgres, row: str) -> Iterator[None]:
    """Let whoever loads wait in the middle of it: at this row, which is taken for now."""
    other = psycopg.connect(host=str(server.folder), user=OWNER, dbname="postgres")
    with suppress(psycopg.OperationalError), other:  # the server may be killed meanwhile
        other.execute("INSERT INTO students (id) VALUES (%s)", (row,))
        yield
        other.rollback()


def waits(server: Postgres) -> bool:
    """Whether somebody waits for a row of another."""
    return ask(server.url, "SELECT count(*) FROM pg_locks WHERE NOT granted") != [(0,)]


def with_failure(project: real.Project) -> None:
    """Wait until a delivery has failed."""

    def has_failed() -> bool:
        runs = json.loads(project.ds_flow("runs", "--json").stdout)["runs"]
        return any(one["failures"] for run in runs for one in run["deliveries"])

    until("a delivery had failed", has_failed)


def is_loaded(project: real.Project) -> bool:
    """Whether the command has taken all runs."""
    runs = json.loads(project.ds_flow("runs", "--json").stdout)["runs"]
    return all(one["state"] == "done" for run in runs for one in run["deliveries"])
