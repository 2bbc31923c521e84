"""What the daemon does beside the line: alerts, disk space, expected files, daily retention."""

import logging
import math
from dataclasses import dataclass, field
from datetime import timedelta

from ds_flow.core import Clock, DispatchError, DsFlowError, Problems
from ds_flow.ledger import Alert, Ledger
from ds_flow.settings import Expected, Settings
from ds_flow.system import space_shortage
from ds_flow.upkeep import alerts, expected_files
from ds_flow.upkeep.beside import Beside
from ds_flow.upkeep.daily import Daily, collection, daily_report
from ds_flow.upkeep.deliveries import Deliverer
from ds_flow.upkeep.lineage_post import lineage_sender
from ds_flow.upkeep.metaflow_post import metaflow_sender
from ds_flow.upkeep.receipts import Receipts
from ds_flow.upkeep.sender import Sender

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0  # between two looks at disk space, expected files and the last collection
ALERT_SECONDS = 1.0  # between two looks for new events
GATHER = timedelta(seconds=10)  # events of one kind tend to come together
LAST_MESSAGES_SECONDS = 10.0
RECEIPTS_SECONDS = 0.2  # between two looks at the thread that writes them
LAST_RECEIPTS_SECONDS = 5.0


@dataclass(slots=True)
class Upkeep:
    """Everything here is short. What takes long runs in a thread or a process of its own."""

    settings: Settings
    ledger: Ledger
    clock: Clock
    post: alerts.Post = field(init=False)
    lineage: Sender = field(default_factory=lineage_sender)
    deliverer: Deliverer = field(default_factory=Deliverer)
    receipts: Receipts = field(default_factory=Receipts)
    metaflow: Sender = field(default_factory=metaflow_sender)
    report: Daily = field(default_factory=daily_report)
    collection: Daily = field(default_factory=collection)
    _is_begun: bool = False
    _problems: Problems = field(default_factory=Problems)  # subject: space
    _looks: tuple[Beside, ...] = field(init=False)  # of which none comes before the inbox
    _alerts: Beside = field(default_factory=lambda: Beside("alerts", ALERT_SECONDS))
    _lineage: Beside = field(default_factory=lambda: Beside("lineage"))
    _deliveries: Beside = field(default_factory=lambda: Beside("deliveries"))
    _receipts: Beside = field(default_factory=lambda: Beside("receipts"))
    _metaflow: Beside = field(default_factory=lambda: Beside("metaflow"))

    def __post_init__(self) -> None:
        self.post = alerts.Post(self.settings)
        names = ("space", "expected files", "report", "gc")
        self._looks = tuple(Beside(name, LOOK_SECONDS) for name in names)

    def keep(self) -> None:
        """Do what is due. A failure here never stops the line, nor another part of this."""
        now_s = self.clock.monotonic_s()
        if not self._is_begun:  # the first scan of the inbox comes first
            self._is_begun = True
            for part in self._looks:
                part.due_s = now_s + LOOK_SECONDS
            self.post.take_up()
        space, expected, report, collection = self._looks
        space.keep(now_s, self.watch_space)
        expected.keep(now_s, self._judge_all)
        report.keep(now_s, lambda: self._keep_daily(self.report, now_s))
        collection.keep(now_s, lambda: self._keep_daily(self.collection, now_s))
        self._alerts.keep(now_s, lambda: self.tell(GATHER))
        self._lineage.keep(now_s, lambda: self.lineage.keep(self.settings, self.ledger, now_s))
        self._metaflow.keep(now_s, lambda: self.metaflow.keep(self.settings, self.ledger, now_s))
        self._deliveries.keep(now_s, self._deliver)
        self._receipts.keep(now_s, lambda: self._keep_receipts(now_s))

    def _deliver(self) -> None:
        self.deliverer.keep(self.settings, self.ledger, self.clock.now())

    def _keep_receipts(self, now_s: float) -> None:
        self.receipts.keep(self.settings, self.ledger, self.clock.now(), now_s)

    @property
    def is_busy(self) -> bool:
        """Whether a run is being handed over, or receipts are being written."""
        return self.deliverer.is_busy or self.receipts.is_pending

    def patience_s(self) -> float:
        """Seconds in which nothing here becomes due that is sooner than the next turn."""
        if self.receipts.is_pending:
            return RECEIPTS_SECONDS
        due_at = self.deliverer.next_at
        return max(0.1, (due_at - self.clock.now()).total_seconds()) if due_at else math.inf

    def _judge_all(self) -> None:
        for expected in self.settings.expect:
            self.judge(expected)

    def _keep_daily(self, command: Daily, now_s: float) -> None:
        command.keep(self.settings, self.ledger, self.clock.now(), now_s)

    def close(self) -> None:
        """Send the alerts that are due, and leave the rest to the next daemon."""
        for command in (self.report, self.collection):
            command.child.close()
        self.lineage.close()
        self.deliverer.close()
        self.receipts.close(LAST_RECEIPTS_SECONDS)
        self.metaflow.close()
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
