"""From a schedule's time to a rerun of its files, or to outputs that are verified."""

import logging
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ds_flow.core import (
    AFTER_PAUSE,
    Clock,
    FireOutcome,
    LedgerError,
    Manifest,
    Pause,
    Timetable,
    due_fire,
    is_missed,
    local_time,
)
from ds_flow.ledger import FileRow, Fire, LastRun, Ledger, ScheduleRow
from ds_flow.schedules import selection
from ds_flow.schedules.selection import Choice
from ds_flow.schedules.verification import verify_outputs
from ds_flow.settings import Schedule, Settings
from ds_flow.work import (
    LASTING,
    code_fingerprint,
    manifest_name,
    read_manifest,
    settings_fingerprint,
)

log = logging.getLogger(__name__)

CLOCK_SECONDS = (
    30.0  # after which the clock is looked at again: it may be set, or the machine sleep
)
VERIFYING_SECONDS = 0.25  # in one go; then the line moves on, and whoever waits has their turn


@dataclass(frozen=True, slots=True)
class Due:
    """A fire that is to be done now."""

    schedule: Schedule
    due_at: datetime
    is_asked: bool  # by a person
    is_after_pause: bool = False  # it waited for the end of one

    @property
    def selection(self) -> str:
        """The name of what it is over."""
        return selection.selection_name(self.schedule)


