"""A project in a folder of its own, and the real command line that works on it."""

import csv
import fcntl
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ds_flow.core.manifest import Manifest
from ds_flow.core.program import CHECKOUT
from ds_flow.core.states import ATTEMPT_MARK, FileState, RunState
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.queries import Reading
from ds_flow.ledger.rows import RunRow
from ds_flow.work.published import published_manifests, read_manifest

DS_FLOW = Path(sys.executable).with_name("ds-flow")
# What stays in the work folder when nothing runs: locks, what was learnt of LSF, the place, and
# what a daemon leaves for `status`.
KEPT_IN_WORK = {
    *("ds-flow.lock", "publish.lock", "gc.lock", "lsf.json", "slurm.json", "project.json"),
    *("daemon.json", "in_force.json", "alerts", "receipts", "deliver"),
}
NAMELESS = ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER", "LOGNAME")

TRANSFORM = '''
"""What a team's transform may do: wait, raise, crash. A gate is passed unless a test holds it."""

import fcntl
import itertools
import json
import os
import signal
from pathlib import Path

GATES = Path(__file__).parent / "gates"
calls = 0


def transform(frame):
    global calls
    calls += 1
    wait_at(f"call{calls}")
    if "gate" in frame:
        wait_at(frame["gate"].iloc[0])
    if "raise" in frame:
        raise ValueError(frame["raise"].iloc[0])
    if "crash" in frame:
        os.kill(os.getpid(), signal.SIGSEGV)
    return frame


def wait_at(name):
    if (GATES / name).exists():
        (GATES / f"{name}.reached").touch()
        with (GATES / name).open() as gate:
            fcntl.flock(gate, fcntl.LOCK_SH)
'''


def until(
    what: str,
    is_true: Callable[[], object],
    *,
    every: float = 0.03,
    looks: int | None = None,
    while_lives: "subprocess.Popen[Any] | None" = None,
) -> None:
    """Wait for a condition. In a test, only the test's own time limit ends the wait.

    It fails at once where the process that should bring the condition about has died,
    and after a number of looks where nobody else sets a limit.
    """
    never = threading.Event()
    for look in itertools.count(1):
        is_over = while_lives is not None and while_lives.poll() is not None
        if is_true():
            return
        assert not is_over, f"it died before {what}"
        assert look != looks, f"in {looks} looks it never came to be that {what}"
        never.wait(every)


def readable(source: socket.socket) -> bool:
    return bool(select.select([source], [], [], 0)[0])


def table(name: str, **columns: str) -> str:
    """A small CSV file whose ids are found nowhere else."""
    lines = [",".join([row, *columns.values()]) for row in ids(name)]
    return "\n".join([",".join(["id", *columns]), *lines, ""])


def ids(name: str) -> list[str]:
    return [f"{name}-{number}" for number in range(3)]


