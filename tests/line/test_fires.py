"""Schedules on the whole line: what a fire takes, verifies or leaves, and that none comes twice."""

import random
import re
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clock import NOON, MovedClock
from ds_flow.core.cron import SET_BACK, Timetable, due_fire
from ds_flow.core.errors import DispatchError
from ds_flow.core.states import Cause, FileState, FireOutcome, Trigger
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.schedules import Fire
from ds_flow.schedules.fires import CLOCK_SECONDS, Due
from ds_flow.upkeep.alerts import SAID
from ds_flow.views.schedules import schedule_document
from ds_flow.work.published import manifest_name
from pretended import RAISED
from timed_line import BLIND, HOUR, HOURLY, MINUTE, Line


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    made.close()


def blind(line: Line) -> Line:
    line.reopen(BLIND)
    return line


# --------------------------------------------------------------------------- what is taken


def test_a_fire_reruns_everything_as_one_batch_whatever_a_batch_may_hold(line: Line) -> None:
    line.drop(a="1", b="2", c="3", d="4", e="5")
    line.next_hour()
    made = line.manifest()
    assert {item.path for item in made.inputs} == {f"data/{name}.csv" for name in "abcde"}
    assert (made.trigger, made.selection, made.compared_with) == (Trigger.SCHEDULE, "all", "")
    assert line.outcomes() == ["run"]
    line.drop(f="6")
    line.next_hour()
    assert line.manifest().compared_with == made.run_id


def test_the_newest_version_of_each_file_that_is_there_is_taken(line: Line) -> None:
    line.drop(a="1", b="2", c="3")
    line.drop(a="4")
    (line.root / "data" / "b.csv").unlink()
    line.next_hour()
    assert {(item.path, item.version) for item in line.manifest().inputs} == {
        ("data/a.csv", 2),
        ("data/c.csv", 1),
    }
    assert line.last().detail == "left out: 1 no longer there"


def test_files_of_a_live_batch_are_left_out_and_named(line: Line) -> None:
    line.drop(a="1", b="2")
    (row, _) = line.ledger.read.latest()
    line.ledger.form("0123456789", [row.id], Trigger.RERUN, line.clock.now())
    line.wait(HOUR)
    line.tick()
    assert line.last().detail == "left out: data/a.csv is in batch 0123456789"
    assert line.ledger.read.batch_paths(line.last().batch or "") == ["data/b.csv"]


def test_where_there_is_nothing_to_take_nothing_is_run(line: Line) -> None:
    line.next_hour()
    assert line.fired()[0][1:] == ("nothing", "this file does not exist")
    assert not list(line.ledger.read.runs())


LIKEWISE = """
- {name: all, cron: "0 * * * *", timezone: UTC}
- {name: news, cron: "0 * * * *", timezone: UTC, select: since_last}
- {name: some, cron: "0 * * * *", timezone: UTC, select: "data/a*.csv"}
- {name: failed, cron: "0 * * * *", timezone: UTC, select: failed}
"""


def test_files_that_are_on_their_way_for_the_first_time_are_named(line: Line) -> None:
    line.reopen(LIKEWISE)
    (line.root / "data" / "a.csv").write_text("1")
    while not line.ledger.read.live_runs():
        line.tick()
        line.wait(1)
    (batch,) = (run.batch for run in line.ledger.read.live_runs())
    line.wait(HOUR)
    line.tick(4)
    said = f"left out: data/a.csv is in batch {batch}; run it again later"
    assert [line.last(name).detail for name in ("all", "news", "some")] == [said] * 3
    assert line.last("failed").detail == "this file does not exist"


def test_a_fire_does_nothing_while_the_last_one_still_runs(line: Line) -> None:
    blind(line).drop(a="1")
    for _ in range(3):
        line.wait(HOUR)
        line.tick(3)
    assert line.outcomes() == ["run", "nothing", "nothing"]
    assert "goes on" in line.last().detail
    line.work()
    line.next_hour()
    assert line.outcomes()[-1] == "run"


SELECTIONS = """\
- {name: failed, cron: "0 * * * *", timezone: UTC, select: failed}
- {name: news, cron: "0 * * * *", timezone: UTC, select: since_last}
- {name: some, cron: "0 * * * *", timezone: UTC, select: "data/a*.csv"}
"""


