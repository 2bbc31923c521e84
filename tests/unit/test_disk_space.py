"""Low space: no new batch forms or starts, and the line goes on by itself once there is room."""

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cli_project import Project
from clock import NOON
from disks import mounted
from ds_flow.cli.main import main
from ds_flow.core.plan import PlannedFile
from ds_flow.core.states import FileState, Settled, Sighting
from ds_flow.inbox.scan import stat_of
from ds_flow.runs.room import why_no_room
from ds_flow.runs.start import why_cannot_run
from ds_flow.schedules.selection import choose_files
from ds_flow.settings.load import load_settings
from ds_flow.system import disk_space
from hung_mount import hung_mount
from project import Project as WholeProject

ENDLESS_MB = 2**30  # no disk has so much


def test_with_less_than_is_to_stay_free_no_batch_forms_or_starts(tmp_path: Path) -> None:
    project = Project(tmp_path)
    for least_mb in (0, ENDLESS_MB):
        chosen = load_settings(project.config, {"DS_FLOW_RUN__MIN_FREE_MB": str(least_mb)})
        assert bool(disk_space.space_shortage(chosen)) == (least_mb > 0)
    with pytest.raises(disk_space.LowSpaceError, match=r"MB free, run\.min_free_mb is 1073741824"):
        disk_space.require_space(chosen)


def test_a_folder_that_nobody_can_measure_counts_as_having_room(tmp_path: Path) -> None:
    assert disk_space.free_bytes(tmp_path / "gone") > 2**60


def test_status_says_that_space_is_low(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    with project.config.open("a") as file:
        file.write(f"run: {{min_free_mb: {ENDLESS_MB}}}\n")
    assert main(["--config", str(project.config), "status"]) == 0
    assert "MB free, run.min_free_mb is 1073741824; no new batch" in capsys.readouterr().out


def test_status_names_a_batch_that_the_disk_holds_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path)
    with closing(project.open()):
        (row,) = project.admit("student_a.csv")
        stat = stat_of((tmp_path / row.path).stat())._replace(size_bytes=2**60)
        settled = Settled(sighting=Sighting(row.path, stat), sha256="0" * 64)
        project.ledger.admit([settled], NOON)
        project.form("0123456789", project.ledger.read.latest())
        (planned,) = project.ledger.read.planned("0123456789")
    assert main(["--config", str(project.config), "status"]) == 0
    said = capsys.readouterr().out
    assert f"held back  batch 0123456789 waits: {tmp_path}/out has " in said
    want = disk_space.need(project.settings, [planned]) + disk_space.LEAST_FREE_BYTES
    assert f" MB free, {want / 2**20:.1f} needed" in said


@pytest.mark.parametrize("row", ["1,2,3\n", "1,2,3\r\n", "a name,another name,99.5\n"])
@pytest.mark.exhaustive
def test_what_a_batch_needs_is_what_it_then_takes(tmp_path: Path, row: str) -> None:
    project = WholeProject(tmp_path / "project")
    path = project.drop("student_a.csv", "a,b,c\n" + row * 50_000)
    size = path.stat().st_size
    planned = PlannedFile(path="data/student_a.csv", version=1, sha256=None, size_bytes=size)
    needed = disk_space.need(load_settings(project.config, project.environment), [planned])

    assert project.once().returncode == 0

    taken = sum(out.stat().st_size for out in project.out.glob("*.csv"))
    assert taken <= needed + disk_space.LEAST_FREE_BYTES
    assert needed <= 1.1 * taken


def test_a_batch_whose_files_cannot_be_looked_at_needs_twice_its_bytes(tmp_path: Path) -> None:
    project = Project(tmp_path)
    gone = PlannedFile(path="data/gone.csv", version=1, sha256=None, size_bytes=100)
    os.mkfifo(tmp_path / "data" / "pipe.csv")
    pipe = PlannedFile(path="data/pipe.csv", version=1, sha256=None, size_bytes=200)

    assert disk_space.need(project.settings, [gone]) == 200
    assert disk_space.need(project.settings, [gone, pipe]) == 600


