"""The daemon's process: the single instance, signals, reloads, the stop."""

import errno
import faulthandler
import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ds_flow.core import DispatchError, FileState, SettingsError
from ds_flow.doctor import exposed, unreachable_backends
from ds_flow.inbox import Inbox, Pattern
from ds_flow.ledger import Ledger, Reading
from ds_flow.runs import Runs
from ds_flow.service.engine import Engine
from ds_flow.service.health import RECORD_SECONDS, Health
from ds_flow.service.systemd import is_listening, keep_rights, notify, watchdog_s
from ds_flow.settings import IN_FORCE, Settings, in_force_text, load_settings
from ds_flow.system import WAKE_SIGNAL, Wake, mask, put_file, set_up_logging, single_instance
from ds_flow.upkeep import RECORD, Upkeep
from ds_flow.work import make_root, settle

log = logging.getLogger(__name__)

ENDING_SECONDS = 15.0  # for runs that were asked to end, and for the ledger to take it in
COUNTED = (FileState.WAITING, FileState.BATCHED, FileState.PROCESSED, FileState.QUARANTINED)
HELD = frozenset({WAKE_SIGNAL, signal.SIGHUP})
"""Who reads the pid in the lock may send these before there is a handler: death by default."""
REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class SystemClock:
    """The real time."""

    def now(self) -> datetime:
        """Wall-clock time in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()


def status_line(read: Reading, problems: list[str]) -> str:
    """What `systemctl status` shows: how many files are where, and the problems."""
    files = read.counts("file")
    counts = ", ".join(f"{files[state]} {state}" for state in COUNTED)
    line = f"files: {counts}; runs live: {len(read.live_runs())}"
    return " ".join("; ".join([line, *problems]).split())


@dataclass(slots=True)
class Service:
    """A daemon's process: its engine, what wakes it and what ends it."""

    settings: Settings
    engine: Engine
    upkeep: Upkeep
    wake: Wake
    health: Health | None = None  # of a daemon; `once` leaves no word
    stops: int = 0  # SIGTERM or SIGINT, counted: the second one waits for nothing
    stop_signal: int = 0
    reload_asked: bool = False
    refused: str = ""  # why the settings on disk are not those in force
    has_moved: bool = True  # since the last status line
    shown: list[str] | None = None  # the problems in it
    arriving_since_s: dict[str, float] = field(default_factory=dict)  # monotonic
    told: str = ""  # for which file `once` waits

    def serve(self) -> None:
        """Work until told to stop, then let runs end. Ready after the first turn."""
        self.engine.fires.keeps_time = True
        self.health = Health(self.settings, self.engine, self.upkeep.post.beat)
        leave_in_force(self.settings)
        self.engine.tick()
        self._check_backends()
        for why in exposed(self.settings):
            log.warning("code.exposed", extra={"why": why})
        log.info("daemon.ready", extra={"pid": os.getpid(), "inbox": self.settings.pattern})
        notify("READY=1")
        while not self.stops:
            if not self._step():
                self._wait(min(self.engine.patience_s(), self.upkeep.patience_s()))
        self._drain()

    def once(self, timeout_s: float = math.inf) -> dict[str, str]:
        """Process everything that is there, retries included, then return.

        A batch whose runs cannot begin is left to wait: nobody knows when that is mended. So are
        files that still arrive when nothing else has moved for `timeout_s` seconds. Returns these,
        and why.
        """
        clock = self.engine.clock
        ends_s = clock.monotonic_s() + timeout_s
        while not self.stops:
            moved = self._step()
            is_done = self.engine.is_idle or self.engine.is_held_back or self.engine.is_paused
            if is_done and not self.upkeep.is_busy:
                break
            if moved or self.engine.has_work or self.upkeep.is_busy:
                ends_s = clock.monotonic_s() + timeout_s
            elif clock.monotonic_s() >= ends_s:
                break
            if not moved:
                self._tell_arriving()
                left_s = max(0.0, ends_s - clock.monotonic_s())
                self._wait(min(self.engine.patience_s(), self.upkeep.patience_s(), left_s))
        left = self.engine.admission.incomplete()
        self._drain()
        return left

    def _tell_arriving(self) -> None:
        """Log which file this waits for, once it has been arriving for longer than it needs."""
        now_s, arriving = self.engine.clock.monotonic_s(), self.engine.admission.unfinished()
        self.arriving_since_s = {path: self.arriving_since_s.get(path, now_s) for path in arriving}
        long_s = 2 * self.settings.watch.quiet_seconds
        late = [path for path, at_s in self.arriving_since_s.items() if now_s - at_s > long_s]
        if late and late[0] != self.told:
            self.told = late[0]
            log.info(
                "once.waits", extra={"path": late[0], "why": arriving[late[0]], "files": len(late)}
            )

    def _step(self) -> int:
        if self.reload_asked:
            self._reload()
        moved = self._turn()
        self._keep_beside()
        return moved or self.stops

    def _keep_beside(self) -> None:
        """Tell people what is new, and leave a sign of life for `status`."""
        self.upkeep.keep()
        if self.health is not None:
            self.health.keep()

    def _turn(self) -> int:
        """Run one tick. Only that feeds systemd's watchdog: waiting is no sign of life."""
        moved = self.engine.tick()
        self.has_moved = self.has_moved or moved > 0
        notify("WATCHDOG=1")
        return moved

    def _wait(self, timeout_s: float) -> None:
        self._tell_status()
        word_s = RECORD_SECONDS if self.health else math.inf
        if self.wake.wait(min(timeout_s, watchdog_s() / 3, word_s)) - {signal.SIGCHLD}:
            self.engine.hint()  # a run's end says nothing of the inbox

    def _tell_status(self) -> None:
        """Count again only when something has moved: counting a million files takes its time."""
        problems = [*self.engine.problems, *([self.refused] if self.refused else [])]
        if not is_listening() or (not self.has_moved and problems == self.shown):
            return
        with suppress(DispatchError):  # a locked ledger: at the next wait
            notify(f"STATUS={status_line(self.engine.ledger.read, problems)}")
            self.has_moved, self.shown = False, problems

    def _check_backends(self) -> None:
        """Log which backends cannot be reached. That does not keep the daemon from starting."""
        for found in unreachable_backends(self.settings, os.environ):
            if found.level != "ok":
                log.error("backend.refuses", extra={"backend": found.subject, "why": found.text})

    def _drain(self) -> None:
        """Start no new work. Give live runs their grace time, then end them."""
        grace_s = self.settings.run.stop_grace_seconds
        self.engine.is_draining = True
        if self.engine.ledger.read.live_runs():
            log.info("daemon.stopping", extra={"grace_seconds": grace_s})
        ending_s = grace_s + 2 * ENDING_SECONDS
        notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={ending_s * 1e6:.0f}")
        clock, supervisor = self.engine.clock, self.engine.supervisor
        end_s = clock.monotonic_s() + grace_s
        asked_s: float | None = None
        while self.engine.ledger.read.live_runs():
            now_s = clock.monotonic_s()
            if asked_s is None and (self.stops > 1 or now_s >= end_s):
                asked_s = now_s
                with suppress(DispatchError):  # a full disk: they are ended all the same
                    supervisor.stop_runs("the daemon was stopped")
            if asked_s is not None and now_s - asked_s > ENDING_SECONDS:
                supervisor.kill_runs()
                log.error("daemon.stopped", extra={"why": "the ends of its runs are not recorded"})
                return
            moved = self._turn()
            self._keep_beside()
            if not moved:
                self._wait(0.1)
        log.info("daemon.stopped")

    def _reload(self) -> None:
        """Read the settings again. Bad ones are refused with the reason, and the old ones stay."""
        self.reload_asked = False
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        old, self.refused = self.settings, ""
        try:
            new = load_settings(old.file, os.environ)
            _refuse_moves(old, new)
            set_up_logs(new, to_file=True)
        except (SettingsError, OSError) as error:
            self.refused = f"settings refused: {error}"
            log.error("settings.refused", extra={"why": str(error)})
            why = mask(str(error), old.secrets)
            with suppress(DispatchError):  # a full disk
                self.engine.ledger.history.note("settings.refused", why, self.engine.clock.now())
        else:
            self._take(new)
            log.info("settings.reloaded", extra={"file": new.file})
        if self.health is not None:
            self.health.refuse(mask(self.refused, old.secrets))
        notify("READY=1")

    def _take(self, new: Settings) -> None:
        self.settings = self.upkeep.settings = new
        self.engine.change_settings(new)
        if self.health is not None:
            self.health.settings = new
            leave_in_force(new)

    # ------------------------------------------------------------------ signals

    def take_signals(self) -> None:
        """Handle signals. Each also writes to the wake-up pipe, so that a wait ends at once."""
        faulthandler.enable(2)  # systemd's watchdog sends SIGABRT: say where it was stuck
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

    def alive(self) -> None:
        """Feed systemd's watchdog within long work."""
        notify("WATCHDOG=1")

    def pulse(self) -> None:
        """Feed systemd's watchdog within long work, and end that work when told to stop."""
        self.alive()
        if self.stops and not self.engine.is_draining:
            raise DispatchError("told to stop")


