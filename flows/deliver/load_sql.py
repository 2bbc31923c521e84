"""Load what a run has published into a table of a database. For publish.then.

The database's address is in the variable SQL_URL, so that no password is an argument. All cells are
text; a column says of which run a row is. One transaction replaces all rows of the run. So it may
be killed at any moment and run again, and each row is there once.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

try:
    import sqlalchemy as sa
    from sqlalchemy import exc
except ImportError:
    sys.exit("load_sql needs sqlalchemy, and psycopg for PostgreSQL: install ds-flow[sql]")

ROWS_AT_ONCE = 1000
LONGEST_CELL = 2**30
COMBINED = "final_combined_"
NAME_BYTES = 63  # of PostgreSQL, which cuts off the rest of a longer name without an error


class RefusalError(Exception):
    """A person must change something: the file, the table or the arguments."""


class Hashed(io.RawIOBase):
    """A file, and the SHA-256 of what was read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self.sha256.update(memoryview(buffer)[:count])
        return int(count)


def main(arguments: Sequence[str]) -> str:
    """Load one run; what was done."""
    args = parser().parse_args(arguments)
    manifest = json.loads(Path(args.manifest).read_text(encoding="utf-8"))
    address = os.environ.get(args.url_variable)
    if not address:
        raise RefusalError(f"{args.url_variable} is not set: put the database's address into .env")
    engine = make_engine(address)
    with engine.begin() as connection:
        loader = Loader(connection, args, str(manifest["run_id"]))
        rows = sum(loader.load(Path(args.manifest).parent, one) for one in chosen(manifest))
        return f"run {manifest['run_id']}: {rows} rows in {args.table}"


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    made.add_argument("--table", required=True, help="the table; it is made if it is missing")
    made.add_argument("--schema", help="its schema, which must be there")
    made.add_argument("--url-variable", default="SQL_URL", help="which variable has the address")
    made.add_argument("--run-id-column", default="run_id", help="the column for the Run ID")
    made.add_argument(
        "--new-columns",
        choices=("add", "refuse"),
        default="add",
        help="what to do about columns that the table lacks",
    )
    made.add_argument("manifest", help="manifest_<RunID>.json, beside its outputs")
    return made