def test_each_selection_takes_its_files(line: Line) -> None:
    line.reopen("\n" + SELECTIONS)
    line.drop(a="1", b="2", c="bad")

    def taken(name: str) -> list[str]:
        batch = line.last(name).batch
        return sorted(line.ledger.read.batch_paths(batch)) if batch else []

    assert line.ledger.read.versions("data/c.csv")[-1].cause == Cause.REJECTED
    line.next_hour()
    assert [taken(name) for name in ("failed", "news")] == [
        ["data/c.csv"],
        ["data/a.csv", "data/b.csv"],
    ]
    # Its only file was in the batch of the others.
    assert "data/a.csv is in batch" in line.last("some").detail
    line.drop(d="4")
    line.next_hour()
    assert taken("news") == ["data/d.csv"]
    assert taken("some") == ["data/a.csv"]
    line.next_hour()
    assert line.last("news").outcome == FireOutcome.NOTHING


# --------------------------------------------------------------------------- unchanged


def test_where_nothing_has_changed_the_outputs_are_verified_and_nothing_is_run(line: Line) -> None:
    line.drop(a="1", b="2")
    for _ in range(4):
        line.next_hour()
    assert line.outcomes() == ["run", "verified", "verified", "verified"]
    assert len(list(line.ledger.read.runs())) == 2
    run_id = line.manifest().run_id
    assert line.last().detail == f"run {run_id} over the same files: its outputs are as published"
    assert line.ledger.read.events("data/a.csv")[-1].kind == "schedule.verified"


def test_a_failed_analysis_is_made_again_although_nothing_has_changed(line: Line) -> None:
    line.drop(a="1")
    line.runs.analysis = {"command": ["wc"], "stdout": "", "error": "exit code 3"}
    line.next_hour()
    line.next_hour()
    failed = line.fired()
    line.runs.analysis = {"command": ["wc"], "stdout": "", "error": ""}
    line.next_hour()
    line.next_hour()

    assert [outcome for _, outcome, _ in failed] == ["run", "run"]
    assert re.fullmatch(r"the analysis of run \d+ failed", failed[-1][2])
    assert line.outcomes() == ["run", "run", "run", "verified"]


def test_without_skipping_every_fire_is_a_run(line: Line) -> None:
    blind(line).drop(a="1")
    for _ in range(3):
        line.next_hour()
    assert line.outcomes() == ["run"] * 3


def test_a_cron_of_every_minute_runs_once_and_then_verifies(line: Line) -> None:
    line.drop(a="1", b="2")
    line.reopen('[{name: all, cron: "* * * * *", skip_unchanged: true}]')
    for _ in range(30):
        line.wait(MINUTE)
        line.work()
    assert line.outcomes() == ["run", *["verified"] * 29]


def test_a_new_file_a_new_version_a_missing_file_or_another_tag_is_a_change(line: Line) -> None:
    line.drop(a="1", b="2")
    line.next_hour()
    line.drop(c="3")
    line.next_hour()
    line.drop(c="4")
    line.next_hour()
    (line.root / "data" / "c.csv").unlink()
    line.next_hour()
    line.reopen(PROCESS_TAG="autumn")
    line.next_hour()
    line.next_hour()
    assert line.outcomes() == [*["run"] * 5, "verified"]


def test_other_code_is_a_change(line: Line) -> None:
    line.drop(a="1")
    line.next_hour()
    (line.root / "flows").mkdir()
    (line.root / "flows" / "transforms.py").write_text("# a team's own\n")
    line.next_hour()
    line.next_hour()
    assert line.outcomes() == ["run", "run", "verified"]


@pytest.mark.parametrize(
    ("cause", "then"),
    [
        (Cause.UNREADABLE, ["run", "run", "verified"]),
        (RAISED, ["run", "run", "verified"]),  # by the transform: it may have been the moment
        (Cause.REJECTED, ["verified", "verified", "verified"]),  # as the same code would again
    ],
)
def test_a_file_that_a_rerun_left_out_is_taken_again_unless_it_would_be_judged_alike(
    line: Line, cause: str, then: list[str]
) -> None:
    line.drop(a="1", b="2")
    line.next_hour()
    line.runs.left_out["data/b.csv"] = cause
    line.reopen(PROCESS_TAG="autumn")
    line.next_hour()
    line.next_hour()
    line.runs.left_out.clear()
    line.next_hour()
    line.next_hour()
    assert line.outcomes() == ["run", "run", *then]
    assert line.ledger.read.versions("data/b.csv")[-1].state == FileState.PROCESSED
    assert (len(line.manifest().inputs) == 1) == (cause == Cause.REJECTED)


