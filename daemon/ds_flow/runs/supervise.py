"""The end of the line: follow live runs, and record what became of them."""

import logging
import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ds_flow.core import (
    BatchError,
    Clock,
    Dead,
    DispatchError,
    Ended,
    Policy,
    Problems,
    RetryAt,
    RunState,
    after_failure,
    is_disk_error,
)
from ds_flow.dispatch import has_jobs_elsewhere
from ds_flow.ledger import Ledger, RunRow
from ds_flow.runs import outcome, recovery
from ds_flow.runs.launch import Life, Runs
from ds_flow.runs.start import why_cannot_run
from ds_flow.settings import Settings
from ds_flow.system import mask
from ds_flow.work import Batch, find_log, give_up_analysis, reveal, why_no_analysis

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 30.0

BEGIN_SECONDS = 30.0  # from a batch to the Run ID of a run whose process was there before
INTERRUPT_SECONDS = 5.0  # between SIGINT and SIGKILL


@dataclass(slots=True)
class Progress:
    """When a live run last made progress, and since when it is being ended. Monotonic seconds."""

    seen: int
    since_s: float
    ending_since_s: float | None = None


@dataclass(slots=True)
class Supervisor:
    """From live runs to recorded outcomes."""

    settings: Settings
    ledger: Ledger
    runs: Runs
    clock: Clock
    unreadable: Problems  # by batch: why the end of its run cannot be learnt
    progress: dict[str, Progress] = field(default_factory=dict)
    taken_over: set[str] = field(default_factory=set)  # marks of runs of an earlier daemon

    def take_over(self) -> None:
        """Note which live runs an earlier daemon has started."""
        self.taken_over = {f"{run.batch}/{run.attempt}" for run in self.ledger.read.live_runs()}

    def follow(self) -> int:
        """Learn what became of each live run, and end the runs that must end."""
        live = self.ledger.read.live_runs()
        marks = {f"{run.batch}/{run.attempt}" for run in live}
        self.progress = {mark: one for mark, one in self.progress.items() if mark in marks}
        self.unreadable.keep({run.batch for run in live})
        return sum(map(self._follow_run, live))

    def _follow_run(self, run: RunRow) -> int:
        try:
            moved = self._follow(run)
        except (BatchError, OSError) as error:  # this batch stands still; the others go on
            if is_disk_error(error):
                raise
            if self.unreadable.report(run.batch, str(error)):
                log.error("batch.unreadable", extra={"batch": run.batch, "why": str(error)})
            return 0
        self.unreadable.solve(run.batch)
        return moved

    def _follow(self, run: RunRow) -> int:
        batch = Batch.at(self.settings.output_dir, run.batch)
        life = self.runs.life(run.batch, run.attempt)
        if life == Life.DEAD:
            return self._record_end(run, batch)
        moved = self._learn_run_id(run, batch)
        if life == Life.ORPHANED:
            self.runs.kill(run.batch, run.attempt)
        else:
            self._press(run, batch)
        return moved

    def _learn_run_id(self, run: RunRow, batch: Batch) -> int:
        run_id = None if run.run_id else batch.run_id(run.attempt)
        if run_id is None:
            return 0
        self.ledger.name_run(run.batch, run.attempt, run_id, self.clock.now())
        log.info("run.running", extra={"run_id": run_id, "batch": run.batch})
        return 1

    def _press(self, run: RunRow, batch: Batch) -> None:
        """End a live run that was asked to end, or that has made no progress for too long."""
        now_s = self.clock.monotonic_s()
        seen = batch.last_progress_ns(run.attempt)
        progress = self.progress.setdefault(f"{run.batch}/{run.attempt}", Progress(seen, now_s))
        if progress.seen != seen:
            progress.seen, progress.since_s = seen, now_s
        limit_minutes = self.settings.run.limit_minutes
        if run.ending is None and now_s - progress.since_s > limit_minutes * 60:
            why = f"no progress for {limit_minutes:g} minutes"
            self.ledger.ask_end(run.batch, RunState.TIMED_OUT, why, self.clock.now())
        elif self._hangs(run, now_s - progress.since_s):
            self.runs.kill(run.batch, run.attempt)
        elif run.ending is not None and progress.ending_since_s is None:
            progress.ending_since_s = now_s
            self.runs.interrupt(run.batch, run.attempt)
        elif _is_over(progress, now_s):
            self.runs.kill(run.batch, run.attempt)

    def _hangs(self, run: RunRow, since_s: float) -> bool:
        """Whether a standby has not begun its run. The run that follows starts without one."""
        was_standby = self.runs.was_standby(run.batch, run.attempt)
        return was_standby and run.run_id is None and since_s > BEGIN_SECONDS

    def _record_end(self, run: RunRow, batch: Batch) -> int:
        """Record how a dead run ended; 0 while that must wait.

        1. If it has committed, finish its publication. Its commit counts, however it died.
        2. End jobs elsewhere that nobody will wait for. Until that is done, try again later.
        3. Record the commit in the ledger, or else the failure by what the run has left.
        """
        broken = ""
        try:
            output_dir = self.settings.output_dir
            manifest = reveal(batch)
            manifest = manifest or recovery.published(self.ledger, output_dir, run.batch)
            self._learn_run_id(run, batch)
            if manifest is not None:
                if self._end_jobs(run, batch) is None:
                    return 0
                if self.ledger.record(manifest, self.clock.now()):
                    recovery.log_commit(self.ledger, manifest)
                if manifest.attempt == run.attempt:
                    recovery.tidy_work_dir(self.ledger, batch)
                    return 1
        except BatchError as error:
            broken = str(error)
        return self._record_failure(run, batch, broken)

    def _record_failure(self, run: RunRow, batch: Batch, broken: str = "") -> int:
        """Record a run that published nothing, and decide what follows.

        `broken` says why no attempt at this batch can succeed, if that is known.
        """
        now = self.clock.now()
        run = replace(run, run_id=run.run_id or batch.run_id(run.attempt))
        state, said = outcome.outcome_of(run, batch, self.settings.log_dir)
        error = mask(said, self.settings.secrets)
        cannot = why_cannot_run(self.settings, self.ledger, run.batch)
        if state in {RunState.FAILED, RunState.LOST} and cannot:
            state, error = RunState.LOST, f"{cannot}: {error}"
        is_held = bool(cannot) or outcome.met_full_disk(run, batch, self.settings.log_dir)
        results = batch.count_results()
        then = self._what_follows(run, state, results, now, broken or _why_no_plan(run, batch))
        if state == RunState.LOST and is_held and isinstance(then, RetryAt):
            then = RetryAt(now + timedelta(seconds=LONGEST_WAIT_SECONDS))
        if not broken and (state == RunState.TIMED_OUT or isinstance(then, Dead)):
            why = f"{then.why}: {error}" if isinstance(then, Dead) else error
            then = RetryAt(now) if _give_up_analysis(run, batch, why) else then
        is_over = state in {RunState.CANCELLED, RunState.TIMED_OUT} or isinstance(then, Dead)
        remark = self._end_jobs(run, batch) if is_over else ""
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
            reasons=batch.own_reasons() if isinstance(then, Dead) else {},
        )
        _log_end(run, state, error, then)
        self._tell(run, error, then)
        recovery.tidy_work_dir(self.ledger, batch)
        return 1

    def _tell(self, run: RunRow, why: str, then: RetryAt | Dead | None) -> None:
        """Name the files that were set aside; or say, once until it changes, that no run begins."""
        now = self.clock.now()
        if not isinstance(then, RetryAt):
            paths = {*self.ledger.read.batch_paths(run.batch)}
            recovery.log_set_aside(self.ledger, run.batch, paths)
        elif run.run_id is None and then.at > now and self.ledger.hold_back(run.batch, why, now):
            log.error("batch.held_back", extra={"batch": run.batch, "why": why})

    def _end_jobs(self, run: RunRow, batch: Batch) -> str | None:
        """End a batch's jobs elsewhere: None until that is done, a remark if some could not be."""
        if not has_jobs_elsewhere(batch.jobs):
            return ""
        path = find_log(self.settings.log_dir, run.batch, run.attempt, run.run_id)
        left = self.runs.cancel_jobs(self.settings, batch, path)
        if left:
            log.error("job.not_released", extra={"batch": run.batch, "why": "see the run's log"})
        return None if left is None else "; not all of its jobs could be ended" * bool(left)

    def _what_follows(
        self, run: RunRow, state: RunState, results: int, now: datetime, broken: str
    ) -> RetryAt | Dead | None:
        if state == RunState.CANCELLED:
            return None
        if broken:
            return Dead(f"its work directory was changed: {broken}")
        if run.run_id is None and f"{run.batch}/{run.attempt}" in self.taken_over:
            return RetryAt(now)  # it may have ended with that daemon or its machine: no fault of it
        policy = Policy(
            attempts=self.settings.run.attempts,
            first_delay_seconds=self.settings.run.retry_first_seconds,
        )
        history = [*self.ledger.read.ended(run.batch), Ended(state, results, bool(run.run_id))]
        return after_failure(history, policy, now, random.random())  # noqa: S311 - spreads delays # nosec B311

    def kill_runs(self) -> None:
        """Kill every live run. The next daemon learns what became of them."""
        for run in self.ledger.read.live_runs():
            self.runs.kill(run.batch, run.attempt)

    def stop_runs(self, why: str) -> None:
        """Ask every live run to end. The next daemon starts them again."""
        for run in self.ledger.read.live_runs():
            self.ledger.ask_end(run.batch, RunState.STOPPED, why, self.clock.now())