@pytest.mark.parametrize("limit", ["size=64k", "size=1m,nr_inodes=2", "size=1m,ro"])
def test_a_disk_that_takes_nothing_more_says_so_when_it_is_written_to(
    tmp_path: Path, limit: str
) -> None:
    assert disk_space.refusal(tmp_path / "not" / "made") == ""
    with mounted(tmp_path, limit):
        if "ro" not in limit:
            (tmp_path / "taken").write_bytes(b"x")
        assert disk_space.refusal(tmp_path).startswith(f"{tmp_path}: ")


@pytest.mark.parametrize("folder", ["out", "log", "ledger", ".metaflow"])
@pytest.mark.parametrize("limit", ["size=4k", "size=1m,nr_inodes=1", "size=1m,ro"])
def test_each_disk_that_a_run_writes_to_holds_a_batch_back(
    tmp_path: Path, folder: str, limit: str
) -> None:
    project = Project(tmp_path)
    own = {"DS_FLOW_PATHS__LEDGER": "ledger/ledger.db", "DS_FLOW_RUN__MIN_FREE_MB": "0"}
    chosen = load_settings(project.config, own)
    (tmp_path / folder).mkdir(exist_ok=True)
    assert disk_space.space_lacking(chosen, "0123456789", 1) == ""

    with mounted(tmp_path / folder, limit):
        said = disk_space.space_lacking(chosen, "0123456789", 1)

    assert said.startswith(f"batch 0123456789 waits: {tmp_path / folder}")
    assert " MB free" in said


def test_what_earlier_runs_have_grown_by_is_needed_again(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with closing(project.open()):
        assert project.ledger.history.growth() == 0
        (row,) = project.published("0123456789", "1", "student_a.csv")
        assert project.ledger.history.growth() == 9 / row.size_bytes
    path = project.drop("student_b.csv", "a,b\n")
    planned = PlannedFile(path="data/student_b.csv", version=1, sha256=None, size_bytes=4)
    assert path.stat().st_size == 4
    assert disk_space.need(project.settings, [planned], 100.0) == 4 * 100 * 2


@pytest.mark.exhaustive
def test_a_batch_waits_while_the_inbox_does_not_answer(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with closing(project.open()):
        batch = project.form("0123456789", project.admit("student_a.csv"))
        with hung_mount(tmp_path / "data"):
            said = why_cannot_run(project.settings, project.ledger, batch)
        why = f"the file system at {tmp_path}/data (fuse.dead) does not answer"
        assert said == f"batch {batch} waits: {why}"
        assert why_cannot_run(project.settings, project.ledger, batch) == ""


@pytest.mark.exhaustive
def test_files_on_a_mount_that_does_not_answer_are_measured_and_chosen_without_touching_them(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path)
    (tmp_path / "data" / "site").mkdir(parents=True)
    with closing(project.open()):
        (row,) = project.admit("site/a.csv")
        planned = PlannedFile(path=row.path, version=1, sha256=None, size_bytes=4)
        row = replace(row, state=FileState.PROCESSED)
        with hung_mount(tmp_path / "data" / "site"):
            choice = choose_files(project.settings, [row])
            assert disk_space.need(project.settings, [planned]) == 4 * 2
    why = "cannot be looked at: its file system does not answer"
    assert choice.left_out == {row.path: why}


def test_what_a_batch_has_made_already_needs_no_more_room(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with closing(project.open()):
        (row,) = project.admit("student_a.csv")
        stat = stat_of((tmp_path / row.path).stat())._replace(size_bytes=2**60)
        settled = Settled(sighting=Sighting(row.path, stat), sha256="0" * 64)
        project.ledger.admit([settled], NOON)
        batch = project.form("0123456789", project.ledger.read.latest())
        attempt = tmp_path / "out" / ".work" / batch / "attempts" / "1"
        results = tmp_path / "out" / ".work" / batch / "results" / "code"
        for folder in (attempt, results):
            folder.mkdir(parents=True)
        assert why_no_room(project.settings, project.ledger, batch)

        os.truncate(os.open(results / "a.csv", os.O_CREAT | os.O_RDWR), 2**42)
        planned = project.ledger.read.planned(batch)
        left = disk_space.need(project.settings, planned) - 2**42 + disk_space.LEAST_FREE_BYTES
        assert f" {left / 2**20:.1f} needed" in why_no_room(project.settings, project.ledger, batch)

        (attempt / "no_room").write_text("1000")  # measured by a run
        assert why_no_room(project.settings, project.ledger, batch) == ""
