"""Pauses: what waits, what goes on, when they end, and what people are told."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli_project import Project
from clock import NOON, machine_in
from ds_flow.cli.arguments import UsageError
from ds_flow.cli.commands.pause import time_of
from ds_flow.cli.main import main
from ds_flow.core.pauses import AFTER_PAUSE, Pause, planned_pause
from ds_flow.core.states import BatchState, FileState
from ds_flow.ledger.pauses import LINE
from ds_flow.settings.load import load_settings
from ds_flow.views.explain import Question, explanation
from ds_flow.views.health import problems, verdict
from ds_flow.views.lookup import Place
from ds_flow.views.metrics import metrics_text
from timed_line import BLIND, HOUR, Line

LATE = '[{name: all, cron: "0 * * * *", timezone: UTC, catch_up: false}]'
HOURS = timedelta(hours=1)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    made.close()


def pause(line: Line, name: str = LINE, hours: float | None = None) -> None:
    now = line.clock.now()
    until = now + hours * HOURS if hours else None
    begun = Pause(since_at=now, until_at=until, who="anna", why="the disk is replaced")
    line.ledger.pauses.begin(name, begun, now)


def resume(line: Line, name: str = LINE) -> None:
    assert line.ledger.pauses.end(name, "ben", line.clock.now())


def settle(line: Line) -> None:
    """Let pass what a file needs to arrive and a batch to form."""
    for _ in range(8):
        line.tick()
        line.wait(1)


def write(line: Line, name: str, text: str = "1") -> None:
    (line.root / "data" / f"{name}.csv").write_text(text)


def states(line: Line) -> dict[str, FileState]:
    return {row.path: row.state for row in line.ledger.read.latest()}


def kinds(line: Line, start: str) -> list[str]:
    rows = line.ledger._store.rows("SELECT kind FROM event ORDER BY id")
    return [kind for (kind,) in rows if kind.startswith(start)]


# --------------------------------------------------------------------------- the line


def test_while_paused_files_are_admitted_and_nothing_starts_until_it_is_resumed(
    line: Line,
) -> None:
    pause(line)
    for name in "abc":
        write(line, name)
    settle(line)
    assert states(line) == {f"data/{name}.csv": FileState.WAITING for name in "abc"}
    assert not line.runs.alive
    resume(line)
    line.work()
    assert set(states(line).values()) == {FileState.PROCESSED}


def test_a_run_that_lives_ends_by_itself_and_is_not_tried_again_while_paused(line: Line) -> None:
    write(line, "a")
    settle(line)
    (mark,) = line.runs.alive
    pause(line)
    line.tick()
    assert list(line.runs.alive) == [mark]
    line.runs.end(mark, "1")
    line.tick()
    line.wait(HOUR / 2)
    line.tick(3)
    assert not line.runs.alive
    assert [row.state for row in line.ledger.read.batches_in(BatchState.RETRYING)]
    line.engine.admission.hinted = False
    assert line.engine.patience_s() > 1  # it does not turn all the time for what is due
    resume(line)
    line.work()
    assert set(states(line).values()) == {FileState.PROCESSED}


def test_a_pause_that_comes_within_a_tick_starts_nothing_more(line: Line) -> None:
    write(line, "a")
    line.engine.starter.settings = line.settings
    for _ in range(8):
        line.engine.admit()
        line.engine.form()
        line.wait(1)
    assert line.ledger.read.due_batches(line.clock.now())
    pause(line)
    assert line.engine.starter.start() == 0
    assert not line.runs.alive


def test_a_pause_outlives_the_daemon(line: Line) -> None:
    pause(line)
    line.reopen()
    write(line, "a")
    settle(line)
    assert not line.runs.alive
    assert line.engine.pause is not None
    assert line.engine.pause.who == "anna"


def test_a_pause_ends_by_itself_at_its_time_and_that_is_noted_once(line: Line) -> None:
    pause(line, hours=0.5)
    write(line, "a")
    settle(line)
    line.wait(HOUR / 2 - 20)
    assert line.engine.patience_s() <= 20
    line.wait(30)
    line.work()
    assert set(states(line).values()) == {FileState.PROCESSED}
    assert kinds(line, "line.") == ["line.paused", "line.resumed"]


def test_a_pause_whose_time_was_over_while_no_daemon_ran_is_over(line: Line) -> None:
    pause(line, hours=1)
    line.close()
    line.clock.elapsed_s += 2 * HOUR
    line.open()
    line.tick()
    assert line.engine.pause is None
    assert kinds(line, "line.") == ["line.paused", "line.resumed"]


def test_new_terms_change_a_pause_and_keep_its_beginning(line: Line) -> None:
    pause(line)
    begun = line.clock.now()
    line.wait(60)
    pause(line, hours=1)
    found = line.ledger.pauses.of(LINE, line.clock.now())
    assert found is not None
    assert found.since_at == begun
    assert found.until_at == line.clock.now() + HOURS


def test_no_process_is_kept_ready_while_paused(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(line.runs, "get_ready", lambda _: asked.append("ready"))
    line.tick()
    pause(line)
    write(line, "a")
    settle(line)
    assert asked == []
    resume(line)
    line.work()
    write(line, "b")
    settle(line)
    assert asked


# --------------------------------------------------------------------------- schedules


def test_the_fires_of_a_paused_schedule_are_skipped_with_the_reason_and_not_caught_up(
    line: Line,
) -> None:
    line.reopen(BLIND)
    line.drop(a="1")
    pause(line, "all")
    line.next_hour()
    line.next_hour()
    resume(line, "all")
    line.work()
    assert line.outcomes() == ["skipped", "skipped"]
    assert "by anna, until `ds-flow resume`: the disk is replaced" in line.last().detail
    line.next_hour()
    assert line.outcomes() == ["skipped", "skipped", "run"]


def test_a_schedule_that_catches_up_fires_once_after_a_pause_of_the_line(line: Line) -> None:
    line.reopen(BLIND)
    line.drop(a="1")
    pause(line)
    for _ in range(3):
        line.wait(HOUR)
        line.tick(3)
    assert line.outcomes() == []
    line.wait(HOUR / 2)
    resume(line)
    line.work()
    assert line.outcomes() == ["run"]
    assert line.last().detail == AFTER_PAUSE
    assert kinds(line, "schedule.caught") == []
    now = line.clock.now()
    assert not [
        one for one in problems(line.settings, line.ledger, 1, now) if one.kind == "caught_up"
    ]


def test_a_schedule_that_does_not_catch_up_is_skipped_while_the_line_is_paused(line: Line) -> None:
    line.reopen(LATE)
    line.drop(a="1")
    pause(line)
    line.wait(HOUR)
    line.tick(3)
    resume(line)
    line.work()
    assert line.outcomes() == ["skipped"]


def test_what_a_person_asks_for_waits_for_the_line_but_not_for_the_schedule(line: Line) -> None:
    line.reopen(BLIND)
    line.drop(a="1")
    pause(line, "all")
    pause(line)
    line.ledger.schedules.ask("all", line.settings.schedule[0].timetable, line.clock.now())
    line.tick(5)
    assert line.outcomes() == []
    resume(line)
    line.work()
    assert line.outcomes() == ["run"]


# --------------------------------------------------------------------------- by the clock


def planned(line: Line, **keys: str) -> None:
    file = line.root / "config" / "settings.yaml"
    words = ", ".join(f"{name}: {value}" for name, value in keys.items())
    file.write_text(f"{file.read_text()}maintenance: [{{{words}}}]\n")
    line.engine.change_settings(load_settings(file, {}))


def test_maintenance_pauses_the_line_by_the_clock(line: Line) -> None:
    planned(line, cron='"0 13 * * *"', minutes="30", timezone="UTC", why="backup")
    line.wait(HOUR - line.clock.now().timestamp() % HOUR)
    assert line.clock.now() == datetime(2026, 1, 1, 13, tzinfo=UTC)
    write(line, "a")
    settle(line)
    assert not line.runs.alive
    assert line.engine.pause is not None
    assert (line.engine.pause.who, line.engine.pause.why) == (
        "the settings (maintenance)",
        "backup",
    )
    assert kinds(line, "line.") == []  # nobody is called at night for what was planned
    line.wait(HOUR / 2)
    line.work()
    assert set(states(line).values()) == {FileState.PROCESSED}


def test_maintenance_lasts_its_minutes_also_when_the_clock_is_put_back() -> None:
    def at(hour: int, minute: int) -> Pause | None:
        now = datetime(2026, 10, 25, hour, minute, tzinfo=UTC)
        return planned_pause("30 2 * * *", "Europe/Berlin", 2 * HOURS, "", now)

    assert at(0, 29) is None
    found = at(0, 30)  # 02:30 in summer time, the first of two
    assert found is not None
    assert found.until_at == datetime(2026, 10, 25, 2, 30, tzinfo=UTC)
    assert at(1, 45) == found  # 02:45 in winter time
    assert at(2, 29) == found
    assert at(2, 30) is None


# --------------------------------------------------------------------------- people

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


@pytest.fixture
def cli(project: Project, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(["--config", str(project.config), *argv])
        except SystemExit as error:
            code = int(error.code or 0)
        return (code, *capsys.readouterr())

    return run


def test_a_person_pauses_and_resumes_and_is_told(project: Project, cli: Cli) -> None:
    code, out, _ = cli("pause", "--until", "8h", "--why", "the  disk\tis replaced")
    assert code == 0
    assert "until" in out
    assert "the disk is replaced" in out
    status = json.loads(cli("status", "--json")[1])
    assert status["paused"]["why"] == "the disk is replaced"
    assert "paused     since" in cli("status")[1]
    assert "ds_flow_paused{" in metrics(project)
    assert metrics_value(project) == 1
    code, out, _ = cli("resume", "--no-wait")
    assert code == 0
    assert out.startswith("resumed; it was paused since")
    assert json.loads(cli("status", "--json")[1])["paused"] is None
    assert metrics_value(project) == 0
    assert cli("resume") == (0, "nothing is paused\n", "")


def metrics(project: Project) -> str:
    return metrics_text(project.settings, project.ledger, None, datetime.now(UTC))


def metrics_value(project: Project) -> float:
    (line,) = [one for one in metrics(project).splitlines() if one.startswith("ds_flow_paused{")]
    return float(line.rpartition(" ")[2])


def test_once_takes_files_in_while_paused_and_says_why_it_started_nothing(
    project: Project, cli: Cli
) -> None:
    cli("pause")
    project.drop("student_1.csv")
    code, out, err = cli("once")
    assert (code, out) == (0, "nothing new\n")
    assert "paused since" in err
    assert "nothing was started" in err
    (row,) = project.ledger.read.latest()
    assert row.state == FileState.WAITING


def test_explain_names_the_pause_that_a_file_waits_for(project: Project, cli: Cli) -> None:
    cli("pause", "--why", "backup")
    (row,) = project.admit("student_1.csv")
    place = Place(row.path, str(project.root / row.path))
    now = datetime.now(UTC)
    found = explanation(Question(project.settings, project.ledger, place, has_daemon=True, now=now))
    assert "none forms now: paused since" in found["verdict"]


@pytest.mark.parametrize(
    ("hours", "until", "expected"), [(1, None, "ok"), (25, None, "attention"), (25, 48, "ok")]
)
def test_a_pause_needs_a_person_only_if_it_has_no_end_and_lasts(
    project: Project, hours: int, until: int | None, expected: str
) -> None:
    end = NOON + until * HOURS if until else None
    begun = Pause(since_at=NOON, until_at=end, who="anna")
    project.ledger.pauses.begin(LINE, begun, NOON)
    now = NOON + hours * HOURS
    found = [
        one for one in problems(project.settings, project.ledger, 1, now) if one.kind == "paused"
    ]
    assert "nothing new starts" in found[0].text
    assert verdict(1, found) == expected


def test_a_schedule_is_paused_and_resumed_by_its_name(cli: Cli) -> None:
    assert cli("schedule", "pause", "nightly", "--until", "2d", "--why", "holiday")[0] == 0
    (row,) = json.loads(cli("schedule", "--json")[1])["schedules"]
    assert row["paused"]["why"] == "holiday"
    assert cli("schedule", "resume", "nightly")[1] == "schedule nightly: resumed\n"
    assert cli("schedule", "resume", "nightly")[1] == "schedule nightly: is not paused\n"
    assert cli("schedule", "pause", "weekly")[0] != 0
    assert "nightly" in cli("schedule", "pause", "weekly")[2]


@pytest.mark.parametrize("words", ["soon", "25:00", "2026-02-30", "0h", "-1h"])
def test_a_time_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(UsageError):
        time_of(words, NOON)


def test_a_time_is_of_this_day_or_the_next_by_the_machines_clock() -> None:
    with machine_in("Europe/Berlin"):
        assert time_of("13:30", NOON) == NOON + HOURS / 2
        assert time_of("12:30", NOON) == NOON + 23.5 * HOURS
        assert time_of("2026-01-02T13:00", NOON) == NOON + 24 * HOURS
    assert time_of("2026-01-01T15:00+00:00", NOON) == NOON + 3 * HOURS
    assert time_of("90m", NOON) == NOON + 1.5 * HOURS


def test_a_time_in_the_past_is_refused(project: Project, cli: Cli) -> None:
    code, _, err = cli("pause", "--until", "2020-01-01")
    assert code != 0
    assert "not in the future" in err
    assert project.ledger.pauses.of(LINE, NOON) is None


def test_a_window_that_would_never_end_is_refused(project: Project, cli: Cli) -> None:
    text = project.config.read_text()
    project.config.write_text(f'{text}maintenance: [{{cron: "0 1 * * *", minutes: 10081}}]\n')
    code, _, err = cli("pause")
    assert code != 0
    assert "maintenance.0.minutes" in err
