"""What keeps a run from beginning holds its batch back, with the reason, and sets no file aside."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds_flow.core.states import BatchState, FileState, RunState
from project import Project, ids, table, until

LOST_THEN_DONE = {RunState.LOST, RunState.SUCCEEDED}
"""How runs end whose environment is broken at first: none of them uses up an attempt."""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """One file, and one attempt for it."""
    made = Project(tmp_path / "project", run={"attempts": 1, "retry_first_seconds": 0.2})
    made.drop("student_a.csv", table("a"))
    yield made
    made.end_everything()


def broken_metaflow(project: Project) -> Path:
    """Let no run import Metaflow, as half an upgrade of packages would."""
    folder = project.root / "packages"
    folder.mkdir()
    module = folder / "metaflow.py"
    module.write_text("raise ImportError('half an upgrade')\n", encoding="ascii")
    project.environment["PYTHONPATH"] = str(folder)
    return module


def held_back(project: Project) -> list[str]:
    """What history tells of batches that were held back."""
    with project.reading() as read:
        return [one.detail for one in read.events("data/student_a.csv") if "held" in one.kind]


@pytest.mark.exhaustive
def test_a_transform_that_cannot_be_loaded_holds_its_batch_back_until_it_is_mended(
    project: Project,
) -> None:
    whole = (project.root / "gated.py").read_text()
    (project.root / "gated.py").write_text("import os\nimport nowhere\n")
    done = project.once()

    why = "gated.py:2: import nowhere: ModuleNotFoundError: No module named 'nowhere'"
    assert done.returncode == 1
    assert project.states("student_a.csv") == [FileState.BATCHED]
    (told,) = held_back(project)
    assert told.startswith("it never began: exit code 1: ")
    assert told.endswith(why)
    assert why in project.ds_flow("explain", "data/student_a.csv").stdout
    began = [run for run in project.runs() if run.run_id]
    assert [(run.state, run.error.endswith(why)) for run in began] == [(RunState.LOST, True)]

    (project.root / "gated.py").write_text(whole)
    assert project.once().returncode == 0
    assert project.states("student_a.csv") == [FileState.PROCESSED]
    assert project.published_ids() == ids("a")


@pytest.mark.exhaustive
def test_a_transform_that_only_says_that_it_cannot_be_loaded_uses_up_attempts(
    project: Project,
) -> None:
    code = "import os\ndef transform(_):\n    print('process: no', flush=True)\n    os._exit(78)\n"
    (project.root / "gated.py").write_text(code)

    assert project.once().returncode == 1

    assert project.states("student_a.csv") == [FileState.QUARANTINED]
    assert [run.state for run in project.runs()].count(RunState.LOST) == 1


@pytest.mark.exhaustive
def test_a_batch_whose_runs_cannot_begin_waits_says_why_and_goes_on_once_that_is_mended(
    project: Project,
) -> None:
    module = broken_metaflow(project)
    project.start()
    until("several runs could not begin", lambda: len(project.runs(RunState.LOST)) > 3)

    why = "it never began: exit code 1: ImportError: half an upgrade"
    assert project.states("student_a.csv") == [FileState.BATCHED]
    assert held_back(project) == [why]
    assert project.said().count(" batch.held_back ") == 1
    assert any(why in line for line in project.status()["held_back"])
    assert f"after: {why}" in project.ds_flow("explain", "data/student_a.csv").stdout

    module.unlink()
    project.wait_processed("student_a.csv")
    project.stop()
    assert {run.state for run in project.runs()} == LOST_THEN_DONE


@pytest.mark.exhaustive
def test_another_reason_is_told_again(project: Project) -> None:
    module = broken_metaflow(project)
    project.start()
    until("it is told", lambda: len(held_back(project)) == 1)

    module.write_text("raise ImportError('another half')\n", encoding="ascii")

    until("the other reason is told", lambda: len(held_back(project)) == 2)
    assert held_back(project)[1].endswith("another half")


BREAKS = {
    "METAFLOW_PROFILE=nobody": "METAFLOW_PROFILE",
    "METAFLOW_DECOSPECS=nowhere": "Unknown step decorator",
    "PYTHONHOME=/nowhere": "exit code ",
    "PYTHONWARNINGS=error": "exit code ",
}
"""Lines of `.env` that no run survives, each with a word of the reason."""


LINES = [
    pytest.param(
        line, marks=pytest.mark.exhaustive if "WARNINGS" in line or "PROFILE" in line else ()
    )
    for line in BREAKS
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.exhaustive
def test_once_leaves_a_batch_that_cannot_begin_waiting_and_says_why(
    project: Project, line: str
) -> None:
    (project.root / ".env").write_text(f"{line}\n", encoding="ascii")

    done = project.once()

    assert done.returncode == 1, done.stderr
    assert "held back: batch " in done.stdout
    assert BREAKS[line] in done.stdout
    assert project.states("student_a.csv") == [FileState.BATCHED]

    (project.root / ".env").unlink()
    assert project.once().returncode == 0
    assert project.published_ids() == sorted(ids("a"))
    assert {run.state for run in project.runs()} == LOST_THEN_DONE


@pytest.mark.exhaustive
def test_a_batch_that_cannot_begin_is_tried_at_once_when_the_settings_are_read_again(
    project: Project,
) -> None:
    project.configure(run={"attempts": 1, "retry_first_seconds": 3600})
    (project.root / ".env").write_text("METAFLOW_PROFILE=nobody\n", encoding="ascii")
    project.start()
    until("it is held back", lambda: held_back(project))

    (project.root / ".env").unlink()
    project.signal(signal.SIGHUP)

    project.wait_processed("student_a.csv")


@pytest.mark.exhaustive
def test_a_batch_whose_plan_was_changed_is_dead_since_no_run_can_begin(project: Project) -> None:
    module = broken_metaflow(project)
    project.once()
    (plan,) = (project.out / ".work").glob("*/batch.json")
    plan.write_text(json.dumps({"batch": "x"}), encoding="ascii")
    module.unlink()

    assert project.once().returncode == 1

    with project.reading() as read:
        (batch,) = read.batches_in(BatchState.DEAD)
    assert "its work directory was changed" in batch.reason
    assert "not a plan of this version" in project.reason("student_a.csv")
