"""The LSF backend against a cluster that fails in every way that is known of LSF."""

import itertools
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backends import LSF_SITE, Place, caller, lsf
from ds_flow.core.errors import DispatchError
from ds_flow.core.plan import WORK, Site
from ds_flow.core.states import FailureClass, JobState
from ds_flow.dispatch import (
    Backend,
    JobSpec,
    Outcome,
    Round,
    cancel_jobs,
    make_backends,
    open_round,
    rounds_in,
    stages_in,
    told,
)
from ds_flow.dispatch.cluster import backend as backend_module
from ds_flow.dispatch.cluster.handover import Handover, file_of
from ds_flow.doctor import probe_job
from ds_flow.settings.load import load_settings
from ds_flow.work.batch import Batch
from lsf import Cluster
from lsf_emulator import faults
from lsf_emulator.config import Dialect
from project import Project, until
from samples import BATCH
from steps.jobs import error_of, reason_of

ELEMENTS = int(os.environ.get("DS_FLOW_ELEMENTS", "20"))  # `make faults` takes 200
FAILING = range(3, ELEMENTS, 5)  # of 200 elements, with the first one, 41


@dataclass(frozen=True, slots=True)
class Bench:
    """A place, a stage, and what its jobs leave."""

    place: Place
    folder: Path

    @property
    def stage(self) -> Path:
        return self.folder / "jobs" / "process-1of1"

    @property
    def cluster(self) -> Cluster:
        return self.place.cluster

    def jobs(self, count: int = ELEMENTS, then: str = "") -> list[JobSpec]:
        """Each leaves a line; the failing ones exit with 3. The first fails, too."""
        return [
            self.job(number, f"{then}; exit 3" if number == 0 or number in FAILING else then)
            for number in range(count)
        ]

    def job(self, number: int, then: str = "") -> JobSpec:
        script = f"echo {number} >> '{self.folder}/ran.{number}'; {then or 'true'}"
        return self.place.job(str(number), "bash", "-c", script, folder=self.folder)

    def run(self, *jobs: JobSpec, attempt: str = f"{BATCH}/1") -> list[Outcome]:
        return self.place.run(self.stage, *jobs, attempt=attempt)

    def ran(self) -> list[int]:
        """How often each job that began has run."""
        paths = self.folder.glob("ran.*")
        return [len(path.read_text().split()) for path in paths]

    def submissions(self) -> int:
        return len(self.cluster.calls("bsub"))