@dataclass(slots=True)
class Verification:
    """A fire for which nothing has changed, while the last run's outputs are read again."""

    due: Due
    last: LastRun
    steps: Iterator[str]
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Fires:
    """All schedules, one fire at a time."""

    settings: Settings
    ledger: Ledger
    clock: Clock
    pulse: Callable[[], None]
    keeps_time: bool = False  # else only what a person asks for is fired

    _kept: tuple[Schedule, ...] | None = None
    _timetables: dict[str, Timetable] = field(default_factory=dict)
    _verifications: list[Verification] = field(default_factory=list)  # each has its turn

    def fire(self) -> int:
        """Do what is due of one schedule, or a piece of it."""
        if due := self._due(self.clock.now()):
            self._begin(due)
            return 1
        return self._go_on() if self._verifications else 0

    def patience_s(self) -> float:
        """How long nothing will be due unless a person asks, or the clock is set."""
        if self._verifications:
            return 0.0
        now = self.clock.now()
        nexts = (one.next_after(now) for one in self._timetables.values())
        waits = [(at - now).total_seconds() for at in nexts if at is not None]
        return min([CLOCK_SECONDS, *waits]) if waits else math.inf

    @property
    def is_idle(self) -> bool:
        """Whether no fire is asked for or on its way."""
        rows = self.ledger.schedules.rows()
        asked = (one.name in rows and rows[one.name].asked_at for one in self.settings.schedule)
        return not (self._verifications or any(asked))

    # ------------------------------------------------------------------ what is due

    def _due(self, now: datetime) -> Due | None:
        rows = self._rows(now)
        pause = self.ledger.pauses.line(self.settings.planned_pause(now), now)
        begun = {(one.due.schedule.name, one.due.due_at) for one in self._verifications}
        for schedule in self.settings.schedule:
            row = rows.get(schedule.name)
            at = row and self._time_has_come(schedule.name, row, now)
            if at and (schedule.name, at) not in begun and not self._waits(schedule, pause, now):
                return Due(schedule, at, is_asked=False, is_after_pause=self._was_paused(at, now))
            if row and row.asked_at and not pause and (schedule.name, row.asked_at) not in begun:
                return Due(schedule, row.asked_at, is_asked=True)
        return None

    def _waits(self, schedule: Schedule, pause: Pause | None, now: datetime) -> bool:
        """Whether a fire is left for the end of a pause of the line, after which it is caught up.

        A fire of a schedule that is paused itself is skipped, and so is one that is never caught
        up.
        """
        is_skipped = not schedule.catch_up or self.ledger.pauses.of(schedule.name, now) is not None
        return pause is not None and not is_skipped

    def _was_paused(self, at: datetime, now: datetime) -> bool:
        """Whether the line was paused at the time of a fire that is late."""
        if not is_missed(at, now):
            return False
        span = self.ledger.pauses.last_span()
        is_in_span = span is not None and span[0] <= at <= span[1]
        return is_in_span or self.settings.planned_pause(at) is not None

    def _why_skipped(self, due: Due, now: datetime) -> str:
        """Say which pause skips a fire; "" if none does. What a person asks for is not skipped."""
        if due.is_asked:
            return ""
        own = self.ledger.pauses.of(due.schedule.name, now)
        line = self.ledger.pauses.line(self.settings.planned_pause(now), now)
        pause = own or line
        return pause.sentence if pause else ""

    def _rows(self, now: datetime) -> dict[str, ScheduleRow]:
        """What the ledger has of the schedules, brought in line with the settings."""
        rows = self.ledger.schedules.rows()
        is_kept = self._kept is self.settings.schedule
        if not self.keeps_time or (is_kept and all(row.since_at <= now for row in rows.values())):
            return rows
        self._kept = self.settings.schedule
        self._timetables = {one.name: Timetable(one.cron, one.timezone) for one in self._kept}
        self.ledger.schedules.keep({one.name: one.timetable for one in self._kept}, now)
        return self.ledger.schedules.rows()

    def _time_has_come(self, name: str, row: ScheduleRow, now: datetime) -> datetime | None:
        if not self.keeps_time:
            return None
        last = self.ledger.schedules.last(name)
        last_at = last.fire.due_at if last else None
        at = due_fire(self._timetables[name], since=row.since_at, last=last_at, now=now)
        return None if at is None or self.ledger.schedules.is_done(name, at) else at

    # ------------------------------------------------------------------ what is done

    def _begin(self, due: Due, found: str = "") -> None:
        """Decide what a fire does. `found` says what is wrong with the last run's outputs."""
        schedule, now = due.schedule, self.clock.now()
        is_late = is_missed(due.due_at, now) and not (due.is_asked or due.is_after_pause)
        if why := self._why_skipped(due, now):
            self._record(due, FireOutcome.SKIPPED, why)
            return
        if any(one.due.schedule.name == schedule.name for one in self._verifications):
            self._record(due, FireOutcome.NOTHING, "the last fire still verifies")
            return
        if is_late and not (schedule.catch_up or found):
            said = f"due at {local_time(due.due_at)}, seen at {local_time(now)}"
            self._record(due, FireOutcome.MISSED, said)
            return
        if is_late and not found:
            self._note_catching_up(due, now)
        if batch := self.ledger.schedules.live_batch(due.selection):
            self._record(due, FireOutcome.NOTHING, f"batch {batch} over the same files goes on")
            return
        rows = selection.selected_files(self.settings, self.ledger.read, due.selection)
        choice = selection.choose_files(self.settings, rows, self.pulse)
        if not choice.free:
            self._record(due, FireOutcome.NOTHING, self._why_nothing(due, choice))
        elif schedule.skip_unchanged and not found and (last := self._unchanged(due, choice.free)):
            self._verify_or_analyze(due, choice, last)
        else:
            self._run(due, choice, found)

    def _note_catching_up(self, due: Due, now: datetime) -> None:
        """Tell once that a fire was missed, and is done now."""
        kind, name = "schedule.caught_up", due.schedule.name
        subject = f"{name}: due at {local_time(due.due_at)}"
        if self.ledger.history.last(kind, subject) is None:
            why = f"due at {local_time(due.due_at)}, caught up at {local_time(now)}"
            log.warning(kind, extra={"schedule": name, "why": why})
            self.ledger.history.note(kind, f"{name}: {why}", now)

    def _verify_or_analyze(self, due: Due, choice: Choice, last: LastRun) -> None:
        """Verify what is unchanged. If only its analysis failed, a run makes that again."""
        if last.analysis_error:
            self._run(due, choice, f"the analysis of run {last.run_id} failed")
            return
        steps = verify_outputs(self.settings.output_dir, self.ledger.read, last.run_id)
        self._verifications.append(Verification(due, last, steps))

    def _why_nothing(self, due: Due, choice: Choice) -> str:
        coming = selection.coming_files(self.settings, self.ledger.read, due.selection)
        left_out = selection.choose_files(self.settings, coming, self.pulse).left_out
        return Choice(left_out=choice.left_out | left_out).why_nothing

    def _unchanged(self, due: Due, rows: Sequence[FileRow]) -> LastRun | None:
        """The last run over this selection, if it judged these files and all else is the same."""
        last = self.ledger.schedules.last_run(due.selection)
        if last is None:
            return None
        try:
            old = read_manifest(self.settings.output_dir / manifest_name(last.run_id))
        except (LedgerError, OSError):
            return None
        if _judged(old) != {(row.path, row.sha256) for row in rows}:
            return None
        options = self.settings.options()
        then = (old.tag, old.settings_fingerprint, old.code_fingerprint)
        settings, code = settings_fingerprint(options), code_fingerprint(options)
        return last if then == (options.tag, settings, code) else None

    def _go_on(self) -> int:
        """Verify for a moment; at the end, what was found says what the fire does."""
        verification = self._verifications.pop(0)  # one that raises begins anew
        end_s = self.clock.monotonic_s() + VERIFYING_SECONDS
        for fault in verification.steps:
            if fault:
                verification.faults.append(fault)
            self.pulse()
            if self.clock.monotonic_s() > end_s:
                self._verifications.append(verification)
                return 1
        due, run_id = verification.due, verification.last.run_id
        if verification.faults:
            found = f"run {run_id} is not as it was published: {'; '.join(verification.faults)}"
            log.warning(
                "schedule.outputs_changed", extra={"schedule": due.schedule.name, "why": found}
            )
            self._begin(due, found)
        else:
            said = f"run {run_id} over the same files: its outputs are as published"
            self._record(due, FireOutcome.VERIFIED, said, verification.last.batch)
        return 1

    def _run(self, due: Due, choice: Choice, found: str) -> None:
        batch, name = secrets.token_hex(5), due.schedule.name
        detail = "; ".join(filter(None, (found, choice.sentence)))
        fire = self._fire(due, FireOutcome.RUN, detail, batch)
        ids = [row.id for row in choice.free]
        if files := self.ledger.schedules.form(fire, due.selection, ids, self.clock.now()):
            why = {"why": detail} if detail else {}
            extra = {"schedule": name, "batch": batch, "files": files, **why}
            log.info("schedule.run", extra=extra)

    def _record(
        self, due: Due, outcome: FireOutcome, detail: str, batch: str | None = None
    ) -> None:
        self.ledger.schedules.record(self._fire(due, outcome, detail, batch), self.clock.now())
        level = logging.WARNING if outcome == FireOutcome.MISSED else logging.INFO
        extra = {"schedule": due.schedule.name, "why": detail}
        log.log(level, "schedule.%s", outcome, extra=extra)

    @staticmethod
    def _fire(due: Due, outcome: FireOutcome, detail: str, batch: str | None) -> Fire:
        return Fire(
            schedule=due.schedule.name,
            due_at=due.due_at,
            outcome=outcome,
            batch=batch,
            detail="; ".join(filter(None, (AFTER_PAUSE * due.is_after_pause, detail))),
        )


def _judged(manifest: Manifest) -> set[tuple[str, str | None]]:
    """Path and content of the files that another run would judge as this one did.

    One that was left out for a reason that may pass is not among them.
    """
    published = {(item.path, item.sha256) for item in manifest.inputs}
    return published | {
        (item.path, item.sha256) for item in manifest.rejected if item.cause in LASTING
    }
