"""Which files are known as they look now, and how many wait."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ds_flow.core import (
    Ages,
    Limits,
    Settled,
    Sighting,
    Waiting,
    batches_to_form,
    seconds_until_due,
)


@dataclass(slots=True)
class Known:
    """How each file looked when last seen. There may be millions, so both are kept as hashes."""

    _looks: dict[int, int] = field(default_factory=dict)

    def add(self, looks: Iterable[tuple[str, str]]) -> None:
        """Take these paths for known, as long as they look like this."""
        self._looks |= ((hash(path), hash(look)) for path, look in looks)

    def forget(self, paths: Iterable[str]) -> None:
        """Take these paths for new, even if they have not changed."""
        for path in paths:
            self._looks.pop(hash(path), None)

    def has(self, seen: Sighting) -> bool:
        """Whether a file is known as it looks now."""
        return self._looks.get(hash(seen.path)) == hash(str(seen.stat))


class Pile:
    """How much waits for a batch at most, as far as that is known without asking the ledger.

    A version that is released by request is not known here. It fills no batch sooner than one is
    due by time.
    """

    def __init__(self) -> None:
        self._files: float = math.inf  # not counted yet
        self._bytes: float = math.inf

    def to_form(
        self, read: Callable[[], Sequence[Waiting]], ages: Ages, limits: Limits
    ) -> list[list[Waiting]]:
        """Group what waits into the batches to form now. It is read only if one may be due."""
        is_full = self._files >= limits.max_files or self._bytes >= limits.max_bytes
        if not is_full and seconds_until_due(ages, limits) > 0:
            return []
        waiting = read()
        self._files, self._bytes = len(waiting), sum(file.size_bytes for file in waiting)
        return batches_to_form(waiting, ages, limits)

    def add(self, new: Iterable[Settled]) -> None:
        """Count what was admitted since."""
        for item in new:
            self._files += 1
            self._bytes += item.sighting.stat.size_bytes