def test_a_file_that_a_rerun_left_out_is_an_event_and_an_alert(line: Line) -> None:
    line.drop(a="1", b="2")
    line.runs.left_out["data/b.csv"] = Cause.UNREADABLE
    line.next_hour()
    batch, run_id = line.last().batch or "", line.manifest().run_id
    why = f"run {run_id}: it is unreadable"
    assert line.ledger.history.set_aside(batch) == [("file.left_out", "data/b.csv", why)]
    every, gather = timedelta(hours=1), timedelta()
    alert = line.ledger.history.take_alert(
        "file.left_out", line.clock.now(), every=every, gather=gather
    )
    assert alert is not None
    assert alert.examples == (f"data/b.csv: {why}",)
    assert "file.left_out" in SAID


def test_what_no_run_of_a_schedule_has_published_is_news_to_it_yet(line: Line) -> None:
    line.reopen("\n" + SELECTIONS)
    line.drop(a="1", b="2")
    line.runs.left_out["data/b.csv"] = Cause.UNREADABLE
    line.next_hour()
    line.runs.left_out.clear()
    line.next_hour()
    assert line.ledger.read.batch_paths(line.last("news").batch or "") == ["data/b.csv"]
    line.next_hour()
    assert line.last("news").outcome == FireOutcome.NOTHING


@pytest.mark.parametrize("damage", ["lost", "longer", "other", "link", "manifest"])
def test_outputs_that_are_not_as_published_are_named_and_made_anew(line: Line, damage: str) -> None:
    line.drop(a="1", b="2")
    line.next_hour()
    run_id = line.manifest().run_id
    output = line.root / "out" / line.manifest().outputs[0].name
    if damage == "manifest":
        (line.root / "out" / manifest_name(run_id)).unlink()
    else:
        output.unlink()
    if damage in {"longer", "other"}:
        output.write_text("1 2" if damage == "longer" else "3")
    if damage == "link":
        output.symlink_to(line.root / "data" / "a.csv")
    line.next_hour()
    line.next_hour()
    assert line.outcomes() == ["run", "run", "verified"]
    detail = line.fired()[1][2]
    assert (
        damage == "manifest" or f"run {run_id} is not as it was published: {output.name}" in detail
    )


def test_a_verification_lets_new_files_through(line: Line) -> None:
    line.drop(a="1", b="2", c="3")
    line.next_hour()

    def pulse() -> None:
        line.clock.elapsed_s += 1

    line.engine.fires.pulse = pulse
    (line.root / "data" / "new.csv").write_text("4")
    line.wait(HOUR)
    line.tick(2)
    assert line.outcomes() == ["run"]  # it goes on
    assert line.engine.patience_s() < 1
    assert line.ledger.read.versions("data/new.csv")
    assert not line.engine.is_idle
    line.work()
    assert line.outcomes() == ["run", "verified"]


ANOTHER = """
- {name: all, cron: "0 * * * *", timezone: UTC, skip_unchanged: true, catch_up: false}
- {name: some, cron: "5 * * * *", timezone: UTC, catch_up: false, select: "data/a*.csv"}
"""


def verifying(line: Line, minutes: float) -> None:
    """Reach an hour for whose verification each piece of an output takes so long."""
    line.reopen(ANOTHER)
    line.drop(a="1", b="2", c="3", d="4", e="5")
    line.next_hour()
    line.wait(10 * MINUTE)
    line.work()
    assert (line.outcomes(), line.outcomes("some")) == (["run"], ["run"])

    def pulse() -> None:
        line.clock.elapsed_s += minutes * MINUTE

    line.engine.fires.pulse = pulse
    line.wait(50 * MINUTE)
    line.tick()