@pytest.fixture(params=["ibm", pytest.param("openlava", marks=pytest.mark.exhaustive)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with lsf(tmp_path / "cluster", request.param, slots=50) as place:
        yield Bench(place, tmp_path)


@contextmanager
def started(tmp_path: Path, dialect: Dialect = "ibm", **options: float) -> Iterator[Bench]:
    with lsf(tmp_path / "cluster", dialect, slots=50, **options) as place:
        yield Bench(place, tmp_path)


def with_site(bench: Bench, **changes: object) -> Bench:
    site = Site(lsf=replace(bench.place.site.lsf, **changes))  # type: ignore[arg-type]
    return replace(bench, place=replace(bench.place, site=site))


def handed_over(bench: Bench, job: JobSpec) -> tuple[Backend, Round]:
    """A round of one job that nobody waits for."""
    backend = bench.place.backend()
    opened = open_round(bench.stage, BATCH, f"{BATCH}/1", "lsf", [job], [job.command])
    until("it was handed over", lambda: backend.submit(opened))
    return backend, opened


# --------------------------------------------------------------------------- every fault

Break = Callable[[Cluster], AbstractContextManager[None]]


@contextmanager
def meanwhile(
    what: str, is_time: Callable[[], object], act: Callable[[], object]
) -> Iterator[None]:
    """Do something in a thread of its own as soon as it is time, or leave it once all is over."""
    is_over = threading.Event()

    def when_it_is_time() -> None:
        until(what, lambda: is_over.is_set() or is_time(), every=0.01)
        act()

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(when_it_is_time)
        try:
            yield
        finally:
            is_over.set()
        acting.result()


def later(name: faults.Name, **arguments: object) -> Break:
    """Break something once the jobs are known to LSF, and mend it after two further looks."""

    @contextmanager
    def broken(cluster: Cluster) -> Iterator[None]:
        def looks() -> int:
            return len(cluster.calls("bjobs"))

        with (
            meanwhile("looked twice", lambda: looks() > 2, lambda: cluster.mend(name)),
            meanwhile("looked", looks, lambda: cluster.fault(name, **arguments)),
        ):
            yield

    return broken


def at_once(name: faults.Name, **arguments: object) -> Break:
    @contextmanager
    def broken(cluster: Cluster) -> Iterator[None]:
        cluster.fault(name, **arguments)
        yield

    return broken


BREAKS: dict[str, Break] = {
    "nothing": lambda _: nullcontext(),
    "mbatchd is down and commands wait": later("down", mode="wait", stream="stderr"),
    "mbatchd is down and commands fail": later("down", mode="fail", stream="stdout"),
    "mbatchd is silent": later("hung"),
    "the reply of bsub is lost in a hang": at_once("reply_lost", how="hang", times=1),
    "the reply of bsub is lost with exit 255": at_once("reply_lost", how="exit", times=1),
    "bsub is killed after it was accepted": at_once("reply_lost", how="kill", times=1),
    "bsub is accepted twice": at_once("twice", times=1),
    "esub talks before the answers": at_once(
        "noise", stdout="Cannot connect to LSF. Please wait ...\n{x}\n", stderr="Verifying ...\n"
    ),
    "bjobs is empty and exits 0": later("empty"),
    "rows come out of order": at_once("shuffled"),
    "fresh jobs are not listed": at_once("fresh_hidden", seconds=1.0),
    "hosts are out of reach": later("unknown"),
    "what succeeded is told as EXIT": at_once(
        "shown", status="EXIT", exit_code=1, instead_of=["DONE"]
    ),
    "what failed is told as DONE": at_once("shown", status="DONE", instead_of=["EXIT"]),
    "exit codes are seen late": at_once("late_exit", seconds=0.3),
}


MIRRORED = {  # another one among them breaks the same in another way
    "mbatchd is down and commands fail",
    "the reply of bsub is lost with exit 255",
    "what succeeded is told as EXIT",
}


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(name, marks=pytest.mark.exhaustive if name in MIRRORED else ())
        for name in BREAKS
    ],
)
def test_every_verdict_is_right_and_nothing_runs_twice_whatever_breaks(
    tmp_path: Path, broken: str
) -> None:
    with started(tmp_path) as plain:
        bench = with_site(plain, command_seconds=1.0, unknown_minutes=1.0)

        with BREAKS[broken](bench.cluster):
            outcomes = bench.run(*bench.jobs(then="sleep 0.5"))

        failed = [number for number in range(ELEMENTS) if outcomes[number].failure]
        assert failed == [0, *FAILING]
        assert {outcomes[number].reason for number in failed} == {"exit code 3"}
        assert bench.ran() == [1] * ELEMENTS
        assert bench.submissions() == 1


def test_a_job_that_lsf_forgets_is_awaited_by_its_exit_code(tmp_path: Path) -> None:
    with started(tmp_path) as bench:
        jobs = [bench.job(number, "sleep 1.5") for number in range(3)]

        with meanwhile(
            "all ran",
            lambda: len(bench.ran()) == len(jobs),
            lambda: bench.cluster.fault("forgotten", indices=[2]),
        ):
            outcomes = bench.run(*jobs)

        assert [outcome.failure for outcome in outcomes] == [None] * 3
        assert bench.ran() == [1] * 3


@pytest.mark.exhaustive
def test_a_job_that_lsf_forgot_before_it_began_is_submitted_again(tmp_path: Path) -> None:
    with started(tmp_path, scheduling_delay_s=600.0) as bench:
        bench.cluster.fault("forgotten")

        outcomes = bench.run(bench.job(0))

        assert outcomes[0].failure == FailureClass.INFRASTRUCTURE
        assert "LSF no longer knows it" in outcomes[0].reason
        assert len(list(rounds_in(bench.stage))) == 3


@pytest.mark.exhaustive
def test_a_job_whose_host_stays_out_of_reach_is_given_up_in_words(tmp_path: Path) -> None:
    with started(tmp_path) as plain:
        bench = with_site(plain, unknown_minutes=0.01)

        with meanwhile("it ran", bench.ran, lambda: bench.cluster.fault("unknown")):
            (outcome,) = bench.run(bench.job(0, "sleep 600"))

        assert outcome.failure == FailureClass.INFRASTRUCTURE
        assert "out of LSF's sight for 0.01 minutes" in outcome.reason


