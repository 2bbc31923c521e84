"""What Metaflow's client API shows of a run, whether its tasks are forks or programs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from project import Project, table

PRINTS = """
import sys
def transform(frame):
    print("to standard output")
    print("to standard error", file=sys.stderr)
    return frame
"""
CLIENT = """
import json
from metaflow import Flow, namespace
namespace(None)
(run,) = Flow("StudentDataFlow")

def of_task(task):
    return {
        "metadata": sorted((one.name, one.type, str(one.value)) for one in task.metadata),
        "artifacts": {one.id: repr(one.data) for one in task.artifacts},
        "tags": sorted(task.tags),
        "stdout": task.stdout,
        "stderr": task.stderr,
        "successful": task.successful,
        "exception": repr(task.exception),
        "index": task.index,
        "parents": sorted(parent.pathspec for parent in task.parent_tasks),
        "attempt": task.current_attempt,
    }

print(json.dumps({
    "id": run.id,
    "tags": sorted(run.tags),
    "system_tags": sorted(run.system_tags),
    "user_tags": sorted(run.user_tags),
    "successful": run.successful,
    "finished": run.finished,
    "code": repr(run.code),
    "data": sorted(vars(run.data)["_artifacts"]),
    "steps": {
        step.id: sorted((of_task(task) for task in step), key=lambda task: str(task["index"]))
        for step in run
    },
}))
"""

DIFFERENT = [  # between any two runs, in this order
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?", "TIME"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"\b[0-9a-f]{40}\b", "HASH"),
    (r"\b\d{13,}\b", "NUMBER"),
    (r"\b[0-9a-f]{16}\b", "KEY"),
    (r"'native_id': '\d+'", "PID"),
]


def view(folder: Path, *, fork: bool) -> dict[str, Any]:
    """Run the same files, and return what is shown of it but for ids and times."""
    project = Project(
        folder / "project", run={"fork": fork}, compute={"transform": "own:transform"}
    )
    (project.root / "own.py").write_text(PRINTS)
    project.drop("student_a.csv", table("a"))
    project.drop("student_b.csv", table("b"))
    project.drop("student_bad.csv", "id,more\n1\n")
    assert project.once().returncode == 1  # a file was set aside
    asked = subprocess.run(
        [sys.executable, "-c", CLIENT],
        cwd=project.root,
        env=project.environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    (run,) = project.runs()
    text = asked.stdout.replace(run.batch, "BATCH").replace(str(project.root), "ROOT")
    text = text.replace(str(run.run_id), "RUN")
    for pattern, name in DIFFERENT:
        text = re.sub(pattern, name, text)
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.exhaustive
def test_metaflow_shows_the_same_of_a_run_that_forks_and_of_one_that_does_not(
    tmp_path: Path,
) -> None:
    forked, started = (view(tmp_path / str(fork), fork=fork) for fork in (True, False))

    assert forked == started
    assert forked["successful"]
    assert sorted(forked["steps"]) == ["analyze", "combine", "end", "process", "start"]
    assert "to standard output\nto standard error" in forked["steps"]["process"][0]["stdout"]
