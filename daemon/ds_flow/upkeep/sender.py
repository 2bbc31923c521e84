"""Sends the beginnings and ends of runs to others, in a process of its own."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from ds_flow.core import Backoff, Problems
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.upkeep.child import Child

log = logging.getLogger(__name__)

SEND_SECONDS = 600.0  # for one process; the next one goes on
REST_SECONDS = (5.0, 600.0)  # after the first failure, and at most


@dataclass(slots=True)
class Sender:
    """Starts a command of ds-flow when there is something to send. The daemon waits for nothing."""

    part: str
    words: tuple[str, ...]
    is_wanted: Callable[[Settings], bool]
    follows_runs: bool = False  # whether it has work as long as a run lives
    _settings: Settings | None = None  # with which it was asked last
    _child: Child = field(default_factory=Child)
    _sending: int = 0  # up to this event
    _sent: int = -1
    _kill_at_s: float = 0.0
    _backoff: Backoff = field(default_factory=lambda: Backoff(*REST_SECONDS))
    _problems: Problems = field(default_factory=Problems)

    def keep(self, settings: Settings, ledger: Ledger, now_s: float) -> None:
        """Start a process if it is time, or see how the last one ended."""
        if settings is not self._settings:  # the recipient may be another one now
            self._settings, self._sending, self._sent = settings, -1, -1
        is_wanted = self.is_wanted(settings)
        if self._child.is_there:
            if now_s >= self._kill_at_s or not is_wanted:
                self._child.kill()
            ended = self._child.ended()
            if ended is None:
                return
            if is_wanted:
                self._end(*ended, now_s)
        if not is_wanted or now_s < self._backoff.retry_at_s:
            return
        newest = ledger.lineage.last_run_event()
        if newest != self._sent or (self.follows_runs and _is_running(ledger)):
            self._child.start(settings, *self.words)
            self._sending, self._kill_at_s = newest, now_s + SEND_SECONDS

    def close(self) -> None:
        """End the process. What it has not sent, the next daemon does."""
        self._child.close()

    def _end(self, code: int, said: str, now_s: float) -> None:
        if code == 0:
            self._sent = self._sending
            self._backoff.reset()
            if said:
                log.warning("%s.said", self.part, extra={"why": said})
            if self._problems.solve(self.part):
                log.info("%s.sent", self.part)
            return
        self._backoff.fail(now_s)
        why = said or f"exit code {code}"
        if self._problems.report(self.part, why):
            log.warning("%s.waits", self.part, extra={"why": why})


def _is_running(ledger: Ledger) -> bool:
    return any(run.run_id for run in ledger.read.live_runs())
