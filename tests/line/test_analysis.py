"""An analysis that fails, in a whole run: the data is published, and everybody is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ds_flow.core.states import FileState, RunState
from ds_flow.ledger.rows import EventRow
from ds_flow.runs.analysis import analyze_again
from ds_flow.settings.load import load_settings
from ds_flow.upkeep import alerts
from project import Gate, Project, ids, table, until

FAILS = ["sh", "-c", "echo 4 lines; echo no R here >&2; exit 3"]
SAID = "exit code 3: no R here"


def said_in(project: Project, *words: str) -> dict[str, Any]:
    """What a command answers as JSON."""
    found: dict[str, Any] = json.loads(project.ds_flow(*words, "--json").stdout)
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that was worked off once, with an analysis that always fails."""
    made = Project(
        tmp_path_factory.mktemp("analysis"), compute={"stages": {"analyze": {"command": FAILS}}}
    )
    made.drop("student_a.csv", table("a"))
    done = made.once()
    (made.root / "code").write_text(f"{done.returncode}\n{done.stdout}\n{done.stderr}")
    return made


def test_a_failed_analysis_costs_no_data(project: Project) -> None:
    assert project.states("student_a.csv") == [FileState.PROCESSED]
    assert project.published_ids() == ids("a")
    assert [run.state for run in project.runs()] == [RunState.SUCCEEDED]


def test_who_works_it_off_is_told(project: Project) -> None:
    code, *said = (project.root / "code").read_text().splitlines()
    assert code == "1"
    assert any(line.startswith("analysis failed: run ") and SAID in line for line in said)
    assert any("WARNING analysis.failed " in line and SAID in line for line in said)


def test_the_manifest_and_show_name_the_failure(project: Project) -> None:
    (manifest,) = project.manifests()
    assert manifest.analysis
    assert manifest.analysis["command"] == FAILS
    assert "4 lines\n" in manifest.analysis["stdout"]
    assert SAID in manifest.analysis["error"]
    shown = project.ds_flow("show", manifest.run_id).stdout
    assert f"analysis failed: {manifest.analysis['error']}" in shown


def test_runs_show_and_status_name_the_failure(project: Project) -> None:
    (run,) = project.runs()
    (listed,) = said_in(project, "runs")["runs"]
    status = said_in(project, "status")

    assert SAID in listed["analysis_error"]
    assert (listed["state"], listed["error"]) == ("succeeded", "")
    assert said_in(project, "show", str(run.run_id))["analysis_error"] == listed["analysis_error"]
    assert status["analyses_failed"] == 1
    assert status["failed_analyses"] == [
        {"run_id": run.run_id, "analysis_error": listed["analysis_error"]}
    ]
    assert f"analysis failed: {listed['analysis_error']}" in project.ds_flow("runs").stdout
    assert f"run {run.run_id}: {listed['analysis_error']}" in project.ds_flow("status").stdout


def test_a_ledger_that_was_lost_knows_the_failure_again(project: Project) -> None:
    before = project.runs()
    for end in ("", "-wal", "-shm"):
        Path(f"{project.ledger}{end}").unlink(missing_ok=True)

    assert said_in(project, "status")["analyses_failed"] == 1
    assert [run.analysis_error for run in project.runs()] == [run.analysis_error for run in before]


def test_a_person_is_told_once(project: Project, tmp_path: Path) -> None:
    told = tmp_path / "told"
    project.configure(
        alerts={"command": ["sh", "-c", f"cat >>{told}"]},
        compute={"stages": {"analyze": {"command": FAILS}}},
    )
    project.drop("student_b.csv", table("b"))
    project.once()

    alert = json.loads(told.read_text())
    assert alert["kind"] == "analysis.failed"
    assert alerts.SAID["analysis.failed"] in alert["text"]
    assert SAID in alert["examples"][0]


ENDS_ITS_RUN = """\
import os, signal
from pathlib import Path

def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

run = os.getpid()
while b"run_attempt.sh" not in Path(f"/proc/{parent(run)}/cmdline").read_bytes():
    run = parent(run)
print("ends", run)
os.kill(run, signal.SIGABRT)
signal.pause()
"""


