"""Contents that can be told apart for ever: each row of each drop carries a token of its own."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HEADER = "token"  # of the column that tells rows apart
HARM = "student_x_"  # how the names of a hostile dropper begin


@dataclass(frozen=True, slots=True)
class Content:
    """One content that was dropped, good or bad, by its number."""

    number: int
    rows: int
    text: bytes
    is_good: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text).hexdigest()

    @property
    def tokens(self) -> list[str]:
        """One a row, found in no other content."""
        return [token(self.number, row) for row in range(self.rows)] if self.is_good else []


def token(number: int, row: int) -> str:
    return f"t{number}.{row}"


def good(number: int, rows: int, column: str = "value") -> Content:
    """A table."""
    lines = (f'{token(number, row)},"{number}, {row}"\n' for row in range(rows))
    text = f"{HEADER},{column}\n" + "".join(lines)
    return Content(number, rows, text.encode(), is_good=True)


BAD = (b"", b"\x00\x01", b"a,a\n%d,1\n", b"a,b\n%d\n", b'a,b\n"%d,1\n', b"\xff\xfe\xfd%d")


def bad(number: int) -> Content:
    """What is no table, in one of several ways; most of them differ from number to number."""
    text = BAD[number % len(BAD)].replace(b"%d", b"%d" % number)
    return Content(number, 0, text, is_good=False)


@dataclass(slots=True)
class Journal:
    """Everything that was ever put into the inbox, by its fingerprint."""

    contents: dict[str, Content] = field(default_factory=dict)
    standing: dict[str, str] = field(default_factory=dict)  # by name: what was put there last
    grown: set[int] = field(default_factory=set)  # written in goes: a part may count as a version
    made: int = 0
    versions: int = 0  # contents put under a name; one may be put twice

    def good(self, rows: int, column: str = "value") -> Content:
        """A new table, noted."""
        return self._note(good(self._next(), rows, column))

    def bad(self) -> Content:
        """A new content that is no table, noted."""
        return self._note(bad(self._next()))

    def harmless(self) -> int:
        """A number for tables of somebody else, in whatever parts and as often as they like."""
        self.grown.add(number := self._next())
        return number

    def _next(self) -> int:
        self.made += 1
        return self.made

    def _note(self, content: Content) -> Content:
        self.contents[content.sha256] = content
        return content


def regular_files(folder: Path) -> Iterator[Path]:
    """What stands in the inbox now, links aside."""
    yield from (
        path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()
    )
