"""Parquet files as pandas and Arrow write them: each cell as one text, or refused by its column."""

import io
import resource
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csv_io import parquet
from csv_io.allowance import Allowance, little_memory
from csv_io.errors import TableError
from csv_io.records import Records
from csv_io.table import read_tables, to_frame
from formats import read, read_apart, run_apart

NOON = datetime(2024, 2, 29, 12, 30, 15)  # noqa: DTZ001 - no zone is the case


def put(folder: Path, table: pa.Table, **how: Any) -> Path:
    path = folder / "a.parquet"
    pq.write_table(table, path, **how)
    return path


CELLS: dict[str, tuple[list[Any], pa.DataType, list[str]]] = {
    "text": (["007", "NA", "", None, 'a,"b"\r\n', "Zoë"], pa.string(), []),
    "text of another layout": (["x", None, "y" * 50], pa.string_view(), ["x", "", "y" * 50]),
    "bytes of another layout": ([b"x", None], pa.binary_view(), ["x", ""]),
    "large text": (["x", None], pa.large_string(), ["x", ""]),
    "whole numbers": ([1, -(2**63), None], pa.int64(), ["1", str(-(2**63)), ""]),
    "numbers without a sign": ([2**64 - 1], pa.uint64(), [str(2**64 - 1)]),
    "floating point": ([1.0, 0.1, 1e-10, 123456789.123], pa.float64(), ["1", "0.1", "1e-10"]),
    "short floating point": ([0.1, 2.0], pa.float32(), ["0.1", "2"]),
    "truth": ([True, False, None], pa.bool_(), ["true", "false", ""]),
    "decimals": ([Decimal("1.10"), Decimal("-0.05")], pa.decimal128(9, 2), ["1.10", "-0.05"]),
    "large decimals": ([Decimal(10) ** 60], pa.decimal256(70, 0), [str(10**60)]),
    "days": ([date(2024, 2, 29), date(1, 1, 1)], pa.date32(), ["2024-02-29", "0001-01-01"]),
    "seconds": ([NOON], pa.timestamp("ms"), ["2024-02-29T12:30:15"]),
    "microseconds": (
        [NOON.replace(microsecond=250000)],
        pa.timestamp("us"),
        ["2024-02-29T12:30:15.25"],
    ),
    "nanoseconds": ([1], pa.timestamp("ns"), ["1970-01-01T00:00:00.000000001"]),
    "a zone": (
        [NOON.replace(tzinfo=ZoneInfo("Europe/Berlin"))],
        pa.timestamp("us", "Europe/Berlin"),
        ["2024-02-29T11:30:15Z"],
    ),
    "times": ([time(1, 2, 3), None], pa.time64("us"), ["01:02:03", ""]),
    "nothing": ([None, None], pa.null(), ["", ""]),
    "bytes that are text": ([b"Zo\xc3\xab", None], pa.binary(), ["Zoë", ""]),
    "categories": (["a", "b", "a"], pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a"]),
    "categories of numbers": ([1, 2, 1], pa.dictionary(pa.int8(), pa.int32()), ["1", "2", "1"]),
}


@pytest.mark.parametrize("dictionary", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize(("values", "kind", "texts"), CELLS.values(), ids=CELLS)
def test_a_cell_is_one_text_and_none_is_rounded(
    tmp_path: Path, values: list[Any], kind: pa.DataType, texts: list[str], *, dictionary: bool
) -> None:
    table = pa.table({"n": range(len(values)), "cell": pa.array(values, kind)})
    path = put(tmp_path, table, use_dictionary=dictionary)
    found = [row[1] for row in read(path).rows[1:]]
    wanted = texts or ["" if value is None else value for value in values]
    assert found[: len(wanted)] == wanted
    assert len(found) == len(values)


def test_a_frame_of_pandas_is_read_as_it_was(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "name": ["Ann", None],
            "score": [1.5, float("nan")],
            "at": pd.to_datetime(["2024-01-02"] * 2),
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").rows == [
        ["name", "score", "at"],
        ["Ann", "1.5", "2024-01-02T00:00:00"],
        ["", "", "2024-01-02T00:00:00"],
    ]


@pytest.mark.parametrize("packed", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
def test_every_way_to_pack_is_read_row_group_by_row_group(tmp_path: Path, packed: str) -> None:
    table = pa.table({"n": pa.array(range(1000))})
    path = put(tmp_path, table, compression=packed, row_group_size=7)
    assert [row[0] for row in read(path).rows[1:]] == list(map(str, range(1000)))


def test_an_empty_cell_of_one_column_is_a_row(tmp_path: Path) -> None:
    path = put(tmp_path, pa.table({"n": pa.array(["", None, "\x1a"])}))
    assert read(path).rows == [["n"], [""], [""], ["\x1a"]]


def test_a_table_without_rows_is_a_table(tmp_path: Path) -> None:
    assert read(put(tmp_path, pa.table({"a": pa.array([], pa.int8())}))).rows == [["a"]]


ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=20), st.integers(1, 9))
def test_any_text_survives(rows: list[tuple[str, str]], group: int) -> None:
    columns = {"=a": [row[0] for row in rows], "sep=;": [row[1] for row in rows]}
    file = io.BytesIO()
    pq.write_table(
        pa.table(columns, pa.schema([("=a", pa.string()), ("sep=;", pa.string())])),
        file,
        row_group_size=group,
    )
    text = b"".join(parquet.parquet_text(file, Allowance(1, 100, 10)))
    tables = read_tables(Records([text], delimiter=",", encoding="utf-8"))
    assert [tuple(row) for table in tables for row in to_frame(table).to_numpy()] == rows


WRONG: dict[str, tuple[pa.Table, str]] = {
    "a list": (pa.table({"n": [1], "tags": [["a"]]}), "column 'tags' holds several values"),
    "a struct": (pa.table({"who": [{"a": 1}]}), "column 'who' holds several values"),
    "a map": (
        pa.table({"m": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8()))}),
        "column 'm' holds several values",
    ),
    "a span": (
        pa.table({"took": pa.array([timedelta(1)])}),
        "column 'took' is of the type duration[us], which is no text",
    ),
    "a time in no calendar": (
        pa.table({"at": pa.array([0, 10**12], pa.timestamp("s"))}),
        "column 'at' holds a time that is in no calendar",
    ),
    "a day in no calendar": (
        pa.table({"on": pa.array([10**8], pa.date32())}),
        "column 'on' holds a time that is in no calendar",
    ),
    "fixed bytes": (
        pa.table({"id": pa.array([b"1234"], pa.binary(4))}),
        "column 'id' is of the type fixed_size_binary[4]",
    ),
    "bytes that are no text": (
        pa.table({"n": [b"1"], "b": [b"\xff"]}),
        "column 'b' holds bytes that are not UTF-8; write it as text",
    ),
    "a name twice": (pa.table([[1], [2]], ["a", "a"]), "the header names 'a' twice"),
    "a NUL": (pa.table({"a": ["\0"]}), "line 2: a NUL byte"),
}


