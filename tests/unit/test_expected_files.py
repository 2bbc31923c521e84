"""When files are expected, in any zone and over both changes of its clocks."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli_project import Project
from clock import machine_in
from ds_flow.core.paths import escape
from ds_flow.settings.people import Expected
from ds_flow.upkeep.expected_files import DAYS, Window, came, last_window

MONDAY = datetime(2026, 3, 2, 12, tzinfo=UTC)


def expected(by: str = "06:30", **more: object) -> Expected:
    return Expected.model_validate(
        {"pattern": "data/a_*.csv", "by": by, "timezone": "Europe/Berlin", **more}
    )


def test_a_window_ends_at_the_last_deadline_and_begins_at_the_one_before() -> None:
    until = datetime(2026, 3, 2, 5, 30, tzinfo=UTC)
    assert last_window(expected(), MONDAY) == Window(until - timedelta(days=1), until)
    friday = until - timedelta(days=3)
    assert last_window(expected(days=["mon", "fri"]), MONDAY) == Window(friday, until)
    week = timedelta(days=7)
    assert last_window(expected("18:00", days=["mon"]), MONDAY) == Window(
        datetime(2026, 2, 16, 17, tzinfo=UTC), datetime(2026, 2, 16, 17, tzinfo=UTC) + week
    )


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds are naive
    st.sets(st.sampled_from(DAYS), min_size=1),
    st.times(),
)
def test_windows_follow_each_other_without_a_gap(
    now: datetime, days: set[str], by: datetime
) -> None:
    wanted = expected(f"{by:%H:%M}", days=sorted(days))
    window = last_window(wanted, now)
    assert window.since < window.until <= now
    assert window.until - window.since <= timedelta(days=7, hours=1)
    assert last_window(wanted, window.until).until == window.until
    assert last_window(wanted, window.until - timedelta(seconds=1)).until == window.since
    here = window.until.astimezone(ZoneInfo("Europe/Berlin"))
    assert DAYS[here.weekday()] in days


def test_a_deadline_that_the_clock_skips_comes_after_the_gap() -> None:
    noon = datetime(2026, 3, 29, 12, tzinfo=UTC)
    gap = datetime(2026, 3, 29, 1, tzinfo=UTC)
    until = gap + timedelta(minutes=30)
    assert last_window(expected("02:30"), noon).until == until
    with machine_in("Europe/Berlin"):
        assert last_window(expected("02:30", timezone="local"), noon).until == until


@pytest.mark.parametrize("pattern", ["data/a_*.csv", "./data//a_*.csv", "{root}/data/a_*.csv"])
def test_only_expected_names_count_and_each_once(tmp_path: Path, pattern: str) -> None:
    wanted = expected(pattern=pattern.format(root=tmp_path))
    paths = ["data/a_1.csv", "data/a_1.csv", "data/a_2.csv", "data/b_1.csv", "data/x/a_3.csv"]
    assert came(Project(tmp_path).settings, wanted, paths) == 2


def test_a_pattern_means_a_file_by_its_name_and_not_as_the_ledger_writes_it(tmp_path: Path) -> None:
    paths = [escape(f"data/a_{name}.csv") for name in ("\\", "é", "12")]
    assert came(Project(tmp_path).settings, expected(pattern="data/a_?.csv"), paths) == 2
