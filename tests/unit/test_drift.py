"""What is marked in a file, and that nothing else is."""

import random
from collections.abc import Iterable

import pytest

from ds_flow.core.drift import KNOWN_DAYS, MARKS_A_FILE, Comparison, Mark
from ds_flow.core.families import Family, Look

COLUMNS = ("id", "name", "class", "score", "note")
NAME = "data/student_north_#"


def look(*columns: str, rows: int = 100, empty: int | tuple[int, ...] = 0) -> Look:
    columns = columns or COLUMNS
    counts = empty if isinstance(empty, tuple) else (empty,) * len(columns)
    return Look(columns=columns, rows=rows, empty=counts)


def family(nights: Iterable[Look], first: int = 1) -> Family:
    found = Family()
    for day, one in enumerate(nights, start=first):
        found = found.with_file(one, f"2026-11-{day:02}")
    return found


def drift(name: str, before: Family, one: Look) -> list[Mark]:
    return Comparison(name, before).marks(one)


def marked(before: Family, one: Look) -> list[tuple[str, str]]:
    return [(mark.kind, mark.column) for mark in drift(NAME, before, one)]


def texts(before: Family, one: Look) -> list[str]:
    return [mark.text for mark in drift(NAME, before, one)]


USUAL = family([look()] * 25)


def test_a_file_like_those_before_it_has_no_mark() -> None:
    assert drift(NAME, USUAL, look()) == []


def test_the_first_file_of_a_family_has_no_mark() -> None:
    assert drift(NAME, Family(), look()) == []


def test_a_renamed_column_is_named_with_its_new_name_and_how_often_it_was_there() -> None:
    before = Family()
    for _ in range(41):
        before = before.with_file(look("id", "score"), "2026-11-28")

    assert drift(NAME, before, look("id", "Score")) == [
        Mark(
            kind="renamed",
            column="score",
            text="student_north: column `score` is missing; it was there in 41 of 41 files;"
            " a new column `Score` is there",
        )
    ]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (("id", "name", "class", "score"), [("missing", "note")]),
        ((*COLUMNS, "age"), [("new", "age")]),
        (("id", "name", "class", "Score ", "note"), [("renamed", "score")]),
        (("id", "name", "class", "points", "note"), [("renamed", "score")]),
        (("id", "full_name", "class", "points", "note"),
         [("missing", "name"), ("missing", "score"), ("new", "full_name"), ("new", "points")]),
        (("id", "name", "class", "note", "points"), [("missing", "score"), ("new", "points")]),
        (("id", "class", "name", "score", "note"), [("reordered", "class")]),
        (("id", "class", "Name", "score", "note"), [("renamed", "name"), ("reordered", "class")]),
        (("id", "note"), [("missing", "name"), ("missing", "class"), ("missing", "score")]),
    ],
)  # fmt: skip
def test_each_change_of_the_columns_is_marked_once(
    columns: tuple[str, ...], found: list[tuple[str, str]]
) -> None:
    assert marked(USUAL, look(*columns)) == found


def test_a_change_that_lasts_is_told_for_its_first_days_and_since_when() -> None:
    new = look("id", "name", "class", "Score", "note")
    nights = [look()] * 12
    told = []
    for night in range(13, 20):
        told.append([mark.since for mark in drift(NAME, family(nights), new)])
        nights.append(new)
        assert f"2026-11-{night:02}" == family(nights).days[-1].day

    assert told == [[""], ["2026-11-13"], ["2026-11-13"], [], [], [], []]
    assert KNOWN_DAYS == 3


def test_a_second_change_is_compared_with_what_the_first_one_has_made_known() -> None:
    second = ("id", "name", "class", "score", "note", "age")
    before = family([look()] * 15 + [look(*second)] * 5)
    assert marked(before, look(*second, "town")) == [("new", "town")]


def test_two_senders_with_unlike_columns_in_one_family_are_both_known() -> None:
    before = Family()
    for day in range(1, 11):
        for one in (look("id", "name"), look("nr", "score", "town")):
            before = before.with_file(one, f"2026-11-{day:02}")

    assert drift(NAME, before, look("id", "name")) == []
    assert drift(NAME, before, look("nr", "score", "town")) == []
    assert marked(before, look("nr", "score")) == [("missing", "town")]


@pytest.mark.parametrize("rows", [0, 50, 60, 160, 1000])
def test_a_number_of_rows_far_from_the_usual_one_is_marked(rows: int) -> None:
    assert marked(USUAL, look(rows=rows)) == [("rows", "")]
    counted = f"{rows:,} rows"
    assert texts(USUAL, look(rows=rows)) == [f"student_north: it has {counted}; 100 were usual"]


