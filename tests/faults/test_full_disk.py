"""A disk that takes nothing is waited out: one that is full, one that cannot be written to."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import require

from ds_flow.core.states import FileState, RunState
from project import Project, ids, table, until


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[None]:
    """Let a folder be a file system of so many MB."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room on a file system; the file that takes it."""
    filler = folder / "filler"
    filled = subprocess.run(
        ["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, check=False
    )
    assert b"No space left" in filled.stderr
    return filler


@pytest.fixture(params=["out", "log"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """A project at work whose out/ or log/, a file system of 3 MB, becomes full."""
    made = Project(tmp_path / "project", paths={"ledger": "ledger.db"}, run={"min_free_mb": 1})
    with small_disk(made.root / request.param, 3):
        made.start()
        fill(made.root / request.param)
        try:
            yield made
        finally:
            made.end_everything()


def test_a_full_disk_is_waited_out_and_no_attempt_is_used_up(project: Project) -> None:
    full = next(project.root.glob("*/filler"))
    project.drop("student_a.csv", table("a"))
    until("the daemon waits", lambda: "stage.waits" in project.said())

    os.truncate(full, 0)

    until("the file is processed", lambda: project.status()["files"]["processed"] == 1, every=0.5)
    project.stop()
    assert project.published_ids() == sorted(ids("a"))
    assert project.status()["runs"] == {"succeeded": 1}


def test_a_disk_that_is_full_once_the_files_are_combined_is_waited_out_too(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path / "project", paths={"ledger": "ledger.db"}, run={"min_free_mb": 0})
    project.ledger = project.root / "ledger.db"
    gate = project.gate("midway")
    with small_disk(project.out, 8):
        project.start()
        project.drop("student_a.csv", "id,gate\n" + "1,midway\n" * 20_000)  # 1.3 MB, processed
        try:
            gate.wait()
            filler = fill(project.out)
            os.truncate(filler, filler.stat().st_size - 2 * 2**20)
            gate.open()
            until("the run is lost", lambda: "run.lost" in project.said())
            assert "no room" in project.runs()[0].error

            filler.unlink()
            project.ds_flow("retry", project.runs()[0].batch)
            until("the file is processed", project.names, every=0.5)
            project.stop()
        finally:
            project.end_everything()
        assert project.states("student_a.csv") == [FileState.PROCESSED]
        assert [run.state for run in project.runs()] == [RunState.LOST, RunState.SUCCEEDED]


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
