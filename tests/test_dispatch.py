"""What every backend keeps to: jobs run once, ends are sorted, a killed stage is continued."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ds_flow.dispatch import BACKENDS, ROUNDS_LIMIT, JobSpec, Outcome, log_of, run_stage
from ds_flow.dispatch.rounds import open_round, rounds_in
from ds_flow.errors import DispatchError
from ds_flow.model import FailureClass

BATCH = "0123456789"

Run = Callable[..., list[Outcome]]


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / "process"


@pytest.fixture(params=sorted(BACKENDS))
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(stage: Path, executor: str) -> Run:
    def stage_of(*jobs: JobSpec, attempt: str = f"{BATCH}/1") -> list[Outcome]:
        return run_stage(stage, executor=executor, batch=BATCH, attempt=attempt, jobs=jobs)

    return stage_of


def shell(key: str, script: str) -> JobSpec:
    return JobSpec(key=key, command=("bash", "-c", script))


def counting(key: str, ran: Path, then: str) -> JobSpec:
    """A job that leaves a line in a file each time it runs."""
    return shell(key, f"echo {key} >> '{ran}'; {then}")


def test_jobs_run_and_their_ends_are_told_in_the_order_asked_for(run: Run, stage: Path) -> None:
    good, bad = run(shell("good", "echo fine"), shell("bad", "echo broken; exit 3"))

    assert (good.key, good.failure, good.exit_code) == ("good", None, 0)
    assert (bad.key, bad.failure, bad.exit_code) == ("bad", FailureClass.USER_CODE, 3)
    assert bad.reason == "exit code 3"
    assert log_of(stage, bad) == "broken\n"
    assert good.host
    assert good.native_id
    assert good.started_at <= good.ended_at
    assert good.round == f"dsf-{BATCH}-process-1"


def test_no_jobs_need_no_round(run: Run, stage: Path) -> None:
    assert run() == []
    assert not stage.exists()


def test_what_succeeded_is_not_done_again_by_any_attempt(run: Run, tmp_path: Path) -> None:
    job = counting("a", tmp_path / "ran", "true")

    assert run(job) == run(job) == run(job, attempt=f"{BATCH}/2")

    assert (tmp_path / "ran").read_text() == "a\n"


def test_a_failure_of_its_own_code_is_tried_again_only_by_the_next_attempt(
    run: Run, tmp_path: Path
) -> None:
    job = counting("a", tmp_path / "ran", "exit 1")

    run(job)
    run(job)
    assert (tmp_path / "ran").read_text() == "a\n"
    run(job, attempt=f"{BATCH}/2")
    assert (tmp_path / "ran").read_text() == "a\na\n"


def test_a_killed_job_is_tried_again_up_to_the_limit(run: Run, tmp_path: Path) -> None:
    (outcome,) = run(counting("a", tmp_path / "ran", "kill -KILL $$"))

    assert (outcome.failure, outcome.reason) == (FailureClass.KILLED, "killed by SIGKILL")
    assert (tmp_path / "ran").read_text() == "a\n" * ROUNDS_LIMIT


def test_a_round_holds_only_what_has_not_succeeded(run: Run, stage: Path, tmp_path: Path) -> None:
    once = f"[[ -e '{tmp_path}/second' ]] || {{ touch '{tmp_path}/second'; kill -KILL $$; }}"

    outcomes = run(counting("a", tmp_path / "ran", "true"), shell("b", once))

    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert (tmp_path / "ran").read_text() == "a\n"
    assert [[job.key for job in r.jobs] for r in rounds_in(stage)] == [["a", "b"], ["b"]]


def test_a_crash_is_told_apart_and_not_tried_again(run: Run, tmp_path: Path) -> None:
    (outcome,) = run(counting("a", tmp_path / "ran", "ulimit -c 0; kill -SEGV $$"))

    assert (outcome.failure, outcome.reason) == (FailureClass.CRASH, "crashed by SIGSEGV")
    assert (tmp_path / "ran").read_text() == "a\n"


def test_a_job_ends_at_its_limit(run: Run, tmp_path: Path) -> None:
    # timeout(1) takes fractions, so a test need not wait a minute
    job = replace(counting("a", tmp_path / "ran", "exec sleep 60"), limit_minutes=0.002)  # type: ignore[arg-type]

    (outcome,) = run(job)

    assert outcome.failure == FailureClass.LIMIT
    assert (tmp_path / "ran").read_text() == "a\n"


def test_a_missing_command_is_a_failure_of_its_own(run: Run) -> None:
    (outcome,) = run(JobSpec(key="a", command=("no-such-command",)))

    assert (outcome.failure, outcome.exit_code) == (FailureClass.USER_CODE, 127)


@pytest.mark.parametrize("arg", ["a b", "$(exit 9)", "'\"", "-rf", "", "two\nlines", "\udcff"])
def test_an_argument_arrives_as_it_was_given(run: Run, tmp_path: Path, arg: str) -> None:
    script = "import os, sys; open(sys.argv[1], 'wb').write(os.fsencode(sys.argv[2]))"
    job = JobSpec(key="a", command=(sys.executable, "-c", script, str(tmp_path / "got"), arg))

    (outcome,) = run(job)

    assert outcome.failure is None
    assert (tmp_path / "got").read_bytes() == os.fsencode(arg)


def test_a_list_arrives_on_standard_input(run: Run, stage: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a b\0c\nd\0")
    job = JobSpec(key="a", command=("xargs", "-0", "printf", "[%s]"), stdin=tmp_path / "list")

    (outcome,) = run(job)

    assert log_of(stage, outcome) == "[a b][c\nd]"


def test_of_a_long_log_the_end_is_kept(run: Run, stage: Path) -> None:
    (outcome,) = run(shell("a", "head -c 200000 /dev/zero | tr '\\0' x; printf '\\377 the end'"))

    kept = log_of(stage, outcome)
    assert len(kept) == 2**16
    assert kept.endswith("\ufffd the end")


def test_a_name_that_no_round_has_has_no_log(run: Run, stage: Path) -> None:
    (outcome,) = run(shell("a", "true"))

    with pytest.raises(DispatchError, match="no round"):
        log_of(stage, replace(outcome, round="dsf-other"))


# --------------------------------------------------------------------------- a caller's death

RUN_STAGE = """
import sys
from pathlib import Path
from ds_flow.dispatch import JobSpec, run_stage
stage, executor, batch, *scripts = sys.argv[1:]
jobs = [JobSpec(key=str(n), command=("bash", "-c", script)) for n, script in enumerate(scripts)]
run_stage(Path(stage), executor=executor, batch=batch, attempt=f"{batch}/1", jobs=jobs)
"""


def test_a_stage_whose_caller_was_killed_is_continued_and_no_job_runs_twice(
    run: Run, stage: Path, executor: str, tmp_path: Path
) -> None:
    gate, began = tmp_path / "gate", tmp_path / "began"
    os.mkfifo(gate)
    os.mkfifo(began)
    ran = tmp_path / "ran"
    scripts = [
        f"echo 0 >> '{ran}'; echo > '{began}'; cat '{gate}'",
        f"echo 1 >> '{ran}'",
    ]
    caller = subprocess.Popen(
        [sys.executable, "-c", RUN_STAGE, str(stage), executor, BATCH, *scripts]
    )
    began.read_text()  # the first job runs
    caller.send_signal(signal.SIGKILL)
    caller.wait()

    release = subprocess.Popen(["bash", "-c", f"echo > '{gate}'"])
    jobs = [shell(str(number), script) for number, script in enumerate(scripts)]
    outcomes = run(*jobs)
    release.wait()

    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert ran.read_text() == "0\n1\n"
    assert len(list(rounds_in(stage))) == 1


def test_a_round_that_was_opened_and_never_handed_over_is_done_in_the_next(
    run: Run, stage: Path, executor: str, tmp_path: Path
) -> None:
    job = counting("a", tmp_path / "ran", "true")
    command = BACKENDS[executor].command(job)
    open_round(stage, BATCH, f"{BATCH}/1", [job], [command])

    (outcome,) = run(job)

    assert outcome.failure is None
    assert (tmp_path / "ran").read_text() == "a\n"
    first = next(rounds_in(stage)).verdict()
    assert first
    assert first[0].failure == FailureClass.INFRASTRUCTURE


def test_a_round_half_written_when_its_writer_died_is_passed_over(run: Run, stage: Path) -> None:
    (stage / ".1.deadbeef").mkdir(parents=True)

    (outcome,) = run(shell("a", "true"))

    assert outcome.round.endswith("-1")


def test_two_rounds_cannot_have_one_number(stage: Path, executor: str) -> None:
    job = shell("a", "true")
    command = BACKENDS[executor].command(job)
    opened = open_round(stage, BATCH, "1", [job], [command])
    other = stage.with_name("other")
    stage.rename(other)
    stage.mkdir()
    (stage / "1").mkdir()
    (stage / "1" / "round.json").symlink_to(other / "1" / "round.json")

    assert opened.folder.name == "1"
    assert open_round(stage, BATCH, "1", [job], [command]).folder.name == "2"