@pytest.mark.parametrize("rows", [75, 90, 110, 145])
def test_classes_may_grow_and_shrink(rows: int) -> None:
    assert drift(NAME, USUAL, look(rows=rows)) == []


def test_a_share_of_empty_cells_far_from_the_usual_one_is_marked() -> None:
    one = look(empty=(0, 0, 0, 50, 10))
    assert texts(USUAL, one) == [
        "student_north: 50% of the cells of column `score` are empty; 0% were usual"
    ]
    assert marked(family([one] * 25), look()) == [("empty", "score")]


def test_a_few_empty_cells_of_a_small_file_are_chance() -> None:
    small = family([look(rows=5, empty=(0, 0, 0, 1, 1))] * 5)
    assert drift(NAME, small, look(rows=5, empty=(0, 0, 0, 3, 0))) == []


def test_two_files_before_say_nothing_of_rows_and_empty_cells() -> None:
    odd = look("id", "name", rows=5, empty=5)
    assert marked(family([look("id", "name")] * 2), odd) == []
    assert marked(family([look("id", "name")] * 3), odd) != []
    assert marked(family([look("id")]), look("nr")) == [("renamed", "id")]


def test_a_name_with_an_accent_of_its_own_is_the_same_name_spelt_otherwise() -> None:
    found = marked(family([look("prénom", "id")]), look("id", "pre\u0301nom"))
    assert ("renamed", "prénom") in found


def test_a_larger_file_each_monday_becomes_known() -> None:
    nights = [look(rows=1000 if day % 7 == 2 else 100) for day in range(1, 31)]
    assert drift(NAME, family(nights), look(rows=1000)) == []
    assert drift(NAME, family(nights), look(rows=100)) == []
    assert marked(family(nights), look(rows=3000)) == [("rows", "")]


def test_one_bad_night_does_not_make_the_next_one_normal() -> None:
    bad = look(rows=40, empty=20)
    assert len(drift(NAME, family([*[look()] * 24, bad]), bad)) == 6


def test_many_marks_of_one_file_are_counted() -> None:
    before = family([look(*(f"c{n}" for n in range(100)))] * 3)
    found = drift(NAME, before, look("x"))
    assert len(found) == MARKS_A_FILE + 1
    assert found[-1].text == f"student_north: and {101 - MARKS_A_FILE} more"


def test_a_hostile_name_of_a_column_is_cut_and_shown_escaped() -> None:
    (mark,) = drift(NAME, USUAL, look(*COLUMNS, "\x1b[2J" + "x" * 10_000))
    assert "\x1b" not in mark.text
    assert len(mark.text) < 200


def night(random_: random.Random, columns: tuple[str, ...] = COLUMNS) -> Look:
    """A night of a school: classes differ by a tenth, and a fifth of the notes is empty."""
    rows = random_.randint(90, 110)
    usual = {"name": 0, "class": 0.03, "note": 0.2}
    empty = tuple(
        sum(random_.random() < usual.get(name, 0.01) for _ in range(rows)) for name in columns
    )
    return Look(columns=columns, rows=rows, empty=empty)


@pytest.mark.parametrize("seed", range(20))
def test_of_thirty_nights_exactly_the_odd_ones_are_marked(seed: int) -> None:
    chance = random.Random(seed)
    nights = {day: night(chance) for day in range(1, 31)}
    nights[8] = night(chance, ("id", "name", "class", "Score", "note"))
    nights[14] = night(chance, ("id", "name", "class", "note"))
    nights[19] = night(chance, ("id", "class", "name", "score", "note"))
    half = nights[25].rows // 2
    nights[25] = Look(columns=COLUMNS, rows=2 * half, empty=(0, half, half, half, half))
    nights[28] = Look(columns=COLUMNS, rows=half, empty=(0, 0, 0, 0, half // 5))

    before, found = Family(), {}
    for day, one in nights.items():
        if kinds := sorted({mark.kind for mark in drift(NAME, before, one)}):
            found[day] = kinds
        before = before.with_file(one, f"2026-11-{day:02}")

    assert found == {
        8: ["renamed"],
        14: ["missing"],
        19: ["reordered"],
        25: ["empty"],
        28: ["rows"],
    }


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("least", [50, 5])
def test_files_that_vary_much_are_not_marked_for_it(seed: int, least: int) -> None:
    chance = random.Random(seed)
    before, found = Family(), []
    for day in range(1, 61):
        rows = chance.randint(least, 3 * least)
        empty = tuple(sum(chance.random() < 0.3 for _ in range(rows)) for _ in COLUMNS)
        one = Look(columns=COLUMNS, rows=rows, empty=empty)
        found += drift(NAME, before, one) if day > 10 else []  # what is usual is known by then
        before = before.with_file(one, f"2026-{10 + day // 30}-{day % 30:02}")

    assert found == []
