"""Process life: the single instance, signals, settings read again, systemd's notices."""

import fcntl
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ds_flow import logs, settings
from ds_flow.engine import Engine
from ds_flow.errors import DispatchError, RequestError, SettingsError
from ds_flow.inbox import Inbox
from ds_flow.ledger import Ledger
from ds_flow.runs import Runs
from ds_flow.scan import Pattern
from ds_flow.settings import Settings
from ds_flow.wake import Wake
from ds_flow.workdir import work_root

log = logging.getLogger(__name__)

ASKING_SECONDS = 0.5

WAKE_SIGNAL = signal.SIGUSR1  # what the CLI sends after recording a wish


class SystemClock:
    """The real time."""

    def now(self) -> datetime:
        """Wall-clock time in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()


# --------------------------------------------------------------------------- single instance


def lock_files(chosen: Settings) -> tuple[Path, Path]:
    """Whoever works on these outputs and this ledger holds both, with its pid inside."""
    own = work_root(chosen.output_dir) / "ds-flow.lock"
    return own, chosen.ledger.with_name(f"{chosen.ledger.name}.lock")


@contextmanager
def single_instance(chosen: Settings) -> Iterator[None]:
    """Be the only daemon here. Raises RequestError that names the pid of the other one."""
    held: list[int] = []
    try:
        held.extend(_lock(path) for path in lock_files(chosen))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _take(descriptor)
    except BlockingIOError:
        pid = os.read(descriptor, 20).decode().strip()
        os.close(descriptor)
        raise RequestError(f"ds-flow is running here already, as pid {pid} ({path})") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _take(descriptor: int) -> None:
    """Take a lock at once, or within a second: one that only asks for the pid holds it briefly."""
    end_s = time.monotonic() + ASKING_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end_s:
                raise
            select.select([], [], [], 0.05)
        else:
            return


def running_pid(chosen: Settings) -> int | None:
    """The pid of the daemon that works here, or None."""
    for path in lock_files(chosen):
        with suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or 0) or None
    return None


def wake_daemon(chosen: Settings) -> bool:
    """Tell the running daemon that there is a wish in the ledger; whether there is a daemon."""
    pid = running_pid(chosen)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, WAKE_SIGNAL)
    return True


# --------------------------------------------------------------------------- systemd


def notify(*lines: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens where there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.sendto("\n".join(lines).encode(), address)


# --------------------------------------------------------------------------- the two lives


@dataclass(slots=True)
class Service:
    """A daemon's process: an engine, what wakes it, and what ends it."""

    settings: Settings
    engine: Engine
    wake: Wake
    stops: int = 0  # SIGTERM or SIGINT, counted: the second one waits for nothing
    stop_signal: int = 0
    reload_asked: bool = False

    def serve(self) -> None:
        """Work until told to stop, then let runs end."""
        notify("READY=1", "STATUS=serving")
        log.info("daemon.ready", extra={"pid": os.getpid(), "inbox": self.settings.pattern})
        while not self.stops:
            if not self._step():
                self._wait(self.engine.patience_s())
        self._drain()

    def once(self) -> None:
        """Work off everything that is there, waiting out back-off, then return."""
        while not self.stops:
            moved = self._step()
            if self.engine.is_idle:
                break
            if not moved:
                self._wait(self.engine.patience_s())
        self._drain()

    def _step(self) -> int:
        if self.reload_asked:
            self._reload()
        return self.engine.tick() or self.stops

    def _wait(self, timeout_s: float) -> None:
        notify("WATCHDOG=1")
        if self.wake.wait(timeout_s):
            self.engine.hint()

    def _drain(self) -> None:
        """Take no new work; give live runs their grace time, then end them."""
        grace_s = self.settings.run.stop_grace_seconds
        self.engine.is_draining = True
        if self.engine.ledger.read.live_runs():
            log.info("daemon.stopping", extra={"grace_seconds": grace_s})
        notify("STOPPING=1")
        end_s = self.engine.clock.monotonic_s() + grace_s
        asked = False
        while self.engine.ledger.read.live_runs():
            due = self.stops > 1 or self.engine.clock.monotonic_s() >= end_s
            if due and not asked:
                self.engine.following.stop_runs("the daemon was stopped")
                asked = True
            if not self.engine.tick():
                self._wait(0.1)
        log.info("daemon.stopped")

    def _reload(self) -> None:
        """Read the settings again; bad ones are refused in words and the old ones stay."""
        self.reload_asked = False
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        old = self.settings
        try:
            new = settings.load(old.file, os.environ)
            _refuse_moves(old, new)
        except SettingsError as error:
            log.error("settings.refused", extra={"why": str(error)})
        else:
            self.settings = new
            self.engine.change_settings(new)
            set_up_logs(new, to_file=True)
            log.info("settings.reloaded", extra={"file": new.file})
        notify("READY=1")

    # ------------------------------------------------------------------ signals

    def take_signals(self) -> None:
        """Handle signals. Each also writes to the wake's pipe, so that a wait ends at once."""
        # A writer that opens a file while we hold a read lease on it sends SIGIO: death by default.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        signal.set_wakeup_fd(self.wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        for awakener in (WAKE_SIGNAL, signal.SIGCHLD):
            signal.signal(awakener, lambda *_: None)

    def _on_stop(self, number: int, _frame: object) -> None:
        self.stops += 1
        self.stop_signal = number

    def _on_reload(self, _number: int, _frame: object) -> None:
        self.reload_asked = True

    def pulse(self) -> None:
        """Feed systemd's watchdog within long work, and end it when told to stop."""
        notify("WATCHDOG=1")
        if self.stops and not self.engine.is_draining:
            raise DispatchError("told to stop")


def _refuse_moves(old: Settings, new: Settings) -> None:
    """Refuse a reload that moves what the running daemon holds."""
    for name in ("pattern", "output_dir", "ledger"):
        if getattr(old, name) != getattr(new, name):
            raise SettingsError(f"{new.file}: paths changed ({name}): restart for that")


def set_up_logs(chosen: Settings, *, to_file: bool) -> None:
    """Log as the settings say."""
    log_file = chosen.log_dir / "ds-flow.log" if to_file else None
    logs.set_up(
        level=chosen.logging.level,
        json_lines=chosen.logging.format == "json",
        secrets=chosen.secrets,
        file=log_file,
        max_bytes=chosen.logging.max_mb * 2**20,
        keep=chosen.logging.keep,
    )


@contextmanager
def service(chosen: Settings) -> Iterator[Service]:
    """A daemon, ready for its first tick: lock held, ledger true, signals taken."""
    set_up_logs(chosen, to_file=True)
    with single_instance(chosen):
        wake = Wake()
        inbox = Inbox(Pattern.parse(chosen.pattern, chosen.root), wake, chosen.watch.observer)
        ledger = Ledger(chosen.ledger)
        engine = Engine(chosen, ledger, inbox, Runs(), SystemClock())
        made = Service(chosen, engine, wake)
        engine.admission.pulse = made.pulse
        made.take_signals()
        try:
            engine.open()
            yield made
        finally:
            signal.set_wakeup_fd(-1)
            inbox.close()
            ledger.close()
            wake.close()
