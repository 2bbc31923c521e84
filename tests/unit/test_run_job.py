"""bash/run_job.sh: claim, run, leave the exit code."""

import socket
import subprocess
from pathlib import Path

import pytest

from ds_flow.dispatch.rounds import RUN_JOB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "a round's folder"
    made.mkdir()
    return made


def put(folder: Path, index: int, *args: str) -> None:
    (folder / f"{index}.args").write_bytes(b"".join(arg.encode() + b"\0" for arg in args))


def run(folder: Path, *indices: int) -> int:
    command = ["bash", str(RUN_JOB), str(folder), *map(str, indices)]
    return subprocess.run(command, check=False).returncode


def exit_code(folder: Path, index: int) -> str:
    return (folder / f"{index}.exit").read_text().split()[0]


def test_a_job_leaves_its_claim_its_log_and_its_exit_code(folder: Path) -> None:
    put(folder, 1, "bash", "-c", "echo out; echo err >&2; exit 3")

    assert run(folder, 1) == 3

    assert (folder / "1.log").read_text() == "out\nerr\n"
    assert exit_code(folder, 1) == "3"
    host, native_id, started_at = (folder / "1.claim").read_text().split()
    assert host == socket.gethostname()
    assert int(native_id) > 1
    assert int(started_at) > 1_700_000_000
    assert not (folder / "1.exit.part").exists()


def test_a_log_is_its_owner_s_alone_and_what_the_job_makes_is_as_ever(folder: Path) -> None:
    put(folder, 1, "touch", f"{folder}/made")

    assert run(folder, 1) == 0

    assert (folder / "1.log").stat().st_mode & 0o077 == 0
    assert (folder / "made").stat().st_mode & 0o044


def test_a_claimed_job_does_not_run_again(folder: Path) -> None:
    put(folder, 1, "touch", f"{folder}/ran")
    (folder / "1.claim").write_text("elsewhere 1 1\n")

    assert run(folder, 1) == 0

    assert not (folder / "ran").exists()
    assert not (folder / "1.exit").exists()


def test_one_job_s_failure_does_not_stop_the_next(folder: Path) -> None:
    put(folder, 1, "false")
    put(folder, 2, "true")

    assert run(folder, 1, 2) == 1

    assert [exit_code(folder, index) for index in (1, 2)] == ["1", "0"]


@pytest.mark.parametrize(
    "arg", ["a b", "$(touch x)", "'\"", "*", "-rf", "", "two\nlines", "\\x41", "é", "; exit 9"]
)
def test_an_argument_arrives_as_it_was_given(folder: Path, arg: str) -> None:
    put(folder, 1, "printf", "[%s]", arg)

    assert run(folder, 1) == 0

    assert (folder / "1.log").read_text() == f"[{arg}]"


def test_a_job_reads_its_own_input_or_none(folder: Path) -> None:
    put(folder, 1, "cat")
    put(folder, 2, "cat")
    (folder / "1.stdin").write_text("for me")

    assert run(folder, 1, 2) == 0

    assert [(folder / f"{index}.log").read_text() for index in (1, 2)] == ["for me", ""]


def test_a_command_that_is_missing_is_its_own_fault(folder: Path) -> None:
    put(folder, 1, "no-such-command")

    assert run(folder, 1) == 127
    assert "no-such-command" in (folder / "1.log").read_text()


def test_a_job_s_scratch_files_lie_in_its_batch_s_work_directory(tmp_path: Path) -> None:
    work = tmp_path / "jobs" / "0123456789"
    folder = work / "jobs" / "combine" / "1"
    for made in (folder, work / "tmp"):
        made.mkdir(parents=True)
    put(folder, 1, "mktemp")

    assert run(folder, 1) == 0

    assert Path((folder / "1.log").read_text().strip()).parent == work / "tmp"
