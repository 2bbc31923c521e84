"""The standby: the next run's process waits while files settle, and costs nothing if it dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from cli_project import Project as CliProject
from clock import MovedClock
from ds_flow.core.problems import Problems
from ds_flow.core.program import CHECKOUT, FLOW
from ds_flow.core.states import RunState, Trigger
from ds_flow.runs import standby, start
from ds_flow.runs.launch import Life, Runs, processes
from ds_flow.runs.start import Starter
from ds_flow.runs.supervise import BEGIN_SECONDS, Supervisor
from ds_flow.settings.load import Settings
from ds_flow.system.metaflow_store import alone_in_store
from ds_flow.work.batch import Batch
from pretended import PretendedRuns
from project import Project, table, until
from samples import settled

pytestmark = pytest.mark.usefixtures("forks_allowed")

TEAM = """
import os
def transform(frame):
    return frame.assign(said=os.environ.get("TEAM", "nothing"))
"""
WAIT = """
import sys
from steps import standby
standby.WAIT_SECONDS = float(sys.argv[1])
standby.wait_for_batch()
print("its batch is there")
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project", compute={"transform": "team:transform"})
    (made.root / "team.py").write_text(TEAM)
    made.hold_end()
    yield made
    made.end_everything()


@pytest.fixture
def held(project: Project) -> Iterator[IO[str]]:
    """A file that is being written, so that it settles when the test wants it to."""
    project.drop("student_a.csv", "")
    with (project.inbox / "student_a.csv").open("w") as file:
        file.write(table("a"))
        file.flush()
        yield file


def wait_for_standby(project: Project) -> set[int]:
    """Start the daemon and wait for its standby: the shell and the interpreter."""
    project.start()
    until("a process waited for its batch", lambda: len(project.marked()) == 2)
    assert project.runs() == []
    return set(project.marked())


def assert_done(project: Project, runs: int = 1) -> None:
    project.wait_processed("student_a.csv")
    assert project.stop() == 0
    assert [run.state for run in project.runs()] == [RunState.SUCCEEDED] * runs
    assert project.marked() == []
    assert project.strays() == set()
    assert {path.name.partition("_")[0] for path in project.log.glob("*_*.log")} == {"run"}


def test_a_run_is_the_process_that_was_there_while_its_file_settled(
    project: Project, held: IO[str]
) -> None:
    (project.root / ".metaflow").mkdir()
    pids = wait_for_standby(project)
    with alone_in_store(project.root) as is_alone:
        assert is_alone  # it keeps nobody from collecting Metaflow's old runs
    end = project.gate("end")
    held.close()
    end.wait()
    assert pids <= set(project.marked())
    with alone_in_store(project.root) as is_alone:
        assert not is_alone
    end.open()
    assert_done(project)


def everyone(_: int) -> bool:
    return True