@pytest.mark.parametrize(("table", "reason"), WRONG.values(), ids=WRONG)
def test_what_is_no_table_of_texts_is_refused_with_its_column(
    tmp_path: Path, table: pa.Table, reason: str
) -> None:
    with pytest.raises(TableError) as error:
        read(put(tmp_path, table))
    assert reason in str(error.value)


def test_what_is_no_parquet_file_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(TableError, match="it is not a Parquet file; rename it"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(TableError, match="the file is empty"):
        read(path)


@pytest.mark.exhaustive
def test_memory_that_the_host_refuses_is_not_the_fault_of_a_file(tmp_path: Path) -> None:
    path = put(tmp_path, pa.table({"a": ["x" * 2**20] * 500}), use_dictionary=False)
    code = (
        "import resource, sys; from pathlib import Path; import pyarrow.parquet;"
        " from formats import said;"
        " used = int(Path('/proc/self/statm').read_text().split()[0]) * 4096;"
        " resource.setrlimit(resource.RLIMIT_AS, (used + 2**27,) * 2);"
        " print(said(Path(sys.argv[1]), 1000, 10**6))"
    )
    done = run_apart(code, path)
    assert done.stdout.startswith(("MemoryError", "ArrowMemoryError")), done.stdout


@pytest.mark.parametrize("size", [4, 100, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, size: int) -> None:
    path = put(tmp_path, pa.table({"a": range(1000)}))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        read(path)


def test_any_byte_that_is_wrong_is_told_or_of_no_weight(tmp_path: Path) -> None:
    path = put(tmp_path, pa.table({"a": range(10), "b": ["x"] * 10}))
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + b"\xa5" + content[place + 1 :])
        try:
            read(path)
        except TableError:
            continue


# --------------------------------------------------------------------------- bombs


@pytest.mark.exhaustive
def test_many_rows_of_nothing_are_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"a": pa.nulls(2**20, pa.string()), "b": pa.nulls(2**20, pa.string())})
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(64):
            writer.write_table(table)
    assert path.stat().st_size < 300_000
    said, memory_mb = read_apart(path)
    assert "csv.max_unpacked_ratio" in said
    assert memory_mb < 500


def test_a_long_text_in_very_many_rows_is_refused_in_little_memory(tmp_path: Path) -> None:
    long = pa.array(["x" * 2**20], pa.string())
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), long)
    path = put(tmp_path, pa.table({"a": cells}), dictionary_pagesize_limit=2**22)
    assert path.stat().st_size < 200_000
    said, memory_mb = read_apart(path)
    assert "csv.max_unpacked_ratio" in said
    assert memory_mb < 800


def test_a_row_of_too_much_text_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, pa.table({"a": ["x" * (2**24 + 1)]}), compression="none")
    with pytest.raises(TableError, match="over 16 MB"):
        read(path)


def test_what_a_file_claims_to_need_is_not_given() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(TableError, match="over 64 MB of memory"), little_memory(2**26):
        bytearray(2**28)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_times_are_as_they_are_whatever_the_zone_of_this_host_is(tmp_path: Path) -> None:
    at = pa.array([datetime(2024, 7, 1, tzinfo=UTC)], pa.timestamp("s", "America/New_York"))
    assert read(put(tmp_path, pa.table({"at": at}))).rows[1] == ["2024-07-01T00:00:00Z"]
