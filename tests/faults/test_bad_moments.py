"""Whatever is killed, and when: every row is published once, and nothing is left over."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ds_flow.core.states import FileState, RunState
from project import Gate, Project, ids, table, until

NAMES = ("a", "b", "c")
GATED_ANALYSIS = 'test -e "$0" && touch "$0.reached" && flock --shared "$0" true; wc -l "$1"'


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    root = tmp_path / "project"
    analysis = ["bash", "-c", GATED_ANALYSIS, str(root / "gates" / "analyze")]
    made = Project(root, compute={"stages": {"analyze": {"command": analysis}}})
    made.hold_end()
    for name in NAMES:
        made.drop(f"student_{name}.csv", table(name))
    yield made
    made.end_everything()


def assert_published_once(project: Project) -> None:
    assert project.published_ids() == sorted(row for name in NAMES for row in ids(name))
    assert len(project.manifests()) == 1
    assert (project.strays(), project.leftovers(), project.marked()) == (set(), [], [])
    status = project.status()
    assert status["accounted"]
    assert status["files"]["processed"] == len(NAMES)


# --------------------------------------------------------------------------- kill -9


def kill_daemon(project: Project) -> None:
    project.kill()


def kill_run(project: Project) -> None:
    """Kill, by turns, Metaflow's scheduler and the shell that would record its exit code.

    Tasks and jobs live on.
    """
    program = "python" if len(project.runs()) % 2 else "bash"
    (run,) = [pid for pid in project.processes(" run --batch") if name(pid).startswith(program)]
    os.kill(run, signal.SIGKILL)


def name(pid: int) -> str:
    """A process's name: forks of the scheduler have its command line, and names of their own."""
    with suppress(OSError):  # it has ended meanwhile
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
    return ""


def kill_everything(project: Project) -> None:
    project.end_everything()


VICTIMS: dict[str, Callable[[Project], None]] = {
    "daemon": kill_daemon,
    "run": kill_run,
    "everything": kill_everything,
}


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.exhaustive
def test_kill_9_at_every_moment_of_a_batch_costs_nothing(project: Project, victim: str) -> None:
    first, second = project.gate("call1"), project.gate("call2")
    analyze = project.gate("analyze")
    project.start()
    until("the run had just started", lambda: project.runs(RunState.RUNNING))
    strike(project, victim)
    first.open()

    second.wait()
    assert len(results(project)) == 1
    strike(project, victim)
    second.open()

    analyze.wait()
    assert list(project.out.glob(".work/*/combined/*.csv"))
    analyze.forget()
    strike(project, victim)

    analyze.wait()
    end = project.gate("end")
    analyze.open()
    end.wait()
    strike(project, victim, end)

    project.wait_processed(*(f"student_{name}.csv" for name in NAMES))
    assert project.stop() == 0
    assert_published_once(project)
    lost = [] if victim == "daemon" else [RunState.LOST] * 4  # a run does not need the daemon
    assert [run.state for run in project.runs()] == [*lost, RunState.SUCCEEDED]


def strike(project: Project, victim: str, held: Gate | None = None) -> None:
    """Kill, start again what does not start itself, and wait until the run is followed again."""
    before = len(project.runs())
    VICTIMS[victim](project)
    if held:
        held.open()
    if victim in {"daemon", "everything"}:
        project.start()
    if victim != "daemon":
        until("the batch was started again", lambda: len(project.runs()) > before)


def results(project: Project) -> list[Path]:
    return list(project.out.glob(".work/*/results/*/student_*.json"))


# --------------------------------------------------------------------------- a stop


def test_a_stopped_run_goes_on_at_the_next_start_without_doing_anything_twice(
    project: Project,
) -> None:
    project.configure(run={"stop_grace_seconds": 0})
    second = project.gate("call2")
    project.start()
    second.wait()
    (finished,) = results(project)
    (done,) = finished.parent.glob(f"{finished.stem}.*.csv")
    first = done.read_bytes()

    assert project.stop() == 0
    assert project.marked() == []
    assert [run.state for run in project.runs()] == [RunState.STOPPED]
    assert {project.states(f"student_{name}.csv")[0] for name in NAMES} == {FileState.BATCHED}

    second.open()
    project.start()
    project.wait_processed(*(f"student_{name}.csv" for name in NAMES))
    project.stop()
    (output,) = project.out.glob(f"processed_{finished.stem}_*.csv")
    assert output.read_bytes() == first  # with the processed_at of the stopped run
    assert [run.state for run in project.runs()] == [RunState.STOPPED, RunState.SUCCEEDED]
    assert_published_once(project)


def test_a_run_that_ends_within_its_grace_is_not_stopped(project: Project) -> None:
    second = project.gate("call2")
    project.start()
    second.wait()
    project.signal(signal.SIGTERM)
    until("the daemon was stopping", lambda: "daemon.stopping" in project.said())
    second.open()
    assert project.stopped() == 0
    assert [run.state for run in project.runs()] == [RunState.SUCCEEDED]
    assert_published_once(project)
