"""Projects that the code of commit a353b43 left at bad moments are taken up as if they were ours.

`leftovers/make.py` made them. For a new case, add it there, run that script, and say here what it
must come to.
"""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from project import Project

LEFTOVERS = Path(__file__).parent / "leftovers"
ROOT = b"/tmp/ds-flow-leftovers/project"
ROWS = {"mid_run": "123", "mid_publication": "123", "committed": "123", "dead": "12"}
ROWS["retrying"] = ROWS["dead"]
SOUND_TRANSFORM = "def transform(frame):\n    return frame\n"


CASES = sorted(path.name.removesuffix(".tar.gz") for path in LEFTOVERS.glob("*.gz"))
MAIN_CASES = {"mid_run", "mid_publication", "committed"}


@pytest.fixture(
    params=[
        pytest.param(case, marks=() if case in MAIN_CASES else pytest.mark.exhaustive)
        for case in CASES
    ]
)
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Project, str]]:
    """A project as the earlier version left it, at a root of its own; and which case it is."""
    project = Project(tmp_path / "project")
    (project.root / "gated.py").write_text(SOUND_TRANSFORM)
    archive = LEFTOVERS / f"{request.param}.tar.gz"
    subprocess.run(
        ["tar", "--extract", f"--file={archive}", f"--directory={project.root}"], check=True
    )
    for path in (project.out / ".work").rglob("*"):
        relocate(path, bytes(project.root))
    with closing(sqlite3.connect(project.ledger)) as db, db:
        db.execute("UPDATE batch SET due_at = '2000-01-01T00:00:00.000+00:00' WHERE due_at > '2'")
    yield project, request.param
    project.end_everything()


def relocate(path: Path, root: bytes) -> None:
    if path.is_symlink():
        where = os.readlink(bytes(path)).replace(ROOT, root)
        path.unlink()
        path.symlink_to(os.fsdecode(where))
    elif path.is_file() and ROOT in (content := path.read_bytes()):
        path.write_bytes(content.replace(ROOT, root))


@pytest.mark.exhaustive
def test_what_the_earlier_version_left_is_published_once_and_whole(
    left: tuple[Project, str],
) -> None:
    project, case = left
    before = project.names()
    if case == "dead":
        (batch,) = [path.name for path in (project.out / ".work").iterdir() if path.is_dir()]
        project.ds_flow("retry", batch)

    ended = project.once()

    assert ended.returncode == 0, ended.stderr
    assert project.published_ids() == list(ROWS[case])
    assert len(project.manifests()) == 1
    assert (project.strays(), project.leftovers(), project.marked()) == (set(), [], [])
    assert project.status()["accounted"]
    if case == "mid_publication":
        assert before
        assert before.isdisjoint(project.names())
    else:
        assert before <= project.names()
