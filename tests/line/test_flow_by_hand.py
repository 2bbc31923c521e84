"""`python flows/student_flow.py` as a person types it, with and without the daemon."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds_flow.core.states import FileState, RunState, Trigger
from ds_flow.settings.load import load_settings
from project import Project, flow, ids, table
from rights import NOBODY, public_folder
from steps import by_hand

PROGRAMS = pytest.param(False, id="programs", marks=pytest.mark.exhaustive)


@pytest.fixture(scope="module", params=[pytest.param(True, id="forks"), PROGRAMS])
def project(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """Two files that are not combined until the file `mended` is there."""
    root = tmp_path_factory.mktemp("byhand")
    made = Project(root, run={"fork": request.param})
    compare = root / "bin" / "cmp"
    compare.parent.mkdir()
    compare.write_text(f'#!/bin/sh\ntest -e {root}/mended && PATH=${{PATH#*:}} exec cmp "$@"\n')
    compare.chmod(0o755)
    made.environment["PATH"] = f"{compare.parent}:{os.environ['PATH']}"
    yield made
    made.end_everything()


@pytest.fixture(scope="module")
def failed(project: Project) -> subprocess.CompletedProcess[str]:
    """A run whose combination failed."""
    for name in ("a", "b"):
        project.drop(f"student_{name}.csv", table(name))
    return flow(project, "run")


@pytest.fixture(scope="module")
def resumed(
    project: Project, failed: subprocess.CompletedProcess[str]
) -> subprocess.CompletedProcess[str]:
    """The same run, resumed once the combination works."""
    assert failed.returncode == 1
    (project.root / "mended").touch()
    return flow(project, "resume", "--origin-run-id", run_ids(project)[0])


@pytest.fixture(scope="module")
def finished(
    project: Project, resumed: subprocess.CompletedProcess[str]
) -> subprocess.CompletedProcess[str]:
    """A further run over everything, with Metaflow's own retries, after the resumed one."""
    assert resumed.returncode == 0, resumed.stderr
    return flow(project, "run", "--with", "retry")


def run_ids(project: Project) -> list[str]:
    """The Run ID of each run by hand, oldest first, by the names of their logs."""
    return sorted(path.stem.removeprefix("run_") for path in project.log.glob("run_*.log"))


# --------------------------------------------------------------------------- tests


def test_where_nothing_matches_it_says_so(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    done = flow(project, "run")
    assert done.returncode == 1
    assert "no file matches" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.out / ".work").exists()


@pytest.mark.parametrize("batch", ["nope", ""])
def test_a_batch_that_is_not_planned_is_one_line(tmp_path: Path, batch: str) -> None:
    done = flow(Project(tmp_path / "project"), "run", "--batch", batch)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("student_flow.py: ")
    assert "no such batch here" in line or "name a batch: --batch ID" in line


