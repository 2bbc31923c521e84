"""An operator's drill: each thing that goes wrong is found with at most two commands.

The cause and the remedy are on the screen in words. What is found is a real daemon's, or the real
command's on a real ledger.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli_project import Project as Ledgered
from disks import fill, mounted
from ds_flow.core.states import FireOutcome
from ds_flow.ledger.schedules import Fire
from project import Project, table, until

REFUSES = "#!/bin/sh\necho 'Cannot connect to the Docker daemon. Is it running?' >&2\nexit 1\n"
MOST_COMMANDS = 2


class Operator:
    """Somebody who is called at night, and sees nothing but what commands print."""

    def __init__(self, project: Project) -> None:
        self.project, self.asked = project, 0
        self.screen = ""

    def types(self, *words: str) -> str:
        """Run a command; all that is on the screen by then, as one line."""
        self.asked += 1
        assert self.asked <= MOST_COMMANDS, f"found only with more commands: {self.screen}"
        done = self.project.ds_flow(*words)
        self.screen = " ".join(f"{self.screen} {done.stdout} {done.stderr}".split())
        return self.screen

    def reads(self, *texts: str) -> None:
        for text in texts:
            assert text in self.screen, f"{text!r} is not on the screen: {self.screen}"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    yield made
    made.end_everything()


@pytest.fixture
def operator(project: Project) -> Operator:
    return Operator(project)


def test_a_bad_file(project: Project, operator: Operator) -> None:
    project.drop("student_bad.csv", "id,score\n1,2\n3\n")
    project.drop("student_good.csv", table("good"))
    project.start()
    until("it was read", lambda: "quarantined" in project.states("student_bad.csv"))
    operator.types("status")
    operator.reads(
        "needs a person: 1 thing to do",
        "data/student_bad.csv is set aside: line 3: ",
        "remedy correct the file and put it into the inbox again, or remove it",
        "type ds-flow explain -- data/student_bad.csv",
    )
    project.stop()


def test_a_misnamed_delivery(project: Project, operator: Operator) -> None:
    for name in ("Student_X.CSV", "students.csv", "marks.xlsx"):
        project.drop(name, table("x"))
    project.start()
    operator.types("status")
    operator.reads(
        "no input data/",
        "data/Student_X.CSV is not read: its name differs from student_*.csv in capital letters;"
        " student_X.csv would be read",
        "data/students.csv is not read: its name does not match student_*.csv",
        "data/marks.xlsx is not read: a workbook, and student_*.csv matches none;"
        " student_marks.csv would be read",
        "remedy rename it",
        "remedy save it as CSV",
    )
    project.stop()


def deliver_nights(project: Project, odd_header: str) -> tuple[str, str]:
    """Publish a source's files of two nights, and an odd one; the odd one's path and its run."""
    for day in (26, 27):
        project.drop(f"student_north_2026-11-{day}.csv", "id,score\n1,2\n")
    assert project.once().returncode == 0
    cells = ",".join(str(number) for number, _ in enumerate(odd_header.split(",")))
    odd = project.drop("student_north_2026-11-28.csv", f"{odd_header}\n{cells}\n")
    assert project.once().returncode == 0
    (run,) = project.runs()[1:]
    return f"data/{odd.name}", str(run.run_id)


MISSING = "column `score` is missing; it was there in 2 of 2 files"


@pytest.mark.parametrize(
    ("header", "what"),
    [("id", MISSING), ("id,Score", f"{MISSING}; a new column `Score` is there")],
    ids=["a column is missing", "a column was renamed"],
)
@pytest.mark.exhaustive
def test_columns_that_are_not_those_of_the_files_before(
    project: Project, operator: Operator, header: str, what: str
) -> None:
    path, run_id = deliver_nights(project, header)
    project.start()
    operator.types("status")
    operator.reads(
        "status all is well",
        f"note {path} is published, but differs from the files before it: student_north: {what}",
        "remedy ask their sender whether this is meant",
        f"type ds-flow show {run_id}",
    )
    operator.types("explain", path)
    operator.reads(f"drift: student_north: {what}")
    project.stop()


@pytest.mark.exhaustive
def test_a_transform_that_raises_on_all(project: Project, operator: Operator) -> None:
    project.configure(run={"attempts": 1})
    for name in ("a", "b"):
        project.drop(f"student_{name}.csv", "id,raise\n1,the mark is no number\n")
    project.start()
    until("the batch was dead", lambda: {"quarantined"} == {*project.states("student_a.csv")})
    operator.types("status")
    operator.reads(
        "has used up its attempts:",
        "the mark is no number",
        "remedy remove the cause (its log: `ds-flow logs ",
        "then retry it type ds-flow retry ",
    )
    project.stop()


def test_a_lost_run(project: Project, operator: Operator) -> None:
    gate = project.gate("held")
    project.drop("student_a.csv", "id,gate\n1,held\n")
    project.start()
    gate.wait()
    until("its Run ID is known", lambda: bool(project.runs()[0].run_id))
    (first,) = project.runs()
    gate.forget()
    for pid in project.marked():
        os.kill(pid, signal.SIGKILL)
    until("it was started again", lambda: len(project.runs()) > 1)
    gate.wait()
    operator.types("status")
    operator.reads(
        f"run {first.run_id} was lost at ",
        "it was started again as",
        "remedy nothing; if it happens again, see who ends it",
        f"type ds-flow logs {first.run_id}",
    )
    gate.open()
    project.wait_processed("student_a.csv")
    project.stop()


@pytest.mark.exhaustive
def test_a_changed_output(project: Project, operator: Operator) -> None:
    project.drop("student_a.csv", table("a"))
    assert project.once().returncode == 0
    (run,) = project.runs()
    (path,) = project.out.glob("final_*.csv")
    path.write_text("changed")
    operator.types("verify")
    operator.reads(
        f"run {run.run_id}: {path.name}: has 7 bytes, not the",
        f"run {run.run_id}: `ds-flow rerun {run.run_id}` makes its outputs again",
    )
    operator.types("rerun", str(run.run_id))
    assert project.ds_flow("verify").returncode == 0


@pytest.mark.exhaustive
def test_a_changed_output_that_the_night_has_found(project: Project, operator: Operator) -> None:
    nightly = {"name": "nightly", "cron": "0 2 * * *", "skip_unchanged": True}
    project.configure(schedule=[nightly])
    project.drop("student_a.csv", table("a"))
    project.once()
    project.ds_flow("schedule", "run", "nightly")
    newest = max(project.out.glob("final_*.csv"))
    newest.write_text("changed")
    project.ds_flow("schedule", "run", "nightly")
    operator.types("status")
    operator.reads(
        "outputs were changed: run ",
        "is not as it was published: ",
        "has made them again",
        "remedy see who changed the files in the output folder",
    )


def test_no_bsub(project: Project, operator: Operator) -> None:
    project.configure(compute={"executor": "lsf"})
    project.environment = {**project.environment, "PATH": "/usr/bin:/bin"}
    assert shutil.which("bsub", path="/usr/bin:/bin") is None
    assert project.ds_flow("serve").returncode == 78
    operator.types("status")
    operator.reads("the daemon is not running", "lsf does not answer: bjobs: ", "ds-flow check")
    operator.types("check")
    operator.reads("bsub")


@pytest.mark.exhaustive
def test_docker_is_down(project: Project, operator: Operator) -> None:
    program = project.root / "docker"
    program.write_text(REFUSES)
    program.chmod(0o755)
    project.configure(
        compute={"executor": "docker", "docker_image": "x", "docker_command": str(program)}
    )
    project.drop("student_a.csv", table("a"))
    project.start()
    until("the daemon has asked", lambda: "DOES NOT ANSWER" in project.ds_flow("status").stdout)
    operator.types("status")
    operator.reads(
        "engine docker (process, combine, analyze) DOES NOT ANSWER",
        "docker does not answer: Cannot connect to the Docker daemon",
        "remedy bring docker back, or make it known to ds-flow's user; runs wait for it",
    )
    project.kill()


def test_a_full_disk(project: Project, operator: Operator) -> None:
    project.out.mkdir()
    with mounted(project.out, "size=3m"):
        project.drop("student_a.csv", table("a"))
        project.configure(run={"min_free_mb": 2})
        project.start()
        fill(project.out, leave_bytes=2**20)
        operator.types("status")
        operator.reads(
            "space is low, and no new batch starts: ",
            f"{project.out} has",
            "remedy make room; everything goes on by itself then",
            "type ds-flow gc --dry-run",
        )
        project.kill()
        project.end_everything()


def test_a_missed_night(tmp_path: Path) -> None:
    made = Ledgered(tmp_path)
    now = datetime.now(UTC)
    due_at = now - timedelta(hours=5)
    with made as opened:
        fire = Fire(
            schedule="nightly",
            due_at=due_at,
            outcome=FireOutcome.MISSED,
            detail="due at 02:00, seen at 07:00",
        )
        opened.ledger.schedules.record(fire, now)
    operator = Operator(Project.__new__(Project))
    operator.project.place(tmp_path)
    operator.types("status")
    operator.reads(
        "schedule nightly was missed: due at 02:00, seen at 07:00",
        "remedy fire it now, or wait for its next time type ds-flow schedule run nightly",
    )


def test_a_missed_night_that_was_caught_up(tmp_path: Path) -> None:
    made = Ledgered(tmp_path)
    now = datetime.now(UTC)
    with made as opened:
        due_at = now - timedelta(hours=5)
        fire = Fire(schedule="nightly", due_at=due_at, outcome=FireOutcome.VERIFIED)
        opened.ledger.schedules.record(fire, now)
    operator = Operator(Project.__new__(Project))
    operator.project.place(tmp_path)
    operator.types("status")
    operator.reads(
        "schedule nightly was missed at ",
        "and caught up at ",
        "see why the daemon was down, or the machine asleep, at that time",
    )
    operator.types("schedule")
    operator.reads("missed at ", ", and caught up")


def test_a_bad_setting_on_reload(project: Project, operator: Operator) -> None:
    pid = project.start()
    project.config.write_text(project.config.read_text() + "nonsense: 1\n")
    project.signal(signal.SIGHUP)
    until("it was refused", lambda: "settings.refused" in project.said())
    operator.types("status")
    operator.reads(
        "the settings on disk are bad, and the daemon goes on with the old ones:",
        "nonsense: unknown setting",
        "remedy correct them, then reload; a restart would fail until then",
        f"type ds-flow check && kill -HUP {pid}",
    )
    project.stop()


def test_a_daemon_that_is_not_there(project: Project, operator: Operator) -> None:
    project.drop("student_a.csv", table("a"))
    operator.types("status", "--check")
    operator.reads("down: the daemon is not running")
    operator.types("status")
    operator.reads("remedy start it;", "type ds-flow serve")
