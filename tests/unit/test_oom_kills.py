"""Both ways to count kills, and what run_job.sh makes of it, over files for the kernel's."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT
from ds_flow.core.states import starved
from ds_flow.dispatch import JobSpec, fork_program, local, local_jobs, open_round
from ds_flow.system import count_oom_kills, oom_kills
from project import until

V2 = "0::/us\n", "us/memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill {}\noom_group_kill 6\n"
V1 = (
    "9:cpu,cpuacct:/us\n4:memory:/us\n0::/\n",
    "memory/us/memory.oom_control",
    "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
)


class Kernel:
    """A cgroup's count of kills, and copies of the scripts that read it here."""

    def __init__(self, folder: Path, version: tuple[str, str, str]) -> None:
        groups, name, self.text = version
        self.folder, self.count = folder, folder / "sys" / name
        self.count.parent.mkdir(parents=True)
        (folder / "cgroup").write_text(groups)
        for script in ("oom_kills.sh", "run_job.sh"):
            text = (CHECKOUT / "bash" / script).read_text()
            text = text.replace("/sys/fs/cgroup", f"{folder}/sys")
            text = text.replace("/proc/meminfo", f"{folder}/meminfo")
            (folder / script).write_text(text.replace("/proc/self/cgroup", f"{folder}/cgroup"))
        (folder / "meminfo").write_text("MemTotal: 16384000 kB\nMemFree: 1 kB\n")

    def kills(self, count: int) -> str:
        """A command that lets the kernel have killed so many."""
        return f"printf '{self.text.format(count)}' > '{self.count}'"

    def counted(self) -> str:
        script = f". {self.folder}/oom_kills.sh; count_oom_kills; echo $oom_kills"
        return (
            subprocess.run(["bash", "-c", script], check=True, stdout=subprocess.PIPE)
            .stdout[:-1]
            .decode()
        )

    def starved(self, *jobs: str) -> list[bool]:
        """Which of these jobs, one after the other, were killed for want of memory."""
        for index, job in enumerate(jobs, 1):
            (self.folder / f"{index}.args").write_text(f"bash\0-c\0{job}\0")
        indices = [str(index) for index in range(1, len(jobs) + 1)]
        subprocess.run(
            ["bash", str(self.folder / "run_job.sh"), str(self.folder), *indices], check=False
        )
        assert all((self.folder / f"{index}.exit").exists() for index in indices)
        return [(self.folder / f"{index}.starved").exists() for index in indices]

    def allowed(self) -> str:
        """How much memory the kernel allows, as a job's file says it."""
        script = f". {self.folder}/oom_kills.sh; memory_allowed"
        done = subprocess.run(["bash", "-c", script], check=True, stdout=subprocess.PIPE)
        return done.stdout.decode()


@pytest.fixture(params=[V2, V1], ids=["v2", "v1"])
def kernel(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Kernel:
    monkeypatch.setattr(oom_kills, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(oom_kills, "MOUNT", tmp_path / "sys")
    return Kernel(tmp_path, request.param)


def test_kills_are_counted_and_nothing_else_in_the_file(kernel: Kernel) -> None:
    subprocess.run(["bash", "-c", kernel.kills(5)], check=True)

    assert kernel.counted() == "5"
    assert count_oom_kills() == 5


def test_where_the_kernel_counts_nothing_there_was_no_kill(kernel: Kernel) -> None:
    assert kernel.counted() == "0"
    assert count_oom_kills() == 0


def test_only_a_killed_job_during_which_the_count_rose_lacked_memory(kernel: Kernel) -> None:
    die = "kill -KILL $$"

    assert kernel.starved(
        f"{kernel.kills(1)}; {die}",
        die,  # by somebody else: the count is as it was when it began
        f"{kernel.kills(2)}; exit 1",  # a neighbour in its group was killed
        f"{kernel.kills(3)}; {die}",
    ) == [True, False, False, True]
    assert (kernel.folder / "1.starved").read_text() == "16000 host\n"


def test_the_memory_that_is_allowed_is_the_least_of_the_group_and_those_around_it(
    kernel: Kernel,
) -> None:
    name = "memory.max" if kernel.count.name == "memory.events" else "memory.limit_in_bytes"
    own, around = kernel.count.parent / name, kernel.count.parent.parent / name
    unlimited = "max" if name == "memory.max" else "9223372036854771712"

    assert kernel.allowed() == "16000 host\n"
    for inner, outer, said in (
        (unlimited, unlimited, "16000 host"),
        (2**29, unlimited, "512 group"),
        (unlimited, 2**30, "1024 group"),
        (2**30, 2**29, "512 group"),
        (2**40, unlimited, "16000 host"),
    ):
        own.write_text(f"{inner}\n")
        around.write_text(f"{outer}\n")
        assert kernel.allowed() == f"{said}\n"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("512 group", " (its control group allows 512 MB)"),
        ("16000 host", " (its host has 16,000 MB)"),
        ("x group", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_kill_for_want_of_memory_names_how_much_there_was(word: str | None, said: str) -> None:
    assert starved(word) == f"out of memory: killed by the kernel{said}"


def test_a_forked_job_is_told_apart_in_the_same_way(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(argv: Sequence[str]) -> int:
        subprocess.run(["bash", "-c", kernel.kills(int(argv[0]))], check=True)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    monkeypatch.setattr(local_jobs, "OOM_KILLS", kernel.folder / "oom_kills.sh")
    fork_program("dies.py", job)
    jobs = [JobSpec(key=n, command=(sys.executable, "dies.py", n)) for n in ("1", "1", "2")]
    commands = [local.command(one) for one in jobs]
    batch_round = open_round(kernel.folder, "b" * 10, "b/1", "local", jobs, commands)

    assert local.submit(batch_round)
    until("all have ended", (batch_round.folder / "3.exit").exists)

    starved_jobs = [(batch_round.folder / f"{n}.starved") for n in (1, 2, 3)]
    assert [path.exists() for path in starved_jobs] == [True, False, True]
    assert starved_jobs[0].read_text() == "16000 host\n"
