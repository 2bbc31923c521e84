"""What a check reports."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. A fault keeps ds-flow from working now; a warning does not."""

    level: Level
    subject: str
    text: str


Findings = Iterator[Finding]