def interpreter(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").startswith("python")


def shell(pid: int) -> bool:
    return not interpreter(pid)


@pytest.mark.parametrize(
    "victim", [interpreter, shell, pytest.param(everyone, marks=pytest.mark.exhaustive)]
)
def test_a_standby_that_is_killed_costs_no_attempt(
    project: Project, held: IO[str], victim: Callable[[int], bool]
) -> None:
    for pid in filter(victim, wait_for_standby(project)):
        os.kill(pid, signal.SIGKILL)
    until("nothing was left of it", lambda: not project.marked())
    held.close()
    assert_done(project)


def test_a_standby_ends_with_its_daemon_and_leaves_nothing(project: Project, held: IO[str]) -> None:
    wait_for_standby(project)
    project.kill()
    until("nothing was left of it", lambda: not project.processes())
    assert list(project.log.glob("attempt_*.log")) == []
    wait_for_standby(project)
    held.close()
    assert_done(project)


def test_a_daemon_that_stops_ends_its_standby_even_if_that_hangs(
    project: Project, held: IO[str]
) -> None:
    for pid in wait_for_standby(project):
        os.kill(pid, signal.SIGSTOP)
    assert project.stop() == 0
    assert project.processes() == []
    assert list(project.log.glob("attempt_*.log")) == []
    assert not held.closed


@pytest.mark.exhaustive
def test_a_run_has_the_code_and_the_environment_of_the_moment_it_begins(
    project: Project, held: IO[str]
) -> None:
    before = wait_for_standby(project)
    (project.root / "team.py").write_text(TEAM.replace("said=", "now_said="))
    (project.root / ".env").write_text("TEAM=all of us\n")
    project.signal(signal.SIGHUP)
    until("the settings were read again", lambda: "settings.reloaded" in project.said())
    held.close()
    project.wait_processed("student_a.csv")
    assert not before & set(project.processes())
    assert_done(project)
    (output,) = project.out.glob("processed_student_a_*.csv")
    assert output.read_text().splitlines()[0].startswith("id,now_said")
    assert output.read_text().splitlines()[1].startswith("a-0,all of us")


# --------------------------------------------------------------------------- one moment each


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[tuple[CliProject, Runs, str]]:
    """A standby, and the id of the batch that gets it."""
    made, runs = CliProject(tmp_path), Runs()
    runs.get_ready(made.settings)
    yield made, runs, runs.next_batch()
    runs.dismiss()


def is_dead(runs: Runs, batch: str) -> bool:
    return runs.life(batch, 1) == Life.DEAD


def test_only_one_batch_gets_the_standby(ready: tuple[CliProject, Runs, str]) -> None:
    _, runs, batch = ready
    assert runs.life(batch, 1) == Life.ALIVE
    assert runs.next_batch() not in {batch, runs.next_batch()}


def test_a_standby_that_dies_as_its_batch_comes_is_a_run_that_never_began(
    ready: tuple[CliProject, Runs, str],
) -> None:
    made, runs, batch = ready
    (made.settings.work_root / batch / "attempts").mkdir(parents=True)
    runs.make_way(made.settings, batch, 1, Trigger.ARRIVAL)
    runs.prepare(made.settings, batch, 1)
    for process in processes(f"{batch}/1"):
        os.kill(process.pid, signal.SIGKILL)
    runs.start(made.settings, batch, 1, Trigger.ARRIVAL)
    until("it was found dead", lambda: is_dead(runs, batch))
    assert Batch(made.settings.work_root / batch).run_id(1) is None


def test_a_standby_of_a_killed_daemon_makes_way(ready: tuple[CliProject, Runs, str]) -> None:
    made, runs, batch = ready
    Runs().make_way(made.settings, batch, 1, Trigger.ARRIVAL)
    until("it was dead", lambda: is_dead(runs, batch))


def test_a_start_that_failed_takes_its_standby_for_no_unknown_attempt(
    ready: tuple[CliProject, Runs, str],
) -> None:
    made, runs, batch = ready
    with closing(made.open()) as ledger:
        made.form(batch, made.admit("student_a.csv"))
        starter = Starter(made.settings, ledger, runs, MovedClock(), Problems())
        (row,) = ledger.read.due_batches(starter.clock.now())
        Batch.create(made.settings.output_dir, starter._plan(row))
        runs.prepare(made.settings, batch, 1)  # then the ledger, say, was locked
        try:
            assert starter.start() == 1
            assert [run.attempt for run in ledger.read.live_runs()] == [2]
            assert not runs.has_standby
        finally:
            runs.kill(batch, 2)


@pytest.mark.parametrize("changed", ["steps/new.py", "steps/old.py", "nothing"])
def test_a_standby_does_not_fit_once_the_code_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.setattr(standby, "CHECKOUT", tmp_path)
    (tmp_path / "flows" / "steps").mkdir(parents=True)
    (tmp_path / "flows" / "steps" / "old.py").write_text("1")
    command = (["cat"], {**os.environ}, tmp_path)
    made = standby.Standby.start("0123456789/1", command, tmp_path / "log")
    try:
        assert made.fits(command)
        if changed != "nothing":
            (tmp_path / "flows" / changed).write_text("22")
        assert made.fits(command) == (changed == "nothing")
        assert not made.fits((["cat"], {**os.environ, "TEAM": "1"}, tmp_path))
    finally:
        made.process.kill()
        made.bury()
    assert not made.fits(command)
    assert not (tmp_path / "log").exists()


def test_a_standby_that_hangs_once_its_batch_is_there_is_lost_and_uses_no_attempt(
    tmp_path: Path,
) -> None:
    made, runs, clock = CliProject(tmp_path), PretendedRuns(tmp_path), MovedClock()
    with closing(made.open()) as ledger:
        batch = made.form("0123456789", made.admit("student_a.csv"))
        made.start(batch)
        runs.start(made.settings, "0123456789", 1, Trigger.ARRIVAL)
        supervisor = Supervisor(made.settings, ledger, runs, clock, Problems())
        supervisor.follow()
        clock.elapsed_s += BEGIN_SECONDS + 1
        assert supervisor.follow() == 0  # an ordinary start may take its time
        runs._begun.add("0123456789/1")
        supervisor.follow()
        supervisor.follow()
        (run,) = ledger.read.runs()
        due = [row.id for row in ledger.read.due_batches(clock.now())]
    assert (run.state, due) == (RunState.LOST, ["0123456789"])


@pytest.mark.parametrize(
    ("given", "waits_s", "is_told", "printed"),
    [
        ("begin\n", "60", True, "its batch is there\n"),
        ("", "60", False, ""),  # the daemon died
        (None, "0", False, ""),  # no batch came
    ],
)
def test_it_waits_for_the_daemons_word(
    tmp_path: Path, given: str | None, waits_s: str, *, is_told: bool, printed: str
) -> None:
    log = tmp_path / "attempt.log"
    log.touch()
    (tmp_path / "config").mkdir()
    own = {
        "PYTHONPATH": f"{CHECKOUT / 'flows'}:{CHECKOUT / 'daemon'}",
        "DS_FLOW_CONFIG": str(tmp_path / "config" / "settings.yaml"),
        "DS_FLOW_STANDBY": str(log),
    }
    with subprocess.Popen(
        [sys.executable, "-c", WAIT, waits_s],
        env={**os.environ, **own},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        if given is not None:
            process.stdin.write(given)
            process.stdin.close()
        assert process.stdout.read() == printed
    assert process.returncode == 0
    assert log.exists() == is_told


def test_a_run_of_the_daemon_imports_nothing_that_only_a_person_s_run_needs(
    tmp_path: Path,
) -> None:
    made = CliProject(tmp_path)
    own = {"DS_FLOW_ATTEMPT": "0123456789/1", "DS_FLOW_STANDBY": str(tmp_path / "attempt.log")}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", FLOW, "run", "--batch", "0123456789"],
        env={**made.settings.run_environment(os.environ), **own},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert {"metaflow.runtime", "pandas", "pyarrow", "steps.process_job"} <= imported
    assert not {"ds_flow.settings", "ds_flow.inbox", "pydantic", "transforms"} & imported


# --------------------------------------------------------------------------- when there is one


class Counted(PretendedRuns):
    """Runs that have a standby in name only."""

    standbys = 0

    def get_ready(self, settings: Settings) -> None:
        super().get_ready(settings)
        self.standbys = 1

    @property
    def has_standby(self) -> bool:
        return self.standbys == 1

    def dismiss(self) -> int:
        ended, self.standbys = self.standbys, 0
        return ended


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Starter]:
    made = CliProject(tmp_path)
    with closing(made.open()) as ledger:
        yield Starter(made.settings, ledger, Counted(tmp_path), MovedClock(), Problems())


def standbys(starter: Starter, due_in_s: float = 1.0) -> int:
    starter.get_ready(due_in_s)
    assert isinstance(starter.runs, Counted)
    return starter.runs.standbys


def test_there_is_none_until_a_batch_is_near(starter: Starter) -> None:
    assert standbys(starter, float("inf")) == 0
    assert standbys(starter, start.LEAD_SECONDS + 1) == 0
    assert standbys(starter, start.LEAD_SECONDS - 1) == 1
    assert standbys(starter, float("inf")) == 1  # it ends by itself


def test_there_is_none_where_tasks_are_programs(starter: Starter) -> None:
    run = starter.settings.run.model_copy(update={"fork": False})
    starter.settings = replace(starter.settings, run=run)
    assert standbys(starter) == 0


def test_there_is_none_where_memory_is_low(
    starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "STANDBY_NEEDS_MB", 2**40)
    assert standbys(starter) == 0


def test_there_is_none_while_the_next_run_could_not_start(starter: Starter) -> None:
    assert standbys(starter) == 1
    batch = form(starter)
    starter.ledger.start_run(batch, starter.clock.now())
    assert standbys(starter) == 0
    starter.ledger.end_run(
        batch, 1, RunState.LOST, error="", results=0, then=None, now=starter.clock.now()
    )
    assert standbys(starter) == 1


def test_after_one_without_a_batch_a_run_starts_before_there_is_another(starter: Starter) -> None:
    assert standbys(starter) == 1
    assert isinstance(starter.clock, MovedClock)
    starter.clock.elapsed_s += start.LONGEST_STANDBY_SECONDS + 1  # it hangs, or has ended
    assert standbys(starter) == 0
    assert standbys(starter) == 0
    form(starter)
    assert starter.start() == 1
    assert isinstance(starter.runs, Counted)
    starter.runs.alive.clear()
    assert starter.unreadable.report("0123456789", "so that its run takes no room")
    assert standbys(starter) == 1


def form(starter: Starter) -> str:
    entered = settled("data/student_a.csv", "1", at=1)
    starter.ledger.admit([entered], starter.clock.now())
    (file,) = starter.ledger.read.waiting()
    starter.ledger.form("0123456789", [file.id], Trigger.ARRIVAL, starter.clock.now())
    return "0123456789"
