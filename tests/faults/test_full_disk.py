"""A disk that takes nothing is waited out: one that is full, one that cannot be written to."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import require

from disks import fill, mounted
from ds_flow.core.states import FileState, RunState
from project import Project, ids, table, until

LOG, METAFLOW, LEDGER = (
    pytest.param(one, marks=pytest.mark.exhaustive) for one in ("log", ".metaflow", "ledger")
)


@pytest.fixture(params=["out", LOG, METAFLOW, LEDGER])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """A project at work, one of whose disks, a file system of 3 MB, becomes full."""
    paths = {"ledger": "ledger/ledger.db"}
    made = Project(tmp_path / "project", paths=paths, run={"min_free_mb": 1})
    made.ledger = made.root / "ledger" / "ledger.db"
    with mounted(made.root / request.param, "size=3m"):
        made.start()
        fill(made.root / request.param)
        try:
            yield made
        finally:
            made.end_everything()


@pytest.mark.exhaustive
def test_a_full_disk_is_waited_out_and_no_attempt_is_used_up(project: Project) -> None:
    full = next(project.root.glob("*/filler"))
    project.drop("student_a.csv", table("a"))
    until("the daemon waits", lambda: "stage.waits" in project.said())

    os.truncate(full, 0)

    until("the file is processed", lambda: project.status()["files"]["processed"] == 1, every=0.5)
    project.stop()
    assert project.published_ids() == sorted(ids("a"))
    assert project.status()["runs"] == {"succeeded": 1}


@pytest.mark.exhaustive
def test_a_disk_that_is_full_once_the_files_are_combined_is_waited_out_too(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path / "project", paths={"ledger": "ledger.db"}, run={"min_free_mb": 0})
    project.ledger = project.root / "ledger.db"
    gate = project.gate("midway")
    with mounted(project.out, "size=8m"):
        project.start()
        project.drop("student_a.csv", "id,gate\n" + "1,midway\n" * 20_000)  # 1.3 MB, processed
        try:
            gate.wait()
            filler = fill(project.out, leave_bytes=2 * 2**20)
            gate.open()
            until("the run is lost", lambda: "run.lost" in project.said())
            assert f"{project.out} has 0." in project.runs()[0].error
            assert " needed to combine" in project.runs()[0].error
            assert f"held back  batch {project.runs()[0].batch}" in project.ds_flow("status").stdout

            filler.unlink()
            project.ds_flow("retry", project.runs()[0].batch)
            until("the file is processed", project.names, every=0.5)
            project.stop()
        finally:
            project.end_everything()
        assert project.states("student_a.csv") == [FileState.PROCESSED]
        assert [run.state for run in project.runs()] == [RunState.LOST, RunState.SUCCEEDED]


@pytest.mark.parametrize("folder", ["ledger", LOG, METAFLOW])
@pytest.mark.exhaustive
def test_any_disk_that_is_full_in_the_midst_of_a_run_is_waited_out(
    tmp_path: Path, folder: str
) -> None:
    paths = {"ledger": "ledger/ledger.db"}
    project = Project(tmp_path / "project", paths=paths, run={"attempts": 1, "min_free_mb": 0})
    project.ledger = project.root / "ledger" / "ledger.db"
    gate = project.gate("midway")
    with mounted(project.root / folder, "size=8m"):
        project.start()
        project.drop("student_a.csv", table("a", gate="midway"))
        try:
            gate.wait()
            filler = fill(project.root / folder)
            gate.open()
            words = ("run.lost", "run.succeeded", "stage.waits")
            until("it matters", lambda: any(word in project.said() for word in words))

            filler.unlink()
            for run in project.runs(RunState.LOST):
                project.ds_flow("retry", run.batch)
            until("the file is processed", project.names, every=0.5)
            project.stop()
        finally:
            project.end_everything()
        assert project.states("student_a.csv") == [FileState.PROCESSED]
        assert project.published_ids() == sorted(ids("a"))
        assert {run.state for run in project.runs()} <= {RunState.LOST, RunState.SUCCEEDED}


def test_a_folder_that_cannot_be_written_to_is_waited_out_too(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", paths={"ledger": "ledger.db"})
    obeying = "--bounding-set=-dac_override,-dac_read_search"  # root obeys modes without these
    project.prefix = (require("setpriv"), obeying, "--") if os.geteuid() == 0 else ()
    project.start()
    project.out.chmod(0o555)
    project.drop("student_a.csv", table("a"))
    until("the daemon waits", lambda: "batch.waits" in project.said())

    project.out.chmod(0o755)

    until("the file is processed", lambda: project.status()["files"]["processed"] == 1, every=0.5)
    project.stop()
    assert project.status()["runs"] == {"succeeded": 1}
