"""What a cluster still owes of each job, and since when."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Place = tuple[str, int]
"""A job: its round's name and its index."""

Missing = Literal["sight", "exit code", "reason"]
"""What is waited for: that the cluster lists the job, its exit code on disk, why it ended."""


@dataclass(slots=True)
class Absence:
    """Since when something of a job has been missing, and in how many polls."""

    since_s: float
    looks: int = 0


@dataclass(slots=True)
class Waits:
    """Each wait has its own beginning.

    A job that was not listed for long may have ended just now, and its exit code be on its way.
    """

    _absences: dict[Place, dict[Missing, Absence]] = field(default_factory=dict)

    def count(self, place: Place, what: Missing) -> Absence:
        """Count a poll in which something of a job was missing."""
        absence = self._absences.setdefault(place, {}).setdefault(what, Absence(time.monotonic()))
        absence.looks += 1
        return absence

    def is_overdue(self, place: Place, what: Missing, limit_s: float) -> bool:
        """Count such a poll. Returns whether it has been missing for longer than this."""
        return time.monotonic() - self.count(place, what).since_s > limit_s

    def forget(self, place: Place) -> None:
        """Begin anew: the job was seen."""
        self._absences.pop(place, None)

    def of_round(self, name: str) -> Iterator[int]:
        """The jobs of a round of which something is or was missing."""
        return (index for other, index in self._absences if other == name)
