"""Which files are of one family, and what a family remembers of them."""

import json
import random

import pytest

from ds_flow.core.families import (
    COMPARED_COLUMNS,
    DAYS,
    FAMILIES,
    NAMES,
    SHAPES_A_DAY,
    Family,
    Look,
    compared,
    family_of,
    label_of,
    shapes_of,
)


def look(*columns: str, rows: int = 10, empty: int = 0) -> Look:
    return Look(columns=columns, rows=rows, empty=(empty,) * len(columns))


@pytest.mark.parametrize(
    ("path", "family", "label"),
    [
        ("data/student_north_2026-11-28.csv", "data/student_north_#", "student_north"),
        ("data/student_north_20261128.csv", "data/student_north_#", "student_north"),
        ("data/student_north_28.11.2026_02:15.csv", "data/student_north_#", "student_north"),
        ("data/student_north_28nov2026.csv", "data/student_north_#", "student_north"),
        ("data/student_north_28_November_2026.csv", "data/student_north_#", "student_north"),
        ("data/student_north_2026-11-28 (2).csv", "data/student_north_# (#)", "student_north"),
        ("data/student_12_2026.csv", "data/student_#", "student"),
        ("data/student_a.csv", "data/student_a", "student_a"),
        ("data/student_march_7.csv", "data/student_march_#", "student_march"),
        ("data/2026-11-28/student_a.csv", "data/#/student_a", "student_a"),
        ("data/2026/11/28/student_a.csv", "data/#/#/#/student_a", "student_a"),
        ("data/school1/student_1.csv", "data/school1/student_#", "student"),
        ("data/school2/student_1.csv", "data/school2/student_#", "student"),
        ("data/11/student_1.csv", "data/11/student_#", "student"),
        ("2026.csv", "#", "#"),
        (".csv", ".csv", "csv"),
    ],
)
def test_digits_and_dates_in_a_name_make_no_other_family(
    path: str, family: str, label: str
) -> None:
    assert family_of(path) == family
    assert label_of(family) == label


def test_a_long_name_of_digits_is_folded_at_once() -> None:
    assert family_of("1-" * 100_000 + "x.csv") == "#-x"


def test_a_family_is_the_same_in_whatever_order_its_files_are_added() -> None:
    files = [(look("a", "b", rows=day, empty=day % 3), f"2026-11-{day:02}") for day in range(1, 31)]
    files += [(look("b", "a", rows=day), f"2026-12-{day % 4 + 1:02}") for day in range(30)]
    families = set()
    for seed in range(5):
        random.Random(seed).shuffle(files)
        family = Family()
        for item in files:
            family = family.with_file(*item)
        families.add(family)

    (family,) = families
    assert len({one.day for one in family.days}) == DAYS
    assert Family.from_json(json.loads(json.dumps(family.to_json()))) == family


def test_a_day_has_the_lowest_and_the_highest_figures_of_its_files() -> None:
    family = Family()
    for rows, empty in ((10, 1), (0, 0), (40, 20)):
        family = family.with_file(look("a", rows=rows, empty=empty), "2026-11-28")

    (day,) = family.days
    assert (day.files, day.rows, day.low, day.high) == (3, (0, 40), (0.1,), (0.5,))
    assert family.files_with("a") == family.files == 3
    assert family.files_with("b") == 0


def test_a_family_remembers_few_lists_of_columns_of_a_day_and_first_those_of_most_files() -> None:
    family = Family().with_file(look("usual"), "1").with_file(look("usual"), "1")
    for number in range(100):
        family = family.with_file(look(f"column{number}"), "1")

    assert len(family.days) == SHAPES_A_DAY
    assert family.days[0].columns == ("usual",)


def test_columns_are_named_once_for_all_files_that_have_them() -> None:
    wide = look(*map(str, range(COMPARED_COLUMNS + 1)))
    shapes, which = shapes_of([look("a"), look("b"), None, look("a"), wide])
    assert shapes == [("a",), ("b",)]
    assert which == [0, 1, None, 0, None]


def test_names_of_columns_are_repeated_up_to_a_number() -> None:
    unlike = [look(*(f"{n}-{column}" for column in range(COMPARED_COLUMNS))) for n in range(1000)]
    shapes, which = shapes_of(unlike)
    assert sum(map(len, shapes)) == NAMES
    assert which[0] == 0
    assert which[-1] is None


def test_a_batch_of_very_many_families_compares_the_first_ones() -> None:
    names = [
        chr(97 + n // 26 // 26) + chr(97 + n // 26 % 26) + chr(97 + n % 26) for n in range(3000)
    ]
    assert compared(names) == sorted(set(names))[:FAMILIES]
    assert compared(["a_1.csv", "a_2.csv"]) == ["a_#"]
