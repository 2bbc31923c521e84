"""Ready markers: small files whose presence says that a file, or a folder's files, are complete."""

from dataclasses import dataclass
from typing import Self

PLACES = ("{name}", "{stem}")


@dataclass(frozen=True, slots=True)
class Marker:
    """How the marker of a file is named. It is in the same folder.

    `{name}.done` stands for the file's name and what follows, `{stem}.ok` for the name without its
    last ending, and a text without either, such as `_SUCCESS`, is the marker of a whole folder.
    """

    prefix: str
    place: str  # {name}, {stem}, or "" for a folder's marker
    suffix: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `watch.marker` says. Raises ValueError if that names no file."""
        place = next((one for one in PLACES if one in text), "")
        prefix, _, suffix = text.partition(place) if place else (text, "", "")
        rest = prefix + suffix
        if not rest or "/" in rest or text in {".", ".."}:
            raise ValueError("should be the name of a file, such as {name}.done or _SUCCESS")
        if "{" in rest or "}" in rest:
            raise ValueError("should have {name} or {stem} once, and no other braces")
        return cls(prefix, place, suffix)

    def of(self, name: str) -> str:
        """The name of a file's marker."""
        if not self.place:
            return self.prefix
        known = name if self.place == "{name}" else name.rpartition(".")[0] or name
        return f"{self.prefix}{known}{self.suffix}"

    def fits(self, name: str) -> bool:
        """Whether a name is that of a marker, of whatever file."""
        if not self.place:
            return name == self.prefix
        least = len(self.prefix) + len(self.suffix)
        return len(name) > least and name.startswith(self.prefix) and name.endswith(self.suffix)

    def span(self, name: str) -> tuple[str, str]:
        """Between which names the files of a marker are: the first, and the first one after them.

        A few others may be among them.
        """
        if not self.place:
            return "", "\U0010ffff"
        known = name[len(self.prefix) : len(name) - len(self.suffix)]
        return (known, f"{known}\0") if self.place == "{name}" else (f"{known}.", f"{known}/")
