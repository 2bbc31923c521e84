"""A disk that takes nothing is waited out: one that is full, one that cannot be written to."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import require
from project import Project, ids, table, until


@pytest.fixture(params=["out", "log"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """A project at work whose out/ or log/, a file system of 3 MB, becomes full."""
    made = Project(tmp_path / "project", paths={"ledger": "ledger.db"}, run={"min_free_mb": 1})
    small = made.root / request.param
    small.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    made.start()
    filled = subprocess.run(
        ["dd", "if=/dev/zero", f"of={small / 'filler'}", "bs=4k"], capture_output=True, check=False
    )
    assert b"No space left" in filled.stderr
    try:
        yield made
    finally:
        made.end_everything()
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_full_disk_is_waited_out_and_no_attempt_is_used_up(project: Project) -> None:
    full = next(project.root.glob("*/filler"))
    project.drop("student_a.csv", table("a"))
    until("the daemon waits", lambda: "stage.waits" in project.said())

    os.truncate(full, 0)

    until("the file is processed", lambda: project.status()["files"]["processed"] == 1, every=0.5)
    project.stop()
    assert project.published_ids() == sorted(ids("a"))
    assert project.status()["runs"] == {"succeeded": 1}


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
