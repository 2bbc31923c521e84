"""Which waiting files make a batch now."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a batch is due and how large it may be: `batch.*` of the settings."""

    quiet_s: float
    max_wait_s: float
    max_files: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A settled file version that no batch has claimed."""

    id: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Ages:
    """How long ago files came, and whether one that has come is about to settle."""

    newest_s: float
    oldest_s: float  # of those that wait
    is_settling: bool = False


def batches_to_form(waiting: Sequence[Waiting], ages: Ages, limits: Limits) -> list[list[Waiting]]:
    """Group waiting files, oldest first, into the batches to form now.

    A group that is full, by files or by bytes, is due at once. The rest is due when no file has
    come for `quiet_s` and none is settling, or when the oldest has waited `max_wait_s`.
    """
    full, rest = _cut(waiting, limits)
    is_quiet = ages.newest_s >= limits.quiet_s and not ages.is_settling
    is_time = is_quiet or ages.oldest_s >= limits.max_wait_s
    return [*full, rest] if rest and is_time else full


def _cut(waiting: Sequence[Waiting], limits: Limits) -> tuple[list[list[Waiting]], list[Waiting]]:
    """Split files into groups that are full, and the rest."""
    full: list[list[Waiting]] = []
    group: list[Waiting] = []
    size_bytes = 0
    for file in waiting:
        group.append(file)
        size_bytes += file.size_bytes
        if len(group) >= limits.max_files or size_bytes >= limits.max_bytes:
            full.append(group)
            group, size_bytes = [], 0
    return full, group


def seconds_until_due(ages: Ages, limits: Limits) -> float:
    """How long a batch that is not full has to wait if no more files come.

    While a file is settling, only the next look at it can tell.
    """
    quiet_in_s = math.inf if ages.is_settling else limits.quiet_s - ages.newest_s
    return max(0.0, min(quiet_in_s, limits.max_wait_s - ages.oldest_s))
