"""One project over its life: files arrive in every way, the daemon stops, the ledger is lost."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ds_flow.core.errors import LedgerError, RequestError
from ds_flow.core.states import FileState, RunState
from project import Project, ids, rows_of, table, until

A, B = table("first"), table("second")
AGAIN = ("copied", "touched", "moved")
SLOW = ("held", "appended", "rewritten")
PIECES = 5
WRITING_SECONDS = 4.0  # longer than the slow writers take, so that one run takes all


@dataclass(slots=True)
class Story:
    """What was seen at moments that are past when the tests look."""

    project: Project
    pid: int
    outputs: dict[str, tuple[int, bytes]]  # of the first run: mtime_ns and content
    second_daemon: subprocess.CompletedProcess[str]


PROGRAMS = pytest.param(False, id="programs", marks=pytest.mark.exhaustive)


@pytest.fixture(scope="module", params=[pytest.param(True, id="forks"), PROGRAMS])
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """Whole files and slow writers; the same again, with a new version; the first one again."""
    project = Project(
        tmp_path_factory.mktemp("story"),
        batch={"quiet_seconds": WRITING_SECONDS},
        run={"fork": request.param},
    )
    try:
        pid = project.start()
        arrive(project)
        outputs = {
            name: ((project.out / name).stat().st_mtime_ns, (project.out / name).read_bytes())
            for name in project.names()
        }
        read_settings_again(project)
        arrive_again(project)
        for number, content in enumerate((B, A), start=2):
            project.drop("student_changing.csv", content)
            project.wait_processed("student_changing.csv", versions=number)
        second_daemon = project.ds_flow("serve")
        project.stop()
        yield Story(project, pid, outputs, second_daemon)
    finally:
        project.end_everything()


def arrive(project: Project) -> None:
    """Whole files at once, and others that are written bit by bit."""
    for name in AGAIN:
        project.drop(f"student_{name}.csv", table(name))
    project.drop("student_changing.csv", A)
    writers = [
        threading.Thread(target=write, args=(project.inbox / f"student_{write.__name__}.csv",))
        for write in (held, appended, rewritten)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    project.wait_processed(*(f"student_{name}.csv" for name in (*AGAIN, *SLOW, "changing")))


def pieces(path: Path) -> Iterator[str]:
    """Give a file's lines one by one, with a pause after each."""
    never = threading.Event()
    name = path.stem.removeprefix("student_")
    for line in [
        *table(name).splitlines(keepends=True),
        *(f"{name}-more\n" for _ in range(PIECES)),
    ]:
        yield line
        never.wait(0.2)


def held(path: Path) -> None:
    """Keep one handle open, once for longer than the quiet time."""
    with path.open("w", encoding="utf-8") as file:
        for line in pieces(path):
            file.write(line)
            file.flush()
            if line == "held-1\n":
                threading.Event().wait(1)


def appended(path: Path) -> None:
    """Open, append and close, again and again."""
    for line in pieces(path):
        with path.open("a", encoding="utf-8") as file:
            file.write(line)


def rewritten(path: Path) -> None:
    """Truncate and write everything anew, again and again."""
    written = ""
    for line in pieces(path):
        written += line
        path.write_text(written, encoding="utf-8")


def read_settings_again(project: Project) -> None:
    project.configure()
    project.signal(signal.SIGHUP)
    until("the settings were read again", lambda: "settings.reloaded" in project.said())
    project.configure(run={"attempts": "many"})
    project.signal(signal.SIGHUP)
    until("bad settings were refused", lambda: "settings.refused" in project.said())
    project.configure()


def arrive_again(project: Project) -> None:
    """The same content in three ways."""
    copy = shutil.copyfile(project.inbox / "student_copied.csv", project.root / "copy.csv")
    subprocess.run(["cp", copy, project.inbox / "student_copied.csv"], check=True)
    (project.inbox / "student_touched.csv").touch()
    away = (project.inbox / "student_moved.csv").rename(project.root / "away.csv")
    away.rename(project.inbox / "student_moved.csv")


# --------------------------------------------------------------------------- arriving


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.exhaustive
def test_a_file_written_slowly_is_published_whole_and_once(story: Story, name: str) -> None:
    project = story.project
    assert project.states(f"student_{name}.csv") == [FileState.PROCESSED]
    rows = [row["id"] for row in project.combined() if row["id"].startswith(name)]
    assert rows == [*ids(name), *[f"{name}-more"] * PIECES]