def leave_in_force(settings: Settings) -> None:
    """Write down the settings in force. Nobody depends on it, so a full disk does not matter."""
    with suppress(OSError), put_file(settings.work_root / IN_FORCE, mode=0o600) as file:
        file.write(in_force_text(settings).encode())


def forget_word(settings: Settings) -> None:
    """Remove what a killed daemon has left: this process may have its pid."""
    for name in (RECORD, IN_FORCE):
        with suppress(OSError):
            (settings.work_root / name).unlink(missing_ok=True)


def _refuse_moves(old: Settings, new: Settings) -> None:
    """Refuse a reload that would move what the running daemon holds."""
    for name in ("pattern", "output_dir", "ledger"):
        if getattr(old, name) != getattr(new, name):
            raise SettingsError(f"{new.file}: paths changed ({name}): restart for that")
    if old.watch.observer != new.watch.observer:
        raise SettingsError(f"{new.file}: watch.observer changed: restart for that")


def set_up_logs(settings: Settings, *, to_file: bool) -> None:
    """Log as the settings say."""
    log_file = settings.log_dir / "ds-flow.log" if to_file else None
    set_up_logging(
        level=settings.logging.level,
        json_lines=settings.logging.format == "json",
        secrets=settings.secrets,
        file=log_file,
        max_bytes=settings.logging.max_mb * 2**20,
        keep=settings.logging.keep,
    )