def chosen(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The combined file: it has all rows. A run that published no row has none.

    It may be there as Parquet, too, with the same rows.
    """
    name = f"{COMBINED}{manifest['run_id']}.csv"
    return [one for one in manifest["outputs"] if one["name"] == name]


def make_engine(address: str) -> sa.Engine:
    """Connect when needed, and never hold a connection that has gone."""
    try:
        engine = sa.create_engine(address, poolclass=sa.NullPool)
    except exc.ArgumentError:
        raise RefusalError(
            "the database's address is not like postgresql://user@host/name"
        ) from None
    if engine.dialect.name == "sqlite":  # its module begins no transaction for CREATE and ALTER

        @sa.event.listens_for(engine, "connect")
        def _no_own_transactions(connection: Any, _: object) -> None:
            connection.isolation_level = None

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class Loader:
    """Loads files of one run within one transaction."""

    def __init__(self, connection: sa.Connection, args: argparse.Namespace, run_id: str) -> None:
        self._connection = connection
        self._args = args
        self._run_id = run_id
        self._delete_rows()

    def load(self, folder: Path, output: dict[str, Any]) -> int:
        """Insert all rows of an output; how many. Raises RefusalError if it was changed."""
        path = folder / output["name"]
        with reading(path) as (text, hashed):
            rows = csv.reader(text, strict=True)
            columns = next(rows, [])
            table = self._table(columns, path)
            count = self._insert(table, rows)
            while text.read(2**20):
                pass
        if hashed.sha256.hexdigest() != output["sha256"]:
            raise RefusalError(f"{path}: its bytes are not those that were published")
        if count != output["rows"]:
            raise RefusalError(f"{path}: {count} rows, and {output['rows']} in its manifest")
        return count

    def _delete_rows(self) -> None:
        """Take out what an earlier try has committed, if the table is there."""
        own = self._args.run_id_column
        if self._folded(own) in map(self._folded, self._known()):
            table = self._of([own])
            self._connection.execute(table.delete().where(table.c.c0 == self._run_id))

    def _known(self) -> list[str]:
        """The table's columns; none if it is missing."""
        inspector = sa.inspect(self._connection)
        if not inspector.has_table(self._args.table, self._args.schema):
            return []
        found = inspector.get_columns(self._args.table, self._args.schema)
        return [str(column["name"]) for column in found]

    def _folded(self, name: str) -> str:
        """A column's name, so that two are equal if the database takes them for one another."""
        return folded(name, self._connection.dialect.name)

    def _of(self, columns: Sequence[str]) -> sa.Table:
        """The table with these columns. Their keys are plain, whatever their names are."""
        made = [sa.Column(name, sa.Text, key=f"c{n}") for n, name in enumerate(columns)]
        return sa.Table(self._args.table, sa.MetaData(schema=self._args.schema), *made)

    def _table(self, columns: Sequence[str], path: Path) -> sa.Table:
        """Make the table, or add what it lacks. Raises RefusalError."""
        own = self._args.run_id_column
        refuse_names(columns, own, self._connection.dialect.name, path)
        known, table = self._known(), self._of([own, *columns])
        if not known:
            table.create(self._connection)
            name = f"{self._args.table[:40]}_{own[:16]}"
            sa.Index(name, table.c.c0).create(self._connection)
            return table
        there = set(map(self._folded, known))
        new = [name for name in (own, *columns) if self._folded(name) not in there]
        if new and self._args.new_columns == "refuse":
            raise RefusalError(
                f"{path}: table {self._args.table} has no column {new[0]!r}; add it, or allow"
                " --new-columns add"
            )
        preparer = self._connection.dialect.identifier_preparer
        target = preparer.format_table(table)
        for name in new:
            statement = f"ALTER TABLE {target} ADD COLUMN {preparer.quote_identifier(name)} TEXT"
            self._connection.exec_driver_sql(statement)
        return table

    def _insert(self, table: sa.Table, rows: Iterator[list[str]]) -> int:
        driver = self._connection.dialect.driver
        return (self._copy if driver == "psycopg" else self._execute)(table, rows)

    def _copy(self, table: sa.Table, rows: Iterator[list[str]]) -> int:
        """PostgreSQL's own way, which takes a stream."""
        preparer = self._connection.dialect.identifier_preparer
        names = ", ".join(preparer.quote_identifier(column.name) for column in table.columns)
        statement = f"COPY {preparer.format_table(table)} ({names}) FROM STDIN"
        statement = statement.replace("%%", "%")  # doubled for statements that have parameters
        count, raw = 0, cast("Any", self._connection.connection)
        try:
            with raw.cursor() as cursor, cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row((self._run_id, *row))
                    count += 1
        except raw.dbapi_connection.Error as error:
            raise RefusalError(said(error)) from error
        return count

    def _execute(self, table: sa.Table, rows: Iterator[list[str]]) -> int:
        keys = [column.key for column in table.columns]
        count = 0
        while some := list(islice(rows, ROWS_AT_ONCE)):
            values = [dict(zip(keys, (self._run_id, *row), strict=True)) for row in some]
            self._connection.execute(table.insert(), values)
            count += len(some)
        return count


def folded(name: str, dialect: str) -> str:
    """A name as a database compares it. For SQLite, only letters of ASCII have no case."""
    return name.encode().lower().decode() if dialect == "sqlite" else name


def refuse_names(columns: Sequence[str], own: str, dialect: str, path: Path) -> None:
    """Raise RefusalError for names that a table cannot have, or that would be another column's."""
    seen: set[str] = set()
    for name in (own, *columns):
        if not name:
            raise RefusalError(f"{path}: a column has no name")
        if folded(name, dialect) in seen:
            other = "; choose another --run-id-column" if name == own else " for this database"
            raise RefusalError(f"{path}: two columns are named {name!r}{other}")
        if dialect == "postgresql" and len(name.encode()) > NAME_BYTES:
            raise RefusalError(f"{path}: the name {name!r} is longer than {NAME_BYTES} bytes")
        seen.add(folded(name, dialect))


@contextmanager
def reading(path: Path) -> Iterator[tuple[io.TextIOWrapper, Hashed]]:
    """Read a file once, as text and for its hash."""
    csv.field_size_limit(LONGEST_CELL)
    with path.open("rb", buffering=0) as file:
        hashed = Hashed(file)
        yield io.TextIOWrapper(io.BufferedReader(hashed), encoding="utf-8", newline=""), hashed


def said(error: object) -> str:
    """What the database says, in one line."""
    return f"the database: {' '.join(str(error).split())}"


def run(arguments: Sequence[str]) -> int:
    """Load, and say in one line what was done or why not."""
    try:
        print(main(arguments))
    except (RefusalError, OSError, ValueError, KeyError, csv.Error) as error:
        print(f"no {error}" if isinstance(error, KeyError) else error, file=sys.stderr)
        return 1
    except exc.SQLAlchemyError as error:
        print(said(getattr(error, "orig", None) or error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
