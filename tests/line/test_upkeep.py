"""What the daemon does beside the line, as time passes."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cli_project import Project
from clock import NOON, MovedClock
from ds_flow.core.states import Cause
from ds_flow.settings.load import load_settings
from ds_flow.upkeep.child import Child
from ds_flow.upkeep.retention import DONE
from ds_flow.upkeep.upkeep import ALERT_SECONDS, LOOK_SECONDS, Upkeep
from project import Project as RealProject
from project import until
from samples import settled

DAY_S = 86_400
Make = Callable[..., Upkeep]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


@pytest.fixture
def make(project: Project, clock: MovedClock) -> Iterator[Make]:
    """What keeps, by the given settings; whoever is told writes it down, one a line."""
    made: list[Upkeep] = []

    def begin(**environ: str) -> Upkeep:
        tell = {"DS_FLOW_ALERTS__COMMAND": '[sh, -c, "cat >> told; echo >> told"]'}
        project.ledger.history.note(DONE, "", clock.now())
        chosen = load_settings(project.config, {**tell, **environ})
        made.append(Upkeep(chosen, project.ledger, clock))
        return made[-1]

    yield begin
    for keeping in made:
        keeping.close()


def told(project: Project) -> list[dict[str, object]]:
    path = project.root / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(keeping: Upkeep, clock: MovedClock, seconds: float, step_s: float = LOOK_SECONDS) -> None:
    end_s = clock.elapsed_s + seconds
    while clock.elapsed_s <= end_s:
        keeping.keep()
        clock.elapsed_s += step_s


def kinds(project: Project) -> list[tuple[object, object]]:
    return [(one["kind"], one["count"]) for one in told(project)]


# --------------------------------------------------------------------------- alerts


def test_news_is_told_a_moment_later_and_at_the_end_at_once(
    project: Project, make: Make, clock: MovedClock
) -> None:
    keeping = make()
    bad = [settled(f"data/{n}.csv", str(n), cause=Cause.UNREADABLE) for n in range(3)]
    project.ledger.admit(bad[:2], clock.now())
    keeping.keep()
    clock.elapsed_s += 11
    keeping.keep()
    until("it is told", lambda: kinds(project) == [("file.quarantined", 2)])

    project.ledger.history.note("schedule.missed", "nightly", clock.now())
    keeping.close()
    assert kinds(project) == [("file.quarantined", 2), ("schedule.missed", 1)]


def test_a_bug_in_telling_is_in_the_log_and_what_was_to_be_told_is_told_later(
    project: Project, make: Make, clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    keeping = make()
    keeping.keep()
    clock.elapsed_s += ALERT_SECONDS
    project.ledger.history.note("space.low", "", clock.now())
    project.ledger.close()
    keeping.keep()
    assert [bool(record.exc_info) for record in caplog.records] == [True]

    project.open()
    keeping.ledger = project.ledger
    keeping.close()
    assert kinds(project) == [("space.low", 1)]


@pytest.mark.parametrize("error", [OSError("no process can be started"), KeyError("a bug")])
def test_a_part_that_fails_holds_no_other_up_and_is_done_again(
    project: Project, make: Make, clock: MovedClock, error: Exception
) -> None:
    keeping, tries = make(), []

    def is_due(*_: object) -> bool:
        tries.append(1)
        raise error

    keeping.report.is_due = is_due
    keeping.keep()
    clock.elapsed_s += LOOK_SECONDS
    project.ledger.history.note("schedule.missed", "nightly", clock.now())
    keep(keeping, clock, 600)
    until("it is told", lambda: ("schedule.missed", 1) in kinds(project))
    assert len(tries) > 2


# --------------------------------------------------------------------------- low space


def test_low_space_is_told_once_and_room_again_is_noticed(
    project: Project, make: Make, clock: MovedClock
) -> None:
    keeping = make(DS_FLOW_RUN__MIN_FREE_MB="1000000000")
    keep(keeping, clock, 600)
    until("it is told", lambda: kinds(project) == [("space.low", 1)])
    assert "MB free" in str(told(project)[0]["examples"])

    keeping.settings = load_settings(project.config, {})
    keeping.watch_space()
    keeping.settings = load_settings(project.config, {"DS_FLOW_RUN__MIN_FREE_MB": "1000000000"})
    keeping.watch_space()
    last = project.ledger.history.last("space.low")
    assert last is not None
    assert last[0] == clock.now()


# --------------------------------------------------------------------------- expected files


def expecting(by: datetime, count: int = 2) -> dict[str, str]:
    item = {"pattern": "data/a_*.csv", "count": count, "by": f"{by:%H:%M}", "timezone": "UTC"}
    return {"DS_FLOW_EXPECT": json.dumps([item])}


def test_files_that_did_not_come_are_told_once_a_day(
    project: Project, make: Make, clock: MovedClock
) -> None:
    keeping = make(**expecting(NOON + timedelta(hours=2)))
    project.ledger.admit([settled("data/a_1.csv", "1")], clock.now())
    keep(keeping, clock, 3600)
    assert project.ledger.history.last("files.missing") is None
    keep(keeping, clock, 3 * 3600)
    until("it is told", lambda: kinds(project) == [("files.missing", 1)])
    (alert,) = told(project)
    assert "data/a_*.csv by 2026-01-01T14:00:00+00:00: 1 of 2 came" in str(alert["examples"])

    another = make(**expecting(NOON + timedelta(hours=2)))  # after a restart
    keep(another, clock, 3 * 3600)
    assert len(told(project)) == 1

    came = [settled(f"data/a_{n}.csv", "2") for n in range(2)]
    project.ledger.admit(came, clock.now())
    keep(another, clock, DAY_S, step_s=600)
    assert project.ledger.history.last("files.expected") is not None
    another.close()
    assert len(told(project)) == 1


def test_a_deadline_from_before_the_first_day_is_not_judged(
    project: Project, make: Make, clock: MovedClock
) -> None:
    keep(make(**expecting(NOON - timedelta(hours=2))), clock, 600)
    assert project.ledger.history.last("files.missing") is None


# --------------------------------------------------------------------------- retention


def test_garbage_is_collected_by_itself_once_a_day(
    project: Project, make: Make, clock: MovedClock
) -> None:
    old = project.root / "log" / "run_1.log"
    old.write_text("")
    os.utime(old, (1, 1))
    keeping = make()
    keep(keeping, clock, DAY_S / 2, step_s=600)
    assert not keeping.collection.child.is_there
    assert old.exists()

    keep(keeping, clock, DAY_S / 2 + 600, step_s=600)
    until("it is collected", lambda: not old.exists())
    until("it has ended", lambda: keeping.collection.child.ended() == (0, ""))
    assert project.ledger.history.last(DONE, "1 logs") is not None


def test_the_first_day_has_nothing_to_collect(project: Project, clock: MovedClock) -> None:
    keeping = Upkeep(project.settings, project.ledger, clock)
    keep(keeping, clock, 600)
    project.ledger.admit([settled("data/a.csv", "1")], clock.now())
    keep(keeping, clock, DAY_S - 600, step_s=600)
    assert not keeping.collection.child.is_there
    keep(keeping, clock, 1200)
    assert keeping.collection.child.is_there
    keeping.close()


# --------------------------------------------------------------------------- the real daemon


def test_a_refused_reload_is_told_by_the_daemon(tmp_path: Path) -> None:
    project = RealProject(
        tmp_path / "project", alerts={"command": ["sh", "-c", "cat >> told; echo >> told"]}
    )
    project.start()
    try:
        good = project.config.read_text()
        project.config.write_text(good + "nonsense: 1\n")
        project.signal(signal.SIGHUP)
        until("it is refused", lambda: "settings.refused" in project.said())
        project.config.write_text(good)
        project.stop()
    finally:
        project.end_everything()
    (alert,) = map(json.loads, (project.root / "told").read_text().splitlines())
    assert alert["kind"] == "settings.refused"
    assert "nonsense" in alert["examples"][0]


def test_a_process_that_hangs_does_not_keep_the_daemon_from_its_end(project: Project) -> None:
    child = Child()
    child.start(project.settings, "gc")
    process = child._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    state = Path(f"/proc/{process.pid}/stat")
    until("it was stopped", lambda: ") T " in state.read_text())
    child.close()
    until("it was killed", lambda: process.poll() == -signal.SIGKILL)
