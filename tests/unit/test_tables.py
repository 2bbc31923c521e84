"""Tables: whole in a pipe, and no wider than a terminal for a person."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_flow.core.wording import ago
from terminal import in_terminal, plain

PUT = "import sys; from ds_flow.system import put_table, speak_utf8; speak_utf8(); put_table({})"
REASON = "line 3: 2 cells, but the header has 3 columns; mend the line, then drop the file again"
NAME = "data/student_with_a_long_name_of_a_school_2026-11-29.csv"


def shown(*table: object, columns: int = 80) -> list[str]:
    code = PUT.format(", ".join(map(repr, table)))
    seen = in_terminal([sys.executable, "-c", code], ("COLUMNS", str(columns)))
    return plain(seen.decode()).splitlines()


def test_what_fits_stands_in_one_line() -> None:
    rows = [["a.csv", 1, "failed", "too few"]]
    assert shown(("path", "version", "state", "reason"), rows) == [
        "path   version  state   reason",
        "a.csv  1        failed  too few",
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_reason_stands_below_its_row_and_breaks_between_words(columns: int) -> None:
    rows = [["a.csv", "failed", REASON], ["b.csv", "succeeded", None], [NAME, "failed", REASON]]
    heading, first, *lines = shown(("path", "state", "reason"), rows, columns=columns)
    assert (heading.split(), first.split()) == (["path", "state"], ["a.csv", "failed"])
    assert max(map(len, (heading, first, *lines))) <= columns
    notes = [line for line in lines if line.startswith("    ")]
    assert " ".join(" ".join(notes).split()) == f"{REASON} {REASON}"
    assert len(lines) == len(notes) + 2


def test_a_name_is_cut_in_its_middle_but_a_run_id_never() -> None:
    headings = ("path", "run_id", "sha256", "state")
    row = [NAME, "1764444444111111", "0123456789abcdef" * 4, "processed"]
    _, line = shown(headings, [row], columns=64)
    path, run_id, sha256, state = line.split()
    assert path.startswith("data/stud")
    assert path.endswith("29.csv")
    assert "…" in path
    assert (run_id, sha256, state) == ("1764444444111111", "0123…cdef", "processed")


def test_a_wide_character_takes_two_columns() -> None:
    assert shown(("path", "state"), [["漢字.csv", "ok"], ["abc.csv", "ok"]]) == [
        "path      state",
        "漢字.csv  ok",
        "abc.csv   ok",
    ]


NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("span", "told"),
    [
        (timedelta(0), "0 s ago"),
        (timedelta(seconds=89), "89 s ago"),
        (timedelta(seconds=90), "1 min ago"),
        (timedelta(minutes=90), "1 h ago"),
        (timedelta(hours=36), "1 days ago"),
        (timedelta(hours=-5), "in 5 h"),
        (timedelta(days=60), "2026-04-02"),
    ],
)
def test_a_time_is_told_by_how_far_it_is(span: timedelta, told: str) -> None:
    assert ago((NOON - span).isoformat(), NOON) == told


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_any_time_is_told_shortly(then: datetime, now: datetime) -> None:
    assert 0 < len(ago(then.isoformat(), now)) <= 10


def test_a_sentence_breaks_between_words_on_a_terminal_and_is_whole_in_a_pipe() -> None:
    code = f"from ds_flow.system import put_sentence; put_sentence({REASON!r})"
    argv = [sys.executable, "-c", code]
    lines = in_terminal(argv, ("COLUMNS", "40")).decode().splitlines()
    assert " ".join(lines) == REASON
    assert max(map(len, lines)) <= 40
    piped = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert piped == f"{REASON}\n"
