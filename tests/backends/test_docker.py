"""Containers: what they may do, what is told of them, and what becomes of them after any death."""

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import require

from backends import Place, caller
from ds_flow.core.errors import DispatchError
from ds_flow.core.plan import DockerSite, Site
from ds_flow.core.states import FailureClass, JobState
from ds_flow.dispatch import (
    JobSpec,
    Outcome,
    Round,
    cancel_jobs,
    log_of,
    make_backends,
    open_round,
    rounds_in,
    stages_in,
    told,
    trim_logs,
)
from ds_flow.dispatch.docker import backend as backend_module
from ds_flow.dispatch.docker import texts
from ds_flow.dispatch.docker.texts import Container
from ds_flow.doctor import backends
from ds_flow.doctor.finding import Finding
from ds_flow.settings.load import load_settings
from engine import docker, engine, names_of, own_engine, small_image
from project import Project, until
from samples import BATCH

ROUND = f"ds-flow.round=dsf-{BATCH}-docker-1"  # a label

Shell = Callable[..., JobSpec]


@pytest.fixture(scope="module", autouse=True)
def running() -> Iterator[None]:
    with engine():
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """A test that failed leaves its container, whose name the next one needs."""
    yield
    for name in names_of(ROUND):
        docker("rm", "--force", name)


@pytest.fixture
def place() -> Place:
    return Place(executor="docker", image=small_image(), site=site())


def site(**options: object) -> Site:
    return Site(docker=DockerSite(**options))  # type: ignore[arg-type]


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / "docker"


@pytest.fixture
def shell(place: Place, tmp_path: Path) -> Shell:
    def job(script: str, *arguments: str, key: str = "a") -> JobSpec:
        return place.job(key, "bash", "-c", script, *arguments, folder=tmp_path)

    return job


def await_gate(folder: Path) -> str:
    """A line of shell that goes on when the file `gate` is there."""
    return f"until [ -e {folder}/gate ]; do sleep 0.1; done"


def opened(stage: Path, *jobs: JobSpec) -> Round:
    commands = [job.command for job in jobs]
    return open_round(stage, BATCH, f"{BATCH}/1", "docker", jobs, commands)


def printed(place: Place, stage: Path, job: JobSpec) -> str:
    (outcome,) = place.run(stage, job)
    log = log_of(stage, outcome)
    assert outcome.failure is None, f"{outcome.reason}: {log}"
    return log


# --------------------------------------------------------------------------- what it may do


