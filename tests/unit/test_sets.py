"""Complete sets: laws over what waits, and deadlines when the clocks change."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_flow.core.sets import (
    Member,
    OpenSet,
    SetRule,
    compiled,
    missing_names,
    sets_to_form,
    sort_out,
    told_wait,
)

BY = r"student_(?P<school>\w+)_(?P<date>\d{4}-\d{2}-\d{2})"
RULE = SetRule(by=BY, key="date", expect=3, at_latest="06:30", timezone="Europe/Berlin")
DAY = datetime(2026, 1, 10, 12, tzinfo=UTC)
EVIL = (r"(\w+)+_(?P<date>x)", r"(?:a|a|ab)*(?P<date>y)", r"(\w*)*(\w*)*(\w*)*(\w*)*(?P<date>!)")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


members = st.builds(
    lambda number, school, day, odd, age: Member(
        number,
        1,
        f"data/odd_{number}.csv" if odd else f"data/student_{school}_2026-01-{day:02}.csv",
        DAY - timedelta(hours=age),
    ),
    st.integers(1, 999),
    st.sampled_from("abcd"),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 48),
)
piles = st.lists(members, max_size=30, unique_by=lambda one: one.id)
deadlines = st.none() | st.just(DAY - timedelta(hours=24))


@given(piles, st.sets(st.sampled_from([f"2026-01-{day:02}" for day in range(1, 5)])))
def test_every_waiting_version_is_in_one_place(pile: list[Member], formed: set[str]) -> None:
    found = sort_out(pile, RULE, formed)
    placed = [file.id for file in found.loose]
    for one in (*found.sets.values(), *found.late.values()):
        placed += [member.id for member in one.members]
    assert sorted(placed) == sorted(member.id for member in pile)
    assert found.late.keys() <= formed
    assert not found.sets.keys() & formed


@given(piles, deadlines)
def test_a_set_forms_when_it_is_complete_or_its_time_has_come_and_not_before(
    pile: list[Member], deadline: datetime | None
) -> None:
    sets = sort_out(pile, RULE, ()).sets.values()
    due = sets_to_form(sets, RULE, deadline)
    for one in sets:
        is_complete = len({member.path for member in one.members}) >= RULE.expect
        is_late = deadline is not None and any(file.seen_at < deadline for file in one.members)
        assert (one in due) == (is_complete or is_late)


def test_two_versions_of_a_file_count_once() -> None:
    path = "data/student_a_2026-01-01.csv"
    (one,) = sort_out([Member(1, 1, path, DAY), Member(2, 1, path, DAY)], RULE, ()).sets.values()
    assert (one.paths, len(one.members)) == ({path}, 2)
    assert told_wait(RULE, one) == (
        "waits for 2 more of date=2026-01-01, at the latest 06:30 Europe/Berlin"
    )


@pytest.mark.parametrize(
    ("clock", "now", "due"),
    [
        ("06:30", "2026-01-10T12:00+00:00", "2026-01-11T05:30+00:00"),  # winter
        ("06:30", "2026-07-10T12:00+00:00", "2026-07-11T04:30+00:00"),  # summer
        ("02:30", "2026-03-28T12:00+00:00", "2026-03-29T01:30+00:00"),  # skipped: an hour later
        ("02:30", "2026-10-24T12:00+00:00", "2026-10-25T00:30+00:00"),  # repeated: the first
        ("02:30", "2026-10-25T00:30+00:00", "2026-10-26T01:30+00:00"),  # and not the second
    ],
)
def test_deadlines_follow_the_clock_of_their_zone(clock: str, now: str, due: str) -> None:
    rule = SetRule(by=BY, key="date", expect=3, at_latest=clock, timezone="Europe/Berlin")
    assert rule.next_deadline(at(now)) == at(due)
    assert rule.last_deadline(at(due)) == at(due)
    assert rule.last_deadline(at(due) - timedelta(seconds=1)) != at(due)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("student_a_2026-01-01.csv", "2026-01-01"),
        ("student_Zürich_2026-01-01.csv", "2026-01-01"),
        ("student_a_b_2026-01-01_v2.csv", "2026-01-01"),
        ("xstudent_a_2026-01-01.csv", None),
        ("student_a_2026.csv", None),
    ],
)
def test_the_name_of_a_file_tells_its_set(name: str, value: str | None) -> None:
    assert RULE.value_of(f"data/student_b_1999-01-01/{name}") == value


def test_a_group_that_takes_no_part_or_is_empty_makes_no_set() -> None:
    rule = SetRule(by=r"student(_(?P<date>\d*))?", key="date", expect=2)
    assert [rule.value_of(name) for name in ("student.csv", "student_.csv")] == [None, None]


def test_a_word_may_stand_in_a_class() -> None:
    rule = SetRule(by=r"(?P<school>[\w-]+)\.csv", key="school", expect=2)
    assert rule.value_of("Zü-rich.csv") == "Zü-rich"


@pytest.mark.parametrize("by", EVIL)
def test_an_expression_that_makes_others_hang_needs_no_time_on_an_evil_name(by: str) -> None:
    rule = SetRule(by=by, key="date", expect=2)
    assert rule.value_of("a" * 255) is None  # the engine of `re` takes centuries


@pytest.mark.parametrize("by", ["(", r"(?P<a>.)\1", "(?=x)", "x{1000}{1000}{1000}"])
def test_what_cannot_be_matched_in_linear_time_is_refused(by: str) -> None:
    with pytest.raises(ValueError, match="is not a regular expression of RE2"):
        compiled(by)


def test_names_are_missing_after_those_of_an_earlier_set_if_these_tell() -> None:
    earlier = [f"data/student_{school}_2026-01-01.csv" for school in "abc"]
    came = ["data/student_b_2026-01-02.csv"]
    assert missing_names(came, earlier, RULE, "2026-01-02") == [
        "student_a_2026-01-02.csv",
        "student_c_2026-01-02.csv",
    ]
    assert missing_names(came, earlier[:2], RULE, "2026-01-02") == []
    assert missing_names(came, [], RULE, "2026-01-02") == []


def test_a_set_begins_with_its_first_file() -> None:
    one = OpenSet("x", [Member(2, 1, "b", DAY), Member(1, 1, "a", DAY - timedelta(hours=1))])
    assert one.began_at == DAY - timedelta(hours=1)
