"""The local backend: who may hand a round over, and what a look at it costs."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends import Place, local_forks
from ds_flow.core import FailureClass
from ds_flow.dispatch import local, local_jobs, trim_logs
from ds_flow.dispatch.exit_codes import LIMIT_EXIT_CODE, RUN_LIMIT_REACHED
from ds_flow.dispatch.rounds import Round, open_round
from ds_flow.system import fork
from project import until

PLACE = Place(executor="local")


def opened(folder: Path, script: str) -> Round:
    job = PLACE.job("a", "bash", "-c", script, folder=folder)
    stage = folder / "jobs" / "process"
    return open_round(stage, "b" * 10, "b/1", "local", [job], [local.command(job)])


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


@contextmanager
def given(file: Path) -> Iterator[None]:
    """Have a file on standard input: the tests may run with none."""
    was, wanted = os.dup(0), os.open(file, os.O_RDWR | os.O_CREAT)
    os.dup2(wanted, 0)
    try:
        yield
    finally:
        os.dup2(was, 0)
        os.close(was)
        os.close(wanted)


def test_a_round_that_another_process_holds_is_not_handed_over_again(tmp_path: Path) -> None:
    batch_round = opened(tmp_path, f"touch '{tmp_path}/ran'")
    with (batch_round.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(BlockingIOError):
            local.submit(batch_round)

    assert not (batch_round.folder / "handed_over").exists()
    assert local.submit(batch_round)
    until("its job ran", (tmp_path / "ran").exists)


@pytest.mark.parametrize(
    ("took_s", "failure", "reason"),
    [(10, FailureClass.LIMIT, RUN_LIMIT_REACHED), (-10, FailureClass.KILLED, "killed by SIGKILL")],
)
def test_a_job_that_only_a_kill_has_ended_at_its_limit_has_reached_that(
    tmp_path: Path, took_s: int, failure: FailureClass, reason: str
) -> None:
    batch_round = opened(tmp_path, "true")
    took_s += int(60 * batch_round.jobs[0].limit_minutes)
    (batch_round.folder / "1.claim").write_text("host 1 1000000000\n")
    (batch_round.folder / "1.exit").write_text(f"137 {1000000000 + took_s}\n")

    report = local.ask(batch_round, [1])[1]

    assert (report.failure, report.reason) == (failure, reason)


def test_the_child_that_runs_a_round_holds_no_stream_of_its_caller(tmp_path: Path) -> None:
    with local_forks(tmp_path) as place:
        script = f"while [ ! -e '{tmp_path}/over' ]; do sleep 0.01; done"
        job = place.job("a", "bash", "-c", script, folder=tmp_path)
        stage = tmp_path / "jobs" / "process"
        batch_round = open_round(stage, "b" * 10, "b/1", "local", [job], [job.command])
        with given(tmp_path / "stdin"):
            assert local.submit(batch_round)
        until("its job ran", lambda: batch_round.claim_of(1))

        child = local_jobs._runners[batch_round.folder]
        streams = [os.readlink(f"/proc/{child}/fd/{number}") for number in range(3)]

        (tmp_path / "over").touch()
        local_jobs.rest(batch_round.folder, 10**6)
    assert streams == [os.devnull] * 3


@pytest.mark.parametrize("hears", [True, False])
def test_a_forked_job_is_asked_to_end_at_its_limit_and_then_made_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hears: bool
) -> None:
    monkeypatch.setattr(local_jobs, "KILL_AFTER_SECONDS", 60 if hears else 0)
    ready, asked = tmp_path / "ready", tmp_path / "asked"
    answer = f"echo >'{asked}'; exit" if hears else ""
    script = f"""trap "{answer}" TERM; echo >'{ready}'; while :; do sleep 0.01; done"""

    def run_to_its_limit() -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        job = subprocess.Popen(["bash", "-c", script], process_group=0)
        until("it was ready", ready.exists)
        return local_jobs._wait(job.pid, 0)

    _, status = os.waitpid(fork(run_to_its_limit, "test"), 0)

    assert os.waitstatus_to_exitcode(status) == LIMIT_EXIT_CODE
    assert asked.exists() == hears


def test_looks_at_a_long_job_leave_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trim_logs, "LIMIT_BYTES", 2**16)
    monkeypatch.setattr(trim_logs, "KEPT_BYTES", 2**12)
    print_on = f"while [ ! -e '{tmp_path}/over' ]; do head -c 200000 /dev/zero; sleep 0.01; done"
    batch_round = opened(tmp_path, print_on)
    log, before = batch_round.folder / "1.log", descriptors()

    assert local.submit(batch_round)
    for _ in range(3):
        until("its log is long", lambda: log.exists() and trim_logs._is_too_long(log.stat()))
        local.ask(batch_round, [1])
        trim_logs.cut_logs(batch_round.folder)
    assert not local.cancel(batch_round)
    (tmp_path / "over").touch()
    until("it ended", lambda: local.cancel(batch_round))

    assert descriptors() == before


@pytest.mark.parametrize("ends", ["by itself", "killed, and leaves a job alive"])
def test_a_rest_ends_with_the_child_that_runs_the_round(tmp_path: Path, ends: str) -> None:
    batch_round = opened(tmp_path, f"while [ ! -e '{tmp_path}/over' ]; do sleep 0.01; done")
    assert local.submit(batch_round)
    until("its job ran", lambda: batch_round.claim_of(1))
    if ends == "by itself":
        (tmp_path / "over").touch()
    else:
        os.kill(local_jobs._runners[batch_round.folder], signal.SIGKILL)

    local_jobs.rest(batch_round.folder, 10**6)  # longer than any test

    assert batch_round.folder not in local_jobs._runners
    assert (batch_round.exit_of(1) is not None) == (ends == "by itself")
    (tmp_path / "over").touch()
    until("nothing of it was alive", lambda: not local.is_alive(batch_round))
    local_jobs.rest(batch_round.folder, 0)
