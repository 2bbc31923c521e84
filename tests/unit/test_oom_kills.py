"""Both ways to count kills, and what run_job.sh makes of it, over files for the kernel's."""

import subprocess
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT
from ds_flow.system import count_oom_kills, oom_kills

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
            (folder / script).write_text(text.replace("/proc/self/cgroup", f"{folder}/cgroup"))

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