@contextmanager
def _operators_fault() -> Iterator[None]:
    """Report a folder without rights as a fault of the settings: no restart helps there."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise SettingsError(f"{error.filename}: {error.strerror}") from error


@contextmanager
def service(settings: Settings) -> Iterator[Service]:
    """A daemon that is ready for its first tick: lock held, ledger reconciled, signals handled."""
    with ExitStack() as stack:
        with _operators_fault():
            set_up_logs(settings, to_file=True)
            signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
            stack.callback(signal.pthread_sigmask, signal.SIG_UNBLOCK, HELD)
            make_root(settings.output_dir)
            stack.enter_context(single_instance(settings))
            forget_word(settings)
            settle(settings.output_dir, settings.root)
        keep_rights()
        wake = Wake()
        stack.callback(wake.close)
        inbox = Inbox(Pattern.of(settings), wake, settings.watch.observer)
        ledger, runs = Ledger(settings.ledger), Runs()
        ledger.deliveries.commands = settings.handed_to
        stack.callback(ledger.close)
        stack.callback(inbox.close)
        stack.callback(runs.dismiss)
        engine = Engine(settings, ledger, inbox, runs, SystemClock())
        stack.callback(engine.admission.close)
        upkeep = Upkeep(settings, ledger, engine.clock)
        made = Service(settings, engine, upkeep, wake)
        engine.admission.pulse = engine.fires.pulse = made.pulse
        inbox.alive = made.alive
        engine.after.wake = wake.set
        made.take_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
        stack.callback(upkeep.close)
        stack.callback(signal.set_wakeup_fd, -1)
        engine.open()
        yield made