@pytest.mark.parametrize("name", AGAIN)
def test_the_same_content_again_is_nothing_new(story: Story, name: str) -> None:
    project = story.project
    assert project.states(f"student_{name}.csv") == [FileState.PROCESSED]
    source = f"data/student_{name}.csv"
    assert sum(item.path == source for one in project.manifests() for item in one.inputs) == 1
    assert len(project.manifests()) == 3  # one for each content of student_changing.csv


def test_each_content_under_one_name_is_a_version_with_an_output_of_its_own(story: Story) -> None:
    project = story.project
    assert project.states("student_changing.csv") == [FileState.PROCESSED] * 3
    outputs = [
        out.name
        for one in project.manifests()
        for out in one.outputs
        if out.source == "data/student_changing.csv"
    ]
    run_ids = [run.run_id for run in project.runs()]
    assert outputs == [f"processed_student_changing_{run_id}.csv" for run_id in run_ids]
    contents = [rows_of(project.out / name)[0]["id"] for name in outputs]
    assert contents == ["first-0", "second-0", "first-0"]


def test_what_is_published_is_never_touched_again(story: Story) -> None:
    assert story.outputs
    for name, (mtime_ns, content) in story.outputs.items():
        path = story.project.out / name
        assert (path.stat().st_mtime_ns, path.read_bytes()) == (mtime_ns, content)


def test_every_output_stands_in_a_manifest_and_every_run_succeeded(story: Story) -> None:
    project = story.project
    assert (project.strays(), project.leftovers()) == (set(), [])
    assert {run.state for run in project.runs()} == {RunState.SUCCEEDED}
    assert {run.run_id for run in project.runs()} == {one.run_id for one in project.manifests()}


# --------------------------------------------------------------------------- the process


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(story: Story) -> None:
    assert story.second_daemon.returncode == RequestError.exit_code
    assert f"pid {story.pid}" in story.second_daemon.stderr


def test_bad_settings_are_refused_in_words_and_the_daemon_goes_on(story: Story) -> None:
    (line,) = [line for line in story.project.said().splitlines() if "settings.refused" in line]
    assert "run.attempts" in line


# --------------------------------------------------------------------------- the ledger


@pytest.fixture
def published(story: Story) -> Iterator[Project]:
    """The same project, stopped; what a test does to its ledger is undone."""
    project = story.project
    safe = project.root / "ledger.safe"
    shutil.copyfile(project.out / "ledger.db", safe)
    yield project
    remove_ledger(project)
    shutil.copyfile(safe, project.out / "ledger.db")


def remove_ledger(project: Project) -> None:
    for path in project.out.glob("ledger.db*"):
        path.unlink()


def test_a_lost_ledger_is_rebuilt_and_nothing_is_processed_twice(published: Project) -> None:
    before = published.names()
    remove_ledger(published)
    assert published.once().returncode == 0
    assert published.names() == before
    status = published.status()
    assert status["accounted"]
    assert status["files"]["processed"] == status["discovered"] == 9
    assert published.states("student_changing.csv") == [FileState.PROCESSED] * 3


def test_a_broken_ledger_is_refused_with_its_remedy_and_rebuilt_once_moved(
    published: Project,
) -> None:
    before = published.names()
    remove_ledger(published)
    ledger = published.out / "ledger.db"
    ledger.write_bytes(os.urandom(8192))
    done = published.once()
    assert done.returncode == LedgerError.exit_code
    assert "move" in done.stderr
    ledger.rename(published.root / "broken.db")
    assert published.once().returncode == 0
    assert (published.names(), published.status()["accounted"]) == (before, True)


# --------------------------------------------------------------------------- many


def test_a_thousand_files_at_once_are_one_batch_one_run_and_one_final_file(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    names = [f"{number:03}" for number in range(1000)]
    for name in names:
        project.drop(f"student_{name}.csv", table(name))
    try:
        assert project.once().returncode == 0
        (manifest,) = project.manifests()
        assert len(manifest.inputs) == len(names)
        assert project.published_ids() == sorted(row for name in names for row in ids(name))
        assert (project.strays(), project.leftovers()) == (set(), [])
    finally:
        project.end_everything()