@pytest.mark.exhaustive
def test_an_analysis_that_ends_its_own_runs_costs_no_data(tmp_path: Path) -> None:
    (script := tmp_path / "ends.py").write_text(ENDS_ITS_RUN)
    command = [sys.executable, str(script)]
    project = Project(
        tmp_path / "project",
        run={"attempts": 1},
        compute={"stages": {"analyze": {"command": command}}},
    )
    project.drop("student_a.csv", table("a"))

    done = project.once()

    said = "1 of 1 attempts used up: exit code 134"
    assert project.states("student_a.csv") == [FileState.PROCESSED]
    assert [run.state for run in project.runs()] == [RunState.FAILED, RunState.SUCCEEDED]
    assert f"analysis failed: run {project.runs()[-1].run_id}: {said}" in done.stdout
    assert done.returncode == 1


# --------------------------------------------------------------------------- done again

WORKS = ["sh", "-c", "echo now it works; wc -l <$0"]


def repaired(project: Project, command: list[str], **stage: Any) -> None:
    """Give a project another analysis."""
    stages = {"analyze": {"command": command, **stage}}
    project.configure(compute={"stages": stages})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a project with one published run, whose analysis failed."""
    root = tmp_path_factory.mktemp("failed") / "project"
    made = Project(root, compute={"stages": {"analyze": {"command": FAILS}}})
    made.drop("student_a.csv", table("a"))
    made.once()
    return root.rename(root.with_name("saved"))


@pytest.fixture
def failed(saved: Path) -> Iterator[Project]:
    """The same project, in its own place again."""
    root = saved.with_name("project")
    shutil.copytree(saved, root, symlinks=True)
    made = Project.__new__(Project)
    made.place(root)
    yield made
    made.end_everything()
    shutil.rmtree(root)


@pytest.mark.exhaustive
def test_an_analysis_is_done_again_over_what_was_published(failed: Project) -> None:
    (run,) = failed.runs()
    run_id = str(run.run_id)
    names = failed.names()
    repaired(failed, WORKS)

    done = failed.ds_flow("rerun", "--analyze", run_id)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"run {run_id}: analysis succeeded\n  out/analysis_{run_id}_1.json\n"
    shown = said_in(failed, "show", run_id)
    assert shown["analysis"]["stdout"] == "now it works\n4\n"
    assert shown["analysis"]["command"] == WORKS
    assert (shown["analysis"]["error"], shown["analysis_error"]) == ("", "")
    assert SAID in shown["manifest"]["analysis"]["error"]
    assert said_in(failed, "status")["failed_analyses"] == []
    assert "now it works" in failed.ds_flow("logs", run_id).stdout
    assert failed.names() - names == {f"analysis_{run_id}_1.json"}
    assert failed.leftovers() == []

    repaired(failed, FAILS)
    done = failed.ds_flow("rerun", "--analyze", run_id)

    assert done.returncode == 1
    assert f"analysis failed: run {run_id}: " in done.stdout
    assert SAID in done.stdout
    assert SAID in said_in(failed, "show", run_id)["analysis_error"]
    assert f"analysis, done again (out/analysis_{run_id}_2.json) failed: " in (
        failed.ds_flow("show", run_id).stdout
    )
    kinds = [event.kind for event in events(failed) if event.kind.startswith("analysis")]
    assert kinds == ["analysis.failed", "analysis.succeeded", "analysis.failed"]

    for end in ("", "-wal", "-shm"):
        Path(f"{failed.ledger}{end}").unlink(missing_ok=True)
    (listed,) = said_in(failed, "runs")["runs"]
    assert SAID in listed["analysis_error"]
    assert said_in(failed, "show", run_id)["analysis"]["file"] == f"out/analysis_{run_id}_2.json"


def events(project: Project) -> list[EventRow]:
    with project.reading() as read:
        return read.events("data/student_a.csv")


@pytest.mark.exhaustive
def test_what_cannot_be_analyzed_is_refused_with_the_reason(failed: Project) -> None:
    run_id = str(failed.runs()[0].run_id)
    combined = failed.out / f"final_combined_{run_id}.csv"

    assert failed.ds_flow("rerun", "--analyze").returncode == 2
    assert failed.ds_flow("rerun", "--analyze", run_id, "--no-wait").returncode == 2
    assert "no run '17'" in failed.ds_flow("rerun", "--analyze", "17").stderr
    repaired(failed, [])
    assert "there is no analysis" in failed.ds_flow("rerun", "--analyze", run_id).stderr
    repaired(failed, WORKS)
    os.truncate(combined, 3)
    assert f"ds-flow verify {run_id}" in failed.ds_flow("rerun", "--analyze", run_id).stderr
    combined.unlink()
    assert f"ds-flow verify {run_id}" in failed.ds_flow("rerun", "--analyze", run_id).stderr
    assert failed.leftovers() == []


HELD = ["sh", "-c", "echo $$ >>began; flock -s gates/analysis true; echo passed"]


def started(project: Project) -> tuple["subprocess.Popen[str]", Gate]:
    """A call whose analysis waits at a gate."""
    gate = project.gate("analysis")
    repaired(project, HELD)
    call = subprocess.Popen(
        project.command("rerun", "--analyze", str(project.runs()[0].run_id)),
        env=project.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    until("the analysis waits", lambda: gate.is_reached, while_lives=call)
    return call, gate


def begun(project: Project) -> int:
    return len((project.root / "began").read_text().splitlines())


@pytest.mark.exhaustive
def test_an_analysis_goes_on_when_the_command_that_asked_for_it_is_killed(
    failed: Project,
) -> None:
    run_id = str(failed.runs()[0].run_id)
    call, gate = started(failed)
    call.kill()
    call.communicate()

    second = failed.ds_flow("rerun", "--analyze", run_id)
    assert (second.returncode, second.stderr) == (
        1,
        f"ds-flow: run {run_id} is being analyzed already\n",
    )
    gate.open()
    until("the analysis has ended", lambda: not failed.marked())
    third = failed.ds_flow("rerun", "--analyze", run_id)

    assert third.returncode == 0
    assert begun(failed) == 1
    assert said_in(failed, "show", run_id)["analysis"]["stdout"] == "passed\n"
    assert failed.leftovers() == []


@pytest.mark.exhaustive
def test_an_analysis_is_done_again_after_everything_was_killed(failed: Project) -> None:
    run_id = str(failed.runs()[0].run_id)
    call, gate = started(failed)
    call.kill()
    call.communicate()
    failed.end_everything()
    gate.open()

    done = failed.ds_flow("rerun", "--analyze", run_id)

    assert (done.returncode, begun(failed)) == (0, 2)
    assert sorted(path.name for path in failed.out.glob("analysis_*")) == [
        f"analysis_{run_id}_1.json"
    ]
    assert failed.leftovers() == []


@pytest.mark.exhaustive
def test_an_analysis_begun_under_other_settings_is_ended_and_begun_anew(failed: Project) -> None:
    run_id = str(failed.runs()[0].run_id)
    call, gate = started(failed)
    os.kill(call.pid, signal.SIGKILL)
    call.communicate()
    for pid in failed.processes("analyze_again.py"):
        os.kill(pid, signal.SIGKILL)
    repaired(failed, WORKS)

    done = failed.ds_flow("rerun", "--analyze", run_id)

    assert (done.returncode, failed.marked()) == (0, [])
    assert said_in(failed, "show", run_id)["analysis"]["command"] == WORKS
    assert failed.leftovers() == []
    gate.open()


def test_who_interrupts_an_analysis_ends_it(failed: Project) -> None:
    call, gate = started(failed)

    os.killpg(call.pid, signal.SIGINT)
    call.communicate()

    assert call.returncode == 130
    assert failed.marked() == []
    assert failed.leftovers() == []
    assert not list(failed.out.glob("analysis_*"))
    gate.open()


@pytest.mark.exhaustive
def test_an_analysis_that_was_published_and_not_recorded_keeps_its_number(
    failed: Project,
) -> None:
    run_id = str(failed.runs()[0].run_id)
    repaired(failed, WORKS)

    def dies(_number: int, _error: str) -> None:
        raise KeyError

    chosen = load_settings(failed.config, failed.environ())
    with pytest.raises(KeyError):
        analyze_again(chosen, run_id, dies)
    (before,) = failed.out.glob("analysis_*")
    content = before.read_bytes()

    assert failed.ds_flow("rerun", "--analyze", run_id).returncode == 0

    assert [path.read_bytes() for path in failed.out.glob("analysis_*")] == [content]
    assert said_in(failed, "show", run_id)["analysis_error"] == ""
    assert failed.leftovers() == []
