"""The Slurm backend on a real Slurm that is killed, stopped and full, and whose jobs are, too."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from backends import Place, caller, slurm
from ds_flow.core.errors import DispatchError
from ds_flow.core.plan import Site
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
from ds_flow.dispatch.cluster.handover import file_of
from ds_flow.doctor import probe_job, silent_backends, unreachable_backends
from ds_flow.settings import Settings
from ds_flow.settings.load import load_settings
from project import Project, until
from samples import BATCH
from slurm import HOST, Slurm
from slurm_wrap import Wrapped, wrapped

HOG = "exec python3 -c 'import time; x = bytearray(300 << 20); time.sleep(600)'"


@dataclass(frozen=True, slots=True)
class Bench:
    """A place, a stage, the calls of its commands, and what its jobs leave."""

    place: Place
    folder: Path
    commands: Wrapped

    @property
    def stage(self) -> Path:
        return self.folder / "jobs" / "process-1of1"

    @property
    def slurm(self) -> Slurm:
        return self.place.slurm

    def job(self, number: int, then: str = "true") -> JobSpec:
        script = f"echo {number} >> '{self.folder}/ran.{number}'; {then}"
        return self.place.job(str(number), "bash", "-c", script, folder=self.folder)

    def run(self, *jobs: JobSpec, attempt: str = f"{BATCH}/1") -> list[Outcome]:
        return self.place.run(self.stage, *jobs, attempt=attempt)

    def ran(self) -> list[int]:
        """How often each job that began has run."""
        return [len(path.read_text().split()) for path in self.folder.glob("ran.*")]

    def submissions(self) -> int:
        return len(self.commands.calls("sbatch"))

    def handed_over(self, *jobs: JobSpec) -> tuple[Backend, Round]:
        """A round that nobody waits for."""
        backend = self.place.backend()
        commands = [job.command for job in jobs]
        opened = open_round(self.stage, BATCH, f"{BATCH}/1", "slurm", jobs, commands)
        until("it was handed over", lambda: backend.submit(opened))
        return backend, opened

    def with_site(self, **changes: object) -> "Bench":
        site = Site(slurm=replace(self.place.site.slurm, **changes))  # type: ignore[arg-type]
        return replace(self, place=replace(self.place, site=site))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with slurm(tmp_path_factory.mktemp("place")) as made:
        yield made


@pytest.fixture
def bench(place: Place, tmp_path: Path) -> Iterator[Bench]:
    with wrapped(tmp_path / "bin") as commands:
        yield Bench(place, tmp_path, commands)
    place.slurm.ask("scancel", "-u", "root")
    until("no job was left", lambda: not place.slurm.live())


@contextmanager
def started(tmp_path: Path, **limits: int) -> Iterator[Bench]:
    """A Slurm of the test's own, to be broken."""
    with slurm(tmp_path, **limits) as made, wrapped(tmp_path / "bin") as commands:
        yield Bench(made, tmp_path, commands)


@contextmanager
def meanwhile(
    what: str, is_time: Callable[[], object], act: Callable[[], object]
) -> Iterator[None]:
    """Do something in a thread of its own as soon as it is time, or leave it once all is over."""
    is_over = threading.Event()

    def when_it_is_time() -> None:
        until(what, lambda: is_over.is_set() or is_time(), every=0.02)
        act()

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(when_it_is_time)
        try:
            yield
        finally:
            is_over.set()
        acting.result()


def state_of(backend: Backend, opened: Round) -> JobState:
    return backend.ask(opened, [1])[1].state


# --------------------------------------------------------------------------- cost


