"""What a file holds, found out while it passes."""

from dataclasses import replace

import pyarrow as pa
import pytest

from csv_io.table import TEXT
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
