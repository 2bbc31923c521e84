"""What a dead run's remains say of its end."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backends import lsf
from cli_project import Project
from clock import MovedClock
from ds_flow.core.problems import Problems
from ds_flow.core.states import RunState, Trigger
from ds_flow.dispatch.rounds import open_round
from ds_flow.ledger.rows import RunRow
from ds_flow.runs import outcome
from ds_flow.runs.launch import Runs
from ds_flow.runs.supervise import Supervisor
from ds_flow.settings.load import load_settings
from ds_flow.system import metaflow_store
from ds_flow.work.analyses import why_no_analysis
from ds_flow.work.batch import Batch
from ds_flow.work.logs import attempt_log
from lsf_emulator import faults
from pretended import PretendedRuns

RUN = RunRow(
    batch="b" * 10,
    attempt=1,
    state=RunState.RUNNING,
    run_id="1",
    ending=None,
    trigger=Trigger.ARRIVAL,
    started_at="",
    ended_at=None,
    error="",
    removed_at=None,
    analysis_error="",
    analyses=0,
)
STARVED = "out of memory: killed by the kernel"

AfterTheLimit = Callable[..., RunState | None]


@pytest.mark.parametrize(
    ("left", "verdict"),
    [
        ({}, (RunState.LOST, "its processes ended without an exit code")),
        ({"exit_code": "137"}, (RunState.LOST, "killed by signal 9")),
        ({"exit_code": "137", "starved": ""}, (RunState.FAILED, STARVED)),
        ({"exit_code": "1", "starved": ""}, (RunState.FAILED, STARVED)),
        ({"exit_code": "1", "starved": "", "error": "said"}, (RunState.FAILED, "said")),
        ({"exit_code": "1"}, (RunState.FAILED, "exit code 1: its last words")),
        ({"exit_code": "1", "no_room": "", "error": "said"}, (RunState.LOST, "said")),
        ({"exit_code": "1", "error": "said"}, (RunState.FAILED, "said")),
    ],
)
def test_the_verdict_on_a_run_names_its_cause(
    tmp_path: Path, left: dict[str, str], verdict: tuple[RunState, str]
) -> None:
    attempt = tmp_path / "attempts" / "1"
    attempt.mkdir(parents=True)
    for name, text in left.items():
        (attempt / name).write_text(text)
    (tmp_path / "run_1.log").write_text("words\nits last words\n\n")

    assert outcome.outcome_of(RUN, Batch(tmp_path), tmp_path) == verdict


def test_the_last_words_of_a_run_that_died_before_its_log_was_renamed_are_found(
    tmp_path: Path,
) -> None:
    attempt = tmp_path / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "exit_code").write_text("1")
    attempt_log(tmp_path, RUN.batch, RUN.attempt).write_text("its last words\n")

    _, said = outcome.outcome_of(RUN, Batch(tmp_path), tmp_path)

    assert said == "exit code 1: its last words"


def test_the_last_words_of_a_run_are_read_from_a_log_larger_than_any_memory(
    tmp_path: Path,
) -> None:
    attempt = tmp_path / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "exit_code").write_text("1")
    log = tmp_path / "run_1.log"
    log.touch()
    os.truncate(log, 2**43)
    with log.open("a") as file:
        file.write("\nits last words\n")

    _, said = outcome.outcome_of(RUN, Batch(tmp_path), tmp_path)

    assert said == "exit code 1: its last words"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_run_whose_last_words_are_a_full_disk_is_lost_and_not_failed(
    tmp_path: Path, number: int
) -> None:
    attempt = tmp_path / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "exit_code").write_text("1")
    words = str(OSError(number, os.strerror(number)))
    (tmp_path / "run_1.log").write_text(f"OSError: {words}\n")

    verdict = outcome.outcome_of(RUN, Batch(tmp_path), tmp_path)
    assert verdict == (RunState.LOST, f"no room on a disk: OSError: {words}")

    (attempt / "error").write_text("the transform says: No space left on device")
    state, _ = outcome.outcome_of(RUN, Batch(tmp_path), tmp_path)
    assert state == RunState.FAILED


def test_the_last_words_of_a_run_are_recorded_without_secrets(
    tmp_path: Path, clock: MovedClock
) -> None:
    made = Project(tmp_path)
    (tmp_path / ".env").write_text("TEAM_TOKEN=another\n")
    chosen = load_settings(made.config, {"TEAM_TOKEN": "s3cr3t-of-the-team"})
    with closing(made.open()) as ledger:
        made.start(made.form(RUN.batch, made.admit("student_a.csv")), "1")
        attempt = chosen.work_root / RUN.batch / "attempts" / "1"
        attempt.mkdir(parents=True)
        (attempt / "exit_code").write_text("1\n")
        (tmp_path / "log" / "run_1.log").write_text("no access by s3cr3t-of-the-team\n")

        assert Supervisor(chosen, ledger, Runs(), clock, Problems()).follow() == 1

        (run,) = ledger.read.runs()
    assert run.error == "exit code 1: no access by ***"


def test_a_run_that_cannot_hold_the_datastore_uses_no_attempt(
    tmp_path: Path, clock: MovedClock
) -> None:
    made = Project(tmp_path)
    (metaflow_store.store_folder(tmp_path) / metaflow_store.STORE_LOCK).mkdir(
        parents=True
    )  # nor can root open it
    with closing(made.open()) as ledger:
        made.start(made.form(RUN.batch, made.admit("student_a.csv")), "1")
        attempt = made.settings.work_root / RUN.batch / "attempts" / "1"
        attempt.mkdir(parents=True)
        (attempt / "exit_code").write_text("1\n")

        assert Supervisor(made.settings, ledger, Runs(), clock, Problems()).follow() == 1

        (run,) = ledger.read.runs()
    assert run.state == RunState.LOST
    assert ".ds-flow.lock cannot be held: is not a regular file" in run.error


def test_an_analysis_that_outlasts_its_runs_limit_is_given_up_at_once(
    tmp_path: Path, clock: MovedClock
) -> None:
    made, runs = Project(tmp_path), PretendedRuns(tmp_path)
    with closing(made.open()) as ledger:
        made.start(made.form(RUN.batch, made.admit("student_a.csv")), "1")
        runs.start(made.settings, RUN.batch, 1, Trigger.ARRIVAL)
        (runs.alive[f"{RUN.batch}/1"] / "analyzing").touch()
        supervisor = Supervisor(made.settings, ledger, runs, clock, Problems())
        for elapsed_s in (0.0, made.settings.run.limit_minutes * 60 + 1, 0.0, 0.0):
            clock.elapsed_s += elapsed_s
            supervisor.follow()

        (run,) = ledger.read.runs()
        due = [batch.id for batch in ledger.read.due_batches(clock.now())]
    assert (run.state, due) == (RunState.TIMED_OUT, [RUN.batch])
    why = "no progress for 720 minutes"
    assert why_no_analysis(Batch(made.settings.work_root / RUN.batch)) == why


@pytest.fixture
def after_the_limit(tmp_path: Path, clock: MovedClock) -> Iterator[AfterTheLimit]:
    """What a live run of one job on LSF is to end as, once its limit has passed.

    LSF has no slot. It goes wrong as the fault says, and is asked once within the limit.
    """
    made, runs = Project(tmp_path), PretendedRuns(tmp_path)
    stage = made.settings.work_root / RUN.batch / "jobs" / "process-1of1"
    with lsf(tmp_path / "cluster", "ibm", slots=0) as place, closing(made.open()) as ledger:
        made.start(made.form(RUN.batch, made.admit("student_a.csv")), "1")
        runs.start(made.settings, RUN.batch, 1, Trigger.ARRIVAL)
        job, backend = place.job("a", "true", folder=tmp_path), place.backend()
        opened = open_round(stage, RUN.batch, f"{RUN.batch}/1", "lsf", [job], [job.command])
        supervisor = Supervisor(made.settings, ledger, runs, clock, Problems())

        def ending(name: faults.Name, **fault: object) -> RunState | None:
            place.cluster.fault(name, **fault)
            backend.submit(opened)
            supervisor.follow()
            backend.submit(opened)
            backend.ask(opened, [1])
            clock.elapsed_s += made.settings.run.limit_minutes * 60 + 1
            supervisor.follow()
            return ledger.read.live_runs()[0].ending

        yield ending


def test_a_run_whose_jobs_wait_in_the_queue_gets_on_however_long_they_wait(
    after_the_limit: AfterTheLimit,
) -> None:
    for status in ("PEND", "PSUSP", "PEND"):
        assert after_the_limit("shown", status=status) is None

    assert after_the_limit("shown", status="RUN") == RunState.TIMED_OUT


def test_a_run_is_ended_at_its_limit_where_lsf_no_longer_says_that_its_jobs_wait(
    after_the_limit: AfterTheLimit,
) -> None:
    assert after_the_limit("shown", status="PEND") is None

    assert after_the_limit("down", mode="fail", stream="stderr") == RunState.TIMED_OUT


def test_a_run_is_ended_at_its_limit_where_lsf_never_took_its_jobs(
    after_the_limit: AfterTheLimit,
) -> None:
    assert after_the_limit("down", mode="fail", stream="stderr") == RunState.TIMED_OUT