def test_a_long_verification_makes_no_other_schedule_miss_its_time(line: Line) -> None:
    verifying(line, minutes=4)
    line.work()
    assert line.outcomes("some") == ["run", "run"]
    assert line.outcomes() == ["run", "verified"]


def test_a_fire_does_nothing_while_the_last_one_still_verifies(line: Line) -> None:
    verifying(line, minutes=12)
    line.work()
    assert line.outcomes() == ["run", "nothing", "verified"]
    assert line.fired()[1][2] == "the last fire still verifies"


def test_what_a_long_verification_found_is_made_anew_and_not_missed(line: Line) -> None:
    verifying(line, minutes=4)
    (line.root / "out" / line.manifest().outputs[-1].name).write_text("other")
    line.work()
    assert line.outcomes() == ["run", "run"]


def test_a_verification_that_could_not_go_on_begins_anew(line: Line) -> None:
    line.drop(a="1", b="2")
    line.next_hour()
    (line.root / "out" / line.manifest().outputs[-1].name).write_text("other")
    line.wait(HOUR)
    line.tick()

    def locked() -> Iterator[str]:
        yield ""
        raise DispatchError("the ledger is locked")

    line.engine.fires._verifications[0].steps = locked()
    with pytest.raises(DispatchError):
        line.engine.fires.fire()
    line.work()
    assert line.outcomes() == ["run", "run"]


# --------------------------------------------------------------------------- new files go first


def live(line: Line) -> list[str]:
    return sorted(run.trigger for run in line.ledger.read.live_runs())


def test_a_rerun_waits_for_new_files_and_no_new_file_waits_for_a_rerun(line: Line) -> None:
    line.drop(a="1")
    (line.root / "data" / "b.csv").write_text("2")
    line.tick()
    line.wait(HOUR)
    line.tick(2)  # b settles, and the hour has come
    line.wait(2)
    line.tick(2)
    assert live(line) == ["arrival"]
    assert line.outcomes() == ["run"]
    (mark,) = line.runs.alive
    line.runs.publish(mark)
    line.runs.end(mark, "0")
    line.tick(2)
    assert live(line) == ["schedule"]

    (line.root / "data" / "c.csv").write_text("3")
    for _ in range(4):
        line.tick()
        line.wait(2)
    assert live(line) == ["arrival", "schedule"]
    line.work()
    assert line.ledger.read.counts("file")["processed"] == 3


# --------------------------------------------------------------------------- time


def test_a_fire_that_was_missed_happens_once_when_the_daemon_is_back(line: Line) -> None:
    line.drop(a="1")
    line.wait(5 * HOUR)
    line.reopen()
    line.work()
    assert line.outcomes() == ["run"]
    line.reopen()
    line.work()
    assert line.outcomes() == ["run"]
    told = line.ledger.history.take_alert(
        "schedule.caught_up", line.clock.now(), every=timedelta(hours=1), gather=timedelta()
    )
    assert told is not None
    assert told.count == 1
    assert told.examples[0].startswith("all: due at ")
    assert "caught up at" in told.examples[0]
    (one,) = line.settings.schedule
    assert schedule_document(line.ledger, one, line.clock.now())["was_late"] is True


def test_a_caught_up_fire_that_begins_anew_is_told_once(line: Line) -> None:
    now = line.clock.now()
    due = Due(line.settings.schedule[0], now - timedelta(hours=5), is_asked=False)
    for _ in range(2):
        line.engine.fires._note_catching_up(due, now)
    told = line.ledger.history.take_alert(
        "schedule.caught_up", now, every=timedelta(hours=1), gather=timedelta()
    )
    assert told is not None
    assert told.count == 1


def test_a_fire_in_time_is_not_told_as_caught_up(line: Line) -> None:
    line.drop(a="1")
    line.next_hour()
    assert line.outcomes() == ["run"]
    assert line.ledger.history.last("schedule.caught_up") is None
    (one,) = line.settings.schedule
    assert schedule_document(line.ledger, one, line.clock.now())["was_late"] is False