@pytest.mark.exhaustive
def test_300_jobs_are_one_array_and_few_calls(bench: Bench) -> None:
    site = bench.with_site(poll_seconds=30)  # the default
    outcomes = site.run(*(site.job(number) for number in range(300)))

    assert [outcome.failure for outcome in outcomes] == [None] * 300
    assert bench.ran() == [1] * 300
    assert bench.submissions() == 1
    (array,) = {outcome.native_id.partition("_")[0] for outcome in outcomes}
    assert {outcome.native_id for outcome in outcomes} == {f"{array}_{i}" for i in range(1, 301)}
    calls = bench.commands.calls()
    others = [call for call in calls if call[0] not in {"sbatch", "squeue"}]
    assert others == []
    polls = bench.commands.calls("squeue")
    assert all(poll[-2:] == ["-j", array] for poll in polls)  # of all at once, and none by name
    began, over = outcomes[0].started_at, max(outcome.ended_at for outcome in outcomes)
    took_s = (datetime.fromisoformat(over) - datetime.fromisoformat(began)).total_seconds()
    assert len(polls) <= took_s + 5  # one a second at first, then ever fewer


@pytest.mark.exhaustive
def test_an_array_larger_than_the_site_s_limit_is_cut_in_halves(tmp_path: Path) -> None:
    with started(tmp_path, max_array=8) as bench:
        outcomes = bench.run(*(bench.job(number) for number in range(20)))

        assert [outcome.failure for outcome in outcomes] == [None] * 20
        assert bench.ran() == [1] * 20
        assert len({outcome.native_id.partition("_")[0] for outcome in outcomes}) == 4
        assert bench.submissions() == 6  # 20 and 10 are refused


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("site", "job", "said"),
    [
        ({}, {"queue": "nosuch"}, "Invalid partition name specified"),
        ({}, {"extra": ("--nosuch",)}, "unrecognized option '--nosuch'"),
        ({}, {"memory_mb": 10**6}, "Requested node configuration is not available"),
    ],
    ids=["partition", "option", "memory"],
)
def test_a_refusal_is_told_in_slurm_s_words(
    bench: Bench, site: dict[str, str], job: dict[str, object], said: str
) -> None:
    with pytest.raises(DispatchError, match=said):
        bench.with_site(**site).run(replace(bench.job(0), **job))  # type: ignore[arg-type]

    assert bench.submissions() == 1


FULL = """echo "sbatch: error: AssocMaxSubmitJobLimit
sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, \
user's size and/or time limits)" >&2
exit 1
"""


