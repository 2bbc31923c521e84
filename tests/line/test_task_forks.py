"""steps/task_forks: tasks and local jobs are forks, unless that cannot be or is not wanted."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import metaflow.runtime
import pytest
from metaflow.plugins.cards import card_creator

from ds_flow.dispatch import local_jobs
from project import Project, table, until
from steps import task_forks
from steps.jobs import STEPS

pytestmark = pytest.mark.usefixtures("forks_allowed")

FORKS = {"ds-flow-task", "ds-flow-job"}
RANDOM = """
import random
import uuid
import numpy
def transform(frame):
    return frame.assign(a=random.random(), b=numpy.random.random(), c=str(uuid.uuid4()))
"""
SPAWNS = """
import multiprocessing
def square(number):
    return number * number
def transform(frame):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return frame.assign(nine=str(pool.map(square, [3])[0]))
"""
PRINTS = """
def transform(frame):
    print("seen in the job's log")
    return frame
"""


DIES = """
import os
import sys
def transform(frame):
    print("last words,", end="")
    print("and complaints", file=sys.stderr)
    os._exit(5)
"""


@pytest.fixture(autouse=True)
def _cards_of_metaflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test replaces is put back."""
    monkeypatch.setattr(card_creator, "subprocess", subprocess)


def names(pids: list[int]) -> set[str]:
    found = set()
    for pid in pids:
        try:
            found.add(Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip())
        except OSError:  # gone
            continue
    return found


@pytest.mark.parametrize("fork", [True, False])
@pytest.mark.exhaustive
def test_tasks_and_jobs_are_forks_unless_the_settings_say_otherwise(
    tmp_path: Path, *, fork: bool
) -> None:
    project = Project(tmp_path / "project", run={"fork": fork})
    project.drop("student_a.csv", table("a"))
    gate = project.gate("call1")
    project.start()
    try:
        gate.wait()
        assert names(project.marked()) & FORKS == (FORKS if fork else set())
        gate.open()
        project.wait_processed("student_a.csv")
        assert project.stop() == 0
    finally:
        project.end_everything()
    assert not project.marked()


def test_every_program_of_a_job_can_be_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_jobs, "_programs", {})
    task_forks._import_programs()
    assert local_jobs._programs.keys() == {str(path) for path in STEPS.glob("*_job.py")}


def test_jobs_share_no_random_numbers(tmp_path: Path) -> None:
    project = Project(
        tmp_path / "project", compute={"transform": "chance:transform", "shard_mb": 0.001}
    )
    (project.root / "chance.py").write_text(RANDOM)
    for name in ("a", "b", "c"):
        project.drop(f"student_{name}.csv", "id,padding\n1," + "x" * 2000 + "\n")

    assert project.once().returncode == 0

    (manifest,) = project.manifests()
    (combined,) = project.out.glob(f"final_combined_{manifest.run_id}.csv")
    rows = [line.split(",") for line in combined.read_text().splitlines()]
    for column in map(rows[0].index, ("a", "b", "c")):
        assert len({row[column] for row in rows[1:]}) == 3


