"""What a person must know and do now: one list of problems, the most urgent first."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime

from ds_flow.core import Document
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.views import deliveries, of_files, of_service
from ds_flow.views.look import Look, Seen, look_around
from ds_flow.views.problem import Problem

__all__ = [
    "ATTENTION",
    "DOWN",
    "OK",
    "Problem",
    "find_problems",
    "health_document",
    "problems",
    "summary",
    "verdict",
]

OK, ATTENTION, DOWN = "ok", "attention", "down"
"""The verdicts: nothing to do; something needs a person; the daemon is not running."""

ORDER = (
    of_service.daemon,
    of_service.settings,
    of_service.paused,
    of_service.space,
    of_service.alerts,
    deliveries.deliveries,
    of_service.engine,
    of_service.metaflow,
    of_files.inbox,
    of_files.held_back,
    of_service.line,
    of_files.dead,
    of_files.set_aside,
    of_files.analyses,
    of_service.expected,
    of_files.incomplete,
    of_service.fires,
    of_files.unmarked,
    of_files.misnamed,
    of_files.retrying,
    of_files.lost,
    of_files.drifted,
)
"""Each gives the problems of its kind. Those that need a person come before all others."""


def problems(
    settings: Settings, ledger: Ledger, pid: int | None, now: datetime, seen: Seen | None = None
) -> list[Problem]:
    """Everything that is wrong now, most urgent first. `pid` is the running daemon's."""
    return find_problems(look_around(settings, ledger, pid, now, seen=seen))


def find_problems(look: Look) -> list[Problem]:
    """As `problems`, from a look that was taken already."""
    return sorted(_all(look), key=lambda one: not one.needs_person)


def _all(look: Look) -> Iterator[Problem]:
    told: set[str] = set()
    for kind in ORDER:
        for one in kind(look):
            if one.text not in told:
                told.add(one.text)
                yield one


def verdict(pid: int | None, found: Iterable[Problem]) -> str:
    """Say in one word how things are."""
    if pid is None:
        return DOWN
    return ATTENTION if any(one.needs_person for one in found) else OK


def health_document(pid: int | None, found: list[Problem]) -> Document:
    """The problems, and what they come to, for programs."""
    return {
        "verdict": verdict(pid, found),
        "summary": summary(pid, found),
        "problems": [asdict(one) for one in found],
    }


def summary(pid: int | None, found: list[Problem]) -> str:
    """Say it in one line."""
    urgent = [one.text for one in found if one.needs_person and one.kind != "daemon"]
    words = "; ".join(["the daemon is not running"] * (pid is None) + urgent[:1])
    more = f" (and {len(urgent) - 1} more)" if len(urgent) > 1 else ""
    return " ".join(f"{words or 'all is well'}{more}".split())