def test_a_batch_is_looked_for_where_the_settings_have_it(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.out.mkdir(exist_ok=True)
    (project.out / "manifest_17.json").write_text('{"batch": "0123456789", "run_id": "17"}')
    done = flow(project, "run", "--batch=0123456789", cwd=tmp_path)
    assert done.returncode == 1
    assert "published already, by run 17" in done.stderr


@pytest.mark.exhaustive
def test_a_failed_run_publishes_nothing_and_its_resumption_everything_once(
    project: Project,
    failed: subprocess.CompletedProcess[str],
    resumed: subprocess.CompletedProcess[str],
) -> None:
    assert (failed.returncode, resumed.returncode) == (1, 0), resumed.stderr
    first = project.manifests()[0]
    assert first.run_id not in run_ids(project)[:1]
    assert {item.path for item in first.inputs} == {"data/student_a.csv", "data/student_b.csv"}
    assert first.trigger == Trigger.MANUAL
    assert project.strays() == set()


@pytest.mark.usefixtures("resumed")
@pytest.mark.exhaustive
def test_a_resumption_of_what_is_published_says_by_which_run(project: Project) -> None:
    published = project.manifests()[0].run_id
    before = project.names()
    done = flow(project, "resume", "end", "--origin-run-id", published)
    assert done.returncode == 1
    assert f"already published, by run {published}" in done.stdout + done.stderr
    assert project.names() == before


@pytest.mark.usefixtures("finished")
@pytest.mark.exhaustive
def test_the_logs_of_a_run_are_found_from_any_directory(project: Project, tmp_path: Path) -> None:
    done = flow(project, "logs", f"{project.manifests()[-1].run_id}/start", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 files" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def carded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run that makes cards, started in the folder `elsewhere`."""
    made = Project(tmp_path_factory.mktemp("cards"))
    elsewhere = made.root / "elsewhere"
    elsewhere.mkdir()
    made.drop("student_a.csv", table("a"))
    run = ["run", "--with", "card", "--tag", "run", "--run-id-file", "run_id"]
    done = flow(made, *run, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.exhaustive
def test_a_run_with_cards_makes_one_for_each_task(carded: Project) -> None:
    tasks = list(carded.root.glob(".metaflow/mf.cards/**/cards"))
    assert len(tasks) == 5
    assert all(len(list(task.glob("*.html"))) == 1 for task in tasks)
    assert len(carded.manifests()) == 1


@pytest.mark.exhaustive
def test_what_is_done_from_another_folder_stays_in_the_project(carded: Project) -> None:
    project, elsewhere = carded, carded.root / "elsewhere"
    task = f"{(elsewhere / 'run_id').read_text()}/end"

    for folder in (elsewhere, project.root):
        done = flow(project, "card", "get", task, "card.html", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert (folder / "card.html").stat().st_size > 0
    assert {path.name for path in elsewhere.iterdir()} == {"run_id", "card.html"}


@pytest.mark.usefixtures("finished")
@pytest.mark.exhaustive
def test_a_tag_named_run_runs_nothing(project: Project) -> None:
    before = project.names()
    run_id = project.manifests()[-1].run_id
    done = flow(project, "tag", "add", "--run-id", run_id, "run")
    assert done.returncode == 0, done.stderr
    assert project.names() == before
    assert "run" in flow(project, "tag", "list", "--run-id", run_id).stdout.split()


def test_metaflow_s_own_retries_do_no_harm(
    project: Project, finished: subprocess.CompletedProcess[str]
) -> None:
    assert finished.returncode == 0, finished.stderr
    last = project.manifests()[-1]
    assert len(last.inputs) == 2
    assert (project.out / f"final_combined_{last.run_id}.csv").exists()


NOTEBOOK = """
import json
from metaflow import Flow, namespace
namespace(None)
run = Flow("StudentDataFlow").latest_run
print(json.dumps([run.id, vars(run.data)["_artifacts"] and sorted(vars(run.data)["_artifacts"]),
    run.data.manifest, run.data.published, run.data.combined]))
"""


@pytest.mark.usefixtures("finished")
def test_a_run_s_artifacts_are_its_manifest_and_the_paths_of_what_it_published(
    project: Project,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK],
        cwd=project.root,
        env={**project.environ(), "USER": "a-reader"},
        capture_output=True,
        text=True,
        check=True,
    )
    run_id, names, manifest, published, combined = json.loads(done.stdout)

    assert run_id == project.manifests()[-1].run_id
    assert manifest == json.loads((project.out / f"manifest_{run_id}.json").read_bytes())
    assert published == [
        f"out/{name}_{run_id}.{end}"
        for name, end in [
            ("processed_student_a", "csv"),
            ("processed_student_b", "csv"),
            ("final_combined", "csv"),
            ("manifest", "json"),
        ]
    ]
    assert all((project.root / path).is_file() for path in published)
    assert combined == published[2]
    assert "work" not in names


@pytest.mark.usefixtures("finished")
@pytest.mark.exhaustive
def test_the_ledger_takes_up_runs_by_hand_and_the_daemon_does_nothing_again(
    project: Project,
) -> None:
    before = project.names()
    assert project.ds_flow("status").returncode == 0  # opens the ledger, as anything does
    assert [(run.state, run.trigger) for run in project.runs()] == [
        (RunState.SUCCEEDED, Trigger.MANUAL)
    ] * 2
    assert {run.run_id for run in project.runs()} == {one.run_id for one in project.manifests()}

    assert project.once().returncode == 0
    assert project.names() == before
    assert len(project.runs()) == 2
    for name in ("a", "b"):
        assert project.states(f"student_{name}.csv") == [FileState.PROCESSED]
    assert (project.status()["accounted"], project.leftovers()) == (True, [])
    assert project.published_ids() == sorted([*ids("a"), *ids("b")] * 2)  # asked for twice


def test_where_nobody_knows_who_writes_a_file_must_be_quiet_for_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if os.geteuid():
        pytest.skip("who owns a file can lease it")
    with public_folder() as folder:
        project = Project(folder / "project")
        project.drop("student_whole.csv", table("whole"))
        half = project.drop("student_half.csv", "id\n")
        chosen = load_settings(project.config, {})
        paused_s = []

        def pause(seconds: float) -> None:
            paused_s.append(seconds)
            os.seteuid(0)
            half.write_text("id\nhalf-0\n")
            os.seteuid(NOBODY)

        monkeypatch.setattr(time, "sleep", pause)
        os.seteuid(NOBODY)
        try:
            plan = by_hand.form(chosen)
        finally:
            os.seteuid(0)

    assert paused_s == [10.0]
    assert [file.path for file in plan.files] == ["data/student_whole.csv"]


def test_a_file_that_is_still_being_written_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path / "project")
    project.drop("student_whole.csv", table("whole"))
    path = project.drop("student_half.csv", "id\nhalf-0\n")
    chosen = load_settings(project.config, {})

    with path.open("a"):
        plan = by_hand.form(chosen)

    assert [file.path for file in plan.files] == ["data/student_whole.csv"]
    assert "left out, still arriving: data/student_half.csv" in capsys.readouterr().err
    assert len(by_hand.form(chosen).files) == 2
