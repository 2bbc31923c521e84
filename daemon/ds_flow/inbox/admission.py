"""The front of the line: look, settle, admit, form batches."""

import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ds_flow.core import (
    Arrival,
    Cause,
    Clock,
    DispatchError,
    DsFlowError,
    Limits,
    Settled,
    Sighting,
    Stat,
    Trigger,
    due,
    seconds_until_due,
    settle,
)
from ds_flow.inbox.watcher import Inbox, StillArriving
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.system import require_space

log = logging.getLogger(__name__)

ADMITTED_AT_ONCE = 1000  # files in one transaction
SCAN_SHARE = 0.1  # of the time, at most


@dataclass(slots=True)
class Admission:
    """From the inbox to queued batches. What is still arriving is in memory only."""

    settings: Settings
    ledger: Ledger
    inbox: Inbox
    clock: Clock
    pulse: Callable[[], None]

    known: dict[str, Stat] = field(default_factory=dict)
    arriving: dict[str, Arrival] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    inbox_error: str = ""
    hinted: bool = True
    _unread: dict[str, str] = field(default_factory=dict)  # looked at again at each scan -> why
    _rest_until_s: float = 0.0
    _rescan_at_s: float = 0.0
    _look_again_at_s: float = 0.0
    _newest_s: float = 0.0
    _oldest_s: float | None = None

    def patience_s(self, now_s: float) -> float:
        """How long nothing is to be done here unless a hint comes."""
        waits = [self._rescan_at_s - now_s]
        if self.hinted:
            waits.append(self._rest_until_s - now_s)
        if self.arriving:
            waits.append(self._look_again_at_s - now_s)
        if self._oldest_s is not None and not self.inbox_error:
            waits.append(seconds_until_due(**self._ages(now_s), limits=self._limits()))
        return min(waits)

    def is_scan_due(self, now_s: float) -> bool:
        """Whether `admit` will look through the whole inbox now."""
        return (self.hinted or now_s >= self._rescan_at_s) and now_s >= self._rest_until_s

    def forget(self, paths: Iterable[str]) -> None:
        """Take these files for new at the next look, however they look."""
        for path in paths:
            self.known.pop(path, None)

    # ------------------------------------------------------------------ admit

    def admit(self) -> int:
        """Enter every new file that has finished arriving."""
        try:
            return self._admit(self.clock.monotonic_s())
        except Exception:
            self.hinted = True  # what this look had found is not entered: look again
            raise

    def _admit(self, now_s: float) -> int:
        if self.is_scan_due(now_s):
            return self._settle(self.arriving, self._look(now_s), now_s)
        if self.arriving and now_s >= self._look_again_at_s:
            return self._settle(self.arriving, self._look_at(self.arriving), now_s)
        if named := self.inbox.named():
            some = {path: self.arriving[path] for path in named & self.arriving.keys()}
            return self._settle(some, self._look_at(named), now_s)
        return 0

    def _settle(self, looked_at: dict[str, Arrival], new: list[Sighting], now_s: float) -> int:
        """Enter what has settled of those that were looked at."""
        if any(seen.path not in self.arriving for seen in new):
            self._newest_s = now_s
        quiet_s = self.settings.watch.quiet_seconds
        still, settled = settle(looked_at, new, now_s, quiet_s)
        others = self.arriving.keys() - looked_at.keys()
        self.arriving = {path: self.arriving[path] for path in others} | still
        starts = range(0, len(settled), ADMITTED_AT_ONCE)
        entered = sum(self._enter(settled[start : start + ADMITTED_AT_ONCE]) for start in starts)
        ripe = (arrival.unchanged_since_s + quiet_s for arrival in self.arriving.values())
        self._look_again_at_s = min((at for at in ripe if at > now_s), default=now_s + quiet_s)
        return entered

    def _look_at(self, paths: Iterable[str]) -> list[Sighting]:
        return [
            seen for seen in self.inbox.look_at(paths) if self.known.get(seen.path) != seen.stat
        ]

    def _look(self, now_s: float) -> list[Sighting]:
        """Look through the whole inbox; what is new or changed."""
        self.hinted = False
        watch = self.settings.watch
        try:
            found = self.inbox.look()
        except DispatchError as error:
            self._rescan_at_s = now_s + min(watch.poll_seconds, watch.rescan_seconds)
            if str(error) != self.inbox_error:
                log.error("inbox.lost", extra={"why": str(error)})
            self.inbox_error = str(error)
            return [arrival.sighting for arrival in self.arriving.values()]
        if self.inbox_error:
            log.info("inbox.back", extra={"inbox": self.inbox.pattern.base})
        self.inbox_error = ""
        self._note_ignored(found.ignored)
        new = [seen for seen in found.sightings if self.known.get(seen.path) != seen.stat]
        ended_s = self.clock.monotonic_s()
        self._rest_until_s = ended_s + (ended_s - now_s) * (1 / SCAN_SHARE - 1)
        every_s = watch.poll_seconds if self.inbox.is_polling else watch.rescan_seconds
        self._rescan_at_s = ended_s + every_s
        return new

    def _note_ignored(self, ignored: dict[str, str]) -> None:
        for path, why in ignored.items():
            if self.ignored.get(path) != why:
                log.warning("file.ignored", extra={"path": path, "why": why})
        self.ignored = ignored

    def _enter(self, settled: list[Arrival]) -> int:
        """Fingerprint and admit; what turns out to be arriving still goes back."""
        now_s = self.clock.monotonic_s()
        self.pulse()
        entered: list[Settled] = []
        for arrival in settled:
            judged = self._judge(arrival, now_s)
            if isinstance(judged, Settled):
                entered.append(judged)
            else:
                since_s = arrival.unchanged_since_s
                held = Arrival(arrival.sighting, since_s, judged.reason)
                self.arriving[arrival.sighting.path] = held
        if not entered:
            return 0
        states = self.ledger.admit(entered, self.clock.now())
        for item, (path, state) in zip(entered, states, strict=True):
            self.known[path] = item.sighting.stat
            if item.look_again and self._unread.get(path) == item.reason:
                continue  # said before
            level = logging.WARNING if item.cause else logging.INFO
            log.log(level, "file.%s", state, extra={"path": path, **_why(item.reason)})
            self._unread.pop(path, None)
            if item.look_again:
                self._unread[path] = item.reason
        self._oldest_s = self._oldest_s if self._oldest_s is not None else now_s
        return len(entered)

    def _judge(self, arrival: Arrival, now_s: float) -> Settled | StillArriving:
        try:
            return self.inbox.fingerprint(arrival, now_s, self.pulse)
        except Exception as error:
            if isinstance(error, DsFlowError):
                raise
            log.exception("file.bug", extra={"path": arrival.sighting.path})
            reason = f"internal error: {error!r}"
            return Settled(sighting=arrival.sighting, cause=Cause.UNREADABLE, reason=reason)

    # ------------------------------------------------------------------ form

    def form(self) -> int:
        """Claim waiting files for the batches that are due."""
        waiting = self.ledger.read.waiting()
        if not waiting or self.inbox_error:
            self._oldest_s = self._oldest_s if waiting else None
            return 0
        now_s = self.clock.monotonic_s()
        if self._oldest_s is None:  # waiting since before this daemon, or released
            self._oldest_s = now_s
        groups = due(waiting, **self._ages(now_s), limits=self._limits())
        if groups:
            require_space(self.settings)
        for group in groups:
            batch = secrets.token_hex(5)
            ids = [file.id for file in group]
            if files := self.ledger.form(batch, ids, Trigger.ARRIVAL, self.clock.now()):
                log.info("batch.queued", extra={"batch": batch, "files": files})
        if groups:
            self._oldest_s = None
        return len(groups)

    def _ages(self, now_s: float) -> dict[str, float]:
        oldest_s = now_s if self._oldest_s is None else self._oldest_s
        return {"newest_age_s": now_s - self._newest_s, "oldest_age_s": now_s - oldest_s}

    def _limits(self) -> Limits:
        batch = self.settings.batch
        return Limits(
            quiet_s=batch.quiet_seconds,
            max_wait_s=batch.max_wait_seconds,
            max_files=batch.max_files,
            max_bytes=batch.max_mb * 2**20,
        )


def _why(reason: str) -> dict[str, str]:
    return {"why": reason} if reason else {}
