"""The input pattern, and what one look at its files finds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ds_flow.core import Marker, Sighting, escape, unescape
from ds_flow.inbox.markers import Alone, Held
from ds_flow.inbox.misnamed import Misnamed
from ds_flow.settings import RECEIPTS, RECEIPTS_MARK, Settings, matches, split
from ds_flow.system import is_there

TWICE = ("**", "**")  # no more than once


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed input pattern: the folder where the walk starts, and what matches below it."""

    root: Path  # the project root: the ledger's paths are relative to it
    base: Path  # the deepest folder that the pattern names without a wildcard
    parts: tuple[str, ...]  # one glob per path component below base; "**" is any number of folders
    marker: Marker | None = None  # without its marker no file is an input, and no marker is one

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The pattern and the markers of a project."""
        return cls.parse(settings.pattern, settings.root, settings.watch.marker)

    @classmethod
    def parse(cls, pattern: str, root: Path, marker: str = "") -> Self:
        """Parse an absolute glob: `*`, `?`, `[..]`, and `**` for any number of folders."""
        base, globs = split(pattern)
        before = ["", *globs]
        parts = (glob for last, glob in zip(before, globs, strict=False) if (last, glob) != TWICE)
        return cls(root, Path(base), tuple(parts), Marker.parse(marker) if marker else None)

    def name_of(self, raw: str) -> str | None:
        """Return the ledger's name for a raw absolute path, or None if the path does not match."""
        if self.is_marker(raw) or not matches(str(Path(self.base, *self.parts)), raw):
            return None
        own = f"{self.base}/{RECEIPTS}"
        if f"{raw}/".startswith(f"{own}/") and holds_receipts(str(self.base)):
            return None
        return self.written(raw)

    def written(self, raw: str) -> str:
        """The ledger's name for a raw absolute path."""
        return escape(raw.removeprefix(f"{self.root}/"))

    def is_marker(self, raw: str) -> bool:
        """Whether a raw path has the name of a marker."""
        return self.marker is not None and self.marker.fits(raw.rpartition("/")[2])

    def span(self, marker: str) -> tuple[str, str]:
        """Between which of the ledger's paths the files of a marker are."""
        folder, slash, name = marker.rpartition("/")
        first, last = self.marker.span(unescape(name)) if self.marker else ("", "")
        return f"{folder}{slash}{escape(first)}", f"{folder}{slash}{escape(last[:-1])}{last[-1:]}"

    @property
    def is_recursive(self) -> bool:
        """Whether files may lie below subfolders of base."""
        return len(self.parts) > 1


def holds_receipts(base: str) -> bool:
    """Whether the folder of that name in the inbox is the one for receipts."""
    try:
        return is_there(base, f"{base}/{RECEIPTS}/{RECEIPTS_MARK}")
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Look:
    """What one scan found."""

    device: int  # of the base
    sightings: list[Sighting] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # path -> why it is no input
    misnamed: list[Misnamed] = field(default_factory=list)  # the first of them
    held: list[Held] = field(default_factory=list)  # they wait for their markers
    alone: list[Alone] = field(default_factory=list)  # markers without a file
