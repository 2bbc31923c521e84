"""The front of the line: scan the inbox, wait until files settle, admit them, form batches."""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from ds_flow.core import (
    Arrival,
    Cause,
    Clock,
    DispatchError,
    DsFlowError,
    Problems,
    Settled,
    Sighting,
    split_settled,
)
from ds_flow.inbox.forming import Coming, Forming
from ds_flow.inbox.hashing import Judged, Reading, Turns
from ds_flow.inbox.known import Known
from ds_flow.inbox.markers import Held, Late, late_ones
from ds_flow.inbox.misnamed import Misnamed
from ds_flow.inbox.pattern import Look
from ds_flow.inbox.progress import Counted, LookFile, ProgressFile, told
from ds_flow.inbox.slices import Scan
from ds_flow.inbox.watcher import Inbox, too_large
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings

log = logging.getLogger(__name__)

SCAN_SHARE = 0.1  # of the time, at most
IDLE_SCAN_SHARE = 0.02  # while events would tell of a change
LOOKS_A_TURN = 2000  # at files that are arriving: some hundredths of a second


@dataclass(slots=True)
class Admission:
    """From the inbox to queued batches.

    A file that is still arriving is in memory only: after a restart it is seen again. All times
    in seconds are monotonic.
    """

    settings: Settings
    ledger: Ledger
    inbox: Inbox
    clock: Clock
    pulse: Callable[[], None]

    known: Known = field(default_factory=Known)  # what the ledger has, as it looked
    arriving: dict[str, Arrival] = field(default_factory=dict)
    hinted: bool = True  # there is a reason to scan
    scan: Scan | None = None  # that is under way
    turns: Turns = field(default_factory=Turns)  # settled files that are to be read
    misnamed: list[Misnamed] = field(default_factory=list)  # what the last scan found
    late: list[Late] = field(default_factory=list)  # files and markers that wait too long, by then
    _lost: Problems = field(default_factory=Problems)  # the inbox: why it cannot be scanned
    _ignored: Problems = field(default_factory=Problems)  # by path
    _unread: Problems = field(default_factory=Problems)  # by path: tried again at each scan
    _rest_until_s: float = 0.0  # no scan before
    _rescan_at_s: float = 0.0  # a scan then, even without a hint
    _look_again_at_s: float = 0.0  # at the arriving files alone
    _to_look: deque[str] = field(default_factory=deque)  # at these, some in each turn
    _counted: Counted | None = None  # what the last scan did, if it took long
    forming: Forming = field(init=False)
    _progress: ProgressFile = field(init=False)
    _look_file: LookFile = field(init=False)

    def __post_init__(self) -> None:
        self.forming = Forming(self.settings, self.ledger, self.clock)
        self._look_file = LookFile(self.settings.work_root)
        self._progress = ProgressFile(self.settings.work_root)

    @property
    def inbox_error(self) -> str:
        """Why the inbox cannot be scanned; "" if it can."""
        return next(iter(self._lost), "")

    @property
    def is_busy(self) -> bool:
        """Whether files are still to be looked for, to settle or to be read."""
        return bool(self.hinted or self.scan or self.arriving or self.turns)

    def unfinished(self) -> dict[str, str]:
        """The files that are not yet in the ledger, and why."""
        return {path: one.why for path, one in self.inbox.waiting.held.items()} | self.incomplete()

    def incomplete(self) -> dict[str, str]:
        """Those of them that need nobody else to come: they change, or are being read."""
        why = {path: one.reason or "it keeps changing" for path, one in self.arriving.items()}
        return why | {path: told(*far) for path, *far in self.turns.progress()}

    def patience_s(self, now_s: float) -> float:
        """Seconds in which nothing needs to be done here unless a hint comes."""
        waits = [self._rescan_at_s - now_s, self.due_in_s(now_s)]
        if self.turns or self.scan:
            waits.append(0.0)
        if self.hinted:
            waits.append(self._rest_until_s - now_s)
        return min(waits)

    def due_in_s(self, now_s: float) -> float:
        """Seconds until the next batch may form, by what is known now; infinite if by nothing."""
        waits = [0.0 if self.turns.is_soon_through else math.inf]
        if self.arriving or self._to_look:
            waits.append(self._look_again_at_s - now_s)
        if not self.inbox_error:
            waits.append(self.forming.due_in_s(self._coming, now_s))
        return min(waits)

    def is_scan_due(self, now_s: float) -> bool:
        """Whether `admit` will begin to scan the whole inbox now."""
        if self.scan:
            return False
        return (self.hinted or now_s >= self._rescan_at_s) and now_s >= self._rest_until_s

    def close(self) -> None:
        """Leave no word about the inbox: nobody looks at it from now on."""
        self._look_file.tell(None)
        self._progress.tell([], 0.0)

    # ------------------------------------------------------------------ admit

    def admit(self) -> int:
        """Enter every new file that has finished arriving."""
        is_through = False
        try:
            admitted = self._admit(self.clock.monotonic_s())
            is_through = True
        finally:
            self.hinted |= not is_through  # what this scan found was not admitted: scan again
        arriving = len(self.arriving) + len(self.turns) + len(self.inbox.waiting)
        self._look_file.tell(self._counted and self._counted._replace(arriving=arriving))
        return admitted

    def _admit(self, now_s: float) -> int:
        self.forming.looked_at_s = now_s
        is_new = self.is_scan_due(now_s)
        if is_new:
            self.hinted = False
            self.scan = Scan(self.inbox.look(self.known.has), self.clock, self.clock.now())
        found = self._scan(self.scan, now_s) if self.scan else None
        if is_new and found is not None:
            self._settle(self.arriving, found, now_s)
        else:
            self._look_at_some(now_s)
            # What has come during the scan was looked at above, and may be newer than `found`.
            news = [seen for seen in found or () if seen.path not in self.arriving]
            self._settle({}, [seen for seen in news if not self.known.has(seen)], now_s)
        if not self.turns:
            self._progress.tell([], now_s)
            return 0
        return self._read(now_s)

    def _look_at_some(self, now_s: float) -> None:
        """Look at the files that events have named, and now and then at those still arriving."""
        if not self._to_look and now_s >= self._look_again_at_s:
            last_s = now_s - self.settings.watch.quiet_seconds
            ripe = (path for path, one in self.arriving.items() if one.unchanged_since_s <= last_s)
            self._to_look.extend(ripe)
        held = self.inbox.waiting.held
        named = self.inbox.named()
        if len(named) > LOOKS_A_TURN:  # the marker of a folder may name any number of files
            self._to_look.extend(sorted(named & held.keys()))
            named -= held.keys()
        turn = {self._to_look.popleft() for _ in range(min(LOOKS_A_TURN, len(self._to_look)))}
        known = {path for path in turn if path in self.arriving or path in held}
        paths = sorted(named | known)  # the order in which they are entered, if they have settled
        some = {path: self.arriving[path] for path in paths if path in self.arriving}
        if paths:
            self._settle(some, self._look_at(paths), now_s)
        if turn:
            self._plan_look(now_s)

    def _settle(self, looked_at: dict[str, Arrival], new: list[Sighting], now_s: float) -> None:
        """Let those of the files looked at that have settled wait for their turn to be read."""
        new = [seen for seen in new if not self.turns.has(seen)]
        if not (looked_at or new):
            return
        self.forming.see(new, now_s)
        watch = self.settings.watch
        quiet_s = None if watch.marker else watch.quiet_seconds
        still, settled = split_settled(looked_at, new, now_s, quiet_s)
        for path in [*looked_at]:
            self.arriving.pop(path, None)
        self.arriving |= still
        for arrival in settled:
            self.turns.add(arrival)
        self._plan_look(now_s)

    def _plan_look(self, now_s: float) -> None:
        if self._to_look:  # the rest of them, in the next turn
            self._look_again_at_s = now_s
            return
        quiet_s = self.settings.watch.quiet_seconds
        ripe = (arrival.unchanged_since_s + quiet_s for arrival in self.arriving.values())
        self._look_again_at_s = min((at for at in ripe if at > now_s), default=now_s + quiet_s)

    def _look_at(self, paths: Iterable[str]) -> list[Sighting]:
        new = [seen for seen in self.inbox.look_at(paths) if not self.known.has(seen)]
        ready = self.inbox.ready(new)
        held = self.inbox.waiting.held
        return ready + self._only_touched(
            [held[seen.path] for seen in new if seen.path in held] if held else []
        )

    def _only_touched(self, held: list[Held]) -> list[Sighting]:
        """Let those go that have no marker, and whose bytes were taken before.

        Size and mtime are those of their newest version: only their rights have changed, or the
        folder was copied or restored.
        """
        if not held:
            return []
        known = self.ledger.read.seen([one.sighting.path for one in held])
        seen = [one.sighting for one in held]
        touched = [one for one in seen if one.stat.is_touched(known.get(one.path, ""))]
        for one in touched:
            self.inbox.waiting.drop(one.path)
        return touched

    def _scan(self, scan: Scan, now_s: float) -> list[Sighting] | None:
        """Scan on for one slice of time; at the end of the scan, return the new and changed files.

        What comes during it is looked at on its own, as between scans.
        """
        self.scan, watch = None, self.settings.watch
        try:
            if not scan.go_on(now_s):
                self.scan = scan
                return None
        except DispatchError as error:
            self._counted = None
            self._rescan_at_s = now_s + min(watch.poll_seconds, watch.rescan_seconds)
            if self._lost.report("inbox", str(error)):
                log.error("inbox.lost", extra={"why": str(error)})
            return [arrival.sighting for arrival in self.arriving.values()]
        if self._lost.solve("inbox"):
            log.info("inbox.back", extra={"inbox": self.inbox.pattern.base})
        self._note_ignored(scan.found.ignored)
        self.misnamed = scan.found.misnamed
        touched = self._take_held(scan.found)
        ended_s = self.clock.monotonic_s()
        self._rest(scan.spent_s, ended_s)
        self._counted = scan.counted(self.settings.pattern, self._rescan_at_s - ended_s)
        return scan.found.sightings + touched

    def _take_held(self, found: Look) -> list[Sighting]:
        """Keep what waits for its marker; return what needs none, since it is known already."""
        coming = (one for one in found.held if not self._has(one.sighting))
        touched = self._only_touched(self.inbox.waiting.replace(coming))
        after = timedelta(minutes=self.settings.watch.marker_minutes)
        held, now = self.inbox.waiting.held.values(), self.clock.now()
        self.late = late_ones(held, found.alone, now, after, self._has_come)
        return touched

    def _has(self, seen: Sighting) -> bool:
        """Whether a file was taken while a scan was under way."""
        return seen.path in self.arriving or self.turns.has(seen) or self.known.has(seen)

    def _has_come(self, marker: str) -> bool:
        """Whether the ledger knows a file of this marker."""
        return self.ledger.read.has_path_within(*self.inbox.pattern.span(marker))

    def _rest(self, spent_s: float, ended_s: float) -> None:
        """Scan again after a rest: scans take a tenth of the time at most."""
        watch, is_polling = self.settings.watch, self.inbox.is_polling
        self._rest_until_s = ended_s + spent_s * (1 / SCAN_SHARE - 1)
        every_s = watch.poll_seconds if is_polling else watch.rescan_seconds
        rest_s = 0.0 if is_polling else spent_s * (1 / IDLE_SCAN_SHARE - 1)
        self._rescan_at_s = ended_s + max(every_s, rest_s)

    def _note_ignored(self, ignored: dict[str, str]) -> None:
        for path, why in ignored.items():
            if self._ignored.report(path, why):
                log.warning("file.ignored", extra={"path": path, "why": why})
        self._ignored.keep(ignored)

    def _read(self, now_s: float) -> int:
        """Read settled files for one turn, and admit those that are through; how many.

        1. Fingerprint some. One that turns out to be still arriving goes back to the others.
        2. Enter all in the ledger, in one transaction.
        3. Remember how each looked, so that the next scan takes it for known. Log each.
        """
        self.pulse()
        entered: list[Settled] = []
        arriving = len(self.arriving)
        for arrival, judged in self.turns.turn(lambda one, room: self._judge(one, now_s, room)):
            if isinstance(judged, Settled):
                entered.append(judged)
            else:
                held = replace(arrival, reason=judged.reason, is_settling=judged.is_settling)
                self.arriving[arrival.sighting.path] = held
        if len(self.arriving) > arriving:
            self._plan_look(now_s)
        self._progress.tell(self.turns.progress(), self.clock.monotonic_s())
        return self._enter(entered, now_s) if entered else 0

    def _enter(self, items: list[Settled], now_s: float) -> int:
        states = self.ledger.admit(items, self.clock.now())
        self.turns.entered()
        self.known.add((path, str(stat)) for path, stat in (item.sighting for item in items))
        for item, (path, state) in zip(items, states, strict=True):
            if self._is_news(path, item):
                level = logging.WARNING if item.cause else logging.INFO
                log.log(level, "file.%s", state, extra={"path": path, **_why(item.reason)})
        self.forming.add(items, now_s)
        return len(items)

    def _is_news(self, path: str, item: Settled) -> bool:
        """Whether to log a file. One that cannot be read is tried at each scan and logged once."""
        if item.look_again:
            return self._unread.report(path, item.reason)
        self._unread.solve(path)
        return True

    def _judge(self, one: Reading, now_s: float, at_most: int) -> Judged | None:
        seen, limit_mb = one.arrival.sighting, self.settings.watch.max_mb
        if seen.stat.size_bytes > limit_mb * 2**20:
            return too_large(seen, limit_mb)
        try:
            return self.inbox.fingerprint(one.arrival, now_s, one.so_far, at_most)
        except Exception as error:
            if isinstance(error, DsFlowError):
                raise
            log.exception("file.bug", extra={"path": seen.path})
            reason = f"internal error: {error!r}"
            return Settled(sighting=seen, cause=Cause.UNREADABLE, reason=reason)

    # ------------------------------------------------------------------ form

    def form(self, room: int) -> int:
        """Claim waiting files for the batches that are due, `room` of them at most."""
        return self.forming.form(self._coming, room, self.inbox_error)

    @property
    def _coming(self) -> Coming:
        return Coming(self.arriving, self.turns.is_soon_through)


def _why(reason: str) -> dict[str, str]:
    return {"why": reason} if reason else {}
