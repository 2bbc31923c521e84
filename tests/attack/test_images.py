"""What a job's image may leave where it can write concerns its own batch alone."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_project import Project as CliProject
from ds_flow.core.states import FileState
from ds_flow.work.batch import TRASH, Batch, batches_in
from ds_flow.work.rights import why_refused
from project import Project, ids, table
from samples import PLAN

DEEP = 3000  # deeper than Python's stack, and longer than a path can be
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def nest(folder: Path, depth: int = DEEP) -> None:
    """Make folders, each in the one before, and a file in the last."""
    at = os.open(folder, FOLDER)
    for _ in range(depth):
        os.mkdir("n", dir_fd=at)
        inner = os.open("n", FOLDER, dir_fd=at)
        os.close(at)
        at = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)


@pytest.fixture(autouse=True)
def cleared(tmp_path: Path) -> Iterator[None]:
    """Leave nothing that pytest could not remove, however a test ends."""
    yield
    subprocess.run(["rm", "-rf", "--", tmp_path], check=True)


def link_out(folder: Path) -> None:
    (folder / "folder").mkdir()
    for place in (folder, folder / "folder"):
        (place / "link").symlink_to(folder.parents[4] / "precious")


def block(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "two\nlines").mkdir()
    (folder / "\udcff.json").touch()


def many(folder: Path) -> None:
    for number in range(3000):
        (folder / f"{number}.json").touch()


def close(folder: Path) -> None:
    (folder / "folder").mkdir()
    (folder / "folder" / "file").touch()
    (folder / "folder").chmod(0)
    folder.chmod(0o500)


LEAVES = [nest, link_out, block, many, close]


@pytest.fixture
def left(tmp_path: Path, request: pytest.FixtureRequest) -> Batch:
    """A batch in whose results an image has left something."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    batch = Batch.create(tmp_path / "out", PLAN)
    request.param(batch.results.folder)
    return batch


each = pytest.mark.parametrize("left", LEAVES, indirect=True, ids=lambda leave: leave.__name__)


@each
def test_whatever_an_image_has_left_goes_with_its_batch(left: Batch, tmp_path: Path) -> None:
    left.remove()

    assert list((tmp_path / "out" / ".work").iterdir()) == []
    assert (tmp_path / "precious" / "file").exists()


@each
@pytest.mark.exhaustive
def test_what_a_removal_did_not_finish_hides_no_batch(left: Batch, tmp_path: Path) -> None:
    left.folder.rename(left.folder.with_name(f"{TRASH}{PLAN.batch}-0123abcd"))
    neighbour = Batch.create(tmp_path / "out", PLAN)

    assert [batch.id for batch in batches_in(tmp_path / "out")] == [neighbour.id]
    assert [path.name for path in (tmp_path / "out" / ".work").iterdir()] == [neighbour.id]


def test_folders_nested_deeper_than_any_of_ours_hold_no_run_back(tmp_path: Path) -> None:
    made = CliProject(tmp_path)
    batch = Batch.create(made.settings.output_dir, PLAN)
    nest(batch.results.folder)

    assert why_refused(made.settings) == ""
    assert why_refused(made.settings, batch.id) == ""


def test_links_that_lead_to_no_path_hold_no_run_back(tmp_path: Path) -> None:
    made = CliProject(tmp_path)
    batch = Batch.create(made.settings.output_dir, PLAN)
    (batch.results.folder / "link").symlink_to("x" * 300)  # looking there fails, for root, too

    assert why_refused(made.settings) == ""
    assert why_refused(made.settings, batch.id) == ""


NESTS = f"""
import os
import tempfile
from pathlib import Path
def transform(frame):
    first = Path(__file__).with_name("first")
    os.chdir(tempfile.mkdtemp())
    for _ in range({DEEP}):
        os.mkdir("n")
        os.chdir("n")
    if not first.exists():
        first.touch()
        raise ValueError("the first time")
    return frame
"""


@pytest.mark.exhaustive
def test_a_batch_whose_jobs_nest_folders_is_tried_again_published_and_gone(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", compute={"transform": "nests:transform"})
    (project.root / "nests.py").write_text(NESTS)
    project.drop("student_a.csv", table("a"))

    done = project.once()

    assert done.returncode == 0, done.stdout + done.stderr
    assert project.states("student_a.csv") == [FileState.PROCESSED]
    assert project.published_ids() == sorted(ids("a"))
    assert project.leftovers() == []
