"""Rows of the ledger, as frozen values."""

from dataclasses import dataclass

from ds_flow.core import BatchState, FileState, RunState, Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One version of one file. `run_id` is the last run that published it."""

    id: int
    path: str
    version: int
    sha256: str | None
    size_bytes: int
    state: FileState
    cause: str | None
    reason: str
    seen_at: str  # when it last arrived
    run_id: str | None
    batch: str | None  # the live one that claims it
    away: str | None = None  # whether ds-flow has put it away: going, gone, none
    kept_at: str = ""  # where; "" if it is in the inbox or was deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One batch."""

    id: str
    state: BatchState
    trigger: Trigger
    formed_at: str
    due_at: str
    reason: str
    selection: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One attempt at one batch."""

    batch: str
    attempt: int
    state: RunState
    run_id: str | None
    ending: RunState | None
    trigger: Trigger
    started_at: str
    ended_at: str | None
    error: str
    removed_at: str | None  # when retention removed its outputs
    analysis_error: str  # why its newest analysis failed
    analyses: int  # how often the analysis was done again


@dataclass(frozen=True, slots=True)
class SetAside:
    """A version that was quarantined, when and why."""

    at: str
    path: str
    version: int
    cause: str | None
    reason: str
    kept_at: str = ""  # where ds-flow has put it; "" if it is in the inbox


@dataclass(frozen=True, slots=True)
class EventRow:
    """One row of the history."""

    at: str
    kind: str
    detail: str
