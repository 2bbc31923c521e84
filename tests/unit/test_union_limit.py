"""Which files fit into a combined file."""

from ds_flow.core.manifest import Rejected
from ds_flow.work.results import Result
from steps.union_limit import ROWS, fitting

APPENDED = ("processed_at", "source_file", "tag")


def result(path: str, *columns: str, rows: int = 1) -> Result:
    return Result(
        path=path,
        version=1,
        sha256="",
        bytes=1,
        rows=rows,
        columns=(*columns, *APPENDED),
        output=f"{path}.csv",
        output_sha256="",
        output_bytes=1,
    )


def left_out(max_columns: int, *results: Result) -> list[str]:
    found = fitting(results, max_columns)
    assert [one.path for one in found] == [one.path for one in results]
    return [one.path for one in found if isinstance(one, Rejected)]


def test_files_with_as_many_columns_as_are_allowed_between_them_all_fit() -> None:
    assert left_out(4, result("1", "a", "b"), result("2", "b", "c"), result("3", "d")) == []


def test_a_column_more_costs_the_file_whose_columns_fewest_have() -> None:
    files = [result("1", "x", "y"), result("2", "a", "b"), result("3", "a", "b")]

    assert left_out(3, *files) == ["1"]


def test_of_headers_that_as_many_files_have_the_narrow_ones_fit_first() -> None:
    assert left_out(3, result("1", "x", "y", "z"), result("2", "a"), result("3", "b")) == ["1"]


def test_a_file_that_does_not_fit_leaves_room_for_a_later_one() -> None:
    assert left_out(3, result("1", "a"), result("2", "a", "x", "y", "z"), result("3", "b")) == ["2"]


def test_a_file_alone_is_held_against_the_limit_too() -> None:
    assert left_out(2, result("1", "a", "b")) == []
    assert left_out(1, result("1", "a", "b")) == ["1"]


def test_empty_cells_for_a_few_rows_of_a_wide_file_are_limited() -> None:
    wide = result("1", *map(str, range(100)))

    assert left_out(100, wide, result("2", "0", rows=ROWS)) == []
    assert left_out(100, wide, result("2", "0", rows=2 * ROWS)) == ["1"]


def test_who_is_left_out_does_not_depend_on_the_order_of_the_files() -> None:
    files = [result("1", "x", "y", "z"), result("2", "a", rows=9), result("3", "b")]

    assert left_out(3, *files) == left_out(3, *reversed(files)) == ["1"]
