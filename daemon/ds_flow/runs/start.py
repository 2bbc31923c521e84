"""Start the runs of batches that are due."""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from ds_flow.core import (
    RERUN_TRIGGERS,
    BatchError,
    BatchState,
    Clock,
    DispatchError,
    Pause,
    Plan,
    Problems,
    is_disk_error,
)
from ds_flow.dispatch import has_jobs_elsewhere
from ds_flow.ledger import BatchRow, Ledger, RunRow
from ds_flow.runs import recovery
from ds_flow.runs.launch import Life, Runs
from ds_flow.runs.room import split_off, why_no_room, why_others_first
from ds_flow.settings import Settings
from ds_flow.system import (
    ask_mounts,
    available_mb,
    is_only_looking,
    require_space,
    space_shortage,
    why_store_not_held,
)
from ds_flow.work import Batch, put_families, why_refused

log = logging.getLogger(__name__)

LEAD_SECONDS = 30.0  # before its batch may form, a run's process is started
LONGEST_STANDBY_SECONDS = 90.0  # it ends by itself before, unless it hangs
STANDBY_NEEDS_MB = 512


@dataclass(slots=True)
class Starter:
    """From queued batches to live runs."""

    settings: Settings
    ledger: Ledger
    runs: Runs
    clock: Clock
    unreadable: Problems  # by batch: why the end of its run cannot be learnt
    held_back: Problems = field(default_factory=Problems)  # by batch: why it cannot start now
    is_paused: bool = False  # nothing new starts
    _ready_since_s: float = 0.0  # when the standby was started, monotonic
    _was_of_no_use: bool = False  # no batch came for the last standby

    def start(self) -> int:
        """Start a run of each batch of new files that is due, while there is room."""
        room = free_slots(self.settings, self._taking_room())
        return self._start_runs(
            [one for one in self._due() if one.trigger not in RERUN_TRIGGERS], room
        )

    def rerun(self) -> int:
        """Start a run of each rerun that is due, where batches of new files have left room."""
        room = free_slots(self.settings, self._taking_room(), is_rerun=True)
        return self._start_runs([one for one in self._due() if one.trigger in RERUN_TRIGGERS], room)

    def room(self) -> int:
        """How many runs of new files may start now, beside those of batches that are due."""
        if self.is_paused:
            return 0
        due = [batch for batch in self._due() if batch.trigger not in RERUN_TRIGGERS]
        starting = sum(batch.id not in self.held_back for batch in due)
        return free_slots(self.settings, self._taking_room()) - starting

    def get_ready(self, due_in_s: float) -> int:
        """Have the next run's process ready while its files settle; how many were ended.

        `due_in_s` tells when the next batch may form. A run that could not start then gets none,
        and after one for which no batch came, a run starts without one.
        """
        has_one = self.runs.has_standby
        is_late = self.clock.monotonic_s() - self._ready_since_s > LONGEST_STANDBY_SECONDS
        if not has_one or is_late:
            ended = self.runs.dismiss()
            self._was_of_no_use = self._was_of_no_use or ended > 0
        if due_in_s > LEAD_SECONDS and not has_one:
            return 0
        has_room = free_slots(self.settings, self._taking_room()) > 0
        if self.is_paused or not self.settings.run.fork or not has_room:
            return self.runs.dismiss()
        if not has_one and not self._was_of_no_use and self._has_room_for_standby():
            self._start_standby()
        return 0

    def _has_room_for_standby(self) -> bool:
        return available_mb() >= STANDBY_NEEDS_MB and not space_shortage(self.settings)

    def _start_standby(self) -> None:
        self.ledger.read.require_in_place()
        self._ready_since_s = self.clock.monotonic_s()
        try:
            self.runs.get_ready(self.settings)
        except OSError:  # if it lasts, the run's own start tells of it
            self._was_of_no_use = True

    def dismiss(self) -> int:
        """End the process that waits for a batch."""
        return self.runs.dismiss()

    def _taking_room(self) -> list[RunRow]:
        """List the live runs, except dead ones whose end cannot be learnt: they stop no other."""
        return [
            run
            for run in self.ledger.read.live_runs()
            if run.batch not in self.unreadable
            or self.runs.life(run.batch, run.attempt) != Life.DEAD
        ]

    def _due(self) -> list[BatchRow]:
        due = self.ledger.read.due_batches(self.clock.now())
        self.held_back.keep({batch.id for batch in due})
        return due

    def _start_runs(self, batches: Sequence[BatchRow], room: int) -> int:
        if not batches or room <= 0 or self._pause():
            return 0
        require_space(self.settings)
        started = 0
        for batch in batches:
            if started == room:
                break
            started += self._try_to_start(batch)
        return started

    def _pause(self) -> Pause | None:
        """The pause that is in force, although this tick may have begun before it."""
        return pause_of(self.settings, self.ledger, self.clock.now())

    def _try_to_start(self, batch: BatchRow) -> bool:
        """Start a batch's next run, or end a batch that needs none; whether it did.

        A batch that cannot start is tried later.
        """
        now_s = self.clock.monotonic_s()
        if self.held_back.must_wait(batch.id, now_s):
            return False
        try:
            is_untried = self._is_untried(batch)
            if is_untried and not self._leave_replaced(batch.id):
                return True
            why = self._why_it_cannot_run(batch.id, may_split=is_untried)
            why = why or why_others_first(self.settings, self.ledger, batch.id)
            if not (why := why or self._alive(batch.id)):
                return self._start_run(batch)
        except OSError as error:
            if is_disk_error(error):
                raise
            why = f"batch {batch.id} waits: {error}"
        if batch.id not in self.held_back:  # the figures in a reason change: told once all the same
            log.warning("batch.waits", extra={"batch": batch.id, "why": why})
            with suppress(DispatchError):  # a full disk, which is alerted to by itself
                self.ledger.hold_back(batch.id, why, self.clock.now())
        self.held_back.report(batch.id, why, now_s)
        return False

    def _is_untried(self, batch: BatchRow) -> bool:
        """Whether nothing but the ledger knows which files of new data a batch has."""
        plan = Batch.at(self.settings.output_dir, batch.id).plan_file
        is_new = batch.state == BatchState.QUEUED and batch.trigger not in RERUN_TRIGGERS
        return is_new and not os.path.lexists(plan)

    def _leave_replaced(self, batch_id: str) -> bool:
        """Let a batch give up versions that were replaced; False if that has ended it."""
        if not self.ledger.read.replaced(batch_id):
            return True
        left = self.ledger.leave_replaced(batch_id, self.clock.now())
        if not left:
            why = "newer versions of all its files have come"
            log.info("batch.cancelled", extra={"batch": batch_id, "why": why})
        return left > 0

    def _why_it_cannot_run(self, batch_id: str, *, may_split: bool) -> str:
        why = why_cannot_run(self.settings, self.ledger, batch_id)
        if why and may_split and self._split_off(batch_id):
            why = why_cannot_run(self.settings, self.ledger, batch_id)
        return why

    def _split_off(self, batch_id: str) -> bool:
        """Give what does not fit on the disk a batch of its own: it holds nothing else back."""
        new_batch = split_off(self.settings, self.ledger, batch_id, self.clock.now())
        if new_batch:
            why = f"the disk has no room for these files of batch {batch_id} now"
            log.warning("batch.queued", extra={"batch": new_batch, "why": why})
        return bool(new_batch)

    def _start_run(self, row: BatchRow) -> bool:
        """Start a batch's next run, unless somebody has just cancelled the batch; whether it did.

        Raises LedgerError if the project was moved away: the old place gets no work directory.

        1. Write the plan and the attempt's folder and log.
        2. Enter the run in the ledger.
        3. Start its process. A crash before this leaves a run without a process: it is lost.
        """
        self.ledger.read.require_in_place()
        batch = Batch.create(self.settings.output_dir, plan := self._plan(row))
        put_families(batch, self.ledger.families.of(file.path for file in plan.files))
        # A person's `resume` may have taken numbers that the ledger does not know.
        attempt = max(self.ledger.read.next_attempt(batch.id), batch.last_attempt() + 1)
        self.runs.make_way(self.settings, batch.id, attempt, row.trigger)
        self.runs.prepare(self.settings, batch.id, attempt)
        try:
            self.ledger.start_run(batch.id, self.clock.now(), attempt)
        except BatchError as error:
            log.warning("batch.not_started", extra={"batch": batch.id, "why": str(error)})
            if not has_jobs_elsewhere(batch.jobs):  # else whoever cancelled it ends those first
                recovery.tidy_work_dir(self.ledger, batch)
            return False
        log.info("run.starting", extra={"batch": batch.id, "attempt": attempt})
        self.runs.start(self.settings, batch.id, attempt, row.trigger)
        self._was_of_no_use = False
        return True

    def _alive(self, batch_id: str) -> str:
        """Say which attempt is alive that the ledger does not know; "" if none is.

        A ledger that was restored from a backup is older than the disk. A start that failed has
        left an attempt's folder, and its standby, which begins nothing unless it is told to.
        """
        last = Batch.at(self.settings.output_dir, batch_id).last_attempt()
        is_standby = self.runs.is_standby(batch_id, last)
        if is_standby or self.runs.life(batch_id, last) == Life.DEAD:
            return ""
        return (
            f"batch {batch_id} waits: its attempt {last} is alive, and the ledger does not know it"
        )

    def _plan(self, batch: BatchRow) -> Plan:
        last = self.ledger.schedules.last_run(batch.selection)
        return Plan(
            batch=batch.id,
            trigger=batch.trigger,
            formed_at=batch.formed_at,
            files=tuple(self.ledger.read.planned(batch.id)),
            options=self.settings.options(),
            selection=batch.selection,
            compare_with=last.run_id if last else "",
        )


