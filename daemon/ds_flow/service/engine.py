"""The line: one tick moves everything that can move one step along it.

Read `tick` first: it names the stages in their order. All of them run on one thread. Each decides
from the disk and the ledger, not from memory, so it does not matter when the process dies.
"""

import logging
from collections.abc import Callable

from ds_flow.core import BatchError, BatchState, Clock, DispatchError, DsFlowError, Pause, Problems
from ds_flow.inbox import Admission, After, Inbox, Pattern
from ds_flow.ledger import Ledger
from ds_flow.runs import (
    POLL_SECONDS,
    Runs,
    Starter,
    Supervisor,
    admit_commits,
    adopt_batches,
    pause_of,
    rebuild_ledger,
    tidy_work_dirs,
    try_held_batches,
)
from ds_flow.schedules import Fires
from ds_flow.settings import Settings

log = logging.getLogger(__name__)

BUGS_LIMIT = 5  # in a row
WAITING_POLL_SECONDS = 0.25  # while a stage or a batch waits, the others go on this often

Stage = Callable[[], int]
"""Moves what can move one step now; returns how much moved."""


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
        self.unreadable = Problems()  # by batch: why its files cannot be read
        self.admission = Admission(settings, ledger, inbox, clock, pulse)
        self.admission.forming.name_batch = runs.next_batch
        self.starter = Starter(settings, ledger, runs, clock, self.unreadable)
        self.after = After(settings, ledger, clock, self.admission.known.forget)
        self.fires = Fires(settings, ledger, clock, pulse)
        self.supervisor = Supervisor(settings, ledger, runs, clock, self.unreadable)
        self.pause: Pause | None = None  # that is in force
        self.is_draining = False  # start no new work, follow what runs
        self._stages_waiting = Problems()  # by stage
        self._foreign = Problems()  # by batch, of work directories that no live run has
        self._is_reconciled = False
        self._bugs_in_a_row = 0

    # ------------------------------------------------------------------ the tick

    def tick(self) -> int:
        """Move everything that can move one step along the line; return how much moved."""
        stages: list[Stage] = [
            self.heed_pause,  # while one is in force, nothing new starts
            self.reconcile,  # record what runs by hand have published
            self.admit,  # enter files that have finished arriving
            self.form,  # claim waiting files for the batches that are due and can start
            self.starter.start,  # start runs of batches of new files
            self.fires.fire,  # make batches of the schedules that are due
            self.starter.rerun,  # start runs of reruns, where new files have left room
            self.get_ready,  # start the next run's process while its files settle
        ]
        if self.is_draining:
            stages = [self.starter.dismiss]
        stages.append(self.follow)  # record what became of live runs
        if not self.is_draining:
            stages.append(self.after.put_away)  # let published files leave the inbox
        return sum(map(self._attempt, stages))

    def heed_pause(self) -> int:
        """Take note of a pause that a person or the clock has begun or ended."""
        now = self.clock.now()
        self.ledger.pauses.end_due(now)
        before, self.pause = self.pause, pause_of(self.settings, self.ledger, now)
        self.starter.is_paused = self.pause is not None
        if self.pause and self.pause != before:
            log.info("line.paused", extra={"why": self.pause.terms})
        elif before and not self.pause:
            log.info("line.resumed")
        return 0

    def reconcile(self) -> int:
        """Bring the ledger in line with the disk, before each scan of the whole inbox."""
        if self.admission.is_scan_due(self.clock.monotonic_s()):
            self._is_reconciled = False
        if self._is_reconciled:
            return 0
        output_dir = self.settings.output_dir
        self.ledger.read.require_in_place()
        count = admit_commits(self.ledger, output_dir, self.clock.now(), self._foreign)
        self.admission.known.forget(self.ledger.read.unseen())
        self._is_reconciled = True
        return count

    def follow(self) -> int:
        """Record what became of live runs. A file that a run found changed is looked at again."""
        moved = self.supervisor.follow()
        self.after.hinted |= moved > 0
        if moved and self.ledger.read.unseen():
            self.hint()
        return moved

    def admit(self) -> int:
        """Enter what has arrived, once the ledger knows what was published by hand."""
        admitted = self.admission.admit() if self._is_reconciled else 0
        self.after.hinted |= admitted > 0  # what was published may have come again
        return admitted

    def form(self) -> int:
        """Form as many batches as may start now. Until then, the files of later drops join them."""
        return self.admission.form(self.starter.room())

    def get_ready(self) -> int:
        """Have the next run's process ready before its batch is there."""
        return self.starter.get_ready(self.admission.due_in_s(self.clock.monotonic_s()))

    def _attempt(self, stage: Stage) -> int:
        """Run one stage; 0 if it failed.

        1. A problem that time may solve (a full disk, a lock, a lost folder) is logged once. The
           stage is tried again, ever later; the other stages go on.
        2. A bug is logged. Five in a row end the daemon.
        3. A broken ledger ends the daemon.
        """
        name, now_s = stage.__name__, self.clock.monotonic_s()
        if self._stages_waiting.must_wait(name, now_s):
            return 0
        try:
            moved = stage()
        except (DispatchError, BatchError, OSError) as error:
            if self._stages_waiting.report(name, str(error), now_s):
                log.warning("stage.waits", extra={"stage": name, "why": str(error)})
            return 0
        except DsFlowError:
            raise
        except Exception:
            self._bugs_in_a_row += 1
            log.exception("stage.bug", extra={"stage": name, "in_a_row": self._bugs_in_a_row})
            if self._bugs_in_a_row >= BUGS_LIMIT:
                raise
            return 0
        self._note_success(name, moved)
        return moved

    def _note_success(self, stage: str, moved: int) -> None:
        """Wait no longer for a stage. One that found nothing to do has proved nothing more."""
        self._stages_waiting.end_wait(stage)
        if moved:
            self._bugs_in_a_row = 0
            if self._stages_waiting.solve(stage):
                log.info("stage.resumed", extra={"stage": stage})

    # ------------------------------------------------------------------ around it

    def open(self) -> None:
        """Take up where the ledger and the disk stand. Before the first tick, under the lock."""
        now = self.clock.now()
        output_dir = self.settings.output_dir
        admit_commits(self.ledger, output_dir, now)
        if count := rebuild_ledger(self.ledger, output_dir, now):
            log.warning("ledger.rebuilt", extra={"runs": count})
        adopt_batches(self.ledger, output_dir, now)
        tidy_work_dirs(self.ledger, output_dir)
        try_held_batches(self.ledger, now)
        self.supervisor.take_over()
        self.admission.known.add(self.ledger.read.known())

    def change_settings(self, settings: Settings) -> None:
        """Work by other settings from now on; the inbox, the ledger and live runs stay."""
        self.settings = settings
        admission = self.admission
        parts = (admission, admission.forming, self.starter, self.fires, self.supervisor)
        for part in (*parts, self.after):
            part.settings = settings
        admission.inbox.change(Pattern.of(settings))
        self.after.hinted = True
        try_held_batches(self.ledger, self.clock.now())

    def hint(self) -> None:
        """Take note of a reason to look: an event, a signal, a person's request."""
        self.admission.hinted = True

    def patience_s(self) -> float:
        """Seconds in which nothing will happen unless something wakes the daemon."""
        waits = []
        if not self.is_draining:
            now_s = self.clock.monotonic_s()
            waits += [self.admission.patience_s(now_s), self.fires.patience_s()]
            waits.append(self.after.patience_s())
        if self.pause and self.pause.until_at:
            waits.append((self.pause.until_at - self.clock.now()).total_seconds())
        if self.ledger.read.live_runs():
            waits.append(POLL_SECONDS)
        elif self.pause:
            pass  # what is due waits for its end
        elif due_at := self.ledger.read.next_due():
            now = self.clock.now()
            is_due = bool(self.ledger.read.due_batches(now))
            waits.append(0.0 if is_due else (due_at - now).total_seconds())
        least = WAITING_POLL_SECONDS if self._has_waits else 0.01
        return max(least, min(waits, default=POLL_SECONDS))

    @property
    def _has_waits(self) -> bool:
        return self._stages_waiting.has_waits or self.starter.held_back.has_waits

    @property
    def problems(self) -> list[str]:
        """Why stages and batches cannot work now; of the batches held back, the first one's."""
        first_held_back = [*self.starter.held_back][:1]
        found = [self.admission.inbox_error, *self._stages_waiting, *self.unreadable]
        found += self.after.waits
        return [why for why in (*found, *first_held_back) if why]

    @property
    def is_held_back(self) -> bool:
        """Whether nothing is left but batches whose runs never began, and which wait longer now."""
        read, now = self.ledger.read, self.clock.now()
        left = [*read.batches_in(BatchState.QUEUED), *read.batches_in(BatchState.RETRYING)]
        return (
            not (self.admission.is_busy or self.after.is_busy or read.live_runs())
            and not (read.due_batches(now) or self.admission.forming.has_waiting())
            and self.fires.is_idle
            and all(read.never_began(batch.id) for batch in left)
        )

    @property
    def is_paused(self) -> bool:
        """Whether nothing is left but what waits for the end of a pause."""
        is_busy = self.admission.is_busy or self.after.is_busy
        return self.pause is not None and not (is_busy or self.ledger.read.live_runs())

    @property
    def is_idle(self) -> bool:
        """Whether nothing arrives, waits, or runs: all work that can be done has been worked off.

        While the inbox is lost, what waits forms no batch.
        """
        return not (self.admission.is_busy or self.has_work)

    @property
    def has_work(self) -> bool:
        """Whether files that have arrived wait, or something runs or is due."""
        return bool(
            self.after.is_busy
            or (self.admission.forming.has_waiting() and not self.admission.inbox_error)
            or self.ledger.read.live_runs()
            or self.ledger.read.next_due()
            or not self.fires.is_idle
        )
