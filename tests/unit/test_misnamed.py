"""Which files in the inbox look like deliveries under a wrong name, and what name would do."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_flow.inbox.misnamed import how_to_mend, judge_name

GLOB = "student_*.csv"


@pytest.mark.parametrize(
    ("name", "why", "nearest", "is_alike"),
    [
        ("Student_X.CSV", "capital letters", "student_X.csv", True),
        ("STUDENT_X.csv", "capital letters", "student_X.csv", True),
        ("students.csv", "does not match", "student_students.csv", True),
        ("student-x.csv", "does not match", "student_x.csv", True),
        ("student x.csv", "does not match", "student_x.csv", True),
        ("student_x.csv.gz", "packed", "student_x.csv", True),
        ("student_x.CSV.ZIP", "packed", "student_x.csv", True),
        ("student_x.xlsx", "a workbook", "student_x.csv", True),
        ("student_x", "does not match", "student_x.csv", True),
        ("student_x.txt", "does not match", "student_x.csv", True),
        ("marks.xlsx", "a workbook", "student_marks.csv", False),
        ("marks march.csv", "does not match", "student_marks_march.csv", False),
    ],
)
def test_a_misnamed_delivery_is_named_with_the_nearest_name_that_would_be_read(
    name: str,
    why: str,
    nearest: str,
    is_alike: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    judged = judge_name(name, GLOB)
    assert judged is not None
    assert why in judged[0]
    assert judged[1:] == (nearest, is_alike)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Student_X.CSV", "rename it"),
        ("data/student_x.txt", "rename it"),
        ("marks.XLSX", "save it as CSV"),
        ("student_x.csv.gz", "unpack it"),
        ("student_x.tgz", "unpack it"),
    ],
)
def test_the_remedy_is_what_makes_a_file_of_this_kind_an_input(name: str, remedy: str) -> None:
    assert how_to_mend(name, "student_x.csv") == remedy


@pytest.mark.parametrize(
    ("name", "glob", "nearest"),
    [
        ("Student_x.xlsx", "student_*.xlsx", "student_x.xlsx"),
        ("Student_x.csv.gz", "student_*.csv.gz", "student_x.csv.gz"),
        ("students.parquet", "student_*.parquet", "student_students.parquet"),
    ],
)
def test_where_the_pattern_is_of_the_same_kind_the_name_alone_is_wrong(
    name: str, glob: str, nearest: str
) -> None:
    judged = judge_name(name, glob)
    assert judged is not None
    assert judged[1] == nearest
    assert "its name" in judged[0]
    assert how_to_mend(name, nearest) == "rename it"


@pytest.mark.parametrize("name", ["README.md", "notes.txt", "x", "Makefile", "a.py", "student.py"])
def test_what_is_no_delivery_is_not_named(name: str) -> None:
    assert judge_name(name, GLOB) is None


@given(name=st.text(min_size=1).filter(lambda text: "/" not in text), glob=st.text(min_size=1))
def test_a_nearest_name_always_matches(name: str, glob: str) -> None:
    judged = judge_name(name, glob)
    assert judged is None or not judged[1] or fnmatchcase(judged[1], glob)
