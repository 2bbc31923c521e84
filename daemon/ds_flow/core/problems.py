"""What is told and tried how often: problems until they change, names up to a number, retries."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0


@dataclass(slots=True)
class Backoff:
    """How long to wait after failures in a row: each time twice as long, up to a limit."""

    first_s: float
    longest_s: float
    wait_s: float = 0.0  # 0 after a success
    retry_at_s: float = 0.0  # monotonic

    def fail(self, now_s: float) -> None:
        """Note a failure: the next try comes later."""
        self.wait_s = min(max(self.first_s, 2 * self.wait_s), self.longest_s)
        self.retry_at_s = now_s + self.wait_s

    def reset(self) -> None:
        """Try at once, and begin anew with the shortest wait."""
        self.wait_s = self.retry_at_s = 0.0


def _of_a_problem() -> Backoff:
    return Backoff(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)


@dataclass(slots=True)
class _Problem:
    why: str
    backoff: Backoff = field(default_factory=_of_a_problem)


@dataclass(slots=True)
class Problems:
    """Open problems, one for each subject: a stage, a batch, the inbox.

    `report` says whether a problem is news, so that the caller logs it once. A subject that is
    reported again waits twice as long before it is tried, up to half a minute.
    """

    _open: dict[str, _Problem] = field(default_factory=dict)

    def report(self, subject: str, why: str, now_s: float = 0.0) -> bool:
        """Note why a subject cannot work now; whether that is news."""
        is_new = subject not in self._open
        known = self._open.setdefault(subject, _Problem(why))
        known.backoff.fail(now_s)
        was, known.why = known.why, why
        return is_new or was != why

    def must_wait(self, subject: str, now_s: float) -> bool:
        """Whether it is too early to try a subject again."""
        known = self._open.get(subject)
        return known is not None and now_s < known.backoff.retry_at_s

    def end_wait(self, subject: str) -> None:
        """Try the subject without a wait from now on. Its problem stays known, and is no news."""
        if known := self._open.get(subject):
            known.backoff.reset()

    def solve(self, subject: str) -> bool:
        """Forget a subject's problem; whether it had one."""
        return self._open.pop(subject, None) is not None

    def keep(self, subjects: Container[str]) -> None:
        """Forget the problems of all other subjects."""
        self._open = {name: one for name, one in self._open.items() if name in subjects}

    @property
    def has_waits(self) -> bool:
        """Whether any subject waits to be tried again."""
        return any(one.backoff.wait_s for one in self._open.values())

    def __contains__(self, subject: object) -> bool:
        return subject in self._open

    def __iter__(self) -> Iterator[str]:
        """Give the reasons, the oldest subject's first."""
        return iter([one.why for one in self._open.values()])


@dataclass(slots=True)
class Quota:
    """How many names of each kind are told in a period. The others are counted.

    So whoever makes millions of names cannot drive everybody else's history out of a log.
    """

    names: int
    period_s: float
    _kinds: dict[str, tuple[float, int]] = field(default_factory=dict)  # since when, how many

    def count(self, kind: str, now_s: float) -> tuple[int, int]:
        """Count one name; how many this period has, and how many the last one left untold.

        The time may be set back: then a new period begins.
        """
        since_s, count = self._kinds.get(kind, (now_s, 0))
        untold = 0
        if not since_s <= now_s < since_s + self.period_s:
            since_s, count, untold = now_s, 0, max(0, count - self.names)
        self._kinds[kind] = since_s, count + 1
        return count + 1, untold
