"""A project that is moved, copied or restored in mid-batch publishes once, and in its own place.

Real runs, stopped at a gate in the transform. For a new case, say what was done to the folder, and
what must be in it and in the other one afterwards.
"""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds_flow.work.place import Place, settle
from ds_flow.work.root import work_root
from project import DS_FLOW, Project, flow, ids, table

COPY_CODE = 78


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    yield made
    made.end_everything()


def at(root: Path) -> Project:
    """The project that lies in another folder now."""
    made = Project.__new__(Project)
    made.place(root)
    return made


def stopped_in_the_middle(project: Project, *names: str) -> None:
    """Admit files and end everything while the first batch's transform is at work."""
    for name in names or ("a",):
        project.drop(f"student_{name}.csv", table(name))
    gate = project.gate("call1")
    project.start()
    gate.wait()
    project.end_everything()
    gate.open()
    shutil.rmtree(project.root / "gates")


def assert_published_once(project: Project, *names: str) -> None:
    assert project.published_ids() == sorted(row for name in names or ("a",) for row in ids(name))
    assert (project.strays(), project.leftovers()) == (set(), [])
    assert project.status()["accounted"]


# --------------------------------------------------------------------------- moves


def test_a_batch_goes_on_where_its_project_was_moved_to(project: Project, tmp_path: Path) -> None:
    stopped_in_the_middle(project)
    project.root.rename(tmp_path / "moved")

    moved = at(tmp_path / "moved")
    ended = moved.once()

    assert ended.returncode == 0, ended.stderr
    assert f"it was {project.root}" in (moved.log / "ds-flow.log").read_text()
    assert_published_once(moved)
    assert not project.root.exists()


@pytest.mark.exhaustive
def test_a_plan_of_the_version_before_goes_on_in_the_new_place_too(
    project: Project, tmp_path: Path
) -> None:
    stopped_in_the_middle(project)
    (plan,) = project.out.glob(".work/*/batch.json")
    row = json.loads(plan.read_text())
    row["options"] |= {
        "root": str(project.root),
        "output_dir": str(project.out),
        "log_dir": str(project.log),
        "inbox": str(project.inbox),
    }
    plan.write_text(json.dumps(row))
    project.root.rename(tmp_path / "moved")

    moved = at(tmp_path / "moved")

    assert moved.once().returncode == 0
    assert_published_once(moved)


