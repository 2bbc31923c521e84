"""What cells look like, and that nothing is shown that should not be."""

import json
from typing import Any

import pytest

from steps.column_profile import CELL_CHARACTERS, COLUMNS, FIRST_ROWS, checked, describe


def one(*cells: str, hidden: tuple[str, ...] = (), rows: int | None = None) -> dict[str, Any]:
    """The description of a single column."""
    count = len(cells) if rows is None else rows
    made = describe(["score"], [cells], rows=count, empty=None, hidden=hidden)
    assert json.loads(json.dumps(made)) == checked(made, hidden) == made
    column: dict[str, Any] = made["columns"][0]
    return column


@pytest.mark.parametrize(
    ("cells", "looks_like", "smallest", "largest"),
    [
        (("10", "9", "-1", ""), "whole number", "-1", "10"),
        (("007", "+8"), "whole number", "007", "+8"),
        (("10", "9.5", "1e3"), "number", "9.5", "1e3"),
        (("10,5", "9"), "number", "9", "10,5"),
        (("2026-11-28", "2026-02-01"), "date", "2026-02-01", "2026-11-28"),
        (("2026-11-28T02:15:00Z",), "date", "2026-11-28T02:15:00Z", "2026-11-28T02:15:00Z"),
        (("28.11.2026", "1.12.2025"), "date", "1.12.2025", "28.11.2026"),
        (("10", "9", "NA"), "text", "10", "NA"),
        (("1" * 5000, "2"), "text", "1" * CELL_CHARACTERS, "2"),
        (("", ""), "empty", None, None),
        ((), "empty", None, None),
    ],
)
def test_a_column_looks_like_what_all_of_its_cells_are(
    cells: tuple[str, ...], looks_like: str, smallest: str | None, largest: str | None
) -> None:
    found = one(*cells)
    assert (found["looks_like"], found["smallest"], found["largest"]) == (
        looks_like,
        smallest,
        largest,
    )
    assert found["distinct"] == len(set(cells) - {""})
    assert found["approximate"] is False


def test_a_column_of_which_some_rows_were_looked_at_says_so() -> None:
    assert one("1", "2", rows=100)["approximate"] is True


def test_a_hidden_column_shows_no_value() -> None:
    made = describe(
        ["id", "Last Name"],
        [["1", "2"], ["Quentin", ""]],
        rows=2,
        empty=[0, 1],
        hidden=["last_name"],
    )
    assert "Quentin" not in json.dumps(made)
    assert made["first_rows"] == [["1", None], ["2", None]]
    assert (made["columns"][1]["empty"], made["columns"][1]["distinct"]) == (0.5, 1)


def test_a_wide_table_of_long_cells_has_a_short_description() -> None:
    names = [str(number) * 1000 for number in range(COLUMNS * 3)]
    cells = [["x" * 10_000] * 50] * COLUMNS
    made = describe(names, cells, rows=50, empty=None, hidden=[])
    assert len(json.dumps(made)) < 100_000
    assert made["columns_left_out"] == 2 * COLUMNS
    assert len(made["first_rows"]) == FIRST_ROWS


GOOD = describe(["a", "b"], [["1"], ["2"]], rows=1, empty=None, hidden=[])


@pytest.mark.parametrize(
    "made",
    [
        None,
        [],
        {},
        "text",
        {**GOOD, "rows": "many"},
        {**GOOD, "rows": float("inf")},
        {**GOOD, "columns": [{**GOOD["columns"][0], "empty": 10**400}]},
        {**GOOD, "columns": None},
        {**GOOD, "columns": [1]},
        {**GOOD, "first_rows": [[1, 2]]},
        {**GOOD, "first_rows": [["1"]]},
    ],
)
def test_what_is_no_description_is_not_taken_over(made: Any) -> None:
    assert checked(made, []) is None


def test_what_a_job_has_left_is_cut_and_hidden_again() -> None:
    column = {**GOOD["columns"][0], "smallest": "x" * 10**6, "looks_like": "<b>", "more": "y"}
    left = {**GOOD, "columns": [column, GOOD["columns"][1]], "first_rows": [["x" * 10**6, "2"]] * 9}
    made = checked({**left, "more": "z" * 10**6}, ["b"])
    assert made is not None
    assert len(json.dumps(made)) < 3000
    assert made["columns"][0]["looks_like"] == "text"
    assert [row[1] for row in made["first_rows"]] == [None] * FIRST_ROWS
    assert made["columns"][1]["largest"] is None
