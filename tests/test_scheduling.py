"""When schedules fire: cron, time zones, daylight saving, and which fire is due."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
import tzlocal
from hypothesis import given, settings
from hypothesis import strategies as st

from ds_flow.scheduling import LATE, SET_BACK, Timetable, due_fire, is_missed

BERLIN = "Europe/Berlin"
ZONES = [BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
YEAR = datetime(2026, 1, 1, tzinfo=UTC)
SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)
DAY = timedelta(days=1)


def fires(timetable: Timetable, since: datetime, until: datetime) -> Iterator[datetime]:
    at = timetable.next_after(since)
    while at is not None and at <= until:
        yield at
        at = timetable.next_after(at)


def local(at: datetime, zone: str = BERLIN) -> str:
    return at.astimezone(ZoneInfo(zone)).strftime("%a %d %H:%M")


def after(cron: str, since: datetime, count: int, zone: str = "UTC") -> list[str]:
    found = fires(Timetable(cron, zone), since, since + 400 * DAY)
    return [local(at, zone) for at, _ in zip(found, range(count), strict=False)]


# --------------------------------------------------------------------------- cron


def test_weekdays_are_counted_from_sunday_as_cron_does() -> None:
    assert after("0 0 * * 0", YEAR, 2) == ["Sun 04 00:00", "Sun 11 00:00"]
    assert after("0 0 * * 7", YEAR, 1) == ["Sun 04 00:00"]
    assert after("0 0 * * 1-5", YEAR, 4) == [
        "Fri 02 00:00", "Mon 05 00:00", "Tue 06 00:00", "Wed 07 00:00",
    ]  # fmt: skip
    assert after("0 0 * * fri-sun", YEAR, 3) == ["Fri 02 00:00", "Sat 03 00:00", "Sun 04 00:00"]
    assert after("0 0 * * */3", YEAR, 3) == ["Sat 03 00:00", "Sun 04 00:00", "Wed 07 00:00"]


def test_of_a_day_and_a_weekday_either_will_do_as_in_cron() -> None:
    assert after("0 6 13 * fri", YEAR + 9 * DAY, 3) == [
        "Tue 13 06:00", "Fri 16 06:00", "Fri 23 06:00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("", "five fields"),
        ("0 2 * *", "five fields"),
        ("0 24 * * *", "24"),
        ("0 2 * * 8", "0 to 7"),
        ("0 2 * * mon/0", "step"),
        ("*/0 2 * * *", "Increment"),
        ("0 2 31 4 *", "never comes"),
    ],
)
def test_what_is_no_cron_is_refused_in_words(cron: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Timetable(cron)


def test_a_zone_that_nobody_knows_is_refused_in_words() -> None:
    for zone in ("Europe/Atlantis", "../../etc/passwd", "/etc/localtime", ""):
        with pytest.raises(ValueError, match="no time zone that this machine knows"):
            Timetable("0 2 * * *", zone)


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    tzlocal.reload_localzone()
    yield
    monkeypatch.undo()
    tzlocal.reload_localzone()


@pytest.mark.usefixtures("tokyo")
def test_the_local_zone_is_the_machines() -> None:
    assert Timetable("0 2 * * *").next_after(YEAR) == YEAR + timedelta(hours=17)


# --------------------------------------------------------------------------- daylight saving


@pytest.mark.parametrize("cron", ["0 2 * * *", "30 2 * * *", "59 2 * * *", "0 1 * * *"])
@pytest.mark.parametrize("zone", ZONES)
def test_every_night_of_a_year_has_one_fire(cron: str, zone: str) -> None:
    found = list(fires(Timetable(cron, zone), YEAR, YEAR + 365 * DAY))
    nights = [at.astimezone(ZoneInfo(zone)).date() for at in found]
    assert len(found) == 365
    assert {later - earlier for earlier, later in pairwise(nights)} == {DAY}


def test_a_time_that_is_skipped_comes_after_the_gap_and_one_that_is_repeated_once() -> None:
    assert after("30 2 * * *", SPRING, 2, BERLIN) == ["Sun 29 03:30", "Mon 30 02:30"]
    assert after("30 2 * * *", AUTUMN, 2, BERLIN) == ["Sun 25 02:30", "Mon 26 02:30"]
    # From within the second of the two hours, too.
    assert after("30 2 * * *", AUTUMN + timedelta(minutes=70), 1, BERLIN) == ["Mon 26 02:30"]


def test_a_cron_that_takes_every_hour_goes_on_through_the_change() -> None:
    for change in (SPRING, AUTUMN):
        found = list(fires(Timetable("*/30 * * * *", BERLIN), change - DAY, change + DAY))
        assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(minutes=30)}


# --------------------------------------------------------------------------- the last fire

CRONS = ["0 2 * * *", "30 2 * * *", "*/15 * * * *", "0 0 1 * *", "15 6 * * mon", "0 5 13 * fri"]
moments = st.datetimes(YEAR.replace(tzinfo=None), datetime(2027, 6, 1)).map(  # noqa: DTZ001
    lambda at: at.replace(tzinfo=UTC)
)


@settings(max_examples=60)
@given(
    st.sampled_from(CRONS),
    st.sampled_from(ZONES),
    moments,
    st.integers(0, 60 * 24 * 45).map(lambda minutes: timedelta(minutes=minutes)),
)
def test_the_latest_fire_is_the_last_one_of_all(
    cron: str, zone: str, since: datetime, length: timedelta
) -> None:
    timetable = Timetable(cron, zone)
    every = list(fires(timetable, since, since + length))
    assert timetable.latest(since, since + length) == (every[-1] if every else None)


def test_a_leap_day_is_found_from_years_later() -> None:
    timetable = Timetable("0 0 29 2 *", "UTC")
    assert timetable.latest(YEAR - 4000 * DAY, YEAR) == datetime(2024, 2, 29, tzinfo=UTC)


# --------------------------------------------------------------------------- what is due

NIGHTLY = Timetable("0 2 * * *", "UTC")
TWO = timedelta(hours=2)


def due(now: datetime, last: datetime | None, since: datetime = YEAR) -> datetime | None:
    return due_fire(NIGHTLY, since=since, last=last, now=now)


def test_of_many_missed_fires_the_newest_is_due() -> None:
    assert due(YEAR + 9 * DAY, None) == YEAR + 8 * DAY + TWO
    assert due(YEAR + 9 * DAY, YEAR + 3 * DAY + TWO) == YEAR + 8 * DAY + TWO


def test_nothing_is_due_from_before_the_schedule_began() -> None:
    assert due(YEAR + TWO - timedelta(seconds=1), None) is None
    assert due(YEAR + 9 * DAY, None, since=YEAR + 8 * DAY + TWO) is None


def test_a_clock_set_back_makes_nothing_due_that_came_before_the_last_fire() -> None:
    last = YEAR + 9 * DAY + TWO
    for back in (timedelta(minutes=1), timedelta(hours=30), SET_BACK):
        assert due(last - back, last) is None


def test_a_last_fire_from_a_clock_that_was_far_ahead_stops_no_night() -> None:
    assert due(YEAR + 9 * DAY, YEAR + 365 * DAY) == YEAR + 8 * DAY + TWO


def test_a_fire_is_missed_only_once_it_is_late() -> None:
    assert not is_missed(YEAR, YEAR + LATE)
    assert is_missed(YEAR, YEAR + LATE + timedelta(seconds=1))
