"""The end of the line: start runs, follow them, record what became of them."""

import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from ds_flow.core import (
    AGAIN,
    BatchError,
    Clock,
    Dead,
    Ended,
    Plan,
    Policy,
    RetryAt,
    RunState,
    after,
    concerns_all,
)
from ds_flow.dispatch import has_jobs_elsewhere
from ds_flow.ledger import BatchRow, Ledger, RunRow
from ds_flow.runs import outcome, recovery
from ds_flow.runs.launch import Life, Runs
from ds_flow.settings import Settings
from ds_flow.system import mask, read_word, require_space, space_lacking, why_store_not_held
from ds_flow.work import (
    BusyError,
    attempt_dir,
    count_results,
    create_work_dir,
    last_attempt,
    last_progress_ns,
    own_reasons,
    recover,
    work_root,
)

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 30.0

INTERRUPT_SECONDS = 5.0  # between SIGINT and SIGKILL


@dataclass(slots=True)
class Progress:
    """When a live run was last seen to get on, and since when it is being ended; monotonic."""

    seen: int
    since_s: float
    ending_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """What stops a stage or a batch for now: a full disk, a lock, a lost folder."""

    why: str
    until_s: float
    seconds: float


def longer(before: Wait | None, why: str, now_s: float) -> Wait:
    """Wait a second, or twice as long as the last time."""
    seconds = min(before.seconds * 2, LONGEST_WAIT_SECONDS) if before else 1.0
    return Wait(why, now_s + seconds, seconds)


