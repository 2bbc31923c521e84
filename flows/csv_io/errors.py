"""Why a file is not a table."""

from typing import Self

from ds_flow.core import InputError


class TableError(InputError):
    """The file is not a table. `line` counts from 1."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line

    def without_quotes(self) -> Self:
        """The same without what another reader said, which may quote the file."""
        return self if self.__cause__ is None else type(self)(UNREADABLE, self.line)


UNREADABLE = "it cannot be read unambiguously (why is hidden: privacy.hide_columns)"
