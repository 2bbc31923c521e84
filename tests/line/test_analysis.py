"""An analysis that fails, in a whole run: the data is published, and everybody is told."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ds_flow.core.states import FileState, RunState
from ds_flow.upkeep import alerts
from project import Project, ids, table

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
    assert (alert["kind"], alert["text"]) == ("analysis.failed", alerts.SAID["analysis.failed"])
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