@dataclass(slots=True)
class Supervisor:
    """From queued batches to recorded outcomes."""

    settings: Settings
    ledger: Ledger
    runs: Runs
    clock: Clock
    progress: dict[str, Progress] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)  # batch -> what is off with it
    held: dict[str, Wait] = field(default_factory=dict)  # batch -> why it does not start

    @property
    def troubles(self) -> list[str]:
        """What is off with live runs, and why the first batch that is held back is."""
        return [*self.told.values(), *(wait.why for wait in [*self.held.values()][:1])]

    # ------------------------------------------------------------------ start

    def start(self) -> int:
        """Start a run of each batch of new files that is due, while there is room.

        None of them waits for a rerun: while one is live, there is room for one more.
        """
        live = self._taking_room()
        beside = any(run.trigger in AGAIN for run in live)
        room = self.settings.run.max_parallel + beside - len(live)
        return self._start_runs([one for one in self._due() if one.trigger not in AGAIN], room)

    def rerun(self) -> int:
        """Start a run of each rerun that is due, where new files have left room."""
        room = self.settings.run.max_parallel - len(self._taking_room())
        return self._start_runs([one for one in self._due() if one.trigger in AGAIN], room)

    def _taking_room(self) -> list[RunRow]:
        """The live runs, but for dead ones whose end cannot be learnt: they stop no other."""
        return [
            run
            for run in self.ledger.read.live_runs()
            if run.batch not in self.told or self.runs.life(run.batch, run.attempt) != Life.DEAD
        ]

    def _due(self) -> list[BatchRow]:
        due = self.ledger.read.due(self.clock.now())
        self.held = {one.id: self.held[one.id] for one in due if one.id in self.held}
        return due

    def _start_runs(self, batches: Sequence[BatchRow], room: int) -> int:
        if not batches or room <= 0:
            return 0
        require_space(self.settings)
        started = 0
        for batch in batches:
            if started == room:
                break
            started += self._start_unless_held(batch)
        return started

    def _start_unless_held(self, batch: BatchRow) -> bool:
        """Start a batch's next run; one that cannot start now is looked at again, ever later."""
        wait, now_s = self.held.get(batch.id), self.clock.monotonic_s()
        if wait is not None and now_s < wait.until_s:
            return False
        try:
            why = self._why_no_room(batch.id)
            if not why:
                return self._start_run(batch)
        except OSError as error:
            if concerns_all(error):
                raise
            why = f"batch {batch.id} waits: {error}"
        if wait is None:
            log.warning("batch.waits", extra={"batch": batch.id, "why": why})
        self.held[batch.id] = longer(wait, why, now_s)
        return False

    def _start_run(self, batch: BatchRow) -> bool:
        """Start a batch's next run, unless somebody has just cancelled it; whether it did."""
        work = create_work_dir(self.settings.output_dir, self._plan(batch))
        # A person's `resume` may have taken numbers that the ledger does not know.
        attempt = max(self.ledger.read.next_attempt(batch.id), last_attempt(work) + 1)
        self.runs.prepare(self.settings, batch.id, attempt)
        try:
            self.ledger.start_run(batch.id, self.clock.now(), attempt)
        except BatchError as error:
            log.warning("batch.left", extra={"batch": batch.id, "why": str(error)})
            if not has_jobs_elsewhere(work / "jobs"):  # else who cancelled it ends those first
                recovery.tidy_work_dir(self.ledger, work)
            return False
        log.info("run.starting", extra={"batch": batch.id, "attempt": attempt})
        self.runs.start(self.settings, batch.id, attempt, batch.trigger)
        return True

    def _why_no_room(self, batch: str) -> str:
        """Why a run of a batch could not do its work now: a full disk, lost rights; or ""."""
        for folder in (self.settings.output_dir, self.settings.log_dir):
            if folder.exists() and not os.access(folder, os.W_OK):
                return f"batch {batch} waits: {folder} cannot be written to"
        if why := why_store_not_held(self.settings.root):
            return f"batch {batch} waits: {why}"
        return space_lacking(self.settings, batch, self.ledger.read.planned(batch))

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

    # ------------------------------------------------------------------ follow

    def follow(self) -> int:
        """Learn what became of each live run."""
        live = self.ledger.read.live_runs()
        for gone in self.progress.keys() - {f"{run.batch}/{run.attempt}" for run in live}:
            del self.progress[gone]
        for gone in self.told.keys() - {run.batch for run in live}:
            del self.told[gone]
        return sum(map(self._follow_run, live))

    def _follow_run(self, run: RunRow) -> int:
        try:
            moved = self._follow(run)
        except (BatchError, OSError) as error:  # it stands still, and stops no other
            if concerns_all(error):
                raise
            if self.told.get(run.batch) != str(error):
                log.error("batch.unreadable", extra={"batch": run.batch, "why": str(error)})
            self.told[run.batch] = str(error)
            return 0
        self.told.pop(run.batch, None)
        return moved

    def _follow(self, run: RunRow) -> int:
        work = work_root(self.settings.output_dir) / run.batch
        life = self.runs.life(run.batch, run.attempt)
        if life == Life.DEAD:
            return self._record_end(run, work)
        moved = self._learn_run_id(run, work)
        if life == Life.ORPHANED:
            self.runs.kill(run.batch, run.attempt)
        else:
            self._press(run, work)
        return moved

    def _learn_run_id(self, run: RunRow, work: Path) -> int:
        folder = attempt_dir(work, run.attempt)
        run_id = None if run.run_id else read_word(folder / "run_id")
        if run_id is None:
            return 0
        self.ledger.name_run(run.batch, run.attempt, run_id, self.clock.now())
        log.info("run.running", extra={"run_id": run_id, "batch": run.batch})
        return 1

    def _press(self, run: RunRow, work: Path) -> None:
        """End a live run that is to end: for a wish, or because it no longer gets on."""
        now_s = self.clock.monotonic_s()
        seen = last_progress_ns(work, run.attempt)
        progress = self.progress.setdefault(f"{run.batch}/{run.attempt}", Progress(seen, now_s))
        if progress.seen != seen:
            progress.seen, progress.since_s = seen, now_s
        limit_minutes = self.settings.run.limit_minutes
        if run.ending is None and now_s - progress.since_s > limit_minutes * 60:
            why = f"no progress for {limit_minutes:g} minutes"
            self.ledger.ask_end(run.batch, RunState.TIMED_OUT, why, self.clock.now())
        elif run.ending is not None and progress.ending_since_s is None:
            progress.ending_since_s = now_s
            self.runs.interrupt(run.batch, run.attempt)
        elif _is_over(progress, now_s):
            self.runs.kill(run.batch, run.attempt)

    def _record_end(self, run: RunRow, work: Path) -> int:
        """Record a dead run by what it left: its commit, else its exit code, else it is lost.

        Other publications and the end of jobs that nobody will wait for come first: 0 until then.
        """
        broken = ""
        try:
            manifest = recover(work, self.settings.output_dir)
            self._learn_run_id(run, work)
            if manifest is not None:
                if self._end_jobs(run, work) is None:
                    return 0
                if self.ledger.record(manifest, self.clock.now()):
                    recovery.log_commit(self.ledger, manifest)
                if manifest.attempt == run.attempt:
                    recovery.tidy_work_dir(self.ledger, work)
                    return 1
        except BusyError:
            return 0
        except BatchError as error:
            broken = str(error)
        return self._record_failure(run, work, broken)

    def _record_failure(self, run: RunRow, work: Path, broken: str = "") -> int:
        """Record a run that published nothing; `broken`: why no attempt at its batch can."""
        now = self.clock.now()
        state, said = outcome.outcome_of(run, work, self.settings.log_dir)
        error = mask(said, self.settings.secrets)
        if state == RunState.FAILED and (cannot := self._why_no_room(run.batch)):
            state, error = RunState.LOST, f"{cannot}: {error}"
        results = count_results(work)
        then = self._what_follows(run, state, results, now)
        if state == RunState.LOST and outcome.met_full_disk(work, run.attempt):
            then = RetryAt(now + timedelta(seconds=LONGEST_WAIT_SECONDS))
        if broken and then is not None:
            then = Dead(f"its work directory was changed: {broken}")
        is_over = state in {RunState.CANCELLED, RunState.TIMED_OUT} or isinstance(then, Dead)
        remark = self._end_jobs(run, work) if is_over else ""
        if remark is None:
            return 0
        self.ledger.end_run(
            run.batch,
            run.attempt,
            state,
            error=error + remark,
            results=results,
            then=then,
            now=now,
            reasons=own_reasons(work) if isinstance(then, Dead) else {},
        )
        _log_end(run, state, error, then)
        if not isinstance(then, RetryAt):
            paths = {*self.ledger.read.batch_paths(run.batch)}
            recovery.log_set_aside(self.ledger, run.batch, paths)
        recovery.tidy_work_dir(self.ledger, work)
        return 1

    def _end_jobs(self, run: RunRow, work: Path) -> str | None:
        """End what a batch still has elsewhere: None until that is done, a remark if some stays."""
        if not has_jobs_elsewhere(work / "jobs"):
            return ""
        left = self.runs.cancel_jobs(
            self.settings, run.batch, outcome.log_file(run, self.settings.log_dir)
        )
        if left:
            log.error("job.left", extra={"batch": run.batch, "why": "see the run's log"})
        return None if left is None else "; not all of its jobs could be ended" * bool(left)

    def _what_follows(
        self, run: RunRow, state: RunState, results: int, now: datetime
    ) -> RetryAt | Dead | None:
        if state == RunState.CANCELLED:
            return None
        policy = Policy(
            attempts=self.settings.run.attempts,
            first_delay_seconds=self.settings.run.retry_first_seconds,
        )
        history = [*self.ledger.read.ended(run.batch), Ended(state, results)]
        return after(history, policy, now, random.random())  # noqa: S311 - spreads delays

    def kill_runs(self) -> None:
        """Kill every live run; the next daemon learns what became of them."""
        for run in self.ledger.read.live_runs():
            self.runs.kill(run.batch, run.attempt)

    def stop_runs(self, why: str) -> None:
        """Ask every live run to end, to be started again by the next daemon."""
        for run in self.ledger.read.live_runs():
            self.ledger.ask_end(run.batch, RunState.STOPPED, why, self.clock.now())


def _is_over(progress: Progress, now_s: float) -> bool:
    """Whether an interrupted run has had its time to end."""
    since_s = progress.ending_since_s
    return since_s is not None and now_s - since_s > INTERRUPT_SECONDS


def _log_end(run: RunRow, state: RunState, error: str, then: RetryAt | Dead | None) -> None:
    ids = {"run_id": run.run_id, "batch": run.batch, "attempt": run.attempt}
    log.warning("run.%s", state, extra={**ids, "why": error})
    match then:
        case RetryAt(at):
            log.warning("batch.retrying", extra={"batch": run.batch, "due_at": at.isoformat()})
        case Dead(why):
            log.error("batch.dead", extra={"batch": run.batch, "why": why})
        case None:
            log.warning("batch.cancelled", extra={"batch": run.batch})
