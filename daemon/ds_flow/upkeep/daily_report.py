"""The daily report: when it is due, and a process that writes it."""

import logging
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta

from ds_flow.core import moment_of
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.upkeep.child import Child

log = logging.getLogger(__name__)

WRITTEN = "report.written"  # the event that the command notes, with the file
FAILED_REST_SECONDS = 3600.0


def last_due(daily: str, now: datetime) -> datetime:
    """The last moment at which this machine's clock showed a time of day."""
    today = now.astimezone().date()
    days = (today - timedelta(days=back) for back in range(3))
    moments = (moment_of(datetime.combine(day, time.fromisoformat(daily))) for day in days)
    return next(at for at in moments if at <= now)


@dataclass(slots=True)
class DailyReport:
    """Has the report of the last day written once after each time that is due."""

    child: Child = field(default_factory=Child)
    _after_s: float = 0.0

    def keep(self, settings: Settings, ledger: Ledger, now: datetime, now_s: float) -> None:
        """Start the command if a report is due, or see how it ended."""
        ended = self.child.ended()
        if ended and ended[0]:
            self._after_s = now_s + FAILED_REST_SECONDS
            log.error("report.failed", extra={"why": ended[1] or f"exit code {ended[0]}"})
        elif ended:
            last = ledger.history.last(WRITTEN)
            log.info(WRITTEN, extra={"path": last[1] if last else ""})
        daily = settings.report.daily
        if daily is None or self.child.is_there or now_s < self._after_s:
            return
        last = ledger.history.last(WRITTEN)
        if last is None or not last_due(daily, now) <= last[0] <= now:
            self.child.start(settings, "report", "--daily")