@pytest.mark.parametrize("fork", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_what_a_transform_spawns_imports_the_projects_own_code(
    tmp_path: Path, *, fork: bool
) -> None:
    project = Project(
        tmp_path / "project", compute={"transform": "transforms:transform"}, run={"fork": fork}
    )
    (project.root / "flows").mkdir(exist_ok=True)
    (project.root / "flows" / "transforms.py").write_text(SPAWNS)
    project.drop("student_a.csv", "id\n1\n")

    assert project.once().returncode == 0

    (output,) = project.out.glob("processed_student_a_*.csv")
    assert output.read_text().splitlines()[1].startswith("1,9,")


def test_a_job_s_own_log_and_the_run_s_have_what_it_prints(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", compute={"transform": "prints:transform"})
    (project.root / "prints.py").write_text(PRINTS)
    project.drop("student_a.csv", table("a"))

    assert project.once().returncode == 0

    (log,) = project.log.glob("run_*.log")
    assert log.read_text().count("seen in the job's log") == 1


@pytest.mark.parametrize("fork", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_what_a_job_prints_before_it_dies_is_in_the_log_in_its_order(
    tmp_path: Path, *, fork: bool
) -> None:
    project = Project(
        tmp_path / "project", compute={"transform": "dies:transform"}, run={"fork": fork}
    )
    (project.root / "dies.py").write_text(DIES)
    project.drop("student_a.csv", table("a"))

    assert project.once().returncode == 1

    logs = [path.read_text() for path in project.log.glob("run_*.log")]
    assert all("last words,and complaints" in log for log in logs)
    assert logs


def test_no_task_outlives_a_run_that_was_interrupted(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.drop("student_a.csv", table("a"))
    gate = project.gate("call1")
    project.start()
    try:
        gate.wait()
        (run,) = project.runs()
        assert project.ds_flow("cancel", run.batch).returncode == 0
        until("no process is left", lambda: not project.marked())
        assert project.stop() == 0
    finally:
        project.end_everything()


@pytest.mark.parametrize(
    ("argv", "fork", "known", "is_replaced"),
    [
        (["run"], "true", True, True),
        (["resume"], "", True, True),
        (["run"], "false", True, False),
        (["run", "--with", "retry"], "true", True, False),
        (["--with=retry", "run"], "true", True, False),
        (["step"], "true", True, False),  # a task of a run that does not fork
        (["run"], "true", False, False),  # a Metaflow that starts its tasks in another way
    ],
)
def test_only_a_run_of_a_metaflow_that_is_known_forks(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], fork: str, *, known: bool, is_replaced: bool
) -> None:
    before = subprocess if known else SimpleNamespace()
    monkeypatch.setattr(metaflow.runtime, "subprocess", before)
    monkeypatch.setattr(task_forks, "_import_programs", lambda: None)
    monkeypatch.setattr(task_forks, "_leave_out_package", lambda: None)
    monkeypatch.setattr(sys, "argv", ["student_flow.py", *argv])
    monkeypatch.setenv("DS_FLOW_RUN__FORK", fork)

    task_forks.fork_tasks(lambda: None)

    assert (metaflow.runtime.subprocess is not before) == is_replaced


@pytest.mark.filterwarnings("ignore:line buffering")  # Metaflow asks for it
def test_a_task_is_no_fork_while_another_thread_may_hold_a_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metaflow.runtime, "subprocess", subprocess)
    monkeypatch.setattr(task_forks, "_import_programs", lambda: None)
    monkeypatch.setattr(task_forks, "_leave_out_package", lambda: None)
    monkeypatch.setattr(sys, "argv", ["-c", "run"])
    task_forks.fork_tasks(lambda: None)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        command = [sys.executable, "-c", "", "step"]
        task = metaflow.runtime.subprocess.Popen(command, env={}, **task_forks.POPEN_OPTIONS)
        assert isinstance(task, subprocess.Popen)
        task.communicate()
    finally:
        done.set()
        thread.join()


def test_another_way_to_start_a_process_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(metaflow.runtime, "subprocess", subprocess)
    monkeypatch.setattr(task_forks, "_import_programs", lambda: None)
    monkeypatch.setattr(task_forks, "_leave_out_package", lambda: None)
    monkeypatch.setattr(sys, "argv", ["student_flow.py", "run"])
    monkeypatch.setenv("DS_FLOW_RUN__FORK", "true")
    task_forks.fork_tasks(lambda: None)
    made = tmp_path / "made"

    process = metaflow.runtime.subprocess.Popen(["touch", str(made)], env=dict(os.environ))

    assert isinstance(process, subprocess.Popen)
    assert process.wait() == 0
    assert made.exists()


def make_card(
    monkeypatch: pytest.MonkeyPatch, task: task_forks.Task, *words: str, limit_s: float = 60
) -> bytes:
    """Have a command run as a task has a card made, in a run whose tasks are forks."""
    monkeypatch.setattr(card_creator, "subprocess", subprocess)
    monkeypatch.setattr(metaflow.runtime, "subprocess", subprocess)
    monkeypatch.setattr(task_forks, "_import_programs", lambda: None)
    monkeypatch.setattr(task_forks, "_leave_out_package", lambda: None)
    monkeypatch.setattr(sys, "argv", ["-c", "run"])
    task_forks.fork_tasks(task)
    made: bytes = card_creator.subprocess.check_output(
        [sys.executable, "-c", *words],
        env={**os.environ, "SEEN": "here"},
        stderr=subprocess.STDOUT,
        timeout=limit_s,
    )
    return made


def tell() -> None:
    sys.stdout.write(f"{os.environ['SEEN']} {sys.argv}\n")
    sys.stderr.write("complaint\n")


def test_a_card_is_made_in_a_fork_that_has_the_command_line_of_a_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert make_card(monkeypatch, tell, "card", "create") == (
        b"here ['-c', 'card', 'create']\ncomplaint\n"
    )
    assert make_card(monkeypatch, tell, "print('a program')") == b"a program\n"


def test_a_card_that_fails_or_hangs_ends_as_a_program_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        sys.stdout.write("no card")
        sys.exit(3)

    def hang() -> None:
        threading.Event().wait()

    def no_room(*_: object) -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with pytest.raises(subprocess.CalledProcessError) as failed:
        make_card(monkeypatch, fail, "card", "create")
    assert (failed.value.returncode, failed.value.output) == (3, b"no card")
    with pytest.raises(subprocess.TimeoutExpired):
        make_card(monkeypatch, hang, "card", "create", limit_s=0.2)
    monkeypatch.setattr(task_forks, "fork", no_room)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        make_card(monkeypatch, tell, "card", "create")
    assert b"Resource temporarily unavailable" in refused.value.output


def test_a_run_that_is_told_to_end_while_a_card_is_made_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class ToldError(Exception):
        pass

    def tell_and_hang() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        wchan = Path(f"/proc/{os.getppid()}/wchan")
        while "poll" not in wchan.read_text():  # it waits for this process
            os.sched_yield()
        os.kill(os.getppid(), signal.SIGUSR1)
        threading.Event().wait()

    def end(*_: object) -> None:
        raise ToldError

    before = signal.signal(signal.SIGUSR1, end)
    try:
        with pytest.raises(ToldError):
            make_card(monkeypatch, tell_and_hang, "card", "create")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()
