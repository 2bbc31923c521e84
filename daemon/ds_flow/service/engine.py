"""The line: `tick()` moves everything that can move one step along it."""

import logging
from collections.abc import Callable

from ds_flow.core import BatchError, Clock, DispatchError, DsFlowError
from ds_flow.inbox import Admission, Inbox
from ds_flow.ledger import Ledger
from ds_flow.runs import (
    POLL_SECONDS,
    Runs,
    Supervisor,
    Wait,
    admit_commits,
    adopt_batches,
    longer,
    rebuild_ledger,
    undo_uncommitted,
)
from ds_flow.schedules import Fires
from ds_flow.settings import Settings

log = logging.getLogger(__name__)

BUGS_LIMIT = 5  # in a row
WAITING_POLL_SECONDS = 0.25  # while a stage or a batch waits, the others go on this often


class Engine:
    """All the daemon's work, on one thread. It reads no clock and waits for nothing itself."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        inbox: Inbox,
        runs: Runs,
        clock: Clock,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        """`pulse` is called within long work; a DispatchError that it raises ends that work."""
        self.settings = settings
        self.ledger = ledger
        self.clock = clock
        self.admission = Admission(settings, ledger, inbox, clock, pulse)
        self.firing = Fires(settings, ledger, clock, pulse)
        self.following = Supervisor(settings, ledger, runs, clock)
        self.is_draining = False  # take no new work, follow what runs
        self._bugs = 0
        self._is_reconciled = False
        self._has_undone = True  # what dead attempts had begun before the start
        self._unreadable: dict[str, str] = {}  # batch -> why its files cannot be read
        self._waits: dict[str, Wait] = {}
        self._told: dict[str, str] = {}  # why a stage waits, until it has moved something again

    def open(self) -> None:
        """Take up where the ledger and the disk stand. Before the first tick, under the lock."""
        now = self.clock.now()
        output_dir = self.settings.output_dir
        admit_commits(self.ledger, output_dir, now)
        if count := rebuild_ledger(self.ledger, output_dir, now):
            log.warning("ledger.rebuilt", extra={"runs": count})
        adopt_batches(self.ledger, output_dir, now)
        self._has_undone = undo_uncommitted(self.ledger, output_dir)
        self.admission.known = self.ledger.read.known()

    def change_settings(self, settings: Settings) -> None:
        """Work by other settings from now on; the inbox, the ledger and live runs stay."""
        self.settings = settings
        self.admission.settings = self.firing.settings = self.following.settings = settings

    def hint(self) -> None:
        """There is a reason to look: an event, a signal, a person's wish."""
        self.admission.hinted = True

    def tick(self) -> int:
        """Move everything that can move one step along; how many moved."""
        stages = [self.following.follow]
        if not self.is_draining:
            new = [self.reconcile, self.admit, self.admission.form, self.following.start]
            stages = [*new, self.firing.fire, self.following.rerun, *stages]
        return sum(self._guarded(stage) for stage in stages)

    def reconcile(self) -> int:
        """Bring the ledger in line with the disk, before each look through the whole inbox."""
        if self.admission.is_scan_due(self.clock.monotonic_s()):
            self._is_reconciled = False
        if self._is_reconciled:
            return 0
        output_dir = self.settings.output_dir
        self.ledger.read.require_in_place()
        count = admit_commits(self.ledger, output_dir, self.clock.now(), self._unreadable)
        if not self._has_undone:
            self._has_undone = undo_uncommitted(self.ledger, output_dir)
        self.admission.forget(self.ledger.read.unseen())
        self._is_reconciled = True
        return count

    def admit(self) -> int:
        """Enter what has arrived, unless a file that was published by hand could be among it."""
        return self.admission.admit() if self._is_reconciled else 0

    def _guarded(self, stage: Callable[[], int]) -> int:
        """Run one stage. What time may heal is tried again, ever later; bugs stop it after five."""
        name, now_s = stage.__name__, self.clock.monotonic_s()
        wait = self._waits.get(name)
        if wait is not None and now_s < wait.until_s:
            return 0
        try:
            moved = stage()
        except (DispatchError, BatchError, OSError) as error:  # a full disk is no bug
            self._waits[name] = longer(wait, str(error), now_s)
            if self._told.get(name) != str(error):
                log.warning("stage.waits", extra={"stage": name, "why": str(error)})
            self._told[name] = str(error)
            return 0
        except DsFlowError:
            raise
        except Exception:
            self._bugs += 1
            log.exception("stage.bug", extra={"stage": name, "in_a_row": self._bugs})
            if self._bugs >= BUGS_LIMIT:
                raise
            return 0
        self._bugs = 0 if moved else self._bugs
        self._waits.pop(name, None)
        if moved and self._told.pop(name, ""):  # finding nothing to do proves nothing
            log.info("stage.goes_on", extra={"stage": name})
        return moved

    def patience_s(self) -> float:
        """How long nothing will happen unless something wakes the daemon."""
        waits = []
        if not self.is_draining:
            now_s = self.clock.monotonic_s()
            waits += [self.admission.patience_s(now_s), self.firing.patience_s()]
        if self.ledger.read.live_runs():
            waits.append(POLL_SECONDS)
        elif due_at := self.ledger.read.next_due():
            now = self.clock.now()
            is_due = bool(self.ledger.read.due(now))
            waits.append(0.0 if is_due else (due_at - now).total_seconds())
        least = WAITING_POLL_SECONDS if self._waits or self.following.held else 0.01
        return max(least, min(waits, default=POLL_SECONDS))

    @property
    def troubles(self) -> list[str]:
        """What keeps a stage or a batch from its work now, in words."""
        stages, batches = self._told.values(), self.following.troubles
        return [why for why in (self.admission.inbox_error, *stages, *batches) if why]

    @property
    def is_idle(self) -> bool:
        """Whether nothing arrives, waits, or runs: all work that can be done has been worked off.

        While the inbox is lost, what waits forms no batch.
        """
        return not (
            self.admission.hinted
            or self.admission.arriving
            or (self.ledger.read.waiting() and not self.admission.inbox_error)
            or self.ledger.read.live_runs()
            or self.ledger.read.next_due()
            or not self.firing.is_idle
        )
