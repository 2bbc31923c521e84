"""A real systemd as PID 1 on a throw-away view of this machine; needs Linux, root and systemd."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from project import until

SCRIPT = Path(__file__).with_suffix(".sh")
CHECKOUT = SCRIPT.parents[2]
CGROUPS = Path("/sys/fs/cgroup")
NAME = "ds-flow-box-"  # of our cgroups, before our pid
# In there another Python is used, and what this one compiled or was told is none of its business.
NOT_TAKEN_ALONG = ("PYTHON", "VIRTUAL_ENV", "PYTEST", "DS_FLOW", "UV_", "PYENV", "NOTIFY_SOCKET")


@dataclass(frozen=True, slots=True)
class Box:
    """A machine of its own, for as long as the process `pid`, its systemd, lives."""

    pid: int

    def path(self, name: str) -> Path:
        """A file in there, as this process reaches it."""
        return Path(f"/proc/{self.pid}/root{name}")

    def command(self, *words: str) -> list[str]:
        namespaces = ("--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd")
        return ["nsenter", f"--target={self.pid}", *namespaces, "--", *words]

    def run(self, *words: str, check: bool = True, stdin: str = "") -> str:
        """Run a command as root in there; what it printed."""
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        if check and done.returncode:
            said = done.stdout + done.stderr
            raise AssertionError(f"{' '.join(words)} exited {done.returncode}:\n{said}")
        return done.stdout.strip()

    def is_up(self) -> bool:
        return "running" in self.run("systemctl", "is-system-running", check=False).split()


def environment() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if not name.startswith(NOT_TAKEN_ALONG)
    }


@contextmanager
def booted() -> Iterator[Box]:
    """Boot, and end everything in there afterwards at once, as a power cut would."""
    with TemporaryDirectory(prefix=NAME) as name, _cgroups() as cgroups:
        state = Path(name)
        (state / "box").mkdir()
        log = state / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _boot_command(state, cgroups),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # an interrupt of the tests is none of systemd's
            )
        try:
            yield _wait_until_up(process, state / "pid", log)
        finally:
            process.kill()  # unshare; its child dies with it, and all of the namespace with that
            process.wait()


def _boot_command(state: Path, cgroups: Sequence[Path]) -> list[str]:
    """Each process dies with its parent: this one, unshare, systemd."""
    return [
        *(
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--",
        ),
        *("bash", str(SCRIPT), str(state), str(CHECKOUT), *map(str, cgroups)),
    ]


def _wait_until_up(process: subprocess.Popen[bytes], pid_file: Path, log: Path) -> Box:
    def is_up() -> bool:
        assert process.poll() is None, f"systemd did not start:\n{log.read_text()}"
        return pid_file.exists() and Box(int(pid_file.read_text())).is_up()

    until("systemd was up", is_up, every=0.1)
    return Box(int(pid_file.read_text()))


@contextmanager
def _cgroups() -> Iterator[list[Path]]:
    """A cgroup of its own in each hierarchy; removed again with all that grew in it."""
    places = [_hierarchy(line) for line in _hierarchies()]
    for left in (folder for place in places for folder in place.glob(f"{NAME}*")):
        if not Path("/proc", left.name.removeprefix(NAME)).exists():  # its maker was killed
            _is_removed(left)
    made = [place / f"{NAME}{os.getpid()}" for place in places]
    for folder in made:
        folder.mkdir()
        for limit in folder.glob("cpuset.[cm]*s"):  # version 1: none until told, and none can live
            if limit.name in {"cpuset.cpus", "cpuset.mems"}:
                limit.write_bytes((folder.parent / limit.name).read_bytes())
    try:
        yield made
    finally:
        for folder in made:
            until(f"nothing lived in {folder}", partial(_is_removed, folder))


def _hierarchies() -> list[str]:
    return Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()


def _hierarchy(line: str) -> Path:
    """Where one line of cgroups(7) leaves room for a cgroup of ours."""
    number, names, path = line.split(":")
    if number == "0":  # version 2: only at the root may a cgroup hold processes and controllers
        return CGROUPS if (CGROUPS / "cgroup.procs").exists() else CGROUPS / "unified"
    mounted = CGROUPS / names.removeprefix("name=")
    own = mounted / path.lstrip("/")
    return own if own.is_dir() else mounted


def _is_removed(folder: Path) -> bool:
    for inner, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(inner)  # noqa: PTH106 - as os.walk gives it
    return not folder.exists()


if __name__ == "__main__":  # a look around: python tests/support/systemd_box.py COMMAND...
    with booted() as here:
        subprocess.run(here.command(*sys.argv[1:]), env=environment(), check=False)