class Gate:
    """A moment that lasts: whoever comes to it waits until the test lets it pass."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._held, fcntl.LOCK_EX)

    @property
    def is_reached(self) -> bool:
        return self._mark().exists() or self._is_waited_for()

    def _mark(self) -> Path:
        return self.path.with_name(f"{self.path.name}.reached")

    def _is_waited_for(self) -> bool:
        """Whether somebody's flock(2) waits for ours: proc_locks(5) shows that by an arrow."""
        inode = f":{os.fstat(self._held).st_ino} "
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        return any("->" in line and inode in line for line in locks)

    def wait(self) -> None:
        until(f"somebody came to the gate {self.path.name}", lambda: self.is_reached)

    def forget(self) -> None:
        """Forget who has come here so far."""
        self._mark().unlink(missing_ok=True)

    def open(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


class Project:
    """A folder with settings, an inbox and a transform; `start` and `once` work on it for real."""

    def __init__(self, root: Path, **given: Any) -> None:
        self.place(root)
        for folder in (self.inbox, self.config.parent):
            folder.mkdir(parents=True)
        (root / "gated.py").write_text(TRANSFORM, encoding="utf-8")
        self.configure(**given)

    def place(self, root: Path) -> None:
        """Work on the project that lies in this folder, be it made here or put here."""
        self.root = root
        self.inbox, self.out, self.log = root / "data", root / "out", root / "log"
        self.config = root / "config" / "settings.yaml"
        self.ledger = self.out / "ledger.db"
        self.prefix: tuple[str, ...] = ()
        self.patience_s: float | None = None  # with one command; a test has its own limit
        self.environment: dict[str, str] = {"PROCESS_TAG": "spring"}
        self._daemon: subprocess.Popen[bytes] | None = None

    def configure(self, **given: Any) -> None:
        """Write the settings: quick ones, with the given ones over them."""
        sections: dict[str, Any] = {
            "project_name": "story",
            "paths": {"input_pattern": "data/student_*.csv", "output_dir": "out", "log_dir": "log"},
            "watch": {"quiet_seconds": 0.4, "rescan_seconds": 60},
            "batch": {"quiet_seconds": 0.5},
            "run": {
                "retry_first_seconds": 0.2,
                "stop_grace_seconds": 30,
                "min_free_mb": 0,
                "inherit": ["PYTHONPATH", "END_GATE", "STEPS_*"],
            },
            "compute": {"lsf_queue": "short", "transform": "gated:transform"},
            "schedule": [],
        }
        for name, section in given.items():
            is_section = isinstance(section, dict)
            sections[name] = {**sections.get(name, {}), **section} if is_section else section
        self.config.write_text(yaml.safe_dump(sections), encoding="utf-8")

    # ------------------------------------------------------------------ inputs

    def drop(self, name: str, content: str | bytes) -> Path:
        """Put a whole file into the inbox."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def gate(self, name: str) -> Gate:
        return Gate(self.root / "gates" / name)

    def hold_end(self) -> None:
        """Let the step `end` wait at the gate `end`, if a test holds it. Before the start."""
        folder = Path(__file__).with_name("held_end")
        own = {"PYTHONPATH": str(folder), "END_GATE": str(self.root / "gates" / "end")}
        self.environment = {**self.environment, **own}

    # ------------------------------------------------------------------ the daemon

    def command(self, *words: str) -> list[str]:
        return [*self.prefix, str(DS_FLOW), *words]

    def environ(self) -> dict[str, str]:
        own = {"DS_FLOW_CONFIG": str(self.config), **self.environment}
        kept = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        return {**kept, **own}

    def start(self) -> int:
        """Start the daemon and wait until it says to systemd that it is ready; its pid."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            address = f"ds-flow-test-{os.getpid()}-{id(self)}"
            systemd.bind(f"\0{address}")
            with (self.root / "daemon.log").open("ab") as log:
                self._daemon = subprocess.Popen(
                    self.command("serve"),
                    env={**self.environ(), "NOTIFY_SOCKET": f"@{address}"},
                    stdout=log,
                    stderr=log,
                )
            daemon = self._daemon

            def is_ready() -> bool:
                heard = readable(systemd) and systemd.recv(200).startswith(b"READY=1")
                return heard or daemon.poll() is not None

            until("the daemon was ready", is_ready)
            assert daemon.poll() is None, self.said()
        return self._daemon.pid

    def signal(self, number: signal.Signals) -> None:
        assert self._daemon is not None
        self._daemon.send_signal(number)

    def kill(self) -> None:
        """End the daemon alone, as a crash would."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def stop(self) -> int:
        """End the daemon as systemd does; its exit code."""
        self.signal(signal.SIGTERM)
        return self.stopped()

    def stopped(self) -> int:
        """Wait for the daemon's end; its exit code."""
        assert self._daemon is not None
        code = self._daemon.wait()
        self._daemon = None
        return code

    def ds_flow(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.command(*words),
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
            timeout=self.patience_s,
        )

    def once(self) -> subprocess.CompletedProcess[str]:
        """Work off everything that is there."""
        return self.ds_flow("once")

    def said(self) -> str:
        """What the daemon wrote."""
        path = self.root / "daemon.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def processes(self, needle: str = "") -> list[int]:
        """Every live process of this project whose command line holds the text."""
        mine = f"\0DS_FLOW_CONFIG={self.config}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and mine in b"\0" + (entry / "environ").read_bytes():
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found += [int(entry.name)] if needle in line else []
            except (OSError, UnicodeDecodeError):
                continue
        return found

    def marked(self) -> list[int]:
        """Every live process of any attempt of this project."""
        found = []
        for pid in self.processes():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            found += [pid] if f"\0{ATTEMPT_MARK}=".encode() in environment else []
        return found

    def end_everything(self) -> None:
        """Kill every process of this project, as a power loss would."""
        while left := self.processes():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.kill()
        self.kill()

    # ------------------------------------------------------------------ what it knows

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        ledger = Ledger(self.ledger)
        try:
            yield ledger.read
        finally:
            ledger.close()

    def states(self, name: str) -> list[FileState]:
        """The states of all versions of a file, oldest first."""
        with self.reading() as read:
            return [row.state for row in read.versions(f"data/{name}")]

    def reason(self, name: str) -> str:
        """Why the newest version of a file is where it is."""
        with self.reading() as read:
            return read.versions(f"data/{name}")[-1].reason

    def runs(self, state: RunState | None = None) -> list[RunRow]:
        with self.reading() as read:
            return [run for run in read.runs() if state in {None, run.state}]

    def is_quiet(self) -> bool:
        """Whether no file waits and no batch is to run."""
        with self.reading() as read:
            return not (read.waiting() or read.live_runs() or read.next_due())

    def wait_processed(self, *names: str, versions: int = 1) -> None:
        wanted = [FileState.PROCESSED] * versions

        def are_processed() -> bool:
            return all(self.states(name) == wanted for name in names) and self.is_quiet()

        until(f"{names} were processed and nothing was left to do", are_processed)

    def wait_known(self, name: str, version: int = 1) -> None:
        until(f"{name} was admitted", lambda: len(self.states(name)) >= version)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ds_flow("status", "--json").stdout)
        return found

    # ------------------------------------------------------------------ what it published

    def manifests(self) -> list[Manifest]:
        return [read_manifest(path) for path in published_manifests(self.out)]

    def names(self) -> set[str]:
        """Every published file."""
        return {
            path.name for path in self.out.iterdir() if path.suffix in {".csv", ".json", ".parquet"}
        }

    def combined(self) -> list[dict[str, str]]:
        """The rows of all final files."""
        return [row for path in sorted(self.out.glob("final_*.csv")) for row in rows_of(path)]

    def published_ids(self) -> list[str]:
        return sorted(row["id"] for row in self.combined())

    def leftovers(self) -> list[str]:
        """What lies in the work folder that should not when nothing runs."""
        names = {path.name for path in (self.out / ".work").iterdir()}
        return sorted(names - KEPT_IN_WORK)

    def strays(self) -> set[str]:
        """Outputs that no manifest names, and names without an output."""
        named = {f"manifest_{manifest.run_id}.json" for manifest in self.manifests()}
        named |= {out.name for manifest in self.manifests() for out in manifest.outputs}
        named |= {manifest.profile for manifest in self.manifests() if manifest.profile}
        return named ^ self.names()


def flow(
    project: Project, *words: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the flow as a user without a name, which Metaflow alone would refuse."""
    kept = {name: text for name, text in project.environ().items() if name not in NAMELESS}
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "flows" / "student_flow.py"), "--no-pylint", *words],
        env=kept,
        cwd=cwd or project.root,
        capture_output=True,
        text=True,
        check=False,
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))