def free_slots(settings: Settings, live: Sequence[RunRow], *, is_rerun: bool = False) -> int:
    """How many more runs may start.

    No new file waits for a rerun: while a rerun is live, there is room for one more run.
    """
    beside = not is_rerun and any(run.trigger in RERUN_TRIGGERS for run in live)
    return settings.run.max_parallel + beside - len(live)


def pause_of(settings: Settings, ledger: Ledger, now: datetime) -> Pause | None:
    """The pause that keeps everything new from starting; None if there is none."""
    return ledger.pauses.line(settings.planned_pause(now), now)


def why_not_started(settings: Settings, ledger: Ledger, batch: BatchRow) -> str:
    """Say what holds a batch back that is due; "" if nothing does."""
    if why := space_shortage(settings) or why_must_wait(settings, ledger, batch.id):
        return why.removeprefix(f"batch {batch.id} waits: ")
    return why_no_slot(settings, ledger, is_rerun=batch.trigger in RERUN_TRIGGERS)


def why_no_slot(settings: Settings, ledger: Ledger, *, is_rerun: bool = False) -> str:
    """Say which live runs leave no room for another; "" if they do."""
    live = ledger.read.live_runs()
    if free_slots(settings, live, is_rerun=is_rerun) > 0:
        return ""
    runs = ", ".join(run.run_id or f"{run.batch}/{run.attempt}" for run in live)
    return f"run.max_parallel is {settings.run.max_parallel}, and {runs} is live"


def why_must_wait(settings: Settings, ledger: Ledger, batch: str) -> str:
    """Say why a batch cannot start now, as `why_cannot_run` does, or for which runs it waits."""
    why = why_cannot_run(settings, ledger, batch)
    return why or why_others_first(settings, ledger, batch)


def why_cannot_run(settings: Settings, ledger: Ledger, batch: str) -> str:
    """Say why a run of a batch could not do its work now: a full disk, lost rights; or "".

    Who only looks repeats what the daemon said last.
    """
    if is_only_looking():
        return ledger.read.held_back(batch)
    why = ask_mounts(str(settings.inbox))
    if why := why or why_refused(settings, batch) or why_store_not_held(settings.root):
        return f"batch {batch} waits: {why}"
    return why_no_room(settings, ledger, batch)
