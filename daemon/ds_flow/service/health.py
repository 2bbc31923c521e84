"""What the daemon leaves for `status`, whether the backends answer, and the heartbeat."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from threading import Thread

from ds_flow.core import DispatchError, FireOutcome, RunState, moment
from ds_flow.doctor import silent_backends
from ds_flow.service.engine import Engine
from ds_flow.settings import Settings
from ds_flow.upkeep import Beside, Heard, Record, leave_record, named
from ds_flow.views import InboxCheck, Seen, problems

log = logging.getLogger(__name__)

ASK_SECONDS = 60.0  # between two questions to a backend
ANSWER_SECONDS = 10.0
NAMED = 100  # misnamed files
DAY = timedelta(days=1)
LOOK_SECONDS = 30.0  # between two looks at whether all is well
RECORD_SECONDS = 30.0  # between two records of a daemon for which nothing changes

Ask = Callable[[Settings], dict[str, str]]


def ask_backends(settings: Settings) -> dict[str, str]:
    """Ask each backend in use; why it does not answer, or ""."""
    return silent_backends(settings, os.environ, ANSWER_SECONDS)


@dataclass(slots=True)
class Health:
    """Keeps the record up to date. What takes long runs on a thread that nobody waits for."""

    settings: Settings
    engine: Engine
    beat: Callable[[Settings], None]
    ask: Ask = ask_backends
    refused: str = ""
    refused_at: str = ""
    _record: Record | None = None
    _beside: Beside = field(default_factory=lambda: Beside("health"))
    _record_at_s: float = 0.0
    _ask_at_s: float = 0.0
    _thread: Thread | None = None
    _look_at_s: float = 0.0
    _beat_at_s: float = 0.0
    _nights: frozenset[tuple[str, str]] = frozenset()  # the last good fires
    _named: set[str] = field(default_factory=set)  # misnamed and late files that were told
    _answers: list[dict[str, str]] = field(default_factory=list)  # what the thread has found
    _heard: dict[str, Heard] = field(default_factory=dict)
    _silent: dict[str, int] = field(default_factory=dict)  # how often in a row
    _told: set[str] = field(default_factory=set)  # backends whose silence was noted

    def refuse(self, why: str) -> None:
        """Note that the settings on disk were refused; "" once they are in force."""
        self.refused = why
        self.refused_at = self.engine.clock.now().isoformat() if why else ""

    def keep(self) -> None:
        """Ask what is due, take what was answered, and write what has changed."""
        now_s = self.engine.clock.monotonic_s()
        self._beside.keep(now_s, lambda: self._keep(now_s))

    def _keep(self, now_s: float) -> None:
        self._take_answers()
        if now_s >= self._ask_at_s and not (self._thread and self._thread.is_alive()):
            self._ask_at_s = now_s + ASK_SECONDS
            self._ask()
        self._leave(now_s)
        self._tell_silent()
        self._tell_misnamed()
        self._tell_late()
        if self.settings.alerts.heartbeat and now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_SECONDS
            self._beat(now_s)

    def _tell_misnamed(self) -> None:
        """Note once each file that begins like an input and is none. Only some in a daemon's life.

        So whoever drops files cannot fill the history with names.
        """
        for one in self.engine.admission.misnamed:
            if not one.is_alike or one.path in self._named or len(self._named) >= NAMED:
                continue
            kind, nearest = "file.misnamed", f"; {one.nearest} would be read" if one.nearest else ""
            if self.engine.ledger.history.last(kind, f"{one.path}: ") is None:
                log.warning(kind, extra={"path": one.path, "why": one.why})
                self._note(kind, f"{one.path}: {one.why}{nearest}")
            self._named.add(one.path)

    def _tell_late(self) -> None:
        """Note once each file without its marker, and each marker without a file. Only some, too.

        A file that has changed since is another one.
        """
        for one in self.engine.admission.late:
            kind = "marker.alone" if one.is_marker else "file.unmarked"
            subject = f"{one.path} since {moment(one.since)}: "
            if subject in self._named or len(self._named) >= NAMED:
                continue
            if self.engine.ledger.history.last(kind, subject) is None:
                log.warning(kind, extra={"path": one.path, "why": one.why})
                self._note(kind, f"{subject}{one.why}")
            self._named.add(subject)

    # ------------------------------------------------------------------ heartbeat

    def _beat(self, now_s: float) -> None:
        """Call the address if it is time, or a night was good, and nothing needs a person."""
        nights = self._good_nights()
        if now_s < self._beat_at_s and nights <= self._nights:
            return
        if why := self._trouble():
            log.debug("heartbeat.held", extra={"why": why})
            return
        self._nights = nights
        self._beat_at_s = now_s + self.settings.alerts.heartbeat_minutes * 60
        self.beat(self.settings)

    def _good_nights(self) -> frozenset[tuple[str, str]]:
        """The newest fire of each schedule, of those that have ended well."""
        since = self.engine.clock.now() - DAY
        fires = (
            fire
            for one in self.settings.schedule
            for fire in self.engine.ledger.overview.fires(one.name, since, 1)
        )
        return frozenset(
            (fire.schedule, fire.due_at)
            for fire in fires
            if fire.outcome == FireOutcome.VERIFIED or fire.run_state == RunState.SUCCEEDED
        )

    def _trouble(self) -> str:
        """What needs a person; "" if nothing does."""
        engine = self.engine
        inbox = InboxCheck(
            lost=engine.admission.inbox_error,
            misnamed=list(engine.admission.misnamed),
            late=list(engine.admission.late),
        )
        seen = Seen(inbox, self._record) if self._record else None
        try:
            now = engine.clock.now()
            found = problems(self.settings, engine.ledger, os.getpid(), now, seen)
        except (DispatchError, OSError) as error:
            return str(error)
        return next((one.text for one in found if one.needs_person), "")

    # ------------------------------------------------------------------ backends

    def _ask(self) -> None:
        if all(stage.executor == "local" for stage in self.settings.stages.values()):
            self._heard.clear()
            return
        self._thread = Thread(target=self._work, args=(self.settings,), name="ask", daemon=True)
        self._thread.start()

    def _work(self, settings: Settings) -> None:
        self._answers.append(self.ask(settings))

    def _take_answers(self) -> None:
        if not self._answers:
            return
        found, now = self._answers.pop(), self.engine.clock.now().isoformat()
        self._answers.clear()  # an older one
        for backend, why in found.items():
            old = self._heard.get(backend)
            since = old.since if old and bool(old.why) == bool(why) else now
            self._heard[backend] = Heard(backend=backend, why=why, since=since, asked_at=now)
            self._silent[backend] = self._silent.get(backend, 0) + 1 if why else 0
        self._heard = {name: one for name, one in self._heard.items() if name in found}

    def _tell_silent(self) -> None:
        """Note a silence that lasts, and its end. A single one is a hiccup."""
        for backend, one in self._heard.items():
            is_told = backend in self._told
            if self._silent[backend] > 1 and not is_told:
                log.error("backend.silent", extra={"backend": backend, "why": one.why})
                self._note("backend.silent", f"{backend}: {one.why}")
                self._told.add(backend)
            elif not one.why and is_told:
                log.info("backend.answers", extra={"backend": backend})
                self._note("backend.answers", backend)
                self._told.remove(backend)

    def _note(self, kind: str, detail: str) -> None:
        """Note an event. Raises DispatchError, such as on a full disk; it is noted later then."""
        self.engine.ledger.history.note(kind, detail, self.engine.clock.now())

    # ------------------------------------------------------------------ the record

    def _leave(self, now_s: float) -> None:
        now = self.engine.clock.now().isoformat()
        old = self._record
        new = Record(
            pid=os.getpid(),
            at=old.at if old else now,
            started_at=old.started_at if old else now,
            refused=self.refused,
            refused_at=self.refused_at,
            problems=named(self.engine.problems),
            heard=tuple(self._heard.values()),
            misnamed=tuple(self.engine.admission.misnamed),
            unmarked=len(self.engine.admission.inbox.waiting),
            late=tuple(self.engine.admission.late),
        )
        if new != old or now_s >= self._record_at_s:
            self._record, self._record_at_s = replace(new, at=now), now_s + RECORD_SECONDS
            leave_record(self.settings.work_root, self._record)
