"""What breaks. A fault is a function that may give what undoes it; FAULTS names them all.

Kills are counted; everything else lasts a few seconds and is then taken back.
"""

import os
import random
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.droppers import Dropper
from chaos.world import MOUNTS, NO_INOTIFY, World

Undo = Callable[[], None]


@dataclass(slots=True)
class Chaos:
    """What faults work on, and what they count."""

    world: World
    dropper: Dropper
    rng: random.Random
    kills: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break things: how likely it is beside the others, and how long it lasts."""

    act: Callable[[Chaos], Undo | None]
    weight: int = 1
    seconds: float = 0.0


# --------------------------------------------------------------------------- kills


def kill_daemon(chaos: Chaos) -> None:
    chaos.kills += chaos.world.kill_all([pid for pid in [chaos.world.daemon] if pid])


def kill_run(chaos: Chaos) -> None:
    """One process of a run, whichever: Metaflow, its shell, a task, a job."""
    some = chaos.world.marked()
    if some:
        chaos.kills += chaos.world.kill_all([chaos.rng.choice(some)])


def kill_everything(chaos: Chaos) -> None:
    chaos.kills += chaos.world.kill_all(chaos.world.processes())


def stop_daemon(chaos: Chaos) -> None:
    """As systemd does; it is started again."""
    if chaos.world.daemon is not None:
        with suppress(ProcessLookupError):
            os.kill(chaos.world.daemon, signal.SIGTERM)


def freeze(chaos: Chaos) -> Undo:
    """SIGSTOP to the daemon, or to a run, or to both."""
    daemon = [chaos.world.daemon] if chaos.world.daemon else []
    pids = chaos.rng.choice([daemon, chaos.world.marked(), chaos.world.processes()])
    _send(pids, signal.SIGSTOP)
    return lambda: _send(pids, signal.SIGCONT)


def overflow(chaos: Chaos) -> Undo:
    """More events than the kernel's queue holds, while nobody reads them."""
    undo = freeze_daemon(chaos)
    chaos.dropper.burst(6000)
    return undo


def freeze_daemon(chaos: Chaos) -> Undo:
    pids = [chaos.world.daemon] if chaos.world.daemon else []
    _send(pids, signal.SIGSTOP)
    return lambda: _send(pids, signal.SIGCONT)


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def pause(chaos: Chaos) -> Undo:
    """A person pauses the line, and later resumes it; whatever happens to the daemon meanwhile."""
    chaos.world.ds_flow("pause", "--why", "chaos")

    def undo() -> None:
        chaos.world.ds_flow("resume", "--no-wait").check_returncode()

    return undo


# --------------------------------------------------------------------------- disks


def fill(chaos: Chaos) -> Undo:
    """A full disk under the outputs, the ledger or the logs."""
    name = chaos.rng.choice(list(MOUNTS))
    filler = chaos.world.root / name / ".filler"
    with filler.open("wb", buffering=0) as file:
        for piece in (2**20, 4096):
            with suppress(OSError):
                while file.write(bytes(piece)):
                    pass
    return lambda: filler.unlink(missing_ok=True)


def read_only(chaos: Chaos) -> Undo:
    """A file system that comes back read-only, as after an error; everything on it had died."""
    kill_everything(chaos)
    target = str(chaos.world.root / chaos.rng.choice(list(MOUNTS)))
    subprocess.run(["mount", "-o", "remount,ro", target], check=False, capture_output=True)
    return lambda: _remount(target)


def _remount(target: str) -> None:
    subprocess.run(["mount", "-o", "remount,rw", target], check=True)


def forbid(chaos: Chaos) -> Undo:
    """Folders that lose their rights. (The daemon obeys modes: see `world.OBEYING`.)"""
    names = ["out", "ledger", "log", "data", "out/.work"]
    folder = chaos.world.root / chaos.rng.choice(names)
    if not folder.exists():
        return lambda: None
    folder.chmod(chaos.rng.choice((0o000, 0o555)))
    return lambda: folder.chmod(0o755)


def forbid_inputs(chaos: Chaos) -> Undo:
    paths = [chaos.world.inbox / name for name in chaos.dropper.some(20)]
    _change_modes(paths, 0)
    return lambda: _change_modes(paths, 0o644)


def _change_modes(paths: list[Path], mode: int) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            path.chmod(mode)


def fail_reads(chaos: Chaos) -> Undo:
    """EIO to every read of some inputs by the daemon and what it starts, by strace's injection."""
    if chaos.world.daemon is None:
        return lambda: None
    paths = [str(chaos.world.inbox / name) for name in chaos.dropper.some(20)]
    for path in paths:  # so that they are read again
        Path(path).touch()
    named = [word for path in paths for word in ("-P", path)]
    tracer = subprocess.Popen(
        [
            *("strace", "-qq", "-f", "-p", str(chaos.world.daemon), *named, "-o", "/dev/null"),
            *("-e", "trace=read", "-e", "inject=read:error=EIO"),
        ],
        stderr=subprocess.DEVNULL,
    )

    def undo() -> None:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()

    return undo


# --------------------------------------------------------------------------- the machine


def lock_ledger(chaos: Chaos) -> Undo:
    """Another process holds the ledger."""
    if not chaos.world.ledger.exists():
        return lambda: None
    held = sqlite3.connect(chaos.world.ledger, timeout=5, check_same_thread=False)
    with suppress(sqlite3.OperationalError):
        held.execute("BEGIN IMMEDIATE")
    return held.close


def jump(chaos: Chaos) -> None:
    """The wall clock jumps, by seconds or by days, for the daemon and for runs."""
    seconds = chaos.rng.choice((-86400 * 30, -86400, -3600, -5, 5, 3600, 86400, 86400 * 30))
    chaos.world.clock.write_text(f"{seconds:+d}\n")


def use_up_watches(chaos: Chaos) -> Undo:
    """The next daemon finds no inotify instance left."""
    chaos.world.prefix = (*NO_INOTIFY, *chaos.world.plain)
    kill_daemon(chaos)

    def undo() -> None:
        chaos.world.prefix = chaos.world.plain
        kill_daemon(chaos)

    return undo


def use_up_descriptors(chaos: Chaos) -> Undo:
    """The daemon may open few files from now on."""
    pid = chaos.world.daemon
    if pid is None:
        return lambda: None
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # The hard limit stays: not every root may raise it again.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (16, before[1]))

    def undo() -> None:
        with suppress(OSError):  # it may be gone, or in a namespace of its own by now
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    return undo


FAULTS: dict[str, Fault] = {
    "kill daemon": Fault(kill_daemon, weight=24),
    "kill run": Fault(kill_run, weight=12),
    "kill everything": Fault(kill_everything, weight=6),
    "SIGTERM": Fault(stop_daemon, weight=4),
    "SIGSTOP": Fault(freeze, weight=4, seconds=3),
    "pause": Fault(pause, weight=3, seconds=4),
    "overflow": Fault(overflow, weight=0, seconds=2),  # once a run, by the plan
    "full disk": Fault(fill, weight=4, seconds=4),
    "read-only": Fault(read_only, weight=2, seconds=3),
    "folder rights": Fault(forbid, weight=3, seconds=4),
    "input rights": Fault(forbid_inputs, weight=2, seconds=3),
    "read errors": Fault(fail_reads, weight=2, seconds=4),
    "ledger locked": Fault(lock_ledger, weight=2, seconds=10),
    "clock": Fault(jump, weight=4),
    "no watches": Fault(use_up_watches, weight=2, seconds=4),
    "no descriptors": Fault(use_up_descriptors, weight=2, seconds=3),
}
