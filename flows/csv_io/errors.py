"""Why a file is not a table."""

from ds_flow.core import InputError


class TableError(InputError):
    """The file is not a table. `line` counts from 1."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line
