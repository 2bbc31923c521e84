"""The outside checker finds what it is there for: each thing that could go wrong, by hand."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.checker import check, escaped
from chaos.drops import Journal
from chaos.vanished import vanished_from
from ds_flow.core.paths import escape
from project import Project


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Journal]]:
    """A project at rest: two tables published, a bad file set aside."""
    project = Project(tmp_path_factory.mktemp("checker") / "project")
    journal = Journal()
    for name in ("a", "b"):
        project.drop(f"student_{name}.csv", journal.good(3).text)
    project.drop("student_bad.csv", journal.bad().text)
    project.once()
    yield project, journal
    project.end_everything()


@pytest.fixture
def rest(made: tuple[Project, Journal], tmp_path: Path) -> Iterator[tuple[Project, Journal]]:
    """The same, to be tampered with."""
    project, journal = made
    shutil.copytree(project.out, tmp_path / "out", symlinks=True)
    yield project, journal
    shutil.rmtree(project.root / "archive", ignore_errors=True)
    shutil.rmtree(project.out)
    shutil.copytree(tmp_path / "out", project.out, symlinks=True)


def one(project: Project, pattern: str) -> Path:
    (found,) = project.out.glob(pattern)
    return found


def lose_a_row(project: Project) -> None:
    path = one(project, "final_*.csv")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def double_a_row(project: Project) -> None:
    path = one(project, "processed_student_a_*.csv")
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[-1])


def double_a_run(project: Project) -> None:
    text = one(project, "manifest_*.json").read_text()
    (project.out / "manifest_1.json").write_text(text)


def lose_an_output(project: Project) -> None:
    one(project, "processed_student_b_*.csv").unlink()


def leave_an_output(project: Project) -> None:
    (project.out / "processed_student_c_1.csv").write_text("token\n")


def leave_a_work_directory(project: Project) -> None:
    (project.out / ".work" / "0123456789").mkdir()


def changed(sql: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        with closing(sqlite3.connect(project.out / "ledger.db")) as db, db:
            db.execute(sql)

    return change


def miss_a_file(project: Project) -> None:
    changed("DELETE FROM event WHERE file_id = 1")(project)
    changed("UPDATE file SET path = 'data/student_x.csv' WHERE path = 'data/student_a.csv'")(
        project
    )


def archive_what_nobody_published(project: Project) -> None:
    (project.root / "archive").mkdir(exist_ok=True)
    (project.root / "archive" / "student_z.csv").write_text("token\n")


TAMPERED: dict[str, tuple[Callable[[Project], None], str]] = {
    "a row is lost": (lose_a_row, "partial"),
    "a row is doubled": (double_a_row, "doubled"),
    "a run is published twice": (double_a_run, "doubled"),
    "an output is lost": (lose_an_output, "lost"),
    "an output is left over": (leave_an_output, "stray"),
    "a work directory is left over": (leave_a_work_directory, "stray"),
    "what nobody published is archived": (archive_what_nobody_published, "removed"),
    "an archived file is lost": (
        changed("UPDATE file SET away = 'gone', away_to = 'archive/1/x.csv' WHERE id = 1"),
        "removed",
    ),
    "a file is left on its way": (
        changed("UPDATE file SET away = 'going' WHERE id = 1"),
        "unsound",
    ),
    "a file is forgotten": (miss_a_file, "lost"),
    "a state has no event": (
        changed("UPDATE file SET state = 'waiting', cause = NULL WHERE state = 'quarantined'"),
        "unsound",
    ),
    "a run never ends": (
        changed("UPDATE run SET state = 'running', ended_at = NULL"),
        "unsound",
    ),
}


@pytest.mark.exhaustive  # the checker is for `make chaos`, and the samples of it that tests run
@pytest.mark.parametrize("what", TAMPERED)
def test_what_should_not_be_is_found(rest: tuple[Project, Journal], what: str) -> None:
    project, journal = rest
    tamper, kind = TAMPERED[what]

    tamper(project)

    assert kind in {finding.kind for finding in check(project, journal).findings}


def test_a_project_at_rest_is_whole(made: tuple[Project, Journal]) -> None:
    project, journal = made

    report = check(project, journal)

    report.require_whole()
    assert (report.files, report.versions, report.published) == (3, 3, 2)
    assert not report.set_aside


def test_a_published_name_that_disappears_for_a_moment_is_noted(tmp_path: Path) -> None:
    with vanished_from(tmp_path) as vanished:
        for name in ("processed_a_1.csv", "final_combined_1.csv", "manifest_1.json", "other"):
            (tmp_path / name).touch()
        (tmp_path / "processed_a_1.csv").unlink()
        (tmp_path / "manifest_1.json").rename(tmp_path / "moved")
        (tmp_path / "moved").rename(tmp_path / "manifest_1.json")
        (tmp_path / "other").unlink()

    assert vanished == ["processed_a_1.csv", "manifest_1.json"]


@given(st.text(st.characters(codec="utf-8") | st.characters(categories=["Cs"])))
def test_the_checker_names_a_file_as_ds_flow_does(text: str) -> None:
    name = text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    assert escaped(name) == escape(name)


@pytest.mark.exhaustive
def test_an_input_that_is_gone_and_was_never_published_is_found(
    rest: tuple[Project, Journal],
) -> None:
    project, journal = rest
    journal.standing["student_z.csv"] = "0" * 64
    found = [finding.kind for finding in check(project, journal).findings]
    journal.standing.clear()
    assert found == ["removed"]
