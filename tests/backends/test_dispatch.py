"""What every backend keeps to: jobs run once, ends are sorted, a killed stage is continued."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backends import PLACES, Place, caller
from ds_flow.core.errors import DispatchError
from ds_flow.core.plan import Site
from ds_flow.core.states import FailureClass
from ds_flow.dispatch import (
    JobSpec,
    Outcome,
    Round,
    cancel_jobs,
    has_jobs_elsewhere,
    log_of,
    make_backends,
    open_round,
    rounds_in,
    trim_logs,
)
from ds_flow.dispatch.stage import ROUNDS_LIMIT
from project import until
from samples import BATCH

Run = Callable[..., list[Outcome]]
Shell = Callable[[str, str], JobSpec]
Ran = Callable[[], str]


SECOND_DIALECT = pytest.param("lsf-openlava", marks=pytest.mark.exhaustive)


@pytest.fixture(scope="module", params=[*sorted(PLACES.keys() - {"lsf-openlava"}), SECOND_DIALECT])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with PLACES[request.param](tmp_path_factory.mktemp("place")) as made:
        yield made


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / "process"


@pytest.fixture
def run(stage: Path, place: Place) -> Run:
    def stage_of(*jobs: JobSpec, attempt: str = f"{BATCH}/1") -> list[Outcome]:
        return place.run(stage, *jobs, attempt=attempt)

    return stage_of


@pytest.fixture
def shell(place: Place, tmp_path: Path) -> Shell:
    return lambda key, script: place.job(key, "bash", "-c", script, folder=tmp_path)


@pytest.fixture
def counting(shell: Shell, tmp_path: Path) -> Shell:
    """A job that leaves a line in a file each time it runs."""
    return lambda key, then: shell(key, f"echo {key} >> '{tmp_path}/ran'; {then}")


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    return (tmp_path / "ran").read_text


def opened(stage: Path, place: Place, *jobs: JobSpec) -> Round:
    commands = [place.backend().command(job) for job in jobs]
    return open_round(stage, BATCH, f"{BATCH}/1", place.executor, jobs, commands)


@pytest.mark.exhaustive
def test_jobs_run_and_their_ends_are_told_in_the_order_asked_for(
    run: Run, shell: Shell, stage: Path
) -> None:
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


def test_what_succeeded_is_not_done_again_by_any_attempt(
    run: Run, counting: Shell, ran: Ran
) -> None:
    job = counting("a", "true")

    assert run(job) == run(job) == run(job, attempt=f"{BATCH}/2")

    assert ran() == "a\n"


@pytest.mark.exhaustive
def test_a_failure_of_its_own_code_is_tried_again_only_by_the_next_attempt(
    run: Run, counting: Shell, ran: Ran
) -> None:
    job = counting("a", "exit 1")

    run(job)
    run(job)
    assert ran() == "a\n"
    run(job, attempt=f"{BATCH}/2")
    assert ran() == "a\na\n"


@pytest.mark.exhaustive
def test_a_killed_job_is_tried_again_up_to_the_limit(run: Run, counting: Shell, ran: Ran) -> None:
    (outcome,) = run(counting("a", "kill -KILL $$"))

    assert (outcome.failure, outcome.reason) == (FailureClass.KILLED, "killed by SIGKILL")
    assert ran() == "a\n" * ROUNDS_LIMIT


@pytest.mark.exhaustive
def test_a_job_that_the_kernel_killed_for_want_of_memory_says_so(
    run: Run, shell: Shell, stage: Path
) -> None:
    # What run_job.sh leaves then; tests/service/test_systemd.py has a real one.
    mark = f"for round in '{stage}'/*; do echo 2048 group >$round/1.starved; done"
    (outcome,) = run(shell("a", f"{mark}; kill -KILL $$"))

    assert (outcome.failure, outcome.reason) == (
        FailureClass.MEMORY,
        "out of memory: killed by the kernel (its control group allows 2,048 MB)",
    )
    assert len(list(rounds_in(stage))) == ROUNDS_LIMIT


@pytest.mark.exhaustive
def test_the_memory_asked_for_grows_within_an_attempt_and_no_further_in_later_ones(
    run: Run, shell: Shell, stage: Path
) -> None:
    mark = f"for round in '{stage}'/*; do touch $round/1.starved; done"
    job = replace(shell("a", f"{mark}; kill -KILL $$"), memory_mb=400)

    for attempt in (1, 2):
        run(job, attempt=f"{BATCH}/{attempt}")

    asked = [opened.jobs[0].memory_mb for opened in rounds_in(stage)]
    assert asked == [400, 600, 900, 900, 900, 900]


@pytest.mark.exhaustive
def test_a_round_holds_only_what_has_not_succeeded(
    run: Run, shell: Shell, counting: Shell, stage: Path, tmp_path: Path, ran: Ran
) -> None:
    once = f"[[ -e '{tmp_path}/second' ]] || {{ touch '{tmp_path}/second'; kill -KILL $$; }}"

    outcomes = run(counting("a", "true"), shell("b", once))

    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert ran() == "a\n"
    assert [[job.key for job in r.jobs] for r in rounds_in(stage)] == [["a", "b"], ["b"]]


def test_a_crash_is_told_apart_and_not_tried_again(run: Run, counting: Shell, ran: Ran) -> None:
    (outcome,) = run(counting("a", "ulimit -c 0; kill -SEGV $$"))

    assert (outcome.failure, outcome.reason) == (FailureClass.CRASH, "crashed by SIGSEGV")
    assert ran() == "a\n"


@pytest.mark.exhaustive
def test_a_job_ends_at_its_limit_and_is_not_tried_again(
    run: Run, place: Place, shell: Shell, stage: Path
) -> None:
    job = shell("a", "exec sleep 600")

    minutes = place.shortest_limit_minutes

    (outcome,) = run(replace(job, limit_minutes=minutes))

    assert outcome.failure == FailureClass.LIMIT
    assert f"run limit of {minutes:g} minutes reached" in outcome.reason
    assert len(list(rounds_in(stage))) == 1  # whether it had begun, on a slow machine, or not


@pytest.mark.exhaustive
def test_a_missing_command_is_a_failure_of_its_own(run: Run, place: Place, tmp_path: Path) -> None:
    (outcome,) = run(place.job("a", "no-such-command", folder=tmp_path))

    assert (outcome.failure, outcome.exit_code) == (FailureClass.USER_CODE, 127)


def test_arguments_arrive_as_they_were_given(run: Run, place: Place, tmp_path: Path) -> None:
    given = ["a b", "$(exit 9)", "'\"", "-rf", "", "two\nlines", "*", "; exit 9", "\udcff", "é"]
    script = 'printf "%s\\0" "$@" > "$0"'

    (outcome,) = run(
        place.job("a", "bash", "-c", script, str(tmp_path / "got"), *given, folder=tmp_path)
    )

    assert outcome.failure is None
    assert (tmp_path / "got").read_bytes().split(b"\0")[:-1] == list(map(os.fsencode, given))


def test_a_list_arrives_on_standard_input(
    run: Run, place: Place, stage: Path, tmp_path: Path
) -> None:
    (tmp_path / "list").write_bytes(b"a b\0c\nd\0")
    job = place.job("a", "xargs", "-0", "printf", "[%s]", folder=tmp_path)

    (outcome,) = run(replace(job, stdin=tmp_path / "list"))

    assert log_of(stage, outcome) == "[a b][c\nd]"


def test_of_a_long_log_the_end_is_kept_and_the_rest_is_counted(
    run: Run, shell: Shell, stage: Path
) -> None:
    (outcome,) = run(shell("a", "head -c 200000 /dev/zero | tr '\\0' x; printf '\\377 the end'"))

    mark, kept = log_of(stage, outcome).split("\n")
    assert mark == f"... {200_009 - 2**16} earlier bytes are left out"
    assert len(kept) == 2**16
    assert kept.endswith("\ufffd the end")


@pytest.mark.exhaustive
def test_a_log_without_end_gives_its_middle_back_while_the_job_prints_on(
    run: Run, shell: Shell, stage: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place.executor == "docker":
        return  # its engine keeps only the end: test_docker
    monkeypatch.setattr(trim_logs, "LIMIT_BYTES", 2**20)
    monkeypatch.setattr(trim_logs, "KEPT_BYTES", 2**18)
    log = stage / "1" / "1.log"
    is_cut = f"(($(stat -c %b '{log}') < 2048))"
    await_cut = f"for i in {{1..600}}; do {is_cut} && break; sleep 0.1; done"

    (outcome,) = run(shell("a", f"seq 1000000; {await_cut}; seq 1000000 1000100; exit 3"))

    assert (outcome.failure, outcome.exit_code) == (FailureClass.USER_CODE, 3)
    printed = log.read_bytes()
    whole = b"".join(b"%d\n" % number for number in (*range(1, 1000001), *range(1000000, 1000101)))
    assert len(printed) == len(whole)
    assert printed[: 2**18] == whole[: 2**18]
    assert printed[2**18 :].startswith(trim_logs.NOTE + b"\0" * 2**18)
    assert printed.endswith(whole[-(2**18) :])
    assert log_of(stage, outcome).endswith(whole[-(2**16) :].decode())


@pytest.mark.exhaustive
def test_what_a_job_has_put_in_its_log_s_place_is_not_cut(
    run: Run, shell: Shell, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trim_logs, "LIMIT_BYTES", 2**12)
    monkeypatch.setattr(trim_logs, "KEPT_BYTES", 2**10)
    (tmp_path / "own").write_bytes(b"x" * 2**16)

    (outcome,) = run(shell("a", f"ln -sf '{tmp_path}/own' '{stage}/1/1.log'; exit 3"))

    assert outcome.exit_code == 3
    assert (tmp_path / "own").read_bytes() == b"x" * 2**16


def test_a_name_that_no_round_has_has_no_log(run: Run, shell: Shell, stage: Path) -> None:
    (outcome,) = run(shell("a", "true"))

    with pytest.raises(DispatchError, match="no round"):
        log_of(stage, replace(outcome, round="dsf-other"))


def test_variables_of_env_reach_a_job_and_no_command_line(
    run: Run, shell: Shell, stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "it's $ecret")
    monkeypatch.setenv("DS_FLOW_GIVEN", "TOKEN")

    (outcome,) = run(shell("a", 'echo "<$TOKEN>"; tr "\\0" " " </proc/$$/cmdline'))

    printed = log_of(stage, outcome)
    assert printed.startswith("<it's $ecret>\n")
    assert "ecret" not in printed.removeprefix("<it's $ecret>\n")
    assert not [path for path in stage.rglob("env") if path.stat().st_mode & 0o077]


# --------------------------------------------------------------------------- a caller's death


def test_a_stage_whose_caller_was_killed_is_continued_and_no_job_runs_twice(
    run: Run, shell: Shell, stage: Path, place: Place, tmp_path: Path, ran: Ran
) -> None:
    gate, began = tmp_path / "gate", tmp_path / "began"
    await_gate = f"until [ -e '{gate}' ]; do sleep 0.1; done"
    first = f"echo 0 >> '{tmp_path}/ran'; touch '{began}'; {await_gate}; echo 1 >> '{tmp_path}/ran'"
    jobs = [shell("0", first), shell("1", "true")]
    killed = caller(stage, place, *jobs)
    until("the first job ran", began.exists, while_lives=killed)
    killed.kill()
    killed.wait()

    gate.touch()
    outcomes = run(*jobs)

    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert ran() == "0\n1\n"
    assert len(list(rounds_in(stage))) == 1


def test_a_round_that_was_opened_and_never_handed_over_is_handed_over_then(
    run: Run, counting: Shell, stage: Path, place: Place, ran: Ran
) -> None:
    job = counting("a", "true")
    opened(stage, place, job)

    (outcome,) = run(job)

    assert outcome.failure is None
    assert ran() == "a\n"
    assert len(list(rounds_in(stage))) == 1


def test_a_round_that_was_handed_over_is_not_handed_over_again(
    counting: Shell, stage: Path, place: Place, ran: Ran
) -> None:
    job = counting("a", "true")
    batch_round = opened(stage, place, job)
    until("all was handed over", lambda: place.backend().submit(batch_round))

    assert place.backend().submit(batch_round)

    place.run(stage, job)
    assert ran() == "a\n"


def test_a_round_half_written_when_its_writer_died_is_passed_over(
    run: Run, shell: Shell, stage: Path
) -> None:
    (stage / ".1.deadbeef").mkdir(parents=True)

    (outcome,) = run(shell("a", "true"))

    assert outcome.round.endswith("-1")


def test_two_rounds_cannot_have_one_number(stage: Path, place: Place, shell: Shell) -> None:
    first = opened(stage, place, shell("a", "true"))
    other = stage.with_name("other")
    stage.rename(other)
    stage.mkdir()
    (stage / "1").mkdir()
    (stage / "1" / "round.json").symlink_to(other / "1" / "round.json")

    assert first.folder.name == "1"
    assert opened(stage, place, shell("a", "true")).folder.name == "2"


def test_local_jobs_that_died_with_their_starter_are_done_in_the_next_round(
    tmp_path: Path,
) -> None:
    place, stage = Place(executor="local"), tmp_path / "jobs" / "process"
    job = place.job("a", "bash", "-c", f"echo a >> '{tmp_path}/ran'", folder=tmp_path)
    (opened(stage, place, job).folder / "handed_over").touch()

    (outcome,) = place.run(stage, job)

    assert outcome.failure is None
    assert (tmp_path / "ran").read_text() == "a\n"
    first = next(rounds_in(stage)).outcomes()
    assert first
    assert first[0].failure == FailureClass.INFRASTRUCTURE


# --------------------------------------------------------------------------- cancelling


@pytest.mark.exhaustive
def test_cancelled_jobs_end_and_none_that_waits_begins(
    shell: Shell, stage: Path, place: Place, tmp_path: Path
) -> None:
    if place.executor == "local":
        return  # its jobs are processes of the run, and are killed with it
    began = tmp_path / "began"
    job = shell("a", f"trap 'exit 1' TERM; touch '{began}'; sleep 600 & wait")
    killed = caller(stage, place, job)
    until("the job ran", began.exists, while_lives=killed)
    killed.kill()
    killed.wait()

    until("no job was left", lambda: not cancel_jobs(stage.parent, make_backends(place.site)))

    assert cancel_jobs(stage.parent, make_backends(place.site)) == []
    (outcome,) = place.run(stage, job)
    assert outcome.failure is not None


def test_what_a_closed_round_could_not_let_go_of_is_let_go_of_later(
    run: Run, shell: Shell, stage: Path, place: Place
) -> None:
    run(shell("a", "true"))
    (closed,) = rounds_in(stage)
    assert not has_jobs_elsewhere(stage.parent)

    (closed.folder / "released").unlink()  # its release got no answer

    assert has_jobs_elsewhere(stage.parent) == (place.executor != "local")
    until("it was let go of", lambda: not cancel_jobs(stage.parent, make_backends(place.site)))
    assert closed.is_released
    assert not has_jobs_elsewhere(stage.parent)


def test_a_batch_without_jobs_has_none_to_cancel(tmp_path: Path) -> None:
    assert cancel_jobs(tmp_path / "jobs", make_backends(Site())) == []
