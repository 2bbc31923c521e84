"""What needs a person now: each kind of problem, with its cause, its remedy and what to type."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli_project import Project, manifest_of
from clock import NOON
from ds_flow.core.manifest import Drifted
from ds_flow.core.retry_policy import Dead
from ds_flow.core.states import Cause, FireOutcome, RunState
from ds_flow.ledger import overview
from ds_flow.ledger.schedules import Fire
from ds_flow.system import services
from ds_flow.upkeep.record import Record, leave_record
from ds_flow.upkeep.spool import Spool
from ds_flow.views import of_files
from ds_flow.views.health import Problem, problems
from ds_flow.views.status import status_document

BATCH, PID = "0123456789", 7
NOW = NOON + timedelta(minutes=1)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


def found(project: Project, pid: int | None = PID) -> list[Problem]:
    return problems(project.settings, project.ledger, pid, NOW)


def kill(project: Project, batch: str = BATCH, name: str = "student_a.csv") -> None:
    project.start(project.form(batch, project.admit(name)), "17")
    project.ledger.end_run(
        batch, 1, RunState.FAILED, error="no bsub", results=0, then=Dead("no bsub"), now=NOON
    )


def test_nothing_is_wrong_with_a_new_project(project: Project) -> None:
    document = status_document(project.settings, project.ledger, PID, NOW)
    assert (document["verdict"], document["summary"]) == ("ok", "all is well")
    assert document["problems"] == []
    assert document["newest_combined"] is None
    assert document["next_fire"]["schedule"] == "nightly"


def test_a_daemon_that_is_not_running_comes_first(project: Project) -> None:
    kill(project)
    document = status_document(project.settings, project.ledger, None, NOW)
    assert [one["kind"] for one in document["problems"]] == ["daemon", "dead"]
    assert document["verdict"] == "down"
    assert document["summary"].startswith("the daemon is not running; batch 0123456789 has used")


def test_good_settings_that_need_a_restart_are_told_apart_from_bad_ones(project: Project) -> None:
    at = NOW.isoformat()
    why = "settings refused: config/settings.yaml: watch.observer changed: restart for that"
    record = Record(pid=PID, at=at, started_at=at, refused=why, refused_at=at)
    project.settings.work_root.mkdir(parents=True, exist_ok=True)
    leave_record(project.settings.work_root, record)
    (one,) = found(project)
    assert one.text == (
        "the daemon goes on with its old settings, because it refused the new ones:"
        " config/settings.yaml: watch.observer changed: restart for that"
    )
    assert one.remedy == "restart it; if they were corrected since, a reload is enough"
    assert one.command == f"ds-flow check && kill {PID}"


def test_an_installed_service_is_started_by_systemd(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "UNITS", project.root / "units")
    (project.root / "units").mkdir()
    for unit in ("ds-flow", "ds-flow-north"):
        place = project.root / "units" / f"{unit}.service"
        place.write_text(f"ExecStart={project.root}/.venv/bin/ds-flow serve\nUser=x\n")
        assert found(project, None)[0].command == f"sudo systemctl start {unit}"
        place.write_text("ExecStart=/opt/another/.venv/bin/ds-flow serve\nUser=x\n")
        assert found(project, None)[0].command == "ds-flow serve"


def test_a_dead_batch_is_named_until_its_files_were_retried(project: Project) -> None:
    kill(project)
    (one,) = found(project)
    assert (one.kind, one.needs_person) == ("dead", True)
    assert one.command == f"ds-flow retry {BATCH}"
    assert "no bsub" in one.text
    project.ledger.retry(BATCH, "9" * 10, NOON)
    assert found(project) == []


def test_a_quarantined_file_is_named_with_its_remedy_while_it_is_in_the_inbox(
    project: Project,
) -> None:
    project.admit("student_a.csv", cause=Cause.REJECTED, reason="line 3: 1 cell, not 2")
    (one,) = found(project)
    assert one.text == "data/student_a.csv is set aside: line 3: 1 cell, not 2"
    assert one.remedy.startswith("correct the file and put it into the inbox again")
    assert one.command == "ds-flow explain -- data/student_a.csv"
    (project.root / "data" / "student_a.csv").unlink()
    assert found(project) == []


def test_a_newer_version_makes_up_for_a_quarantined_one(project: Project) -> None:
    project.admit("student_a.csv", cause=Cause.UNREADABLE, reason="refused")
    (project.root / "data" / "student_a.csv").write_text("a\n2\n")
    assert found(project)[0].command == "ds-flow release -- data/student_a.csv"
    project.published(BATCH, "17", "student_a.csv")
    assert found(project) == []


def test_many_quarantined_files_are_a_few_and_the_way_to_the_others(project: Project) -> None:
    names = [f"student_{number}.csv" for number in range(8)]
    project.admit(*names, cause=Cause.REJECTED, reason="no table")
    kinds = [one.command for one in found(project)]
    assert len(kinds) == 6
    assert kinds[-1] == "ds-flow files --state quarantined"


def test_many_files_that_were_removed_hide_none_that_is_still_there(project: Project) -> None:
    project.admit("student_old.csv", cause=Cause.REJECTED, reason="no table")
    names = [f"student_{number}.csv" for number in range(300)]
    project.admit(*names, cause=Cause.REJECTED, reason="no table")
    for name in names:
        (project.root / "data" / name).unlink()
    (one,) = found(project)
    assert one.text.startswith("data/student_old.csv is set aside")


def test_alerts_that_cannot_be_sent_are_named_once_they_wait_for_long(project: Project) -> None:
    spool = Spool(project.settings.work_root)
    path = spool.put("email", "{}")
    (path.parent / ".part").touch()
    (path.parent / f"{'9' * 20}-1.email").touch()
    (path.parent / "notes").touch()
    project.settings.log_dir.mkdir(exist_ok=True)
    now = datetime.now(UTC)

    def told(minutes: float, pid: int | None = PID) -> list[Problem]:
        at = now + timedelta(minutes=minutes)
        found = problems(project.settings, project.ledger, pid, at)
        return [one for one in found if one.kind == "alerts"]

    assert told(14) == []
    (one,) = told(16)
    assert (one.text, one.needs_person) == ("1 alert could not be sent", True)
    assert told(16, None) == []
    spool.remove(path)
    assert told(16) == []


def test_files_that_match_nothing_are_named_with_the_nearest_name(project: Project) -> None:
    for name in ("Student_X.CSV", "marks.xlsx", "README.md"):
        project.drop(name)
    document = status_document(project.settings, project.ledger, PID, NOW)
    assert {one["path"]: one["nearest"] for one in document["ignored_paths"]} == {
        "data/Student_X.CSV": "student_X.csv",
        "data/marks.xlsx": "student_marks.csv",
    }
    alike, other = found(project)
    assert (alike.needs_person, other.needs_person) == (True, False)
    assert "student_X.csv would be read" in alike.text
    assert (alike.remedy, other.remedy) == ("rename it", "save it as CSV")


def test_a_missed_fire_is_named_with_the_command_that_fires_it(project: Project) -> None:
    fire = Fire(schedule="nightly", due_at=NOON, outcome=FireOutcome.MISSED, detail="seen late")
    project.ledger.schedules.record(fire, NOW)
    (one,) = found(project)
    assert one.command == "ds-flow schedule run nightly"
    assert "seen late" in one.text


def test_a_lost_inbox_is_named(project: Project) -> None:
    (project.root / "data").rmdir()
    assert [one.kind for one in found(project)] == ["inbox"]


def test_a_file_that_a_run_has_set_aside_is_not_counted_as_published(project: Project) -> None:
    rows = project.admit("student_a.csv", "student_b.csv")
    project.start(project.form(BATCH, rows), "17")
    project.publish(BATCH, "17", rows[:1], rows[1:])
    night = status_document(project.settings, project.ledger, PID, NOW)["last_night"]
    assert (night["files"], night["set_aside"]) == (1, 1)


def test_the_last_day_is_counted(project: Project) -> None:
    project.published(BATCH, "17", "student_a.csv", "student_b.csv")
    project.admit("student_c.csv", cause=Cause.REJECTED, reason="no table")
    document = status_document(project.settings, project.ledger, PID, NOW)
    night = document["last_night"]
    assert (night["runs"], night["failures"], night["files"]) == (1, 0, 2)
    assert (night["rows"], night["set_aside"]) == (3, 1)
    assert document["newest_combined"]["file"] == "out/final_combined_17.csv"
    later = status_document(project.settings, project.ledger, PID, NOW + timedelta(days=2))[
        "last_night"
    ]
    assert (later["runs"], later["rows"], later["set_aside"]) == (0, 0, 0)


def test_a_run_that_set_all_of_its_files_aside_does_not_hide_the_newest_combined_file(
    project: Project,
) -> None:
    project.published(BATCH, "17", "student_a.csv")
    rows = project.admit("student_b.csv")
    project.start(project.form("1" * 10, rows), "18")
    nothing = manifest_of("1" * 10, "18", [], rows)
    project.ledger.record(replace(nothing, outputs=()), NOW)
    document = status_document(project.settings, project.ledger, PID, NOW)
    assert document["newest_combined"]["file"] == "out/final_combined_17.csv"


# --------------------------------------------------------------------------- a long history


def fill(project: Project, runs: int) -> None:
    """A history of this many runs, one in ten of which failed and was made up for."""
    long_ago = (NOON - timedelta(days=90)).isoformat()
    store = project.ledger._store
    states = [(n, "failed" if n % 10 == 0 else "succeeded", f"{n:010}") for n in range(1, runs)]
    with store.transaction():
        store.change_many(
            "INSERT INTO batch (id, state, trigger, formed_at, due_at, ended_at)"
            " VALUES (?1, iif(?2 = 'failed', 'dead', ?2), 'arrival', ?3, ?3, ?3)",
            ((batch, state, long_ago) for _, state, batch in states),
        )
        store.change_many(
            "INSERT INTO file (id, path, version, size_bytes, stat, seen_at, state)"
            " VALUES (?1, 'data/' || ?1, 1, 1, '', ?2, 'processed')",
            ((n, long_ago) for n, _, _ in states),
        )
        store.change_many(
            "INSERT INTO batch_file (batch_id, file_id, live) VALUES (?, ?, 0)",
            ((batch, n) for n, _, batch in states),
        )
        store.change_many(
            "INSERT INTO run (id, batch_id, attempt, state, run_id, started_at, ended_at)"
            " VALUES (?1, ?2, 1, ?3, ?1, ?4, ?4)",
            ((n, batch, state, long_ago) for n, state, batch in states),
        )
        store.change_many(
            "INSERT INTO output (run, name, sha256, size_bytes, rows)"
            " VALUES (?1, 'final_combined_' || ?1 || '.csv', '', 1, 1)",
            ((n,) for n, _, _ in states),
        )
        store.change_many(
            "INSERT INTO event (at, kind, file_id, batch_id) VALUES (?, 'file.quarantined', ?, ?)",
            ((long_ago, n, batch) for n, _, batch in states),
        )


def steps(project: Project) -> int:
    """How much SQLite works for all questions about the whole, in hundreds of its steps."""
    counted: list[int] = []
    overview = project.ledger.overview
    project.ledger._store._db.set_progress_handler(lambda: counted.append(1), 100)
    overview.dead(5)
    overview.set_aside(5)
    overview.since(NOON)
    overview.lost(NOON, 5)
    overview.newest_combined()
    overview.fires("nightly", NOON, 5)
    overview.repaired(1)
    project.ledger._store._db.set_progress_handler(None, 100)
    return len(counted)


def test_no_question_about_the_whole_gets_slower_with_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COUNTED_RUNS", "COUNTED_EVENTS", "LOOKED_THROUGH"):
        monkeypatch.setattr(overview, name, 100)
    worked = []
    for runs in (2000, 20_000):
        (tmp_path / str(runs)).mkdir()
        with Project(tmp_path / str(runs)) as made:
            fill(made, runs)
            worked.append(steps(made))
    assert worked[0] > 0
    assert worked[1] <= worked[0] * 1.2


def test_marked_files_are_a_few_notes_and_the_number_of_the_others(project: Project) -> None:
    rows = project.admit(*(f"student_{number}.csv" for number in range(of_files.NAMED + 3)))
    project.start(project.form(BATCH, rows), "17")
    made = manifest_of(BATCH, "17", rows)
    marks = [
        Drifted(
            path=row.path,
            version=row.version,
            family="student_#",
            kind="missing",
            column="score",
            text=f"{row.id} is missing",
        )
        for row in rows
    ]
    project.ledger.record(replace(made, drift=tuple(marks)), NOON)

    notes = [one for one in found(project) if one.kind == "drift"]

    assert len(notes) == of_files.NAMED + 1
    assert not any(one.needs_person for one in notes)
    newest = rows[-1]
    assert notes[0].text == (
        f"{newest.path} is published, but differs from the files before it: {newest.id} is missing"
    )
    assert notes[0].remedy == "ask their sender whether this is meant"
    assert notes[0].command == "ds-flow show 17"
    assert notes[-1].text == "3 more files differ from those before them"
