"""What people are told of a batch's jobs, from the files of its rounds alone."""

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from clock import machine_in
from ds_flow.core.states import FailureClass
from ds_flow.dispatch import JobSpec, Round, open_round
from ds_flow.dispatch.cluster.handover import file_of
from ds_flow.dispatch.docker.handover import SILENT
from ds_flow.dispatch.progress import jobs_in, stages_in, told
from ds_flow.dispatch.rounds import Outcome
from samples import BATCH

FILE = "lsf/handover.json"
BEGAN, ENDED = 1_800_000_000, 1_800_000_060
BEGAN_AT = "2027-01-15T09:00:00+01:00"  # in Berlin


def opened(
    jobs_dir: Path, *keys: str, stage: str = "process-1of1", executor: str = "lsf", attempt: int = 1
) -> Round:
    jobs = [JobSpec(key=key, command=("true",)) for key in keys]
    commands = [job.command for job in jobs]
    mark = f"{BATCH}/{attempt}"
    return open_round(jobs_dir / stage, BATCH, mark, executor, jobs, commands)


def began(of: Round, index: int, native_id: str = "123[1]") -> None:
    (of.folder / f"{index}.claim").write_text(f"node7 {native_id} {BEGAN}\n")


def ended(of: Round, index: int, code: int = 0) -> None:
    began(of, index)
    (of.folder / f"{index}.exit").write_text(f"{code} {ENDED}\n")


def submitted(of: Round, *pending: str) -> None:
    chunk = {"name": of.name, "first": 1, "count": len(of.jobs), "asked_at": BEGAN}
    file_of(of).parent.mkdir()
    text = json.dumps({"chunks": [{**chunk, "job_ids": ["123"]}], "pending": pending})
    file_of(of).write_text(text)


def closed(of: Round, failure: FailureClass | None, reason: str) -> None:
    outcomes = [
        Outcome(
            key=job.key,
            index=index,
            round=of.name,
            opened_by=of.opened_by,
            failure=failure,
            reason=reason,
            exit_code=None,
            host="node7",
            native_id="123[1]",
            started_at="",
            ended_at="",
        )
        for index, job in enumerate(of.jobs, 1)
    ]
    of.close(outcomes)


def test_a_stage_tells_how_many_jobs_are_in_each_state_since_when_and_why(tmp_path: Path) -> None:
    of = opened(tmp_path, "a", "b", "c", "d", "e")
    submitted(of, "Job slot limit reached")
    began(of, 1)
    ended(of, 2)
    ended(of, 3, code=3)

    (stage,) = stages_in(tmp_path)

    assert (stage.pending, stage.running, stage.done, stage.failed) == (2, 1, 1, 1)
    assert stage.native_ids == ["123"]
    with machine_in("Europe/Berlin"):
        words = told(stage)
    assert words == (
        f"process on lsf: 2 pending since {BEGAN_AT} (Job slot limit reached),"
        f" 1 running since {BEGAN_AT}, 1 done, 1 failed; ids 123"
    )


def test_each_job_has_its_place_and_its_native_id_also_before_it_began(tmp_path: Path) -> None:
    of = opened(tmp_path, "a", "b", "c")
    submitted(of, "No host has enough memory")
    ended(of, 1, code=137)
    began(of, 2, "123[2]")

    one, two, three = jobs_in(tmp_path)

    assert (one.state, one.exit_code, one.reason) == ("failed", 137, "killed by SIGKILL")
    assert (two.state, two.host, two.native_id) == ("running", "node7", "123[2]")
    assert (three.state, three.native_id, three.reason) == (
        "pending",
        "123[3]",
        "No host has enough memory",
    )
    assert three.submitted_at


def test_a_job_counts_as_its_last_round_has_it_and_the_rounds_before_are_named(
    tmp_path: Path,
) -> None:
    first = opened(tmp_path, "a", "b")
    closed(first, FailureClass.KILLED, "killed by SIGTERM")
    ended(opened(tmp_path, "a"), 1)

    (stage,) = stages_in(tmp_path)

    assert (stage.done, stage.failed) == (1, 1)
    again = f"process job {first.name}[1] on node7 (123[1]): killed by SIGTERM"
    assert stage.done_again == [again]
    assert told(stage).endswith(f"failed and done again: {again}")


def test_of_many_ids_and_jobs_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    keys = [str(number) for number in range(5)]
    closed(opened(tmp_path, *keys, executor="docker"), FailureClass.KILLED, "killed")
    again = opened(tmp_path, *keys, executor="docker")
    for index in again.indices:
        began(again, index, f"{index}" * 12)

    (stage,) = stages_in(tmp_path)

    assert len(stage.native_ids) == len(stage.done_again) == 5
    assert f"ids {'1' * 12}, {'2' * 12}, {'3' * 12} and 2 more;" in told(stage)
    assert told(stage).endswith(" and 2 more")