def test_while_lsf_is_silent_that_is_said_once(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, opened = handed_over(bench, bench.job(0, "sleep 600"))
    capsys.readouterr()
    bench.cluster.fault("down", mode="fail", stream="stderr")

    states = {backend.ask(opened, [1])[1].state for _ in range(3)}

    said = capsys.readouterr().out
    assert states == {JobState.UNKNOWN}
    assert said.count("Cannot connect") == said.count("\n") == 1


def test_a_refusal_is_told_in_lsf_s_words_and_asked_again_by_the_next_attempt(
    bench: Bench,
) -> None:
    bench.cluster.fault("rejected", text="Request aborted by esub. Job not submitted.\n")

    with pytest.raises(DispatchError, match="Request aborted by esub"):
        bench.run(bench.job(0))

    bench.cluster.mend("rejected")
    (outcome,) = bench.run(bench.job(0), attempt=f"{BATCH}/2")
    assert outcome.failure is None
    assert len(list(rounds_in(bench.stage))) == 1


def test_an_argument_that_bsub_does_not_know_is_told_in_lsf_s_words(bench: Bench) -> None:
    with pytest.raises(DispatchError, match="illegal option -- nosuch"):
        bench.run(replace(bench.job(0), extra=("-nosuch", "x")))


def test_an_unknown_queue_is_told_in_lsf_s_words(bench: Bench) -> None:
    with pytest.raises(DispatchError, match="nosuch: No such queue"):
        bench.run(replace(bench.job(0), queue="nosuch"))


def test_an_array_whose_submitter_was_killed_before_the_answer_is_found(bench: Bench) -> None:
    bench.cluster.fault("reply_lost", how="hang", times=1)
    killed = caller(bench.stage, bench.place, bench.job(0))
    until("it was accepted", bench.cluster.jobs)
    killed.kill()
    killed.wait()

    (outcome,) = bench.run(bench.job(0))

    assert outcome.failure is None
    assert bench.ran() == [1]
    assert len({job.job_id for job in bench.cluster.jobs()}) == 1


def test_a_lost_reply_of_bsub_is_said_in_the_run_s_log(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.cluster.fault("reply_lost", how="exit", times=1)

    (outcome,) = bench.run(bench.job(0))

    assert outcome.failure is None
    assert capsys.readouterr().out.count("[lsf] bsub: no job id in its answer: ") == 1


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_the_jobs_of_a_torn_handover_are_found_again(
    bench: Bench,
    is_cancelled: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    backend, opened = handed_over(bench, bench.job(0, "sleep 600"))
    file_of(opened).write_bytes(b"")

    if not is_cancelled:
        until("it was found", lambda: backend.submit(opened))
        assert Handover.of(opened).job_ids
    until("it was ended", lambda: backend.cancel(opened))
    (job,) = bench.cluster.jobs()
    assert job.ended_at


def test_a_bsub_that_never_arrived_is_sent_again_after_two_clean_looks(bench: Bench) -> None:
    bench = with_site(bench, grace_seconds=0.001, memory_unit="plain")  # else one is refused
    bench.cluster.fault("down", mode="fail", stream="stderr", commands=["bsub"])

    with meanwhile(
        "it was looked for",
        lambda: len(bench.cluster.calls("bhist")) > 1,
        lambda: bench.cluster.mend("down"),
    ):
        (outcome,) = bench.run(bench.job(0))

    assert outcome.failure is None
    assert bench.ran() == [1]
    calls = " ".join(call.command for call in bench.cluster.calls())
    between = calls.split("bsub")[1:-1]
    assert between
    assert all(looks.count("bhist") >= 2 for looks in between), calls


def test_looking_in_vain_for_a_lost_submission_is_no_progress(tmp_path: Path) -> None:
    with started(tmp_path) as plain:
        bench = with_site(plain, grace_seconds=0.001)
        backend = bench.place.backend()
        opened = open_round(
            bench.stage, BATCH, f"{BATCH}/1", "lsf", [job := bench.job(0)], [job.command]
        )
        bench.cluster.fault("down", mode="fail", stream="stderr", commands=["bsub"])
        backend.submit(opened)
        before = Batch(tmp_path).last_progress_ns(1)

        until("it was sent again", lambda: backend.submit(opened) or bench.submissions() > 1)
        bench.cluster.fault("down", mode="fail", stream="stderr")
        backend.submit(opened)

        assert Batch(tmp_path).last_progress_ns(1) == before


def test_a_job_may_wait_in_the_queue_for_ever_unless_a_limit_is_set(tmp_path: Path) -> None:
    with started(tmp_path, scheduling_delay_s=600.0) as plain:
        backend, opened = handed_over(plain, plain.job(0))
        looks = {backend.ask(opened, [1])[1].state for _ in range(3)}
        limited = with_site(plain, pending_minutes=1e-9).place.backend()

        report = limited.ask(opened, [1])[1]

        assert looks == {JobState.PENDING}
        assert report.failure == FailureClass.INFRASTRUCTURE
        assert report.reason == "it waited in the queue short for more than 1e-09 minutes"
        assert all(one.ended_at for one in plain.cluster.jobs())


@pytest.mark.parametrize("status", ["PEND", "PSUSP", "USUSP", "SSUSP"])
def test_what_waits_or_is_suspended_is_alive_and_no_lack_of_progress(
    tmp_path: Path, status: str
) -> None:
    with started(tmp_path) as bench:
        backend, opened = handed_over(bench, bench.job(0, "sleep 600"))
        bench.cluster.fault("shown", status=status)
        os.utime(opened.folder, (0, 0))

        state = backend.ask(opened, [1])[1].state

        assert state in {JobState.PENDING, JobState.RUNNING}
        assert opened.folder.stat().st_mtime > 0


# --------------------------------------------------------------------------- arrays


def test_why_jobs_are_pending_is_told_and_asked_for_once_in_many_looks(tmp_path: Path) -> None:
    with started(tmp_path, scheduling_delay_s=600.0) as bench:
        jobs = [bench.job(number) for number in range(3)]
        backend = bench.place.backend()
        opened = open_round(
            bench.stage, BATCH, f"{BATCH}/1", "lsf", jobs, [job.command for job in jobs]
        )
        until("it was handed over", lambda: backend.submit(opened))
        before = len(bench.cluster.calls("bjobs"))

        for _ in range(backend_module.REASON_LOOKS):
            backend.ask(opened, opened.indices)

        (stage,) = stages_in(bench.folder / "jobs")
        calls = [call.argv for call in bench.cluster.calls("bjobs")[before:]]
        assert (stage.pending, stage.pending_reasons) == (3, ["New job is waiting for scheduling"])
        assert [argv for argv in calls if "-p" in argv] == [("-p", *stage.native_ids)]
        assert len(calls) == backend_module.REASON_LOOKS + 1


def test_the_reason_goes_with_the_last_job_that_is_pending(bench: Bench) -> None:
    backend, opened = handed_over(bench, bench.job(0, "sleep 600"))
    Handover.of(opened).note(pending=["Job slot limit reached"])

    until("it runs", lambda: backend.ask(opened, [1])[1].state == JobState.RUNNING)

    assert Handover.of(opened).pending == []
    until("it was ended", lambda: backend.cancel(opened))


def test_while_lsf_does_not_answer_that_is_told_of_its_jobs(bench: Bench) -> None:
    backend, opened = handed_over(bench, bench.job(0, "sleep 600"))

    def told_now() -> str:
        backend.ask(opened, [1])
        (stage,) = stages_in(bench.folder / "jobs")
        return told(stage)

    assert "no answer" not in told_now()
    bench.cluster.fault("down", mode="fail", stream="stderr")
    assert "no answer from lsf: bjobs: Cannot connect" in told_now()
    bench.cluster.mend("down")
    assert "no answer" not in told_now()
    until("it was ended", lambda: backend.cancel(opened))


def test_check_names_the_reason_for_which_its_probe_job_is_pending(tmp_path: Path) -> None:
    lsf_settings = {"executor": "lsf", "lsf_queue": "short", "lsf": {"poll_seconds": 0.2}}
    ledger = {"ledger": "ledger/ledger.db"}
    made = Project(tmp_path / "project", compute=lsf_settings, paths=ledger)
    with started(tmp_path, scheduling_delay_s=600.0) as bench:
        settings = load_settings(made.config, os.environ)

        level, text = probe_job.probe(settings, "combine", 0.0)

        assert level == "warning"
        why = "New job is waiting for scheduling"
        assert text == f"a job was still pending after 0 s ({why}): cancelled"
        until("it was ended", lambda: all(job.ended_at for job in bench.cluster.jobs()))


def test_no_more_is_submitted_in_a_minute_than_allowed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = with_site(bench, max_array=1, submissions_per_minute=2, memory_unit="plain")
    jobs = [slow.job(number) for number in range(3)]
    opened = open_round(slow.stage, BATCH, f"{BATCH}/1", "lsf", jobs, [job.command for job in jobs])
    backend = slow.place.backend()

    looks = [backend.submit(opened) for _ in range(3)]
    submitted = slow.submissions()
    monkeypatch.setattr(backend_module, "MINUTE_SECONDS", 0)

    assert (looks, submitted) == ([False] * 3, 2)
    assert backend.submit(opened)
    assert slow.submissions() == 3


def test_an_array_larger_than_the_site_s_limit_is_cut_in_halves(tmp_path: Path) -> None:
    with lsf(tmp_path / "cluster", "ibm", max_array=7) as place:
        bench = Bench(place, tmp_path)

        outcomes = bench.run(*(bench.job(number) for number in range(20)))

        assert all(outcome.failure is None for outcome in outcomes)
        assert bench.ran() == [1] * 20
        accepted = [call for call in bench.cluster.calls("bsub") if call.exit_code == 0]
        assert len(accepted) == 4
        assert len({job.name.partition("[")[0] for job in bench.cluster.jobs()}) == 4


def test_only_what_failed_is_submitted_again_as_a_compact_array(bench: Bench) -> None:
    once = "[[ -e '{0}' ]] || {{ touch '{0}'; kill -KILL $$; }}"
    jobs = [
        bench.job(number, once.format(bench.folder / f"killed.{number}") if number % 4 == 1 else "")
        for number in range(8)
    ]

    outcomes = bench.run(*jobs)

    assert all(outcome.failure is None for outcome in outcomes)
    assert [outcomes[number].index for number in (1, 5)] == [1, 2]
    assert sorted(bench.ran()) == [1] * 6 + [2] * 2
    assert [len(opened.jobs) for opened in rounds_in(bench.stage)] == [8, 2]


def test_what_is_asked_for_stands_on_bsub_s_command_line(bench: Bench) -> None:
    site = {"project": "grades", "throttle": 5, "extra": ("-app", "night")}
    asked = with_site(bench, **site)
    job = replace(bench.job(0), cpus=2, memory_mb=300, limit_minutes=6.5, queue="normal")

    (outcome,) = asked.run(job)

    assert outcome.failure is None
    argv = " ".join(bench.cluster.calls("bsub")[-1].argv)
    is_plain = "300MB" not in argv
    assert f"-J {outcome.round}-1[1-1]%5 -q normal -n 2" in argv
    assert ("rusage[mem=300]" if is_plain else "rusage[mem=300MB]") in argv
    assert ("-M 307200 -W 7" if is_plain else "-M 300MB -W 7") in argv
    assert "-P grades -app night" in argv
    assert len(f"{outcome.round}-1") < 40


def test_a_site_that_reserves_memory_by_the_slot_is_asked_by_the_slot(bench: Bench) -> None:
    by_slot = with_site(bench, memory_per="slot", extra=("-app", "night"))
    job = replace(bench.job(0), cpus=3, memory_mb=1000, extra=("-sla", "gold"))

    (outcome,) = by_slot.run(job)

    assert outcome.failure is None
    argv = " ".join(bench.cluster.calls("bsub")[-1].argv)
    assert "rusage[mem=334" in argv
    assert "-M 1000MB" in argv or "-M 1024000" in argv
    assert argv.endswith("-app night -sla gold")


def test_an_lsf_that_refuses_units_is_asked_in_plain_numbers(tmp_path: Path) -> None:
    with started(tmp_path, "openlava") as bench:
        assert bench.run(bench.job(0))[0].failure is None

        assert [call.exit_code for call in bench.cluster.calls("bsub")] == [255, 0]


def test_what_an_lsf_cannot_do_is_learnt_once_for_all_stages_and_batches(tmp_path: Path) -> None:
    with started(tmp_path, "openlava") as plain:
        benches = [
            replace(plain, folder=tmp_path / WORK / batch) for batch in ("aaaaaaaaaa", "bbbbbbbbbb")
        ]
        gate = tmp_path / "gate"  # on a busy machine a job may have ended before the first bjobs
        await_gate = f"until [ -e '{gate}' ]; do sleep 0.1; done"

        def is_asked() -> bool:
            return any("-json" in call.argv for call in plain.cluster.calls())

        with meanwhile("bjobs was asked", is_asked, gate.touch):
            for bench in benches:
                bench.folder.mkdir(parents=True)
                for number in (0, 1):
                    assert bench.run(bench.job(number, await_gate))[-1].failure is None

        calls = plain.cluster.calls()
        assert [call.exit_code for call in calls if call.command == "bsub"] == [255, *[0] * 4]
        assert sum("-json" in call.argv for call in calls) == 1


def test_what_an_lsf_could_not_do_is_tried_again_after_a_day(tmp_path: Path) -> None:
    with started(tmp_path, "openlava") as bench:
        bench.run(bench.job(0))
        os.utime(bench.stage / "lsf.json", (0, 0))
        bench.run(bench.job(1))

        assert [call.exit_code for call in bench.cluster.calls("bsub")] == [255, 0, 255, 0]


@pytest.mark.parametrize("content", [b"", b"\0\0", b"[]", b'{"is_plain": "?"}'])
def test_what_was_learnt_may_be_torn(tmp_path: Path, content: bytes) -> None:
    with started(tmp_path, "openlava") as bench:
        bench.stage.mkdir(parents=True)
        (bench.stage / "lsf.json").write_bytes(content)

        assert bench.run(bench.job(0))[0].failure is None


# --------------------------------------------------------------------------- ends

MEMORY_HOG = "exec python3 -c 'import time; x = bytearray(200 << 20); time.sleep(30)'"


def test_a_job_with_too_little_memory_gets_more(tmp_path: Path) -> None:
    with started(tmp_path, memory_checked_below_mb=1000) as bench:
        hog = f"[[ -e '{tmp_path}/again' ]] || {{ touch '{tmp_path}/again'; {MEMORY_HOG}; }}"
        (outcome,) = bench.run(replace(bench.job(0, hog), memory_mb=100))

        first, second = rounds_in(bench.stage)
        failed = first.outcomes()
        assert failed
        assert failed[0].failure == FailureClass.MEMORY
        assert "TERM_MEMLIMIT" in failed[0].reason
        assert outcome.failure is None
        assert [one.jobs[0].memory_mb for one in (first, second)] == [100, 150]


def test_more_memory_than_the_queue_gives_ends_the_job_and_not_its_run(tmp_path: Path) -> None:
    with started(tmp_path, memory_checked_below_mb=1000, queue_memory_mb=120) as bench:
        greedy = replace(bench.job(0, MEMORY_HOG), memory_mb=100)
        fine = replace(bench.job(1), memory_mb=100)

        outcome, other = bench.run(greedy, fine)

        assert (outcome.failure, other.failure) == (FailureClass.MEMORY, None)
        assert "LSF gives no more (MEMLIMT: Cannot exceed queue's hard limit" in outcome.reason
        assert outcome.reason.endswith(": it asked for 225 MB")


def test_a_stage_that_asks_for_more_memory_than_the_queue_gives_is_told_so(tmp_path: Path) -> None:
    with started(tmp_path, queue_memory_mb=120) as small:
        with pytest.raises(DispatchError, match="Cannot exceed queue's hard limit"):
            small.run(replace(small.job(0), memory_mb=200))
        assert small.submissions() == 1


def bkill(cluster: Cluster) -> None:
    subprocess.run(["bkill", str(cluster.jobs()[0].job_id)], check=True, capture_output=True)


def test_what_an_owner_ended_is_told_so_and_left_to_the_next_attempt(bench: Bench) -> None:
    with meanwhile("it ran", bench.ran, lambda: bkill(bench.cluster)):
        (outcome,) = bench.run(bench.job(0, "sleep 60 & wait"))

    assert outcome.failure == FailureClass.BY_HAND
    assert "ended by its owner" in outcome.reason
    assert bench.ran() == [1]


def test_a_job_that_was_ended_before_it_began_is_named_by_its_id(tmp_path: Path) -> None:
    with started(tmp_path, scheduling_delay_s=600.0) as bench:
        with meanwhile("it was there", bench.cluster.jobs, lambda: bkill(bench.cluster)):
            outcomes = bench.run(bench.job(0), bench.job(1))

        (job_id,) = {job.job_id for job in bench.cluster.jobs()}
        assert [outcome.native_id for outcome in outcomes] == [f"{job_id}[1]", f"{job_id}[2]"]
        said = str(error_of(Batch(tmp_path), "process", "process-1of1", outcomes[1]))
        assert f"({job_id}[2]): ended by its owner (bkill) (TERM_OWNER)" in said


@pytest.mark.parametrize("term", ["TERM_CPULIMIT", "TERM_DEADLINE", "TERM_SWAP"])
def test_a_limit_of_the_site_is_not_taken_for_one_of_the_settings(
    tmp_path: Path, term: str
) -> None:
    with started(tmp_path) as bench:
        ended = {"status": "EXIT", "exit_code": 140, "reason": term}
        bench.cluster.fault("shown", instead_of=["EXIT", "DONE"], **ended)

        (outcome,) = bench.run(bench.job(0, "exit 140"))

        assert outcome.reason.startswith("the site's ")
        assert outcome.reason.endswith(f" reached ({term})")
        assert reason_of("process", outcome) == outcome.reason


@pytest.mark.parametrize("dialect", ["openlava", pytest.param("ibm", marks=pytest.mark.exhaustive)])
def test_a_kill_that_lsf_has_not_seen_yet_is_told_by_its_reason_once_it_has(
    tmp_path: Path, dialect: Dialect
) -> None:
    with started(tmp_path, dialect) as plain:
        bench = with_site(plain, grace_seconds=0.0, unknown_minutes=10.0)
        job = replace(bench.job(0, "sleep 600"), limit_minutes=1)
        backend, opened = handed_over(bench, job)
        bench.cluster.fault("shown", status="RUN", instead_of=["EXIT"])
        until("its limit ended it", lambda: all(one.ended_at for one in bench.cluster.jobs()))
        (opened.folder / "1.exit").write_text("137 1700000000\n")

        looks = [backend.ask(opened, [1])[1].state for _ in range(3)]
        bench.cluster.mend("shown")

        assert looks == [JobState.RUNNING] * 3
        report = backend.ask(opened, [1])[1]
        assert (report.failure, report.state) == (FailureClass.LIMIT, JobState.FAILED)


def withheld(bench: Bench, opened: Round) -> Callable[[], object]:
    """Take a job's exit code away once it has ended; what brings it back."""
    until("it ended", lambda: opened.ended() and all(one.ended_at for one in bench.cluster.jobs()))
    code = opened.folder / "1.exit"
    hidden = code.rename(bench.folder / "withheld")
    return lambda: hidden.rename(code)


def test_an_exit_code_gets_its_whole_grace_from_the_look_that_learns_of_the_end(
    tmp_path: Path,
) -> None:
    with started(tmp_path) as plain:
        bench = with_site(plain, grace_seconds=0.0, unknown_minutes=10.0)
        bench.cluster.fault("fresh_hidden", seconds=600.0)
        backend, opened = handed_over(bench, bench.job(0))
        bring_back = withheld(bench, opened)

        looks = [backend.ask(opened, [1])[1].state]
        while not bench.cluster.calls("bhist"):
            looks.append(backend.ask(opened, [1])[1].state)
        bring_back()

        assert set(looks) == {JobState.UNKNOWN}
        assert backend.ask(opened, [1])[1].state == JobState.SUCCEEDED


def test_an_exit_code_gets_its_whole_grace_after_its_host_was_out_of_reach(
    tmp_path: Path,
) -> None:
    with started(tmp_path) as plain:
        bench = with_site(plain, grace_seconds=0.0, unknown_minutes=10.0)
        bench.cluster.fault("unknown")
        backend, opened = handed_over(bench, bench.job(0))
        bring_back = withheld(bench, opened)

        before = [backend.ask(opened, [1])[1].state for _ in range(3)]
        bench.cluster.mend("unknown")
        after = backend.ask(opened, [1])[1].state
        bring_back()

        assert [*before, after] == [JobState.UNKNOWN] * 4
        assert backend.ask(opened, [1])[1].state == JobState.SUCCEEDED


def test_a_reason_gets_its_whole_grace_after_a_job_was_not_listed(tmp_path: Path) -> None:
    with started(tmp_path) as plain:
        bench = with_site(plain, grace_seconds=0.0, unknown_minutes=10.0)
        bench.cluster.fault("fresh_hidden", seconds=600.0)
        backend, opened = handed_over(bench, bench.job(0, "sleep 600"))
        until("it ran", bench.ran)
        until("bhist was asked", lambda: backend.ask(opened, [1]) and bench.cluster.calls("bhist"))
        (opened.folder / "1.exit").write_text("137 1700000000\n")

        assert backend.ask(opened, [1])[1].state == JobState.RUNNING


def test_an_exit_code_that_comes_while_lsf_is_asked_for_the_last_time_counts(
    tmp_path: Path,
) -> None:
    with started(tmp_path, "openlava") as plain:  # its bjobs gives no reason, so bhist is asked
        bench = with_site(plain, grace_seconds=0.0, unknown_minutes=10.0)
        backend, opened = handed_over(bench, bench.job(0))
        bring_back = withheld(bench, opened)
        assert backend.ask(opened, [1])[1].state == JobState.UNKNOWN
        bench.cluster.fault("hung", commands=["bhist"])

        def answer() -> None:
            bring_back()
            bench.cluster.mend("hung")

        with meanwhile("bhist was asked", bench.cluster.held, answer):
            assert backend.ask(opened, [1])[1].state == JobState.UNKNOWN

        assert backend.ask(opened, [1])[1].state == JobState.SUCCEEDED


def test_a_job_that_runs_by_an_array_that_bsub_told_nothing_of_is_followed_there(
    tmp_path: Path,
) -> None:
    with started(tmp_path, "openlava") as plain:
        bench = with_site(plain, grace_seconds=0.0, unknown_minutes=10.0)
        backend = bench.place.backend()
        bench.cluster.fault("twice", times=1)
        backend, opened = handed_over(bench, bench.job(0, "sleep 600"))
        until("one ran", lambda: bench.ran() and any(one.ended_at for one in bench.cluster.jobs()))
        (runs,) = (one for one in bench.cluster.jobs() if not one.ended_at)
        (ended,) = (one for one in bench.cluster.jobs() if one.ended_at)
        handover = file_of(opened)
        handover.write_text(handover.read_text().replace(str(runs.job_id), str(ended.job_id)))

        looks = [backend.ask(opened, [1])[1].state for _ in range(3)]
        subprocess.run(["bkill", str(runs.job_id)], check=True, capture_output=True)

        assert looks == [JobState.UNKNOWN, JobState.RUNNING, JobState.RUNNING]
        until("it was judged", lambda: backend.ask(opened, [1])[1].state == JobState.FAILED)
        assert backend.ask(opened, [1])[1].failure == FailureClass.BY_HAND


def test_what_bhist_said_of_a_job_that_ran_is_not_taken_for_its_end(tmp_path: Path) -> None:
    with started(tmp_path, "openlava") as plain:
        bench = with_site(plain, grace_seconds=0.0, unknown_minutes=10.0)
        backend, opened = handed_over(bench, bench.job(0, "sleep 600"))
        until("it ran", bench.ran)
        bench.cluster.fault("fresh_hidden", seconds=600.0)
        until("bhist was asked", lambda: backend.ask(opened, [1]) and bench.cluster.calls("bhist"))

        bkill(bench.cluster)
        until("it ended", lambda: all(one.ended_at for one in bench.cluster.jobs()))
        bench.cluster.mend("fresh_hidden")

        until("it was judged", lambda: backend.ask(opened, [1])[1].state == JobState.FAILED)
        assert backend.ask(opened, [1])[1].failure == FailureClass.BY_HAND


def test_a_job_that_cannot_see_the_work_directory_is_no_success(tmp_path: Path) -> None:
    with started(tmp_path) as bench:
        bench.cluster.fault("shown", status="DONE", instead_of=["PEND", "RUN"])

        (outcome,) = with_site(bench, grace_seconds=0.2).run(
            bench.job(0, "sleep 600"), attempt=f"{BATCH}/1"
        )

        assert outcome.failure == FailureClass.INFRASTRUCTURE
        assert "is the work directory seen from its host?" in outcome.reason


def test_an_exit_code_that_stays_torn_is_judged_after_the_grace_time(bench: Bench) -> None:
    backend, opened = handed_over(bench, bench.job(0))
    until("it ended", lambda: opened.ended() and all(one.ended_at for one in bench.cluster.jobs()))
    (opened.folder / "1.exit").write_bytes(b"\0\0\0\0")

    assert backend.ask(opened, [1])[1].state == JobState.UNKNOWN
    until("it was judged", lambda: backend.ask(opened, [1])[1].state == JobState.FAILED)

    report = backend.ask(opened, [1])[1]
    assert report.failure == FailureClass.INFRASTRUCTURE
    assert "LSF says done, but it left no exit code" in report.reason


# --------------------------------------------------------------------------- cost and secrets


def test_one_bjobs_a_look_asks_for_all_arrays(tmp_path: Path) -> None:
    with started(tmp_path) as plain:
        bench = with_site(plain, max_array=4)

        bench.run(*(bench.job(number, "sleep 0.5") for number in range(12)))

        polls = [call for call in bench.cluster.calls("bjobs") if "-J" not in call.argv]
        assert max(len(call.argv) for call in polls) == len(("-a", "-json", "-o", "f")) + 3
        gaps = [b.started_at - a.started_at for a, b in itertools.pairwise(polls)]
        assert min(gaps, default=1) > LSF_SITE.poll_seconds / 2


def test_no_secret_is_in_what_lsf_was_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "swordfish")
    monkeypatch.setenv("DS_FLOW_GIVEN", "TOKEN")

    (outcome,) = bench.run(bench.job(0, 'test "$TOKEN" = swordfish'))

    assert outcome.failure is None
    told = json.dumps([call.argv for call in bench.cluster.calls()])
    spooled = [path.read_bytes() for path in bench.cluster.folder.rglob("*") if path.is_file()]
    assert "swordfish" not in told
    assert not any(b"swordfish" in content for content in spooled)


def test_cancelling_is_watched_until_every_element_has_ended(bench: Bench) -> None:
    bench.cluster.fault("in_progress")
    jobs = [
        bench.job(number, "trap 'sleep 0.3; exit 1' TERM INT; sleep 600 & wait")
        for number in (0, 1)
    ]

    def cancel() -> None:
        until(
            "none was left",
            lambda: not cancel_jobs(bench.stage.parent, make_backends(bench.place.site)),
        )

    with meanwhile("both ran", lambda: len(bench.ran()) == len(jobs), cancel):
        outcomes = bench.run(*jobs)

    assert all(job.ended_at for job in bench.cluster.jobs())
    assert all(outcome.failure for outcome in outcomes)