def test_without_catching_up_a_missed_fire_is_recorded_as_that(line: Line) -> None:
    line.reopen('[{name: all, cron: "0 * * * *", timezone: UTC, catch_up: false}]')
    line.drop(a="1")
    line.wait(5 * HOUR)
    line.reopen()
    line.work()
    assert line.outcomes() == ["missed"]
    line.next_hour()
    assert line.outcomes() == ["missed", "run"]


def test_a_clock_that_is_set_back_fires_nothing_again(line: Line) -> None:
    line.drop(a="1")
    line.next_hour()
    line.next_hour()
    for back in (60, HOUR, 30 * HOUR):
        line.clock.set_by_s -= back
        line.work()
        line.reopen()
        line.work()
    assert line.outcomes() == ["run", "verified"]


def test_a_clock_that_is_set_back_by_days_fires_no_hour_twice(line: Line) -> None:
    for _ in range(4):
        line.wait(24 * HOUR)
        line.work()
    line.clock.set_by_s -= 3 * 24 * HOUR
    line.work()
    assert line.outcomes() == ["nothing"] * 4
    line.next_hour()
    assert line.outcomes() == ["nothing"] * 5


def test_a_clock_that_was_a_year_ahead_for_a_while_stops_no_schedule(line: Line) -> None:
    line.drop(a="1")
    line.clock.set_by_s += 366 * 24 * HOUR
    line.work()
    line.clock.set_by_s -= 366 * 24 * HOUR
    line.next_hour()
    line.next_hour()
    assert line.outcomes() == ["run", "verified", "verified"]


def test_a_daemon_that_began_with_a_clock_ahead_keeps_its_schedules(tmp_path: Path) -> None:
    line = Line(tmp_path, clock=MovedClock(set_by_s=366 * 24 * HOUR))
    line.clock.set_by_s = 0
    line.work()
    line.next_hour()
    assert line.outcomes() == ["nothing"]
    line.close()


def test_a_schedule_that_is_new_or_changed_begins_now(line: Line) -> None:
    line.drop(a="1")
    line.next_hour()
    line.wait(1800)
    line.reopen('[{name: all, cron: "15 * * * *", timezone: UTC}]')
    line.work()
    assert len(line.fired()) == 1
    line.reopen("[]")
    assert line.ledger.schedules.rows() == {}
    line.wait(5 * HOUR)
    line.reopen(HOURLY)
    line.work()
    assert len(line.fired()) == 1


def test_the_daemon_looks_at_the_clock_every_half_minute_and_when_a_fire_is_due(line: Line) -> None:
    line.work()
    assert line.engine.fires.patience_s() == CLOCK_SECONDS
    line.wait(HOUR - line.clock.now().timestamp() % HOUR - 3)
    assert line.engine.fires.patience_s() == 3


def test_without_a_daemon_the_clock_fires_nothing_and_a_wish_does(tmp_path: Path) -> None:
    line = Line(tmp_path, keeps_time=False)
    line.drop(a="1")
    line.wait(5 * HOUR)
    line.work()
    assert line.fired() == []
    line.ledger.schedules.ask("all", "0 * * * * UTC", line.clock.now())
    assert not line.engine.is_idle
    line.work()
    assert line.outcomes() == ["run"]
    assert line.ledger.schedules.rows()["all"].asked_at is None
    line.close()


def test_two_wishes_at_the_very_same_moment_are_two_fires(line: Line) -> None:
    for _ in range(2):
        line.ledger.schedules.ask("all", "0 * * * * UTC", line.clock.now())
        line.tick()
    assert line.outcomes() == ["nothing", "nothing"]


def test_an_old_wish_is_not_missed(line: Line) -> None:
    line.reopen('[{name: all, cron: "0 0 1 1 *", catch_up: false}]')
    line.drop(a="1")
    line.ledger.schedules.ask("all", line.settings.schedule[0].timetable, line.clock.now())
    line.wait(5 * HOUR)
    line.work()
    assert line.outcomes() == ["run"]


def test_the_ledger_takes_no_fire_twice(ledger: Ledger) -> None:
    fire = Fire(schedule="all", due_at=NOON, outcome=FireOutcome.NOTHING)
    ledger.schedules.record(fire, NOON)
    assert ledger.schedules.is_done("all", NOON)
    with pytest.raises(Exception, match="UNIQUE"):
        ledger.schedules.record(fire, NOON)


