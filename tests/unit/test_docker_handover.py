"""What a round keeps of its containers, and what is said of an engine. No real one is asked."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ds_flow.core.errors import DispatchError
from ds_flow.core.plan import DockerSite
from ds_flow.dispatch.docker import texts
from ds_flow.dispatch.docker.backend import Docker
from ds_flow.dispatch.docker.client import DockerClient, EngineSilentError
from ds_flow.dispatch.docker.handover import ASKED, SILENT, Handover
from ds_flow.dispatch.docker.texts import Container
from ds_flow.dispatch.rounds import JobSpec, Round
from power import Power
from samples import BATCH

JOB = JobSpec(key="a", command=("true",))
CONTAINER = Container(
    id="id",
    folder="mark",
    status="exited",
    exit_code=0,
    is_out_of_memory=False,
    error="",
    started_s=1.0,
    ended_s=2.0,
)
TAKEN_SAYS_DOCKER = (  # 28.2
    'docker: Error response from daemon: Conflict. The container name "/name-1" is already in use'
    ' by container "abc68e". You have to remove (or rename) that container to be able to reuse'
    " that name."
)
TAKEN_SAYS_PODMAN = (  # 4.3
    'Error: creating container storage: the container name "name-1" is already in use by abc68e.'
    " You have to remove that container to be able to reuse that name: that name is already in use"
)


@pytest.fixture
def batch_round(tmp_path: Path) -> Round:
    return Round(tmp_path, "name", f"{BATCH}/1", "docker", (JOB,))


def backend(command: Path) -> Docker:
    return Docker(DockerClient(DockerSite(command=str(command)), {}))


def test_the_end_of_a_container_and_its_exit_code_are_kept(
    power: Power, batch_round: Round
) -> None:
    Handover(batch_round).put_end(1, CONTAINER, exit_code=0)

    assert power.keeps(batch_round.folder / "1.exit", batch_round.folder / "1.ended.json")


def test_why_an_engine_is_silent_is_written_only_when_it_changes(batch_round: Round) -> None:
    handover, inodes = Handover(batch_round), []
    for why in ("no answer", "no answer", "refused", ""):
        handover.note_silent(why)
        assert handover.silent == why
        inodes.append((batch_round.folder / SILENT).stat().st_ino)

    assert inodes[0] == inodes[1]
    assert len(set(inodes)) > 1


@pytest.mark.parametrize(
    ("error", "is_full"),
    [("mkdir /x: No space left on device", True), ("no such image", False)],
)
def test_an_engine_s_full_disk_is_said_so(error: str, *, is_full: bool) -> None:
    created = replace(CONTAINER, status="created", error=error)

    _, reason = texts.end_of(created, limit_minutes=1)

    assert ("the engine's disk is full" in reason) == is_full
    assert error in reason


def test_a_cancelled_round_is_handed_over_without_an_engine(batch_round: Round) -> None:
    Handover(batch_round).note_cancelled()

    assert backend(batch_round.folder / "no engine").submit(batch_round)


def test_a_container_that_was_asked_for_just_now_may_still_come(
    batch_round: Round, tmp_path: Path
) -> None:
    knows_none = tmp_path / "engine"
    knows_none.write_text("#!/bin/sh\n")
    knows_none.chmod(0o755)
    Handover(batch_round).note_asked(1)
    asked = batch_round.folder / f"1{ASKED}"

    assert not backend(knows_none).cancel(batch_round)
    os.utime(asked, (0, 0))
    assert backend(knows_none).cancel(batch_round)


@pytest.mark.parametrize("taken", [TAKEN_SAYS_DOCKER, TAKEN_SAYS_PODMAN])
def test_a_name_whose_container_never_shows_is_not_waited_for_without_end(
    batch_round: Round, tmp_path: Path, taken: str
) -> None:
    engine = tmp_path / "engine"
    engine.write_text(f"""#!/bin/sh
case "$1" in
image) echo '[{{"Id": "sha256:1", "RepoDigests": []}}]' ;;
container) echo "Error: No such container: $3" >&2; exit 1 ;;
run) echo '{taken}' >&2; exit 125 ;;
esac
""")
    engine.chmod(0o755)
    patient, impatient = backend(engine), backend(engine)
    impatient.client.site = replace(impatient.client.site, unknown_minutes=0)

    assert [patient.submit(batch_round) for _ in range(2)] == [False] * 2
    assert not impatient.submit(batch_round)
    with pytest.raises(DispatchError, match="is already in use"):
        impatient.submit(batch_round)


def test_an_engine_that_answers_too_late_is_silent(batch_round: Round, tmp_path: Path) -> None:
    hangs = tmp_path / "engine"
    hangs.write_text("#!/bin/sh\nexec sleep 1000\n")
    hangs.chmod(0o755)
    client = DockerClient(DockerSite(command=str(hangs), command_seconds=0.1), {})

    with pytest.raises(EngineSilentError, match=r"no answer in 0\.1 s"):
        client.containers_of(batch_round.folder)


@pytest.mark.parametrize("words", ["Welcome!", "{", "[{}]", '[{"State": 1}]', "[1]"])
def test_an_engine_that_answers_in_other_words_is_silent(tmp_path: Path, words: str) -> None:
    speaks = tmp_path / "engine"
    speaks.write_text(f"#!/bin/sh\necho '{words}'\n")
    speaks.chmod(0o755)
    client = DockerClient(DockerSite(command=str(speaks)), {})

    for ask in (
        lambda: client.inspect(["a"]),
        lambda: client.find_image("own"),
        lambda: client.containers_of(tmp_path) if words == "Welcome!" else client.inspect(["a"]),
    ):
        with pytest.raises(EngineSilentError, match="not that of an engine"):
            ask()