@pytest.mark.exhaustive
def test_a_resume_in_the_new_place_publishes_there(project: Project, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "cmp"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 2\n")
    broken.chmod(0o755)
    for name in ("a", "b"):
        project.drop(f"student_{name}.csv", table(name))
    project.environment["PATH"] = f"{broken.parent}:{os.environ['PATH']}"
    assert flow(project, "run").returncode == 1
    (log,) = project.log.glob("run_*.log")
    run_id = log.stem.removeprefix("run_")
    project.root.rename(tmp_path / "moved")
    moved = at(tmp_path / "moved")

    resumed = flow(moved, "resume", "--origin-run-id", run_id)

    assert resumed.returncode == 0, resumed.stderr
    assert len(moved.manifests()) == 1
    assert not project.root.exists()


@pytest.mark.parametrize("left", ["another project", "a link to the new place"])
def test_a_project_goes_on_where_it_was_moved_to_whatever_is_in_its_old_place(
    tmp_path: Path, left: str
) -> None:
    old, new = tmp_path / "project", tmp_path / "moved"

    def settled(root: Path) -> Place:
        work_root(root / "out").mkdir(parents=True, exist_ok=True)
        settle(root / "out", root)
        return Place(**json.loads((work_root(root / "out") / "project.json").read_text()))

    was = settled(old)
    old.rename(new)
    if left == "another project":
        settled(old)
    else:
        old.symlink_to(new)

    assert (settled(new).id, settled(new).root) == (was.id, str(new))


def test_a_note_that_a_crash_left_half_written_goes_at_the_next_start(project: Project) -> None:
    left = project.out / ".work" / ".project.json.0123abcd"
    left.parent.mkdir(parents=True, mode=0o700)
    for _ in range(2):  # without a whole note, and beside one
        left.write_text("{")
        assert project.once().returncode == 0
        assert project.leftovers() == []


# --------------------------------------------------------------------------- copies


@pytest.mark.exhaustive
def test_a_copy_is_refused_until_it_is_a_project_of_its_own(
    project: Project, tmp_path: Path
) -> None:
    stopped_in_the_middle(project)
    shutil.copytree(project.root, tmp_path / "copy", symlinks=True)
    copy = at(tmp_path / "copy")
    with project.reading() as read:
        (run,) = read.live_runs()

    for words in (["once"], ["cancel", run.batch], ["status"], ["gc"], ["serve"]):
        refused = copy.ds_flow(*words)
        assert refused.returncode == COPY_CODE
        assert f"is a copy of {project.root}" in refused.stderr
        assert "ds-flow detach" in refused.stderr
    by_hand = flow(copy, "run")
    assert by_hand.returncode == COPY_CODE
    assert "ds-flow detach" in by_hand.stderr
    assert copy.names() == set()

    assert copy.ds_flow("detach").returncode == 0
    assert copy.once().returncode == 0
    assert project.once().returncode == 0

    assert_published_once(copy)
    assert_published_once(project)
    (mine,), (theirs,) = copy.manifests(), project.manifests()
    assert (theirs.batch, mine.batch != run.batch) == (run.batch, True)


@pytest.mark.exhaustive
def test_a_copy_without_its_ledger_can_be_detached(project: Project, tmp_path: Path) -> None:
    stopped_in_the_middle(project)
    shutil.copytree(project.root, tmp_path / "copy", symlinks=True)
    copy = at(tmp_path / "copy")
    for file in copy.out.glob("ledger.db*"):
        file.unlink()

    detached = copy.ds_flow("detach")

    assert detached.returncode == 0, detached.stderr
    assert copy.once().returncode == 0
    assert_published_once(copy)


@pytest.mark.exhaustive
def test_a_copy_that_is_detached_leaves_the_run_of_the_other_alone(
    project: Project, tmp_path: Path
) -> None:
    project.drop("student_a.csv", table("a"))
    gate = project.gate("call1")
    project.start()
    gate.wait()
    shutil.copytree(project.root, tmp_path / "copy", symlinks=True)
    shutil.rmtree(tmp_path / "copy" / "gates")
    copy = at(tmp_path / "copy")

    assert copy.ds_flow("detach").returncode == 0
    assert copy.once().returncode == 0
    assert project.marked()
    gate.open()
    project.wait_processed("student_a.csv")
    assert project.stop() == 0

    assert_published_once(copy)
    assert_published_once(project)
    assert [run.attempt for run in project.runs()] == [1]


def test_a_batch_of_another_project_is_not_run_here(project: Project, tmp_path: Path) -> None:
    stopped_in_the_middle(project)
    other = Project(tmp_path / "other")
    (work,) = [path for path in (project.out / ".work").iterdir() if path.is_dir()]

    refused = flow(other, "run", "--batch", work.name, "--output-dir", str(project.out))

    assert refused.returncode == 1
    assert f"is of the project {project.root}" in refused.stderr


# --------------------------------------------------------------------------- restores


@pytest.mark.exhaustive
def test_a_backup_from_the_middle_of_a_run_publishes_nothing_twice(
    project: Project, tmp_path: Path
) -> None:
    project.drop("student_a.csv", table("a"))
    gate = project.gate("call1")
    project.start()
    gate.wait()
    assert project.ds_flow("backup", str(tmp_path / "saved")).returncode == 0
    gate.open()
    project.wait_processed("student_a.csv")
    project.stop()

    restore(project, tmp_path / "saved")
    ended = project.once()

    assert ended.returncode == 0, ended.stderr
    assert_published_once(project)
    assert len(project.manifests()) == 1


@pytest.mark.exhaustive
def test_a_backup_from_before_the_batch_publishes_nothing_twice(
    project: Project, tmp_path: Path
) -> None:
    project.start()
    project.ds_flow("backup", str(tmp_path / "saved"))
    project.drop("student_a.csv", table("a"))
    project.wait_processed("student_a.csv")
    project.stop()

    restore(project, tmp_path / "saved")

    assert project.once().returncode == 0
    assert_published_once(project)
    assert len(project.manifests()) == 1


def restore(project: Project, saved: Path) -> None:
    for end in ("-wal", "-shm"):
        project.ledger.with_name(f"ledger.db{end}").unlink(missing_ok=True)
    shutil.copy(saved, project.ledger)


def test_a_backup_is_one_whole_file_that_replaces_no_other(
    project: Project, tmp_path: Path
) -> None:
    project.drop("student_a.csv", table("a"))
    project.once()
    saved = tmp_path / "saved"
    saved.write_text("precious")

    refused = project.ds_flow("backup", str(saved))
    assert refused.returncode == 1
    assert "exists already" in refused.stderr
    assert saved.read_text() == "precious"
    saved.unlink()
    assert project.ds_flow("backup", str(saved)).returncode == 0

    assert sorted(path.name for path in tmp_path.iterdir()) == ["project", "saved"]
    assert saved.stat().st_mode & 0o077 == 0
    db = sqlite3.connect(f"{saved.as_uri()}?mode=ro", uri=True)
    assert db.execute("SELECT state FROM file").fetchall() == [("processed",)]
    db.close()


# --------------------------------------------------------------------------- the command


def test_a_copied_command_refuses_to_work_on_the_original(tmp_path: Path) -> None:
    copied = tmp_path / "second" / ".venv" / "bin" / "ds-flow"
    copied.parent.mkdir(parents=True)
    (copied.parents[1] / "pyvenv.cfg").touch()
    shutil.copy(DS_FLOW, copied)

    refused = subprocess.run([copied, "status"], capture_output=True, text=True, check=False)

    assert refused.returncode == COPY_CODE
    assert f"make setup in {tmp_path / 'second'}" in refused.stderr
