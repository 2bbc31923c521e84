"""Two users and one project: nobody's work is stopped by what the other one left in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import require

from ds_flow.core.states import FileState, RunState
from project import Project, flow, ids, table, until

OTHER = 1234  # a user without a name
OBEYING = "--bounding-set=-dac_override,-dac_read_search"  # root obeys modes without these


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project of root, which runs this test; root obeys modes here, as others do."""
    if os.geteuid():
        pytest.skip("only root can be two users")
    made = Project(tmp_path / "project", run={"attempts": 1})
    made.drop("student_a.csv", table("a"))
    made.prefix = (require("setpriv"), OBEYING, "--")
    yield made
    made.end_everything()


def give(folder: Path, user: int) -> None:
    """Give all folders and files to a user; others may read them."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user)
        path.chmod(0o755 if path.is_dir() else 0o644)


# --------------------------------------------------------------------------- root

REFUSED = "root may not work here; use sudo -u '#1234', or give the project to root: chown -R root:"


@pytest.mark.parametrize("command", ["once", "serve", "status", "check", "gc", "detach"])
def test_root_is_refused_in_another_users_project_with_the_remedy(
    project: Project, command: str
) -> None:
    give(project.root, OTHER)

    done = project.ds_flow(command)

    assert (done.returncode, done.stdout) == (78, "")
    (line,) = done.stderr.splitlines()
    assert f"{project.root} belongs to #1234: {REFUSED} {project.root}" in line
    assert sorted(path.name for path in project.root.iterdir()) == ["config", "data", "gated.py"]


@pytest.mark.parametrize("words", ["run", "resume --origin-run-id 1"])
def test_root_is_refused_by_the_flow_in_another_users_project(project: Project, words: str) -> None:
    give(project.root, OTHER)

    done = flow(project, *words.split())

    assert done.returncode == 78
    assert REFUSED in done.stderr
    assert not (project.root / "out").exists()


def test_a_project_that_root_has_installed_is_whose_outputs_are(project: Project) -> None:
    project.out.mkdir()
    give(project.out, OTHER)

    done = project.once()

    assert done.returncode == 78
    assert f"{project.out} belongs to #1234: {REFUSED}" in done.stderr


@pytest.mark.exhaustive
def test_root_works_in_a_project_of_its_own_whoever_drops_files(project: Project) -> None:
    give(project.inbox, OTHER)
    project.prefix = ()

    done = project.once()

    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------------- what is left

BELONGS = "belongs to #1234, and ds-flow runs as root, which may not write to it: chown -R root: "
PLACES = (
    ".metaflow/StudentDataFlow",
    pytest.param("log", marks=pytest.mark.exhaustive),
    pytest.param(".metaflow", marks=pytest.mark.exhaustive),
    pytest.param(".metaflow/StudentDataFlow/latest_run", marks=pytest.mark.exhaustive),
    pytest.param(".metaflow/StudentDataFlow/data", marks=pytest.mark.exhaustive),
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.exhaustive
def test_what_another_user_left_holds_a_batch_back_with_the_remedy(
    project: Project, place: str
) -> None:
    assert project.once().returncode == 0
    path, top = project.root / place, project.root / Path(place).parts[0]
    os.chown(path, OTHER, OTHER)
    project.start()
    project.drop("student_b.csv", table("b"))
    until("it is held back", lambda: "batch.waits" in project.said())

    why = f"{path} {BELONGS}{top}"
    assert why in project.said()
    assert any(why in line for line in project.status()["held_back"])
    assert f"held back: {why}" in project.ds_flow("explain", "data/student_b.csv").stdout
    assert project.states("student_b.csv") == [FileState.BATCHED]
    assert len(project.runs()) == 1

    give(top, 0)
    project.wait_processed("student_b.csv")
    project.stop()


@pytest.mark.parametrize(
    ("place", "user"),
    [
        (".metaflow/StudentDataFlow", OTHER),
        pytest.param(".metaflow/StudentDataFlow", 0, marks=pytest.mark.exhaustive),
        pytest.param("out/.work", 0, marks=pytest.mark.exhaustive),
    ],
)  # were out/.work another user's, it would be that user's project
def test_what_refuses_a_run_in_its_midst_uses_up_no_attempt(
    project: Project, place: str, user: int
) -> None:
    project.drop("student_a.csv", table("a", gate="midway"))
    gate = project.gate("midway")
    project.start()
    gate.wait()
    folders = [path for path in (project.root / place).rglob("*") if path.is_dir()]
    for path in folders:
        if "attempts" not in path.parts:
            os.chown(path, user, user)
            path.chmod(0o555)
    gate.open()
    until("its run ends", lambda: "run.lost" in project.said() or "run.failed" in project.said())
    assert project.states("student_a.csv") == [FileState.BATCHED]
    assert project.status()["held_back"]

    for path in folders:
        os.chown(path, 0, 0)
        path.chmod(0o755)
    project.ds_flow("retry", project.runs()[0].batch)
    project.wait_processed("student_a.csv")
    project.stop()
    assert project.published_ids() == sorted(ids("a"))
    assert [run.state for run in project.runs()] == [RunState.LOST, RunState.SUCCEEDED]
