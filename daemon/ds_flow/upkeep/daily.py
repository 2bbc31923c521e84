"""What the daemon has done once a day by processes of their own: retention, and the report."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta

from ds_flow.core import moment_of
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.upkeep.child import Child
from ds_flow.upkeep.retention import DONE

log = logging.getLogger(__name__)

COLLECT_EVERY = timedelta(days=1)
WRITTEN = "report.written"  # the event that the command notes, with the file
FAILED_REST_SECONDS = 3600.0

IsDue = Callable[[Settings, Ledger, datetime], bool]


@dataclass(slots=True)
class Daily:
    """One command: when it is due, and how it ended."""

    words: tuple[str, ...]
    is_due: IsDue
    done: str  # the event that the command notes at its end
    detail: str  # what the log calls the detail of that event
    child: Child = field(default_factory=Child)
    _after_s: float = 0.0

    def keep(self, settings: Settings, ledger: Ledger, now: datetime, now_s: float) -> None:
        """Start the command if it is due, or see how it ended."""
        if ended := self.child.ended():
            self._log(*ended, ledger, now_s)
        if self.child.is_there or now_s < self._after_s or not self.is_due(settings, ledger, now):
            return
        self.child.start(settings, *self.words)

    def _log(self, code: int, said: str, ledger: Ledger, now_s: float) -> None:
        name = self.words[0]
        if code:
            self._after_s = now_s + FAILED_REST_SECONDS
            why = said or f"exit code {code}"
            log.error("%s.failed", name, extra={"exit_code": code, "why": why})
            return
        if said:
            log.warning("%s.said", name, extra={"why": said})
        last = ledger.history.last(self.done)
        log.info(self.done, extra={self.detail: last[1] if last else ""})


def collection() -> Daily:
    """`ds-flow gc`, a day after the last one."""
    return Daily(("gc",), _is_collection_due, DONE, "removed")


def _is_collection_due(_: Settings, ledger: Ledger, now: datetime) -> bool:
    """Whether the last collection, or else the very first event, is a day ago."""
    last = ledger.history.last(DONE)
    since = last[0] if last else ledger.history.begun_at()
    return since is not None and not now - COLLECT_EVERY < since <= now


def daily_report() -> Daily:
    """The report of the last day, once after each time that is due."""
    return Daily(("report", "--daily"), _is_report_due, WRITTEN, "path")


def _is_report_due(settings: Settings, ledger: Ledger, now: datetime) -> bool:
    if settings.report.daily is None:
        return False
    last = ledger.history.last(WRITTEN)
    return last is None or not last_due(settings.report.daily, now) <= last[0] <= now


def last_due(daily: str, now: datetime) -> datetime:
    """The last moment at which this machine's clock showed a time of day."""
    today = now.astimezone().date()
    days = (today - timedelta(days=back) for back in range(3))
    moments = (moment_of(datetime.combine(day, time.fromisoformat(daily))) for day in days)
    return next(at for at in moments if at <= now)
