"""What a file holds, found out while it passes."""

import pyarrow as pa
import pytest

from csv_io.table import TEXT
from ds_flow.core.families import COMPARED_COLUMNS
from steps.profile import Profiler, count_empty


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
