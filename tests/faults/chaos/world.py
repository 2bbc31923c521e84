"""A project under chaos: its daemon is kept alive as systemd would, whatever is done to it.

It lies in a mount namespace of its own, with `out/`, `ledger/` and `log/` on small file systems
that can be filled, away from the inbox's.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from project import Project

MOUNTS = {"out": 1024, "ledger": 256, "log": 64}  # MB
RESTART_SECONDS = 0.5
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
IN_NAMESPACE = "CHAOS_NAMESPACE"

# Root obeys file modes without these two, as the daemon's own user does.
OBEYING = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
# In a user namespace of its own the daemon has its own limits of inotify.
NO_INOTIFY = (
    "unshare",
    *("--user", "--map-root-user", "sh", "-c"),
    'echo 0 >/proc/sys/user/max_inotify_instances; exec "$@"',
    "sh",
)

SETTINGS: dict[str, dict[str, Any]] = {
    "paths": {
        "input_pattern": "data/student_*.csv",
        "output_dir": "out",
        "log_dir": "log",
        "ledger": "ledger/ledger.db",
    },
    "watch": {"quiet_seconds": 0.3, "rescan_seconds": 5, "poll_seconds": 1},
    "batch": {"quiet_seconds": 0.5, "max_wait_seconds": 5, "max_files": 2000},
    "run": {"retry_first_seconds": 0.5, "stop_grace_seconds": 3, "attempts": 10},
    "compute": {"transform": "transforms:transform"},
}


NO_MORE: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
AFTER = os.environ.get("CHAOS_AFTER", "")
"""What becomes of published files: archive, elsewhere (an archive on another disk), delete."""

if AFTER:
    rule = "delete" if AFTER == "delete" else "archive"
    SETTINGS["inbox"] = {"after": rule, "rejected": "move"}
    MOUNTS |= {"archive": 512} if AFTER == "elsewhere" else {}


def enter_namespace() -> None:
    """Run this program again where its mounts are its own; return there."""
    if os.environ.get(IN_NAMESPACE):
        return
    if os.geteuid() != 0:
        sys.exit("chaos mounts file systems of its own: run it as root")
    for program in ("unshare", "setpriv", "strace", "rsync", "scp"):
        if shutil.which(program) is None:
            sys.exit(f"chaos needs {program}")
    if not FAKETIME.exists():
        print(f"the clock will not jump: there is no {FAKETIME}")
    os.environ[IN_NAMESPACE] = "1"
    again = [sys.executable, "-m", "chaos", *sys.argv[1:]]
    unshare = ["unshare", "--mount", "--propagation", "private", "--"]
    os.execvp("unshare", [*unshare, *again])  # noqa: S606 - no shell, as everywhere


class World(Project):
    """A project whose daemon is started again whenever it is not there."""

    def __init__(
        self,
        root: Path,
        compute: Mapping[str, Any],
        environment: Mapping[str, str],
        *,
        clock: bool,
        more: Mapping[str, Mapping[str, Any]] = NO_MORE,
    ) -> None:
        given = {name: {**keys, **more.get(name, {})} for name, keys in SETTINGS.items()}
        super().__init__(root, **{**given, "compute": {**given["compute"], **compute}})
        self.environment |= environment
        self.patience_s = 600.0
        for name, size_mb in MOUNTS.items():
            (root / name).mkdir(exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=755", "tmpfs"]
            subprocess.run([*command, str(root / name)], check=True)
        self.ledger = root / "ledger" / "ledger.db"
        self.starts = 0
        self.exits: dict[int, int] = {}  # exit code -> how often the daemon ended with it by itself
        self.is_held = False  # nobody starts it for now
        self._since_s = 0.0
        self.clock = root / "clock"  # what the daemon takes for the time
        self.clock.write_text("+0\n")
        self.plain = OBEYING
        self.prefix = OBEYING
        if clock and FAKETIME.exists():
            self.environment |= {
                "LD_PRELOAD": str(FAKETIME),
                "PYTHONPATH": str(Path(__file__).parent / "clock"),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }

    def keep(self) -> None:
        """Start the daemon if it is not there, at most once in a while."""
        if self._daemon is not None and (code := self._daemon.poll()) is not None:
            self.exits[code] = self.exits.get(code, 0) + 1
            self._daemon = None
        now_s = time.monotonic()
        if self._daemon is not None or self.is_held or now_s - self._since_s < RESTART_SECONDS:
            return
        self._since_s = now_s
        self.starts += 1
        with (self.root / "daemon.log").open("ab") as log:
            command = self.command("serve")
            self._daemon = subprocess.Popen(command, env=self.environ(), stdout=log, stderr=log)

    @property
    def daemon(self) -> int | None:
        """The pid of the daemon, or of what it was started through."""
        return self._daemon.pid if self._daemon is not None else None

    def kill_all(self, pids: list[int]) -> int:
        """Kill processes that were found a moment ago; how many there were."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    def end(self) -> None:
        """Stop the daemon in order."""
        if self._daemon is not None:
            self.stop()

    def unmount(self) -> None:
        for name in MOUNTS:
            subprocess.run(["umount", "--lazy", str(self.root / name)], check=False)
