"""When schedules fire: cron, time zones, daylight saving, and which fire is due."""

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clock import machine_in
from ds_flow.core.cron import LATE, SET_BACK, Timetable, due_fire, is_missed

BERLIN = "Europe/Berlin"
ZONES = [BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
YEAR = datetime(2026, 1, 1, tzinfo=UTC)
SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


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
        (
            "@reboot",
            "use five fields, or one of @yearly, @annually, @monthly, @weekly, @daily",
        ),
        ("@dayly", "is not a time that ds-flow knows"),
        ("@daily 5", "five fields"),
    ],
)
def test_what_is_no_cron_is_refused_in_words(cron: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Timetable(cron)


def test_a_zone_that_nobody_knows_is_refused_in_words() -> None:
    for zone in ("Europe/Atlantis", "../../etc/passwd", "/etc/localtime", ""):
        with pytest.raises(ValueError, match="not a time zone that this machine knows"):
            Timetable("0 2 * * *", zone)


def test_the_local_zone_is_the_machines() -> None:
    with machine_in("Asia/Tokyo"):
        assert Timetable("0 2 * * *").next_after(YEAR) == YEAR + timedelta(hours=17)


@pytest.mark.parametrize(
    ("nickname", "cron"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("  @Daily ", "0 0 * * *"),
    ],
)
def test_a_nickname_of_crontab_means_its_five_fields(nickname: str, cron: str) -> None:
    for begin in (SPRING, AUTUMN):
        assert after(nickname, begin, 30, BERLIN) == after(cron, begin, 30, BERLIN)


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


NO_MIDNIGHT = {
    "Africa/Cairo": "2027-04-30",
    "Asia/Beirut": "2027-03-28",
    "America/Havana": "2027-03-14",
    "America/Santiago": "2027-09-05",
    "Atlantic/Azores": "2027-03-28",
}


@pytest.mark.parametrize(("zone", "day"), NO_MIDNIGHT.items())
def test_a_midnight_that_is_skipped_comes_after_the_gap(zone: str, day: str) -> None:
    noon_before = datetime.fromisoformat(f"{day}T12:00+00:00") - DAY
    fires_at = [Timetable(cron, zone).next_after(noon_before) for cron in ("0 0 * * *", "@daily")]
    with machine_in(zone):
        fires_at.append(Timetable("0 0 * * *").next_after(noon_before))
    shown = {f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}" for at in fires_at if at}
    assert shown == {f"{day} 01:00"}


def test_a_gap_of_half_an_hour_puts_a_time_off_by_half_an_hour() -> None:
    before = datetime(2026, 10, 3, 12, tzinfo=UTC)
    lord_howe = "Australia/Lord_Howe"
    assert after("15 2 * * *", before, 2, lord_howe) == ["Sun 04 02:45", "Mon 05 02:15"]
    assert after("0 2 * * *", before, 2, lord_howe) == ["Sun 04 02:30", "Mon 05 02:00"]


def test_a_day_that_a_zone_never_had_has_no_fire_of_its_own() -> None:
    found = after("0 0 * * *", datetime(2011, 12, 29, tzinfo=UTC), 3, "Pacific/Apia")
    assert found == ["Thu 29 00:00", "Sat 31 00:00", "Sun 01 00:00"]


zones = st.sampled_from(sorted(zoneinfo.available_timezones()))
starts = st.datetimes(datetime(2019, 1, 1), datetime(2031, 1, 1))  # noqa: DTZ001


@settings(max_examples=60)
@given(zones, starts, st.integers(0, 3) | st.integers(0, 23), st.integers(0, 59))
@example("Africa/Cairo", datetime(2027, 1, 1), 0, 0)  # noqa: DTZ001
@example("Europe/Berlin", datetime(2027, 1, 1), 2, 30)  # noqa: DTZ001
@example("America/Havana", datetime(2027, 6, 1), 0, 30)  # noqa: DTZ001
@pytest.mark.exhaustive
def test_a_time_comes_once_each_night_in_every_zone(
    zone: str, start: datetime, hour: int, minute: int
) -> None:
    days = [start.replace(hour=hour, minute=minute, second=0) + n * DAY for n in range(260)]
    nights = {day.replace(microsecond=0, tzinfo=ZoneInfo(zone)).astimezone(UTC) for day in days}
    cron, expected = f"{minute} {hour} * * *", sorted(nights)
    assert list(fires(Timetable(cron, zone), expected[0], expected[-1])) == expected[1:]
    with machine_in(zone):
        assert list(fires(Timetable(cron), expected[0], expected[-1])) == expected[1:]


@settings(max_examples=8)
@given(zones, starts, st.integers(0, 59))
@example("Australia/Lord_Howe", datetime(2026, 9, 1), 15)  # noqa: DTZ001
@pytest.mark.exhaustive
def test_a_cron_that_takes_every_hour_takes_both_of_two_equal_ones_in_every_zone(
    zone: str, start: datetime, minute: int
) -> None:
    hours = [start.replace(minute=minute, second=0, microsecond=0) + n * HOUR for n in range(2000)]
    here = [hour.replace(tzinfo=ZoneInfo(zone)) for hour in hours]
    first = [hour.astimezone(UTC) for hour in here]
    second = [hour.replace(fold=1).astimezone(UTC) for hour in here]
    both = {*first, *(after for before, after in zip(first, second, strict=True) if after > before)}
    since, until = first[0] + DAY, first[-1] - DAY
    expected = [at for at in sorted(both) if since < at <= until]
    cron = f"{minute} * * * *"
    assert list(fires(Timetable(cron, zone), since, until)) == expected
    with machine_in(zone):
        assert list(fires(Timetable(cron), since, until)) == expected


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