def _give_up_analysis(run: RunRow, batch: Batch, why: str) -> bool:
    """Give up the analysis in which a run has ended; False if it ended elsewhere.

    The data is good: one more run publishes it without an analysis.
    """
    was_given_up = bool(why_no_analysis(batch))
    if not give_up_analysis(batch, run.attempt, why):
        return False
    if not was_given_up:
        log.warning("analysis.given_up", extra={"batch": run.batch, "why": why})
    return True


def _is_over(progress: Progress, now_s: float) -> bool:
    """Whether an interrupted run has had its time to end by itself."""
    since_s = progress.ending_since_s
    return since_s is not None and now_s - since_s > INTERRUPT_SECONDS


def _why_no_plan(run: RunRow, batch: Batch) -> str:
    """Say why no run of a batch can use its plan, if one never began; or ""."""
    if run.run_id is not None:
        return ""
    try:
        _ = batch.plan
    except DispatchError:
        return ""  # there is none yet: the next start writes it
    except BatchError as error:
        return str(error)
    return ""


def _log_end(run: RunRow, state: RunState, error: str, then: RetryAt | Dead | None) -> None:
    ids = {"run_id": run.run_id, "batch": run.batch, "attempt": run.attempt}
    log.warning("run.%s", state, extra={**ids, "why": error})
    match then:
        case RetryAt(at):
            log.warning("batch.retrying", extra={"batch": run.batch, "due_at": at})
        case Dead(why):
            log.error("batch.dead", extra={"batch": run.batch, "why": why})
        case None:
            log.warning("batch.cancelled", extra={"batch": run.batch})