def test_of_one_schedule_only_the_newest_fires_are_kept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds_flow.ledger.schedules.KEPT_FIRES", 3)
    for name in ("all", "other"):
        for hours in range(5):
            at = NOON + timedelta(hours=hours)
            ledger.schedules.record(Fire(schedule=name, due_at=at, outcome=FireOutcome.NOTHING), at)
    rows = ledger._store.rows("SELECT schedule, due_at FROM fire")
    assert len(rows) == 6
    last = ledger.schedules.last("other")
    assert last is not None
    assert last.fire.due_at == NOON + timedelta(hours=4)


def test_a_file_that_was_claimed_meanwhile_is_left_to_its_batch(line: Line) -> None:
    line.drop(a="1", b="2")
    first, second = line.ledger.read.latest()
    line.ledger.form("0123456789", [first.id], Trigger.RERUN, NOON)
    fire = Fire(schedule="all", due_at=NOON, outcome=FireOutcome.RUN, batch="abcdef0123")
    ids = [first.id, second.id]
    assert line.ledger.schedules.form(fire, "all", ids, NOON) == 1
    assert line.ledger.read.batch_paths("abcdef0123") == ["data/b.csv"]


# --------------------------------------------------------------------------- a year of nights

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTLY = Timetable("0 2 * * *", "Europe/Berlin")
DAY = timedelta(days=1)
YEAR = datetime(2026, 1, 1, 12, tzinfo=UTC)

hours = st.integers(1, 24 * 60).map(lambda minutes: minutes / 60)
steps = st.one_of(hours, hours, hours, st.integers(-40, 90))  # mostly on; at times far, or back


DATES = [date(2026, 1, 2) + number * DAY for number in range(4 * 366)]
NIGHTS = [datetime(day.year, day.month, day.day, 2, tzinfo=BERLIN).astimezone(UTC) for day in DATES]


def nights(since: datetime, until: datetime) -> list[datetime]:
    """Each night's fire."""
    return NIGHTS[bisect_right(NIGHTS, since) : bisect_right(NIGHTS, until)]


@settings(max_examples=30)
@given(st.lists(steps, min_size=300, max_size=700))
@pytest.mark.exhaustive
def test_whenever_somebody_looks_each_night_was_done_once_or_caught_up_once(
    looks: list[float],
) -> None:
    """Looks come at any time, and the clock is set back by up to a day and a half."""
    now = newest = YEAR
    fired: list[datetime] = []
    for step in looks:
        now = max(now + timedelta(hours=step), newest - SET_BACK)
        newest = max(newest, now)
        at = due_fire(NIGHTLY, since=YEAR, last=fired[-1] if fired else None, now=now)
        if at is not None:
            fired.append(at)
        assert fired[-1:] == nights(YEAR, newest)[-1:]
    assert all(earlier < later for earlier, later in pairwise(fired))
    assert set(fired) <= set(NIGHTS)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.exhaustive
def test_a_year_of_nights_with_a_real_ledger(seed: int) -> None:
    """A daemon that is down at times, and whose clock is set; each night fires, or is caught up."""
    chance = random.Random(seed)
    root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108 - fsync is free there
    line = Line(root, '[{name: all, cron: "0 2 * * *", timezone: Europe/Berlin}]')
    try:
        began = newest = line.clock.now()
        while newest < began + 366 * DAY:
            line.wait(chance.choice([0.4, 1, 3, 12, 23, 49]) * HOUR)
            if chance.random() < 0.1 and newest > began + 3 * DAY:
                least_s = (newest - SET_BACK - line.clock.now()).total_seconds()
                line.clock.set_by_s += max(least_s, chance.uniform(-36, 12) * HOUR)
            if chance.random() < 0.2:
                line.reopen()
            line.tick()
            newest = max(newest, line.clock.now())
            every = nights(began, newest)
            assert not every or line.last().due_at == every[-1]
        done = [datetime.fromisoformat(due) for due, *_ in line.fired()]
        assert len(done) > 150
        assert set(done) <= set(every)
        assert all(earlier < later for earlier, later in pairwise(done))
        changes = {datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 0, tzinfo=UTC)}
        assert changes <= set(every)
    finally:
        line.close()
        shutil.rmtree(root)