def test_stages_come_in_the_order_of_their_folders_and_align_is_part_of_combine(
    tmp_path: Path,
) -> None:
    for name in ("process-2of2", "process-1of2", "combine", "align"):
        ended(opened(tmp_path, name, stage=name), 1)

    found = {stage.stage: stage.done for stage in stages_in(tmp_path)}

    assert found == {"process": 2, "combine": 2}


def test_a_local_job_whose_processes_are_gone_does_not_count_as_running(tmp_path: Path) -> None:
    of = opened(tmp_path, "a", "b", executor="local")
    began(of, 1)
    (of.folder / "handed_over").touch()
    with (of.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert [job.state for job in jobs_in(tmp_path)] == ["running", "pending"]

    assert [(job.state, job.reason) for job in jobs_in(tmp_path)] == [
        ("failed", "ended without leaving an exit code")
    ] * 2


def test_a_look_never_takes_the_lock_of_a_local_round_that_is_about_to_start(
    tmp_path: Path,
) -> None:
    of = opened(tmp_path, "a", executor="local")

    assert [job.state for job in jobs_in(tmp_path)] == ["pending"]
    assert not (of.folder / "lock").exists()


def test_a_batch_without_jobs_has_none_to_tell_of(tmp_path: Path) -> None:
    assert jobs_in(tmp_path / "jobs") == []
    assert stages_in(tmp_path / "jobs") == []


# --------------------------------------------------------------------------- what jobs may write


def linked(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    target.write_text(f"secret 7 {BEGAN}\n" if path.suffix == ".claim" else f"0 {ENDED}\n")
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def piped(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, 2**36)


def a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize("name", ["1.claim", "1.exit", FILE, SILENT, "verdict.json", "round.json"])
@pytest.mark.parametrize("put", [linked, piped, endless, a_folder])
def test_what_a_job_puts_in_place_of_a_file_is_not_followed_awaited_or_read_whole(
    tmp_path: Path, name: str, put: Callable[[Path], None]
) -> None:
    of = opened(tmp_path, "a", executor="docker" if name == SILENT else "lsf")
    submitted(of, "why")
    (of.folder / SILENT).parent.mkdir(exist_ok=True)
    put(of.folder / name)

    found = jobs_in(tmp_path)

    assert not any(job.silent for job in found)
    assert [(job.state, job.host, job.exit_code) for job in found] == (
        [] if name == "round.json" else [("pending", "", None)]
    )


ODD_HANDOVERS: tuple[object, ...] = (
    {"chunks": [], "pending": []},
    {"chunks": [{"name": "x", "first": 1, "count": 1, "asked_at": "soon", "job_ids": [7]}]},
    {"chunks": [{"name": "x", "first": "1", "count": 1}]},
    {"chunks": [{"name": "x", "first": 1, "count": 1, "asked_at": 1e300}], "pending": 7},
    {"chunks": [{"name": "x", "first": 1, "count": 1}], "pending": {"a": 1}},
    [],
)


@pytest.mark.parametrize("content", ODD_HANDOVERS)
def test_a_handover_of_any_content_is_told_of_in_words(tmp_path: Path, content: object) -> None:
    of = opened(tmp_path, "a")
    file_of(of).parent.mkdir()
    file_of(of).write_text(json.dumps(content))

    (job,) = jobs_in(tmp_path)
    (stage,) = stages_in(tmp_path)

    assert job.state == "pending"
    assert told(stage).startswith("process on lsf: 1 pending")
    assert json.dumps([asdict(job), asdict(stage)])


def test_a_reason_without_end_is_cut(tmp_path: Path) -> None:
    of = opened(tmp_path, "a")
    submitted(of, "x" * 10**6)

    (job,) = jobs_in(tmp_path)

    assert len(job.reason) == 500


def test_a_verdict_of_odd_values_is_told_of_in_words(tmp_path: Path) -> None:
    of = opened(tmp_path, "a", "b")
    closed(of, FailureClass.KILLED, "")
    rows = json.loads((of.folder / "verdict.json").read_text())
    odd = {"reason": {"a": 1}, "host": [7], "native_id": "x" * 10**6, "exit_code": "none"}
    (of.folder / "verdict.json").write_text(json.dumps([{**row, **odd} for row in rows]))

    job, _ = jobs_in(tmp_path)

    assert (job.reason, job.host, job.exit_code) == ("{'a': 1}", "[7]", None)
    assert len(job.native_id) == 500