@pytest.mark.exhaustive
def test_while_the_site_takes_no_more_jobs_of_this_user_the_rest_waits(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    small = bench.with_site(max_array=2)
    jobs = [
        small.job(number, f"until [ -e '{bench.folder}/gate' ]; do sleep 0.1; done")
        for number in range(4)
    ]
    limit = f'(($(squeue -h -r -o %i | wc -l) > 0)) && {{ {FULL}}}\nexec $REAL "$@"'
    small.commands.instead("sbatch", limit)
    backend = small.place.backend()
    commands = [job.command for job in jobs]
    opened = open_round(small.stage, BATCH, f"{BATCH}/1", "slurm", jobs, commands)
    os.utime(opened.folder, (0, 0))

    looks = [backend.submit(opened) for _ in range(3)]
    backend.ask(opened, opened.indices)
    (stage,) = stages_in(small.folder / "jobs")
    said = capsys.readouterr().out
    (small.folder / "gate").touch()
    outcomes = small.run(*jobs)

    assert looks == [False] * 3
    assert any("AssocMaxSubmitJobLimit" in reason for reason in stage.pending_reasons)
    assert opened.folder.stat().st_mtime > 0
    assert said.count("AssocMaxSubmitJobLimit") == 1
    assert [outcome.failure for outcome in outcomes] == [None] * 4
    assert small.ran() == [1] * 4
    assert len(list(rounds_in(small.stage))) == 1


def test_an_array_of_more_jobs_than_the_site_takes_of_a_user_is_cut_in_halves(
    bench: Bench,
) -> None:
    limit = f'[[ $* == *--array=1-[1-3]* ]] || {{ {FULL}}}\nexec $REAL "$@"'
    bench.commands.instead("sbatch", limit)

    outcomes = bench.run(*(bench.job(number) for number in range(6)))

    assert [outcome.failure for outcome in outcomes] == [None] * 6
    assert bench.submissions() == 3


def test_a_partition_that_is_closed_holds_jobs_back_and_says_so(bench: Bench) -> None:
    job = replace(bench.job(0), queue="closed")
    backend = bench.place.backend()
    opened = open_round(bench.stage, BATCH, f"{BATCH}/1", "slurm", [job], [job.command])

    backend.submit(opened)
    report = backend.ask(opened, [1])[1]

    (stage,) = stages_in(bench.folder / "jobs")
    assert report.state == JobState.PENDING
    assert stage.pending_reasons
    bench.slurm.ask("scontrol", "update", "PartitionName=closed", "State=UP")
    (outcome,) = bench.run(job)
    bench.slurm.ask("scontrol", "update", "PartitionName=closed", "State=INACTIVE")
    assert outcome.failure is None


# --------------------------------------------------------------------------- lost answers


LOST = {
    "times out and was accepted": (
        'out=$($REAL "$@"); echo "sbatch: error: Batch job submission failed: Socket timed out on'
        ' send/recv operation" >&2; exit 1'
    ),
    "times out and never arrived": (
        'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv'
        ' operation" >&2; exit 1'
    ),
    "was killed after it was accepted": '$REAL "$@" >/dev/null; kill -9 $$',
    "was answered with nothing": '$REAL "$@" >/dev/null',
}


@pytest.mark.parametrize("how", LOST.values(), ids=LOST)
@pytest.mark.exhaustive
def test_an_sbatch_whose_answer_is_lost_is_looked_up_before_it_is_sent_again(
    bench: Bench, how: str
) -> None:
    bench.commands.once("sbatch", how)

    outcomes = bench.run(*(bench.job(number) for number in range(3)))

    assert [outcome.failure for outcome in outcomes] == [None] * 3
    assert bench.ran() == [1] * 3
    was_accepted = "$REAL" in how
    assert bench.submissions() == (1 if was_accepted else 2)
    assert len({outcome.native_id.partition("_")[0] for outcome in outcomes}) == 1


@pytest.mark.exhaustive
def test_an_array_whose_submitter_was_killed_before_the_answer_is_found(bench: Bench) -> None:
    bench.commands.once("sbatch", '$REAL "$@"; sleep 600')
    killed = caller(bench.stage, bench.place, bench.job(0))
    until("it was accepted", bench.slurm.jobs)
    killed.kill()
    killed.wait()

    (outcome,) = bench.run(bench.job(0))

    assert outcome.failure is None
    assert bench.ran() == [1]


def test_another_user_s_array_of_the_same_name_is_not_taken_for_ours(bench: Bench) -> None:
    backend, opened = bench.handed_over(bench.job(0, "sleep 600"))
    handover = file_of(opened)
    (name,) = [chunk for chunk in handover.read_text().split('"') if chunk.endswith("-1-1")]
    handover.write_bytes(b"")

    backend.submit(opened)

    (asked,) = [call for call in bench.commands.calls("squeue") if name in call]
    assert asked[asked.index("-u") + 1] == f"{os.getuid()}"


# --------------------------------------------------------------------------- ends


@pytest.mark.exhaustive
def test_a_job_that_was_killed_from_outside_is_done_again(bench: Bench) -> None:
    once = f"[[ -e '{bench.folder}/x' ]] || {{ touch '{bench.folder}/x'; sleep 600; }}"

    def kill_it() -> None:
        (script,) = [pid for pid in bench.slurm.steps() if _is_run_job(pid)]
        os.kill(script, signal.SIGKILL)

    with meanwhile("it ran", (bench.folder / "x").exists, kill_it):
        (outcome,) = bench.run(bench.job(0, once))

    first, _ = rounds_in(bench.stage)
    failed = first.outcomes()
    assert failed
    assert (failed[0].failure, failed[0].reason) == (FailureClass.KILLED, "killed by SIGKILL")
    assert outcome.failure is None


def _is_run_job(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[:1] == [b"bash"] and words[1].endswith(b"run_job.sh")


@pytest.mark.exhaustive
def test_a_job_with_too_little_memory_gets_more(bench: Bench) -> None:
    hog = f"[[ -e '{bench.folder}/x' ]] || {{ touch '{bench.folder}/x'; {HOG}; }}"

    (outcome,) = bench.run(replace(bench.job(0, hog), memory_mb=100))

    first, second = rounds_in(bench.stage)
    failed = first.outcomes()
    assert failed
    assert failed[0].failure == FailureClass.MEMORY
    assert failed[0].reason == "memory limit reached (OUT_OF_MEMORY): it needed more than 100 MB"
    assert outcome.failure is None
    assert [one.jobs[0].memory_mb for one in (first, second)] == [100, 150]


@pytest.mark.exhaustive
def test_more_memory_than_any_host_has_ends_the_job_and_not_its_run(tmp_path: Path) -> None:
    with started(tmp_path, memory_mb=120) as bench:
        greedy, fine = (
            replace(bench.job(i, then), memory_mb=100) for i, then in enumerate((HOG, "true"))
        )

        outcome, other = bench.run(greedy, fine)

        assert (outcome.failure, other.failure) == (FailureClass.MEMORY, None)
        asked = [opened.jobs[0].memory_mb for opened in rounds_in(bench.stage)]
        assert asked == [100, 120]


def test_what_somebody_cancelled_is_told_so_and_left_to_the_next_attempt(bench: Bench) -> None:
    def scancel() -> None:
        bench.slurm.ask("scancel", *bench.slurm.live())

    with meanwhile("it ran", bench.ran, scancel):
        (outcome,) = bench.run(bench.job(0, "sleep 600 & wait"))

    assert outcome.failure == FailureClass.BY_HAND
    assert "ended by its owner or an administrator (scancel)" in outcome.reason
    assert bench.ran() == [1]


def test_a_job_that_is_held_waits_and_says_why_and_what_to_do(bench: Bench) -> None:
    site = bench.with_site(extra=("--hold",))
    backend, opened = site.handed_over(bench.job(0))
    os.utime(opened.folder, (0, 0))

    until("it was listed", lambda: backend.ask(opened, [1]) and _pending(bench))

    assert _pending(bench) == ["JobHeldUser (held by its user: scontrol release)"]
    assert opened.folder.stat().st_mtime > 0
    bench.slurm.ask("scontrol", "release", *bench.slurm.live())
    (outcome,) = bench.run(bench.job(0))
    assert outcome.failure is None
    assert bench.ran() == [1]


def _pending(bench: Bench) -> list[str]:
    (stage,) = stages_in(bench.folder / "jobs")
    return stage.pending_reasons


def test_a_job_may_wait_for_ever_unless_a_limit_is_set(bench: Bench) -> None:
    site = bench.with_site(extra=("--hold",))
    backend, opened = site.handed_over(bench.job(0))
    looks = {state_of(backend, opened) for _ in range(3)}
    limited = bench.with_site(pending_minutes=1e-9).place.backend()

    until("it was given up", lambda: limited.ask(opened, [1])[1].failure)

    assert looks <= {JobState.PENDING, JobState.UNKNOWN}
    until("it was ended", lambda: not bench.slurm.live())


@pytest.mark.exhaustive
def test_a_job_that_is_started_again_runs_once_and_is_done_again_in_a_round(
    bench: Bench,
) -> None:
    site = bench.with_site(extra=("--requeue",))
    once = f"[[ -e '{bench.folder}/x' ]] || {{ touch '{bench.folder}/x'; sleep 600; }}"

    def requeue() -> None:
        (job,) = bench.slurm.live()
        bench.slurm.ask("scontrol", "requeue", job)
        until("it was there again", lambda: bench.slurm.jobs()[job] == "PENDING")
        bench.slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    with meanwhile("it ran", (bench.folder / "x").exists, requeue):
        (outcome,) = site.run(site.job(0, once))

    assert outcome.failure is None
    first, _ = rounds_in(bench.stage)
    failed = first.outcomes()
    assert failed
    assert failed[0].failure == FailureClass.INFRASTRUCTURE
    assert failed[0].reason == "ended to be started again (scontrol requeue) (REQUEUED)"
    assert bench.ran() == [2]


@pytest.mark.exhaustive
def test_what_slurm_has_forgotten_is_judged_by_what_is_on_disk(tmp_path: Path) -> None:
    with started(tmp_path, forgotten_after_s=2) as bench:
        backend, opened = bench.handed_over(
            *(bench.job(0), bench.job(1, "exit 3"), bench.job(2, "kill -9 $$")),
            bench.job(3, "sleep 600"),
        )
        until("three ended", lambda: len(opened.ended()) == 3 and len(bench.ran()) == 4)
        bench.slurm.ask("scancel", *bench.slurm.live())
        until("all were forgotten", lambda: not bench.slurm.jobs())

        outcomes: dict[int, FailureClass | None] = {}
        until(
            "all were judged",
            lambda: outcomes.update(ended(backend, opened)) or len(outcomes) == 4,
        )

        assert outcomes == {
            1: None,
            2: FailureClass.USER_CODE,
            3: FailureClass.KILLED,
            4: FailureClass.BY_HAND,  # slurmstepd has said so in the job's output
        }
        again = bench.place.backend()
        until("all were judged again", lambda: len(ended(again, opened)) == 4)
        assert len(bench.commands.calls("sacct")) == 1  # there are no accounts


@pytest.mark.exhaustive
def test_accounts_that_do_not_answer_are_no_verdict_and_are_asked_again(tmp_path: Path) -> None:
    with started(tmp_path, forgotten_after_s=2) as plain:
        bench = plain.with_site(extra=("--hold",), unknown_minutes=10.0, grace_seconds=0.0)
        backend, opened = bench.handed_over(*(bench.job(number) for number in range(3)))
        bench.commands.instead("sacct", "echo sacct: error: Connection refused >&2; exit 1")
        bench.slurm.ask("scancel", *bench.slurm.live())
        until("all were forgotten", lambda: not bench.slurm.jobs())

        until(
            "the accounts were asked in a second look",
            lambda: ended(backend, opened) or len(bench.commands.calls("sacct")) > 1,
        )
        before = len(bench.commands.calls("sacct"))
        judged = ended(backend, opened)
        questions = len(bench.commands.calls("sacct")) - before
        (chunk,) = json.loads(file_of(opened).read_text())["chunks"]
        rows = [f"{chunk['job_ids'][0]}_{n}|CANCELLED|0:0|{chunk['name']}" for n in (1, 2, 3)]
        bench.commands.instead("sacct", f"printf '%s\\n' {' '.join(map(repr, rows))}")

        assert judged == {}
        assert questions == 1
        until("all were judged", lambda: len(ended(backend, opened)) == 3)
        assert set(ended(backend, opened).values()) == {FailureClass.BY_HAND}


def ended(backend: Backend, opened: Round) -> dict[int, FailureClass | None]:
    reports = backend.ask(opened, opened.indices)
    live = {JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN}
    return {index: one.failure for index, one in reports.items() if one.state not in live}


# --------------------------------------------------------------------------- its programs


@pytest.mark.exhaustive
def test_a_controller_that_is_killed_and_comes_back_loses_and_doubles_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(tmp_path) as bench:
        gate = bench.folder / "gate"

        def kill_and_start() -> None:
            bench.slurm.kill("slurmctld")
            before = len(bench.commands.calls("squeue"))
            until("it was missed", lambda: len(bench.commands.calls("squeue")) > before + 1)
            until("that was told", lambda: "no answer from slurm: squeue: " in now(bench))
            gate.touch()
            bench.slurm.start("slurmctld")

        then = f"until [ -e '{gate}' ]; do sleep 0.1; done"
        with meanwhile("all ran", lambda: len(bench.ran()) == 3, kill_and_start):
            outcomes = bench.run(*(bench.job(number, then) for number in range(3)))

        assert [outcome.failure for outcome in outcomes] == [None] * 3
        assert bench.ran() == [1] * 3
        assert len(list(rounds_in(bench.stage))) == 1
        assert capsys.readouterr().out.count("asked again later") >= 1


def now(bench: Bench) -> str:
    (stage,) = stages_in(bench.folder / "jobs")
    return told(stage)


@pytest.mark.exhaustive
def test_a_controller_that_hangs_while_jobs_are_submitted_gets_them_once(tmp_path: Path) -> None:
    with started(tmp_path) as bench:
        bench.slurm.stop("slurmctld")

        with meanwhile(
            "it was looked for",
            lambda: len(bench.commands.calls("squeue")) > 1,
            lambda: bench.slurm.go_on("slurmctld"),
        ):
            outcomes = bench.run(*(bench.job(number) for number in range(3)))

        assert [outcome.failure for outcome in outcomes] == [None] * 3
        assert bench.ran() == [1] * 3


@pytest.mark.exhaustive
def test_jobs_go_on_while_their_host_s_slurmd_is_dead(tmp_path: Path) -> None:
    with started(tmp_path) as bench:
        gate = bench.folder / "gate"

        def kill_and_start() -> None:
            bench.slurm.kill("slurmd")
            gate.touch()
            until("they ended", lambda: len(list(bench.stage.glob("1/*.exit"))) == 3)
            bench.slurm.start("slurmd")

        then = f"until [ -e '{gate}' ]; do sleep 0.1; done"
        with meanwhile("all ran", lambda: len(bench.ran()) == 3, kill_and_start):
            outcomes = bench.run(*(bench.job(number, then) for number in range(3)))

        assert [outcome.failure for outcome in outcomes] == [None] * 3
        assert bench.ran() == [1] * 3


@pytest.mark.exhaustive
def test_a_job_whose_host_fails_is_done_again(tmp_path: Path) -> None:
    with started(tmp_path) as bench:
        once = f"[[ -e '{bench.folder}/x' ]] || {{ touch '{bench.folder}/x'; sleep 600; }}"

        def fail() -> None:
            host = ("scontrol", "update", f"NodeName={bench.slurm.host}")
            bench.slurm.ask(*host, "State=DOWN", "Reason=test")
            until("it had ended", lambda: not bench.slurm.live())
            bench.slurm.ask(*host, "State=RESUME")

        with meanwhile("it ran", (bench.folder / "x").exists, fail):
            (outcome,) = bench.run(bench.job(0, once))

        first, _ = rounds_in(bench.stage)
        failed = first.outcomes()
        assert failed
        assert failed[0].failure == FailureClass.INFRASTRUCTURE
        assert failed[0].reason == "its host failed (NODE_FAIL)"
        assert outcome.failure is None


def test_an_array_that_has_the_id_of_one_that_slurmctld_lost_is_left_alone(bench: Bench) -> None:
    backend, opened = bench.handed_over(bench.job(0, "sleep 600"))
    until("it ran", bench.ran)
    (job,) = bench.slurm.live()
    handover = file_of(opened)
    lost = replace(opened, name=opened.name.replace("process", "combine"))
    handover.write_text(handover.read_text().replace(opened.name, lost.name))

    looks = {state_of(backend, opened) for _ in range(2)}
    backend.cancel(opened)

    assert looks == {JobState.UNKNOWN}
    assert bench.slurm.jobs()[job] == "RUNNING"


@pytest.mark.exhaustive
def test_cancelling_waits_for_a_controller_that_is_away(tmp_path: Path) -> None:
    with started(tmp_path) as bench:
        backends = make_backends(bench.place.site)
        bench.handed_over(bench.job(0, "sleep 600"))
        until("it ran", bench.ran)
        bench.slurm.kill("slurmctld")

        assert cancel_jobs(bench.stage.parent, backends)
        bench.slurm.start("slurmctld")

        until("none was left", lambda: not cancel_jobs(bench.stage.parent, backends))
        assert not bench.slurm.live()


# --------------------------------------------------------------------------- check


def settings_for(folder: Path, **options: object) -> Settings:
    compute = {"executor": "slurm", "slurm": {"poll_seconds": 0.2, **options}}
    made = Project(folder / "project", compute=compute, paths={"ledger": "ledger/ledger.db"})
    return load_settings(made.config, os.environ)


def test_check_says_what_it_saw_of_slurm_and_runs_a_job_there(bench: Bench) -> None:
    settings = settings_for(bench.folder)

    (answer,) = unreachable_backends(settings, os.environ)
    level, text = probe_job.probe(settings, "combine")

    assert answer.level == "ok"
    assert "no accounts: ends are known for 300 s" in answer.text
    assert (level, text) == ("ok", f"a job ran on {HOST} and reached the work directory")


def test_check_names_what_slurm_refuses(bench: Bench) -> None:
    level, text = probe_job.probe(settings_for(bench.folder, partition="nosuch"), "combine")

    assert level == "fault"
    assert "Invalid partition name specified" in text


@pytest.mark.exhaustive
def test_check_names_the_reason_for_which_its_probe_job_is_pending(bench: Bench) -> None:
    settings = settings_for(bench.folder, extra=["--hold"])

    level, text = probe_job.probe(settings, "combine", 3.0)

    assert level == "warning"
    assert "JobHeldUser (held by its user: scontrol release)" in text
    until("it was ended", lambda: not bench.slurm.live())


@pytest.mark.exhaustive
def test_a_check_that_is_ended_leaves_no_probe_job_in_the_queue(bench: Bench) -> None:
    settings = settings_for(bench.folder, extra=["--hold"])
    checking = threading.get_ident()

    def end_it() -> None:
        until("its probe job waits", bench.slurm.live)
        signal.pthread_kill(checking, signal.SIGINT)

    with ThreadPoolExecutor() as pool:
        pool.submit(end_it)
        with pytest.raises(KeyboardInterrupt):
            probe_job.probe(settings, "combine")

    until("it was ended", lambda: not bench.slurm.live())


@pytest.mark.exhaustive
def test_check_and_status_say_that_slurm_does_not_answer(tmp_path: Path) -> None:
    with started(tmp_path) as bench:
        settings = settings_for(bench.folder)
        assert silent_backends(settings, os.environ, 20.0) == {"slurm": ""}
        bench.slurm.kill("slurmctld")

        (answer,) = unreachable_backends(settings, os.environ)
        silent = silent_backends(settings, os.environ, 20.0)

        assert answer.level == "fault"
        assert "unreachable (" in answer.text
        assert "slurm" in silent["slurm"]


# --------------------------------------------------------------------------- the whole line


def test_a_batch_is_published_by_jobs_on_slurm_and_its_manifest_is_as_described(
    bench: Bench,
) -> None:
    compute = {"executor": "slurm", "slurm": {"poll_seconds": 0.2, "partition": "short"}}
    project = Project(bench.folder / "p", compute=compute, paths={"ledger": "ledger/ledger.db"})
    for number in range(3):
        project.drop(f"student_{number}.csv", f"a,b\n{number},x\n")

    done = project.once()

    assert done.returncode == 0, done.stderr
    (path,) = project.out.glob("manifest_*.json")
    manifest = json.loads(path.read_text())
    schema = json.loads(project.ds_flow("check", "--schema", "manifest").stdout)
    Draft202012Validator(schema).validate(manifest)
    assert {(job["backend"], job["queue"]) for job in manifest["jobs"]} == {("slurm", "short")}
    assert all("_1" in job["native_id"] for job in manifest["jobs"])


# --------------------------------------------------------------------------- secrets


def test_no_secret_is_in_what_slurm_was_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "swordfish")
    monkeypatch.setenv("DS_FLOW_GIVEN", "TOKEN")

    (outcome,) = bench.run(bench.job(0, 'test "$TOKEN" = swordfish'))

    assert outcome.failure is None
    assert "swordfish" not in str(bench.commands.calls())
    kept = [path.read_bytes() for path in bench.slurm.root.rglob("*") if path.is_file()]
    assert not any(b"swordfish" in content for content in kept)


def test_a_job_has_the_environment_of_its_run_whatever_the_user_exports(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    monkeypatch.setenv("OF_THE_RUN", "here")
    monkeypatch.setenv("DS_FLOW_ATTEMPT", "mark")

    (outcome,) = bench.run(bench.job(0, "[[ $OF_THE_RUN == here && ! ${DS_FLOW_ATTEMPT-} ]]"))

    assert outcome.failure is None
