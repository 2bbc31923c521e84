"""Deliveries: each command of publish.then gets each published run, beside the line.

The ledger is the queue. A command has at most one process, so it gets its runs in order. What this
process does not see the end of, the next daemon starts again.
"""

import json
import logging
import os
import random
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import IO

from ds_flow.core import PYTHON, RUN_ID, next_delivery, program_of
from ds_flow.ledger import DeliveryRow, Ledger
from ds_flow.settings import Settings
from ds_flow.system import mask
from ds_flow.upkeep.child import LAST_WORDS, last_words
from ds_flow.work import delivery_log, make_root, manifest_name

log = logging.getLogger(__name__)

LOCKS = "deliver"  # in the work folder, one for each command
MOST_AT_ONCE = 4  # processes
LAST_SECONDS = 5.0  # for those that are ended with the daemon
HAND_OVER = Path(__file__).with_name("hand_over.py")


@dataclass(slots=True)
class Going:
    """One command that runs, or whose end is not recorded yet."""

    row: DeliveryRow
    process: "subprocess.Popen[bytes] | None" = None
    said: IO[bytes] | None = None
    why: str | None = None  # it failed; "" if it did not; None while it runs

    def has_ended(self) -> bool:
        """Whether its end is known."""
        if self.why is None and self.process is not None and self.process.poll() is not None:
            self.why = self._read_end(self.process.returncode)
        return self.why is not None

    def _read_end(self, code: int) -> str:
        self.end()
        if code == 0 or self.said is None:
            return "" if code == 0 else f"exit code {code}"
        with self.said as said:
            return last_words(said, 2 * LAST_WORDS) or f"exit code {code}"

    def end(self) -> None:
        """Have it ended: the pipe that its starter watches is closed, which then kills it."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait for its end, but not for a command that hangs on a disk and cannot be killed."""
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(max(0.0, seconds))


@dataclass(slots=True)
class Deliverer:
    """Starts what is due, and records how it ended. It waits for nothing."""

    next_at: datetime | None = None  # when something is due that failed
    _going: dict[str, Going] = field(default_factory=dict)  # by command
    _settings: Settings | None = None  # whose commands are in force
    _turns: dict[str, int] = field(default_factory=dict)  # when a command was started last
    _count: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether a command runs. After `keep`, whatever may run does."""
        return bool(self._going)

    def keep(self, settings: Settings, ledger: Ledger, now: datetime) -> None:
        """Record what has ended, end what was given up, start what is due."""
        if settings is not self._settings:
            self._follow(settings, ledger, now)
        for command, going in list(self._going.items()):
            if not ledger.deliveries.is_waiting(going.row.id):
                going.end()
            if going.has_ended():
                self._record(settings, ledger, going, now)
                del self._going[command]
        self.next_at = None
        for command in sorted(ledger.deliveries.commands, key=lambda one: self._turns.get(one, 0)):
            if command not in self._going:
                self._start_first(settings, ledger, command, now)

    def close(self) -> None:
        """End what runs. Nothing is recorded: it is started again by the next daemon."""
        for going in self._going.values():
            going.end()
        end_s = time.monotonic() + LAST_SECONDS
        for going in self._going.values():
            going.wait(end_s - time.monotonic())
        self._going.clear()

    def _follow(self, settings: Settings, ledger: Ledger, now: datetime) -> None:
        dropped = ledger.deliveries.follow(settings.handed_to, now)
        if dropped:
            log.warning("delivery.dropped", extra={"deliveries": dropped, "why": "publish.then"})
        self._settings = settings

    def _start_first(self, settings: Settings, ledger: Ledger, command: str, now: datetime) -> None:
        row = ledger.deliveries.first(command)
        if row is None or len(self._going) >= MOST_AT_ONCE:
            return
        if not row.is_due(now):
            due_at = datetime.fromisoformat(row.due_at)
            self.next_at = min(due_at, self.next_at or due_at)
            return
        self._count += 1
        self._turns[command] = self._count
        self._going[command] = _start(settings, row)

    def _record(self, settings: Settings, ledger: Ledger, going: Going, now: datetime) -> None:
        row, why = going.row, mask(going.why or "", settings.secrets)
        if not ledger.deliveries.is_waiting(row.id):
            return  # a person has given it up
        program = _program(settings, row)
        if not why:
            ledger.deliveries.succeed(row, now)
            log.info("delivery.done", extra={"run_id": row.run_id, "program": program})
            return
        failures = row.attempts + 1
        first_s = settings.publish.retry_first_seconds
        due_at = next_delivery(failures, first_s, now, random.random())  # noqa: S311 - spreads tries # nosec B311
        ledger.deliveries.fail(row, why, due_at, now)
        extra = {"run_id": row.run_id, "program": program, "failures": failures, "why": why}
        log.warning("delivery.failed", extra=extra)


def _program(settings: Settings, row: DeliveryRow) -> str:
    return mask(" ".join(row.words[:2]), settings.secrets)


def _start(settings: Settings, row: DeliveryRow) -> Going:
    """Start a command for a run. Why it cannot be started is its end."""
    manifest = settings.output_dir / manifest_name(row.run_id)
    if not manifest.exists():
        return Going(row, why=f"its manifest is gone: {manifest}")
    try:
        return Going(row, *_started(settings, row, manifest))
    except (OSError, ValueError) as error:
        return Going(row, why=f"it cannot be started: {error}")


def _started(
    settings: Settings, row: DeliveryRow, manifest: Path
) -> "tuple[subprocess.Popen[bytes], IO[bytes]]":
    """Its process, and where that says why it failed. Raises OSError, ValueError."""
    words = [*program_of(json.loads(row.command), "local"), str(manifest)]
    limit_s = settings.publish.limit_minutes * 60
    key = sha256(row.command.encode()).hexdigest()[:8]
    locks = make_root(settings.output_dir) / LOCKS
    locks.mkdir(exist_ok=True)
    own = {"DS_FLOW_CONFIG": str(settings.file), RUN_ID: row.run_id}
    log_file = delivery_log(settings.log_dir, row.run_id, row.command)
    said = tempfile.TemporaryFile()  # noqa: SIM115 - read and closed at its end
    try:
        process = subprocess.Popen(
            [*PYTHON, str(HAND_OVER), str(log_file), str(locks / key), str(limit_s), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd=settings.root,
            env={**settings.dotenv, **settings.inherited(os.environ), **own},
            process_group=0,
        )
    except BaseException:
        said.close()
        raise
    return process, said
