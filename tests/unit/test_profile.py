"""What a file holds, found out while it passes."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from csv_io import records
from csv_io.records import Records
from csv_io.table import TEXT, Lines, Rows, Source, read_rows, read_tables
from ds_flow.core.families import COMPARED_COLUMNS
from samples import PLAN, planned
from steps.profile import FILES, LEAST_ROWS, ROWS, Profiler, count_empty, rows_of_each


@pytest.mark.parametrize(
    ("cells", "count"), [([], 0), ([""], 1), (["", "a", ""], 2), (["a", " ", "0"], 0)]
)
def test_empty_cells_are_counted_in_any_part_of_an_array(cells: list[str], count: int) -> None:
    whole = pa.array(["", "x", *cells, "", "y"], TEXT)
    assert count_empty(whole.slice(2, len(cells))) == count
    assert count_empty(pa.chunked_array([whole, whole.slice(1)], TEXT)) == 2 * count + 3


def test_the_pieces_of_a_file_add_up() -> None:
    profiler = Profiler()
    for cells in (["1", ""], ["", ""], []):
        profiler.add(pa.table({"a": pa.array(cells, TEXT), "b": pa.array(cells[::-1], TEXT)}))
    assert (profiler.header, profiler.empty, profiler.rows) == (("a", "b"), (3, 3), 4)


def test_a_table_that_is_too_wide_to_be_compared_has_only_its_rows_counted() -> None:
    profiler = Profiler()
    profiler.add(pa.table({str(n): pa.array([""], TEXT) for n in range(COMPARED_COLUMNS + 1)}))
    assert (profiler.header, profiler.empty, profiler.rows) == ((), (), 1)
    assert profiler.profile([]) is None


def numbers(first: int, count: int) -> pa.Table:
    return pa.table({"n": pa.array(map(str, range(first, first + count)), TEXT)})


def test_a_file_of_few_rows_is_looked_at_whole_in_whatever_pieces_it_comes() -> None:
    profiler = Profiler(30)
    for first in (0, 10, 20):
        profiler.add(numbers(first, 10))
    made = profiler.profile([])
    assert made is not None
    assert (made["rows"], made["rows_looked_at"]) == (30, 30)
    column = made["columns"][0]
    assert (column["distinct"], column["smallest"], column["largest"]) == (30, "0", "29")
    assert column["approximate"] is False
    assert made["first_rows"] == [["0"], ["1"], ["2"], ["3"], ["4"]]


def test_of_a_file_of_many_rows_some_are_looked_at_from_its_start_to_its_end() -> None:
    profiler = Profiler(100)
    for first in (0, 1_000_000):
        profiler.add(numbers(first, 1_000_000))
    made = profiler.profile([])
    assert made is not None
    assert made["rows"] == 2_000_000
    assert made["rows_looked_at"] == 100 + 2 * 2000
    column = made["columns"][0]
    assert (column["smallest"], column["largest"]) == ("0", "1999999")
    assert column["approximate"] is True


def test_the_first_files_of_a_batch_get_a_profile_and_share_the_rows() -> None:
    files = tuple(planned(str(number)) for number in range(1000))
    found = rows_of_each(replace(PLAN, files=files))
    assert found == dict.fromkeys((one.path for one in files[:FILES]), LEAST_ROWS)
    assert rows_of_each(replace(PLAN, files=files[:4])) == {
        one.path: ROWS // 4 for one in files[:4]
    }


def test_no_file_gets_a_profile_if_the_settings_want_none() -> None:
    plan = replace(PLAN, options=replace(PLAN.options, profile=False))
    assert rows_of_each(plan) == {}


# --------------------------------------------------------------------------- lines and tables

CELLS = st.sampled_from(["", "", "1", "20", "a", " ", ",", ";", "é", "-1.5", '"', "\n"])
TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=8)
)


@dataclass(frozen=True)
class Text:
    """A table as somebody may have written it."""

    table: list[list[str]]
    delimiter: str = ","
    end: str = "\n"
    has_last_end: bool = True
    has_unnamed: bool = False  # an empty column at its end
    block_bytes: int = 60

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(f"n{number}" for number in range(len(self.table[0]) if self.table else 3))

    @property
    def rows(self) -> list[list[str]]:
        """Without those that are blank lines."""
        return [row for row in self.table if row != [""] or self.has_unnamed]

    def records(self) -> Records:
        """Read it in blocks, although it is shorter than what is looked at first."""
        rows = [[*row, *[""] * self.has_unnamed] for row in [list(self.header), *self.table]]
        lines = [self.delimiter.join(map(self._written, row)) for row in rows]
        content = (self.end.join(lines) + self.end * self.has_last_end).encode()
        source = Source(io.BytesIO(content), self.block_bytes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records, "SAMPLE_BYTES", len(",".join(self.header)) + 4)
            return Records(source, delimiter=self.delimiter, encoding="utf-8")

    def _written(self, cell: str) -> str:
        is_quoted = any(mark in cell for mark in (self.delimiter, '"', "\n"))
        return '"' + cell.replace('"', '""') + '"' if is_quoted else cell


def profiled(rows: Iterable[Rows], least_rows: int) -> Profiler:
    profiler = Profiler(least_rows)
    for some in rows:
        profiler.add(some)
    return profiler


@given(
    st.builds(
        Text,
        table=TABLES,
        delimiter=st.sampled_from(",;\t|:"),
        end=st.sampled_from(["\n", "\r\n", "\r\r\n", "\r"]),
        has_last_end=st.booleans(),
        has_unnamed=st.booleans(),
        block_bytes=st.integers(1, 60),
    )
)
@example(Text([["1", "2"], ["", "3"]]))
@example(Text([["1", "2"], ["3", ""]]))
@example(Text([["1", "", "2"]]))
@example(Text([["", "2"]]))
@example(Text([["a", ""], ["", ""]], ";", "\r\r\n"))
@example(Text([["a", ""], ["", "b"]], end="\r\n", has_unnamed=True))
@example(Text([["", ""]], has_last_end=False, block_bytes=3))
@example(Text([], end="\r\n"))
@example(Text([["1"], [""], ["2"]], end="\r\r\n"))
def test_a_file_has_the_same_profile_whether_its_rows_come_as_lines_or_as_tables(
    text: Text,
) -> None:
    least = len(text.table)
    as_lines = profiled(read_rows(text.records()), least)
    as_tables = profiled(read_tables(text.records()), least)
    empty = tuple(sum(row[n] == "" for row in text.rows) for n in range(len(text.header)))
    for made in (as_lines, as_tables):
        assert (made.header, made.empty, made.rows) == (text.header, empty, len(text.rows))
    assert as_lines.profile(["n1"]) == as_tables.profile(["n1"])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_a_hidden_column_is_hidden_in_rows_that_come_as_lines(end: str) -> None:
    text = Text([["1", "Quentin", ""], ["2", "", ""]], ";", end)
    rows = list(read_rows(text.records()))
    assert any(isinstance(some, Lines) and len(some.bounds) == 3 for some in rows)
    made = profiled(rows, 9).profile(["N 1"])
    assert made is not None
    assert "Quentin" not in str(made)
    assert made["first_rows"] == [["1", None, ""], ["2", None, ""]]
    assert [column["empty"] for column in made["columns"]] == [0, 0.5, 1]
