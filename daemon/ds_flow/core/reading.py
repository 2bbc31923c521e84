"""How one file is read: the settings for all files, and those for the source it is of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from ds_flow.core.globs import matches

Encodings = str | tuple[str, ...]
"""One encoding, or several that are tried in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What says of what form a file is."""

    encoding: Encodings = "utf-8"
    delimiter: str = "auto"
    first_column: str = ""  # the name of a first column that has none
    sheet: str = ""  # of a workbook; "" for the first one that is visible

    @property
    def encodings(self) -> tuple[str, ...]:
        """The encodings to try, in order."""
        return (self.encoding,) if isinstance(self.encoding, str) else self.encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """One entry of `csv.for`: what is said of the files that match a pattern. None: nothing."""

    pattern: str  # absolute; in a plan on disk it is relative
    encoding: Encodings | None = None
    delimiter: str | None = None
    first_column: str | None = None
    sheet: str | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        return cls(**{**row, "encoding": encodings_of(row.get("encoding"))})

    def over(self, general: Reading) -> Reading:
        """What is said here, and else what holds for all files."""
        own = {key.name: getattr(self, key.name) for key in fields(Reading)}
        return replace(general, **{name: said for name, said in own.items() if said is not None})


def encodings_of(given: Any) -> Any:
    """Give a list of encodings the type that it has here; JSON knows no other."""
    return tuple(given) if isinstance(given, list) else given


def reading_of(path: str, sources: Iterable[SourceOptions], general: Reading) -> Reading:
    """Say how a file is read: by the first entry whose pattern its absolute path matches."""
    found = next((one for one in sources if matches(one.pattern, path)), None)
    return found.over(general) if found else general
