"""What the daemon does beside the line: alerts, disk space, expected files, daily retention."""

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from ds_flow.core import Clock, DispatchError, DsFlowError, Problems
from ds_flow.ledger import Alert, Ledger
from ds_flow.settings import Expected, Settings
from ds_flow.system import space_shortage
from ds_flow.upkeep import alerts, expected_files
from ds_flow.upkeep.daily import Daily, collection, daily_report
from ds_flow.upkeep.lineage_post import LineageSender

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0  # between two looks at disk space, expected files and the last collection
ALERT_SECONDS = 1.0  # between two looks for new events
GATHER = timedelta(seconds=10)  # events of one kind tend to come together
LAST_MESSAGES_SECONDS = 10.0


@dataclass(slots=True)
class Upkeep:
    """Everything here is short. What takes long runs in a thread or a process of its own."""

    settings: Settings
    ledger: Ledger
    clock: Clock
    post: alerts.Post = field(init=False)
    lineage: LineageSender = field(default_factory=LineageSender)
    report: Daily = field(default_factory=daily_report)
    collection: Daily = field(default_factory=collection)
    _look_at_s: float | None = None
    _alert_at_s: float = 0.0
    _problems: Problems = field(default_factory=Problems)  # subjects: upkeep, space

    def __post_init__(self) -> None:
        self.post = alerts.Post(self.settings)

    def keep(self) -> None:
        """Do what is due. A failure here never stops the line."""
        now_s = self.clock.monotonic_s()
        if self._look_at_s is None:  # the first scan of the inbox comes first
            self._look_at_s = now_s + LOOK_SECONDS
            self.post.take_up()
        try:
            if now_s >= self._look_at_s:
                self._look_at_s = now_s + LOOK_SECONDS
                self._look(now_s)
            if now_s >= self._alert_at_s:
                self._alert_at_s = now_s + ALERT_SECONDS
                self.tell(GATHER)
            self.lineage.keep(self.settings, self.ledger, now_s)
        except (DispatchError, OSError) as error:
            self._alert_at_s = now_s + LOOK_SECONDS
            if self._problems.report("upkeep", str(error)):
                log.warning("upkeep.waits", extra={"why": str(error)})
        except Exception:
            self._alert_at_s = now_s + LOOK_SECONDS
            log.exception("upkeep.bug")
        else:
            self._problems.solve("upkeep")

    def _look(self, now_s: float) -> None:
        self.watch_space()
        for expected in self.settings.expect:
            self.judge(expected)
        for command in (self.report, self.collection):
            command.keep(self.settings, self.ledger, self.clock.now(), now_s)

    def close(self) -> None:
        """Send the alerts that are due, and leave the rest to the next daemon."""
        for command in (self.report, self.collection):
            command.child.close()
        self.lineage.close()
        try:
            self.tell(timedelta())
        except DsFlowError as error:
            log.warning("upkeep.waits", extra={"why": str(error)})
        self.post.close(LAST_MESSAGES_SECONDS)

    # ------------------------------------------------------------------ alerts

    def tell(self, gather: timedelta) -> None:
        """Send an alert for each kind with new events, once in `alerts.every_minutes` at most."""
        settings, now = self.settings, self.clock.now()
        if not alerts.ways_of(settings):
            return
        every = timedelta(minutes=settings.alerts.every_minutes)
        for kind in alerts.SAID:
            alert = self.ledger.history.take_alert(kind, now, every=every, gather=gather)
            if alert is not None:
                log.warning("alert.%s", kind, extra={"count": alert.count})
                self.post.put(settings, alerts.message(settings, alert))

    # ------------------------------------------------------------------ space

    def watch_space(self) -> None:
        """Log when disk space becomes low, and when there is room again."""
        why = space_shortage(self.settings)
        if not why:
            if self._problems.solve("space"):
                log.info("space.back")
        elif "space" not in self._problems:  # its figures change all the time
            self._problems.report("space", why)
            log.warning("space.low", extra={"why": why})
            self._note_shortage(why)

    def _note_shortage(self, why: str) -> None:
        """Record low space for an alert. If nothing can be written, send the alert at once."""
        now = self.clock.now()
        try:
            self.ledger.history.note("space.low", why, now)
        except DispatchError:
            at = now.isoformat()
            told = Alert(kind="space.low", count=1, first_at=at, last_at=at, examples=(why,))
            self.post.put(self.settings, alerts.message(self.settings, told))

    # ------------------------------------------------------------------ expected files

    def judge(self, expected: Expected) -> None:
        """Record once after each deadline whether the expected files have come."""
        now, history = self.clock.now(), self.ledger.history
        window = expected_files.last_window(expected, now)
        subject = expected_files.subject_of(expected, window)
        begun_at = history.begun_at()
        if begun_at is None or begun_at > window.until:
            return  # ds-flow did not run yet
        if any(history.last(kind, subject) for kind in ("files.expected", "files.missing")):
            return
        count = expected_files.came(self.settings, expected, history.seen_since(window.since))
        kind = "files.expected" if count >= expected.count else "files.missing"
        history.note(kind, f"{subject} {count} of {expected.count} came", now)
        level = logging.INFO if kind == "files.expected" else logging.WARNING
        extra = {"pattern": expected.pattern, "came": count, "expected": expected.count}
        log.log(level, "%s", kind, extra=extra)
