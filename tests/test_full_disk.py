"""A full disk is waited out: on a real small file system, where the machine lets one be mounted."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
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
