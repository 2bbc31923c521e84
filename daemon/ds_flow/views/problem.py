"""One thing that is not as it should be, as a person is told of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as it should be."""

    kind: str
    text: str  # what, and why
    remedy: str = ""  # what to do
    command: str = ""  # what to type
    since: str | None = None
    needs_person: bool = True  # False: it mends itself, or is only good to know