def test_a_container_reads_its_inputs_and_writes_its_own_folder_and_no_more(
    place: Place, stage: Path, tmp_path: Path
) -> None:
    for name in ("inputs", "work", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("as it was\n")
    script = f"""
        cat {tmp_path}/inputs/file; echo new >{tmp_path}/work/file && echo written
        touch {tmp_path}/inputs/new /new /bin/new
        echo bad >{tmp_path}/inputs/file; echo bad >>/bin/suid/bash
        [[ ! -e {tmp_path}/other && ! -e {stage} && ! -e /root ]] && echo hidden
        echo scratch >/tmp/scratch && cat /tmp/scratch
    """
    job = JobSpec(
        key="a",
        command=("bash", "-c", script),
        image=place.image,
        reads=(tmp_path / "inputs",),
        writes=(tmp_path / "work",),
    )

    log = printed(place, stage, job)

    words = [line for line in log.splitlines() if ":" not in line]
    assert words == ["as it was", "written", "hidden", "scratch"]
    assert log.count("Read-only file system") == 5
    assert (tmp_path / "work" / "file").read_text() == "new\n"
    assert [path.name for path in (tmp_path / "inputs").iterdir()] == ["file"]
    assert (tmp_path / "inputs" / "file").read_text() == "as it was\n"


def test_a_container_reaches_no_network(place: Place, stage: Path, shell: Shell) -> None:
    tried = "ls /sys/class/net; (: >/dev/tcp/192.0.2.1/80); (: >/dev/udp/192.0.2.1/53); true"

    log = printed(place, stage, shell(tried))

    assert "lo" in log.splitlines()
    assert "eth0" not in log.splitlines()
    assert log.count("/80: Network is unreachable") == 1
    assert log.count("/53: Network is unreachable") == 1


def test_a_container_gains_no_privilege(place: Place, stage: Path, shell: Shell) -> None:
    tried = """
        while read -r name value; do
            case $name in NoNewPrivs: | CapEff: | CapPrm: | CapBnd:) echo "$name $value" ;; esac
        done </proc/self/status
        chown 1:1 /tmp && echo chowned; mount -t tmpfs none /tmp && echo mounted
        mknod /tmp/sda b 8 0 && echo device; echo 1 >/proc/sys/kernel/panic && echo sysctl; true
    """

    log = printed(place, stage, shell(tried)).splitlines()

    nothing = "0000000000000000"
    expected = {f"CapPrm: {nothing}", f"CapEff: {nothing}", f"CapBnd: {nothing}", "NoNewPrivs: 1"}
    assert expected <= set(log)
    assert not {"chowned", "mounted", "device", "sysctl"} & set(log)


def test_a_program_that_is_root_for_everyone_is_so_for_nobody(stage: Path, tmp_path: Path) -> None:
    nobody = Place(executor="docker", image=small_image(), site=site(extra=("--user=4242:4242",)))

    tried = ("/bin/suid/bash", "-p", "-c", 'echo "$UID $EUID"')  # -p: keep what the bit gave

    log = printed(nobody, stage, nobody.job("a", *tried, folder=tmp_path))

    assert log == "4242 4242\n"


def test_what_a_container_writes_is_the_callers(
    place: Place, stage: Path, shell: Shell, tmp_path: Path
) -> None:
    printed(place, stage, shell(f"touch {tmp_path}/made"))

    made = (tmp_path / "made").stat()
    assert (made.st_uid, made.st_gid) == (os.getuid(), os.getgid())
    assert not made.st_mode & stat.S_IWOTH


def test_settings_give_rights_back(place: Place, stage: Path, shell: Shell) -> None:
    given = site(read_only=False, capabilities=("CHOWN",), extra=("--env=GIVEN=yes",))

    log = printed(
        replace(place, site=given), stage, shell("touch /new; cat /proc/self/status; env")
    )

    assert "CapBnd:\t0000000000000001" in log
    assert "GIVEN=yes" in log


def test_a_stage_has_arguments_of_its_own(place: Place, stage: Path, shell: Shell) -> None:
    given = replace(place, site=site(extra=("--env=GIVEN=site", "--env=KEPT=site")))
    job = replace(shell("env"), extra=("--env=GIVEN=stage",))

    log = printed(given, stage, job)

    assert {"GIVEN=stage", "KEPT=site"} <= set(log.splitlines())


def test_secrets_are_in_no_ps_and_no_inspect(
    place: Place,
    stage: Path,
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t value")
    monkeypatch.setenv("DS_FLOW_GIVEN", "TOKEN")
    script = f'touch {tmp_path}/began; {await_gate(tmp_path)}; echo "<$TOKEN>"'
    running = caller(stage, place, shell(script))
    until("it ran", (tmp_path / "began").exists, while_lives=running)

    (name,) = names_of(ROUND)
    told = docker("container", "inspect", name) + docker("ps", "--all", "--no-trunc")
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]

    assert "s3cr3t" not in told
    assert not [line for line in lines if b"s3cr3t" in line]
    (tmp_path / "gate").touch()
    running.wait()
    assert next(rounds_in(stage)).log_of(1) == "<s3cr3t value>\n"
    assert not list(stage.rglob("env"))


# --------------------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ["a,b", 'q"u"o', "c:d:e", "ünï", " ", "$(x)", "\\"])
def test_a_folder_of_any_name_can_be_mounted(
    place: Place, stage: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file").write_text("found\n")
    job = replace(place.job("a", "cat", str(folder / "file"), folder=tmp_path), writes=())

    assert printed(place, stage, replace(job, reads=(folder,))) == "found\n"


@pytest.mark.parametrize("name", ["\udcff", "a\rb", "a\nb"])
def test_a_path_that_no_engine_can_be_told_is_refused_in_words(name: str) -> None:
    with pytest.raises(DispatchError, match="can mount this path; rename it"):
        texts.mount(Path("/", name), is_writable=False)


def test_inputs_below_the_written_folder_stay_read_only(
    place: Place, stage: Path, tmp_path: Path
) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    script = f"touch {tmp_path}/written; touch {inputs}/bad; true"
    job = place.job("a", "bash", "-c", script, folder=tmp_path)

    printed(place, stage, replace(job, reads=(inputs,)))

    assert (tmp_path / "written").exists()
    assert not list(inputs.iterdir())


# --------------------------------------------------------------------------- how it ends


FILL = "set -o pipefail; head -c 60000000 /dev/zero | tail -c 50000000 >/dev/null"


@pytest.mark.exhaustive
def test_too_little_memory_is_told_apart_and_given(place: Place, stage: Path, shell: Shell) -> None:
    roomy = replace(place.site, memory_factor=16)

    (outcome,) = replace(place, site=roomy).run(stage, replace(shell(FILL), memory_mb=24))

    *before, last = rounds_in(stage)
    failures = {one.failure for opened in before for one in opened.outcomes() or ()}
    assert FailureClass.MEMORY in failures
    assert failures <= {FailureClass.MEMORY, FailureClass.KILLED}  # an engine may not say why
    assert outcome.failure is None
    assert last.outcomes() == [outcome]
    assert last.jobs[0].memory_mb == 384


@pytest.mark.parametrize(("most", "engine_mb"), [(150, 100_000), (0, 150)])
@pytest.mark.exhaustive
def test_a_job_never_gets_more_memory_than_the_setting_or_the_engine_allows(
    place: Place, stage: Path, shell: Shell, tmp_path: Path, most: int, engine_mb: int
) -> None:
    program = tmp_path / "small-docker"
    small = f'[ "$1" = info ] && exec echo {engine_mb * 2**20}'
    program.write_text(f'#!/bin/sh\n{small}\nexec docker "$@"\n')
    program.chmod(0o755)
    limited = replace(site(command=str(program)), memory_factor=16, memory_limit_mb=most)
    greedy = replace(shell("head -c 900000000 /dev/zero | tail -c 800000000"), memory_mb=24)

    for attempt in (1, 2):
        (outcome,) = replace(place, site=limited).run(stage, greedy, attempt=f"{BATCH}/{attempt}")

    assert outcome.failure == FailureClass.MEMORY
    assert "it needed more than 150 MB" in outcome.reason
    assert [opened.jobs[0].memory_mb for opened in rounds_in(stage)] == [24, 150, 150]


@pytest.mark.parametrize("then", ["", "|| exit 1"])
def test_an_engine_that_says_late_that_memory_ran_out_is_asked_once_more(
    place: Place,
    stage: Path,
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    then: str,
) -> None:
    monkeypatch.setattr(backend_module, "CAUSE_GRACE_SECONDS", 600)
    program = tmp_path / "late-docker"
    late = f'[ -e {tmp_path}/said ] || flag="s/(OOMKilled.*)true/\\1false/"'
    script = f'#!/bin/bash\n{late}\nset -o pipefail\ndocker "$@" | sed -E "$flag"\n'
    program.write_text(script)
    program.chmod(0o755)
    backend = replace(place, site=site(command=str(program))).backend()
    batch_round = opened(stage, replace(shell(f"{FILL} {then}"), memory_mb=24))
    until("it began", lambda: backend.submit(batch_round))
    code = docker("wait", f"{batch_round.name}-1")
    assert code == "137" or (then and code == "1")  # the kernel may choose the shell

    looks = [backend.ask(batch_round, [1])[1].state for _ in range(2)]
    (tmp_path / "said").touch()

    assert looks == [JobState.RUNNING] * 2
    assert backend.ask(batch_round, [1])[1].failure == FailureClass.MEMORY
    assert backend.release(batch_round)


def test_of_what_a_container_prints_without_end_its_engine_keeps_the_end(
    place: Place, stage: Path, shell: Shell
) -> None:
    without_end = "for i in {1..40000}; do printf '%01000d\\n' 0; done; echo the end"

    log = printed(place, stage, shell(without_end))

    assert log.endswith("0\nthe end\n")
    assert (stage / "1" / "1.log").stat().st_size < trim_logs.LIMIT_BYTES / 2


def test_any_program_of_any_image_can_be_the_job(place: Place, stage: Path, tmp_path: Path) -> None:
    (tmp_path / "table").write_text("1\n2\n")

    log = printed(
        place, stage, place.job("a", "wc", "-l", str(tmp_path / "table"), folder=tmp_path)
    )

    assert log == f"2 {tmp_path}/table\n"


def test_the_image_that_ran_is_recorded(place: Place, stage: Path, shell: Shell) -> None:
    (outcome,) = place.run(stage, shell("true"))

    assert outcome.image_id == docker("image", "inspect", "--format={{.Id}}", place.image)
    assert outcome.image_digest == ""
    assert outcome.native_id
    assert outcome.host == os.uname().nodename


def test_an_image_that_is_not_there_is_said_and_can_be_had_later(
    place: Place, stage: Path, tmp_path: Path
) -> None:
    absent = replace(place, image="ds-flow-test/absent", site=site(pull="never"))
    job = absent.job("a", "true", folder=tmp_path)

    with pytest.raises(DispatchError, match="no image ds-flow-test/absent on this host"):
        absent.run(stage, job)
    docker("tag", place.image, absent.image)
    try:
        (outcome,) = absent.run(stage, job)
    finally:
        docker("rmi", absent.image)

    assert outcome.failure is None
    assert len(list(rounds_in(stage))) == 1


def test_an_image_that_cannot_be_pulled_is_said_so(
    place: Place, stage: Path, tmp_path: Path
) -> None:
    absent = replace(place, image="registry.invalid/absent:1")

    with pytest.raises(DispatchError, match=r"absent:1 on this host, and it cannot be pulled: \w+"):
        absent.run(stage, absent.job("a", "true", folder=tmp_path))


def test_what_the_engine_refuses_is_said_in_its_words(
    place: Place, stage: Path, shell: Shell
) -> None:
    with pytest.raises(DispatchError, match=r"docker refused dsf-.*-docker-1-1: .*CPUs"):
        place.run(stage, replace(shell("true"), cpus=4000))

    assert names_of(ROUND) == []


def ended(exit_code: int, **changed: object) -> Container:
    container = Container(
        id="1",
        folder="",
        status="exited",
        exit_code=exit_code,
        is_out_of_memory=False,
        error="",
        started_s=1000,
        ended_s=1059,
    )
    return replace(container, **changed)  # type: ignore[arg-type]


ENDS: list[tuple[Container, FailureClass | None, str]] = [
    (ended(0), None, ""),
    (ended(0, is_out_of_memory=True), None, ""),
    (ended(3), FailureClass.USER_CODE, "exit code 3"),
    (ended(1, is_out_of_memory=True), FailureClass.MEMORY, "memory limit reached"),
    (ended(143), FailureClass.KILLED, "killed by SIGTERM"),
    (ended(143, ended_s=1060), FailureClass.LIMIT, "run limit reached"),
    (ended(1, ended_s=1060), FailureClass.LIMIT, "run limit reached"),
    (ended(0, ended_s=1060), None, ""),
    (ended(139), FailureClass.CRASH, "crashed by SIGSEGV"),
    (
        ended(255),
        FailureClass.INFRASTRUCTURE,
        "the engine lost track of its container (exit code 255)",
    ),
    (
        ended(128, status="created", error="no space left on device"),
        FailureClass.INFRASTRUCTURE,
        "its container could not be started: the engine's disk is full: no space left on device",
    ),
]


@pytest.mark.parametrize(("container", "failure", "reason"), ENDS)
def test_ends_are_told_apart(
    container: Container, failure: FailureClass | None, reason: str
) -> None:
    assert texts.end_of(container, limit_minutes=1) == (failure, reason)


# --------------------------------------------------------------------------- once


def test_no_more_containers_than_allowed_are_there_at_once_and_all_get_their_turn(
    place: Place, stage: Path, shell: Shell, tmp_path: Path
) -> None:
    single = replace(place, site=site(max_parallel=1))
    held = shell(await_gate(tmp_path), key="a")
    batch_round = opened(stage, held, shell("true", key="b"), shell("true", key="c"))

    looks = [single.backend().submit(batch_round) for _ in range(2)]
    there = names_of(ROUND)
    (tmp_path / "gate").touch()
    outcomes = single.run(stage, *batch_round.jobs)

    assert looks == [False, False]
    assert there == [f"{batch_round.name}-1"]
    assert [outcome.failure for outcome in outcomes] == [None] * 3


@pytest.fixture
def counting(place: Place, tmp_path: Path) -> Place:
    """A place whose docker command leaves a line in a file for each container asked for."""
    program = tmp_path / "counting-docker"
    script = f'#!/bin/sh\n[ "$1" != run ] || echo run >> {tmp_path}/calls\nexec docker "$@"\n'
    program.write_text(script)
    program.chmod(0o755)
    return replace(place, site=site(command=str(program)))


def test_after_any_death_the_same_container_is_found_and_used(
    counting: Place, stage: Path, shell: Shell, tmp_path: Path
) -> None:
    job = shell(f"touch {tmp_path}/began; {await_gate(tmp_path)}; echo ran >> {tmp_path}/ran")
    killed = caller(stage, counting, job)
    until("it ran", (tmp_path / "began").exists, while_lives=killed)
    killed.kill()
    killed.wait()

    (tmp_path / "gate").touch()
    (outcome,) = counting.run(stage, job)

    assert outcome.failure is None
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert (tmp_path / "calls").read_text() == "run\n"
    assert names_of(ROUND) == []


def test_a_container_that_a_slow_engine_is_still_making_is_waited_for(
    place: Place, stage: Path, shell: Shell, tmp_path: Path
) -> None:
    program = tmp_path / "slow-docker"
    program.write_text(f"""#!/bin/sh
cd {tmp_path}
case "$1 $2" in
"container inspect") [ -e made ] || {{ echo "Error: No such container: $3" >&2; exit 1; }} ;;
"run "*) [ -e asked ] || {{ touch asked; docker "$@"; echo "i/o timeout" >&2; exit 1; }} ;;
esac
exec docker "$@"
""")
    program.chmod(0o755)
    backend = replace(place, site=site(command=str(program))).backend()
    batch_round = opened(stage, shell(f"echo ran >> {tmp_path}/ran"))

    looks = [backend.submit(batch_round) for _ in range(3)]
    (tmp_path / "made").touch()

    assert looks == [False] * 3
    assert backend.submit(batch_round)
    until("it ended", lambda: backend.ask(batch_round, [1])[1].state == JobState.SUCCEEDED)
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert backend.release(batch_round)


def test_a_container_that_nobody_lived_to_start_is_started(
    place: Place, stage: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "START_GRACE_SECONDS", 0.1)
    job = shell(f"echo ran >> {tmp_path}/ran")
    batch_round = opened(stage, job)
    image = texts.Image(id=place.image, digest="")
    argv = texts.run_command(batch_round, 1, image, place.site.docker, [])
    (batch_round.folder / "1.asked").touch()
    docker("create", *argv[2:])  # all of it but `run --detach`

    (outcome,) = place.run(stage, job)

    assert outcome.failure is None
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert len(list(rounds_in(stage))) == 1


def test_a_name_that_another_folders_container_has_is_not_taken_for_ours(
    place: Place, stage: Path, shell: Shell
) -> None:
    opened(stage, shell("true"))
    docker("create", f"--name=dsf-{BATCH}-docker-1-1", place.image, "true")
    try:
        with pytest.raises(DispatchError, match="but belongs to another batch"):
            place.run(stage, shell("true"))
    finally:
        docker("rm", f"dsf-{BATCH}-docker-1-1")


def test_a_container_that_somebody_removed_is_done_again(
    place: Place, stage: Path, shell: Shell, tmp_path: Path
) -> None:
    job = shell(f"[[ -e {tmp_path}/second ]] || sleep 600")
    batch_round = opened(stage, job)
    assert place.backend().submit(batch_round)
    (tmp_path / "second").touch()
    docker("rm", "--force", f"{batch_round.name}-1")

    (outcome,) = place.run(stage, job)

    assert outcome.failure is None
    first = batch_round.outcomes()
    assert first
    assert first[0].failure == FailureClass.INFRASTRUCTURE
    assert first[0].reason == "its container is gone: somebody has removed it"


def test_what_a_death_left_of_a_closed_round_is_removed_by_whoever_comes_next(
    place: Place, stage: Path, shell: Shell
) -> None:
    batch_round = opened(stage, shell("true"))
    backend = place.backend()
    assert backend.submit(batch_round)
    until("it ended", lambda: backend.ask(batch_round, [1])[1].state == JobState.SUCCEEDED)
    outcome = Outcome(
        **dict.fromkeys(("reason", "host", "native_id", "started_at", "ended_at"), ""),
        key="a",
        index=1,
        round=batch_round.name,
        opened_by=f"{BATCH}/1",
        failure=None,
        exit_code=0,
    )
    batch_round.close([outcome])
    assert names_of(ROUND)

    assert place.run(stage, shell("true")) == [outcome]

    assert names_of(ROUND) == []


# --------------------------------------------------------------------------- the engine's deaths


def test_while_the_engine_is_silent_jobs_are_unknown_and_that_is_said_once(
    place: Place, stage: Path, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    batch_round = opened(stage, shell("true"))
    backend = place.backend()
    assert backend.submit(batch_round)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DOCKER_HOST", "unix:///nowhere")
        states = {backend.ask(batch_round, [1])[1].state for _ in range(3)}
        (while_silent,) = stages_in(stage.parent)
    backend.ask(batch_round, [1])
    (later,) = stages_in(stage.parent)
    said = capsys.readouterr().out

    assert states == {JobState.UNKNOWN}
    assert said.count("Cannot connect") == said.count("\n") == 1
    assert "no answer from docker: " in told(while_silent)
    assert "Cannot connect" in told(while_silent)
    assert "no answer" not in told(later)
    (outcome,) = place.run(stage, shell("true"))
    assert outcome.failure is None


def test_an_engine_that_stays_silent_is_not_waited_for_without_end(
    place: Place, stage: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    silent = replace(place, site=site(unknown_minutes=0.001))

    with pytest.raises(DispatchError, match=r"docker: the engine was silent for 0.001 minutes"):
        silent.run(stage, shell("true"))


@pytest.mark.exhaustive
def test_jobs_that_died_with_their_engine_are_done_again(
    place: Place, stage: Path, shell: Shell, tmp_path: Path
) -> None:
    once = f"[[ -e {tmp_path}/second ]] || {{ touch {tmp_path}/began; exec sleep 600; }}"
    with own_engine() as own:
        small_image()
        running = caller(stage, place, shell(once))
        until("it ran", (tmp_path / "began").exists, while_lives=running)
        until("its container was known", (stage / "1" / "1.container").exists)
        (tmp_path / "second").touch()

        own.kill()
        own.start()

        running.wait()
        assert names_of(ROUND) == []
    first, second = (batch_round.outcomes() for batch_round in rounds_in(stage))
    assert first
    assert second
    assert first[0].failure in {FailureClass.KILLED, FailureClass.INFRASTRUCTURE}
    assert second[0].failure is None


def test_cancelling_leaves_no_container_of_any_state(
    place: Place, stage: Path, shell: Shell
) -> None:
    single = replace(place, site=site(max_parallel=1))
    batch_round = opened(stage, shell("sleep 600", key="a"), shell("true", key="b"))
    single.backend().submit(batch_round)
    assert names_of(ROUND)

    until("all were cancelled", lambda: not cancel_jobs(stage.parent, make_backends(single.site)))

    assert names_of(ROUND) == []
    outcomes = single.run(stage, *batch_round.jobs)
    assert {(one.failure, one.reason) for one in outcomes} == {(FailureClass.BY_HAND, "cancelled")}


# --------------------------------------------------------------------------- check


def shell_less_image() -> str:
    """An image whose one program is static."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(os.path.realpath(require("busybox")), "bin/wc")
    docker("import", "-", "ds-flow-test/shell-less", stdin=archive.getvalue())
    return "ds-flow-test/shell-less"


def check_of_analysis(tmp_path: Path, image: str, program: str) -> Finding:
    made = Project(
        tmp_path / "project",
        compute={
            "docker_image": image,
            "stages": {
                "analyze": {"executor": "docker", "command": [program, "-l"]},
            },
        },
    )
    settings = load_settings(made.config, {})
    (found,) = (
        one
        for one in backends.check_backends(settings, settings.run_environment(os.environ))
        if one.subject.startswith("analyze")
    )
    return found


def test_check_runs_a_job_in_the_image_of_the_analysis(tmp_path: Path) -> None:
    found = check_of_analysis(tmp_path, small_image(), "wc")

    assert (found.level, found.subject) == ("ok", f"analyze on docker ({small_image()})")
    assert found.text.startswith("a job ran on ")


@pytest.mark.exhaustive
def test_check_tells_that_the_image_of_the_analysis_lacks_its_program(tmp_path: Path) -> None:
    found = check_of_analysis(tmp_path, small_image(), "no-such-program")

    assert found.level == "fault"
    assert found.text.endswith("exit code 127: no program no-such-program there")


@pytest.mark.exhaustive
def test_check_cannot_look_into_an_image_without_a_shell_and_that_is_no_fault(
    tmp_path: Path,
) -> None:
    found = check_of_analysis(tmp_path, shell_less_image(), "wc")

    assert "the image has no sh" in found.text
    assert found.level == "warning"
