"""Which files are known as they look now."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ds_flow.core import Sighting


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
