"""After their run: published files leave the inbox, and so may rejected ones.

The ledger says which, and is told before and after. A thread does the work on the disk, so a large
copy or a slow disk holds nothing up.
"""

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Thread

from ds_flow.core import Clock, Problems, escape, unescape
from ds_flow.inbox.departure import End, Leaving, Left, depart, sync_departures
from ds_flow.ledger import AwayRow, Gone, Ledger
from ds_flow.settings import Settings
from ds_flow.system import ask_mounts

log = logging.getLogger(__name__)

FILES_A_SLICE = 200
REST_SECONDS = 60.0  # after a failure, and between two rounds without a hint
MOST_FAILURES = 5  # in one slice: then the site is at fault
KINDS = {"archive": "input.archived", "delete": "input.deleted", "move": "input.moved"}

FAILURES = frozenset({End.FAILED, End.UNSURE})


@dataclass(slots=True)
class After:
    """From published files in the inbox to files in the archive, or to none."""

    settings: Settings
    ledger: Ledger
    clock: Clock
    forget: Callable[[Iterable[str]], None]  # paths that are not known to be in the inbox any more
    wake: Callable[[], None] = lambda: None
    waits: Problems = field(default_factory=Problems)  # why nothing can be put away
    hinted: bool = True  # a run has ended, or a file has come again
    _cursors: dict[str, int] = field(default_factory=dict)  # where this round stands
    _round_at_s: float = 0.0
    _rest_until_s: float = 0.0
    _is_taken_up: bool = False  # what was begun, by whichever process, and not recorded
    _thread: Thread | None = None
    _kinds: dict[int, str] = field(default_factory=dict)  # of those on their way: the event
    _done: list[list[Left]] = field(default_factory=list)  # what the thread has done

    @property
    def is_busy(self) -> bool:
        """Whether files are on their way, or are to be looked for."""
        return self._thread is not None or (self._is_on and self._is_due)

    @property
    def _is_on(self) -> bool:
        inbox = self.settings.inbox_rules
        is_begun = not self._is_taken_up or bool(self.waits)
        return is_begun or inbox.after != "keep" or inbox.rejected != "keep"

    @property
    def _is_due(self) -> bool:
        now_s = self.clock.monotonic_s()
        is_round = self.hinted or bool(self._cursors) or not self._is_taken_up
        return now_s >= self._rest_until_s and is_round

    def patience_s(self) -> float:
        """Seconds in which nothing needs to be done here, unless a hint comes."""
        if self._thread is not None:
            return REST_SECONDS  # its end wakes
        return 0.0 if self.is_busy else REST_SECONDS

    def put_away(self) -> int:
        """Record what the thread has done, and give it the next files; how many have left."""
        if self._thread is not None:
            if not self._done:
                return 0
            self._thread.join()
            self._thread = None
            return self._record(self._done.pop())
        if not self._is_on:
            return 0
        now_s = self.clock.monotonic_s()
        if now_s >= max(self._round_at_s, self._rest_until_s):
            self.hinted = True
        if self._is_due and (items := self._next(now_s)):
            self._start(items)
        return 0

    # ------------------------------------------------------------------ which

    def _next(self, now_s: float) -> list[Leaving]:
        """The next files. First those that were begun: by another process, or in vain."""
        if why := self._why_not():
            self._say(why)
            self._rest(now_s)
            return []
        if self.hinted and not self._cursors:
            self.hinted, self._round_at_s = False, now_s + REST_SECONDS
            self._cursors = dict.fromkeys(self._wanted(), 0)
            self._is_taken_up = False
        if not self._is_taken_up:
            if rows := self.ledger.away.going():
                return [self._leaving(row, row.away_to, is_again=True) for row in rows]
            self._is_taken_up = True
            if not self._cursors:
                self.waits.solve("after")
        return self._next_slice()

    def _next_slice(self) -> list[Leaving]:
        """The next files of this round that have not begun to leave."""
        wanted = self._wanted()  # by now: the settings may say something else than at its start
        for which in [*self._cursors]:
            if which not in wanted:
                del self._cursors[which]
            elif items := self._begin(which):
                return items
        return []

    def _why_not(self) -> str:
        """Say why a disk cannot be touched now."""
        settings = self.settings
        places = (settings.inbox, settings.archive_dir, settings.rejected_dir)
        return next(filter(None, (ask_mounts(str(place)) for place in places)), "")

    def _wanted(self) -> list[str]:
        rules = self.settings.inbox_rules
        wanted = {"processed": rules.after, "rejected": rules.rejected}
        return [which for which, what in wanted.items() if what != "keep"]

    def _begin(self, which: str) -> list[Leaving]:
        """Let the next slice be on its way, in the ledger."""
        rows = self.ledger.away.to_go(which, self._cursors[which], FILES_A_SLICE)
        if len(rows) < FILES_A_SLICE:
            del self._cursors[which]
        else:
            self._cursors[which] = rows[-1].id
        now = self.clock.now()
        old = [row.id for row in rows if not row.is_newest]
        if old:
            self.ledger.away.record(now, none=old)
        ready = [row for row in rows if row.is_newest and row.sha256]
        places = {row.id: self._place(row, which) for row in ready}
        begun = self.ledger.away.begin([*places.items()], now) if places else set()
        return [self._leaving(row, places[row.id]) for row in ready if row.id in begun]

    def _place(self, row: AwayRow, which: str) -> str:
        """Where a version goes, as the ledger writes paths; "" if it is to be deleted."""
        if which == "processed" and self.settings.inbox_rules.after == "delete":
            return ""
        is_published = which == "processed"
        folder = self.settings.archive_dir if is_published else self.settings.rejected_dir
        below = unescape(row.path).lstrip("/")
        raw = os.path.join(folder, row.run_id or f"version-{row.version}", below)
        relative = os.path.relpath(raw, self.settings.root)
        return escape(raw if relative.split("/")[0] == ".." else relative)

    def _leaving(self, row: AwayRow, to: str, *, is_again: bool = False) -> Leaving:
        root, is_rejected = self.settings.root, bool(row.reason)
        kind = "move" if is_rejected else "archive" if to else "delete"
        self._kinds[row.id] = KINDS[kind]
        return Leaving(
            id=row.id,
            raw=os.path.join(root, unescape(row.path)),
            base=str(self.settings.inbox),
            stat=row.stat,
            sha256=str(row.sha256),
            to=os.path.join(root, unescape(to)) if to else "",
            note=f"{row.path}: {row.reason}\n" if is_rejected else "",
            is_again=is_again,
        )

    # ------------------------------------------------------------------ the thread

    def _start(self, items: list[Leaving]) -> None:
        self._is_taken_up = False  # until what comes of them is recorded
        self._thread = Thread(target=self._work, args=(items,), name="put away", daemon=True)
        self._thread.start()

    def _work(self, items: Iterable[Leaving]) -> None:
        """Do one slice. Whatever happens, each of its files gets an outcome."""
        done: list[Left] = []
        failures = 0
        for one in items:
            if failures >= MOST_FAILURES:
                done.append(Left(one, End.FAILED, done[-1].why))
                continue
            try:
                done.append(depart(one))
            except Exception as error:  # noqa: BLE001 - a bug must not leave files on their way
                done.append(Left(one, End.FAILED, f"internal error: {error!r}"))
            failures += done[-1].end in FAILURES
        try:
            sync_departures(done)
        except OSError as error:
            done = [_unsynced(left, str(error)) for left in done]
        self._done.append(done)
        self.wake()

    # ------------------------------------------------------------------ what came of it

    def _record(self, done: list[Left]) -> int:
        """Enter what the thread has done. What stays or failed is tried again at a later round.

        What may have left is on its way until that is known.
        """
        gone = [left.leaving for left in done if left.end == End.GONE]
        self.ledger.away.record(
            self.clock.now(),
            gone=[
                Gone(one.id, self._kinds[one.id], self._written(one.to), one.stat) for one in gone
            ],
            none=[left.leaving.id for left in done if left.end == End.MISSING],
            stays=[left.leaving.id for left in done if left.end in {End.STAYS, End.FAILED}],
        )
        self.forget(self._path(left) for left in done if left.end in {End.GONE, End.MISSING})
        for left in done:
            self._tell(left)
        self._kinds.clear()
        self._is_taken_up = True
        failed = [left for left in done if left.end in FAILURES]
        if failed:
            self._say(f"{escape(failed[0].leaving.raw)}: {failed[0].why}")
        elif gone and self.waits.solve("after"):
            log.info("after.resumed")
        if failed and not (gone or failed[0].leaving.is_again):
            self._rest(self.clock.monotonic_s())
        return len(gone)

    def _written(self, raw: str) -> str:
        if not raw:
            return ""
        relative = os.path.relpath(raw, self.settings.root)
        return escape(raw if relative.split("/")[0] == ".." else relative)

    def _path(self, left: Left) -> str:
        return escape(left.leaving.raw.removeprefix(f"{self.settings.root}/"))

    def _tell(self, left: Left) -> None:
        path = self._path(left)
        if left.end == End.GONE:
            to = {"to": self._written(left.leaving.to)} if left.leaving.to else {}
            log.info(self._kinds[left.leaving.id], extra={"path": path, **to})
        elif left.end == End.STAYS:
            log.info("file.stays", extra={"path": path, "why": left.why})

    def _say(self, why: str) -> None:
        """Say once that something cannot be put away. The next may fail for another file."""
        if "after" not in self.waits:
            log.warning("after.waits", extra={"why": why})
            self.waits.report("after", f"files cannot be put away after their run: {why}")

    def _rest(self, now_s: float) -> None:
        """Begin a new round, later."""
        self._rest_until_s = now_s + REST_SECONDS
        self._cursors.clear()
        self.hinted = True


def _unsynced(left: Left, why: str) -> Left:
    """What is said of a departure that may not outlast a power loss."""
    return Left(left.leaving, End.UNSURE, why) if left.end == End.GONE else left
