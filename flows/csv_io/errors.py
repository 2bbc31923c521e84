"""Why a file is not a table."""

from collections.abc import Sequence
from typing import Self

from ds_flow.core import InputError

SET_ENCODING = "set csv.encoding (csv.for sets it for one source)"


class TableError(InputError):
    """The file is not a table. `line` counts from 1."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line

    def without_quotes(self) -> Self:
        """The same without what another reader said, which may quote the file."""
        return self if self.__cause__ is None else type(self)(UNREADABLE, self.line)


class WrongEncodingError(TableError):
    """Its bytes are not text in the encoding that was tried, so it may be in another one."""

    def __init__(self, fact: str, line: int | None = None, advice: str = SET_ENCODING) -> None:
        super().__init__(f"{fact}; {advice}", line)
        self.fact = fact if line is None else f"line {line}: {fact}"


def in_no_encoding(failed: Sequence[WrongEncodingError]) -> TableError:
    """Say why a file is in none of the encodings that were tried."""
    if len(failed) == 1:
        return TableError(failed[0].reason, failed[0].line)
    facts = "; ".join(one.fact for one in failed)
    return TableError(f"it is in no encoding of those that are set: {facts}; {SET_ENCODING}")


UNREADABLE = "it cannot be read unambiguously (why is hidden: privacy.hide_columns)"
