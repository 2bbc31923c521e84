"""`status` over real files and a real ledger: which files are arriving, and which are missed."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli_project import Project, manifest_of
from clock import NOON
from ds_flow.cli.project import open_ledger
from ds_flow.cli.status_text import status_lines
from ds_flow.core.states import Cause, Trigger
from ds_flow.inbox.progress import Counted, LookFile
from ds_flow.views.status import status_document

SOON = timedelta(minutes=1)
LATER = timedelta(hours=1)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


def failed_analyses(project: Project) -> list[str]:
    found = status_document(project.settings, project.ledger, None, NOON)["failed_analyses"]
    return [f"{one['run_id']}: {one['analysis_error']}" for one in found]


def test_a_failed_analysis_is_named_until_every_file_of_its_run_is_published_again(
    project: Project,
) -> None:
    analysis = {"command": ["wc"], "stdout": "", "error": "exit code 3"}
    rows = project.admit("student_a.csv", "student_b.csv")
    project.start(project.form("b" * 10, rows), "1")
    made = replace(manifest_of("b" * 10, "1", rows), analysis=analysis)
    project.ledger.record(made, NOON)
    assert failed_analyses(project) == ["1: exit code 3"]

    for batch, run_id, row in (("c" * 10, "2", rows[0]), ("d" * 10, "3", rows[1])):
        assert failed_analyses(project) == ["1: exit code 3"]
        project.start(project.form(batch, [row], Trigger.RERUN), run_id)
        project.ledger.record(manifest_of(batch, run_id, [row]), NOON)
    assert failed_analyses(project) == []


def test_files_that_a_daemon_has_not_seen_yet_are_arriving(project: Project) -> None:
    project.drop("student_a.csv")
    found = status_document(project.settings, project.ledger, 1, datetime.now(UTC) + SOON)
    assert (found["arriving"], found["unaccounted"], found["accounted"]) == (1, [], True)


def test_a_file_that_a_daemon_has_passed_over_is_unaccounted_for(project: Project) -> None:
    project.drop("student_a.csv")
    found = status_document(project.settings, project.ledger, 1, datetime.now(UTC) + LATER)
    assert (found["arriving"], found["unaccounted"]) == (0, ["data/student_a.csv"])
    assert found["accounted"] is False


def test_a_file_that_somebody_holds_open_for_writing_is_arriving(project: Project) -> None:
    with project.drop("student_a.csv").open("a"):
        found = status_document(project.settings, project.ledger, 1, datetime.now(UTC) + LATER)
    assert (found["arriving"], found["accounted"]) == (1, True)


def test_an_old_unknown_file_is_unaccounted_for_without_a_daemon(project: Project) -> None:
    project.drop("student_a.csv")
    found = status_document(project.settings, project.ledger, None, datetime.now(UTC) + LATER)
    assert (found["arriving"], found["unaccounted"]) == (0, ["data/student_a.csv"])
    assert found["accounted"] is False
    assert found["reason"] == "1 file in the inbox that the ledger does not know"


def test_a_file_that_just_changed_is_arriving_even_without_a_daemon(project: Project) -> None:
    project.drop("student_a.csv")
    found = status_document(project.settings, project.ledger, None, datetime.now(UTC))
    assert (found["arriving"], found["accounted"]) == (1, True)


def test_a_known_file_that_changed_is_unaccounted_for(project: Project) -> None:
    project.admit("student_a.csv", "student_b.csv")
    project.drop("student_a.csv", "other")
    found = status_document(project.settings, project.ledger, None, datetime.now(UTC) + LATER)
    assert found["unaccounted"] == ["data/student_a.csv"]


def test_a_missing_inbox_is_never_accounted_for(project: Project) -> None:
    (project.root / "data").rmdir()
    found = status_document(project.settings, project.ledger, None, NOON)
    assert found["accounted"] is False
    assert str(project.root / "data") in found["reason"]


def test_a_lost_ledger_is_rebuilt_by_whoever_reads_and_adds_up(project: Project) -> None:
    project.published("0123456789", "17", "student_a.csv")
    project.ledger.close()
    for path in (project.root / "out").glob("ledger.db*"):
        path.unlink()
    with open_ledger(project.settings, NOON) as ledger:
        assert [row.run_id for row in ledger.read.versions("data/student_a.csv")] == ["17"]
        found = status_document(project.settings, ledger, None, datetime.now(UTC) + LATER)
    assert (found["discovered"], found["accounted"]) == (1, True)


# --------------------------------------------------------------------------- a daemon's word


def tell_look(project: Project, **changes: object) -> None:
    """Write down what daemon 7 has counted at noon in a large inbox."""
    at, until = NOON.isoformat(), (NOON + SOON).isoformat()
    look = Counted(7, project.settings.pattern, at, until, ignored=2, arriving=3)
    folder = project.settings.work_root
    folder.mkdir(exist_ok=True)
    LookFile(folder).tell(Counted(**{**look._asdict(), **changes}))


def test_a_daemon_s_word_is_taken_for_a_large_inbox(project: Project) -> None:
    project.drop("student_a.csv")
    tell_look(project)
    found = status_document(project.settings, project.ledger, 7, NOON + SOON)
    assert (found["arriving"], found["ignored"], found["accounted"]) == (3, 2, True)
    assert found["looked_at"] == NOON.isoformat()


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 8},
        {"pattern": "/elsewhere/*.csv"},
        {"until": (NOON - SOON).isoformat()},
        {"looked_at": (NOON + SOON).isoformat()},
        {"until": "soon"},
        {"until": "2026-01-01T12:01:00"},
    ],
    ids=["another daemon", "another inbox", "late", "the future", "no time", "no zone"],
)
def test_a_word_that_does_not_hold_is_not_taken(
    project: Project, changes: dict[str, object]
) -> None:
    project.drop("student_a.csv")
    tell_look(project, **changes)
    found = status_document(project.settings, project.ledger, 7, NOON)
    assert (found["arriving"], found["ignored"], found["looked_at"]) == (1, 0, None)


def test_without_a_daemon_no_word_is_taken(project: Project) -> None:
    project.drop("student_a.csv")
    tell_look(project)
    assert status_document(project.settings, project.ledger, None, NOON)["looked_at"] is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"pid": 7}'])
def test_a_torn_word_is_not_taken(project: Project, text: str) -> None:
    tell_look(project)
    (project.settings.work_root / "look.json").write_text(text)
    assert status_document(project.settings, project.ledger, 7, NOON)["looked_at"] is None


def test_it_is_said_when_the_daemon_looked(project: Project) -> None:
    tell_look(project)
    lines = [*status_lines(status_document(project.settings, project.ledger, 7, NOON))]
    assert f"looked     {NOON.isoformat()}, by the daemon: the inbox is large" in lines


def test_a_fire_that_names_many_files_takes_a_few_lines_only(project: Project) -> None:
    document = status_document(project.settings, project.ledger, 7, NOON)
    told = {"schedule": "nightly", "outcome": "nothing", "run_id": None, "run_state": None}
    for detail, end in (("x" * 9000, "x… (all of it: `ds-flow schedule`)"), ("x" * 150, "xxx")):
        fire = {**told, "at": NOON.isoformat(), "detail": f"left out: {detail}"}
        document["last_night"]["fires"] = [fire]
        (line,) = [line for line in status_lines(document) if line.startswith("fired")]
        assert len(line) < 350
        assert line.endswith(end)


def test_a_file_that_is_to_be_read_again_is_accounted_for(project: Project) -> None:
    (row,) = project.admit("student_a.csv", cause=Cause.UNREADABLE, reason="EIO")
    project.ledger.release(row.id, NOON)
    found = status_document(project.settings, project.ledger, None, datetime.now(UTC) + LATER)
    assert (found["arriving"], found["unaccounted"]) == (0, [])
