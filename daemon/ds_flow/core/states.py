"""Files, batches, runs and jobs: their shapes, their states, and the moves that are legal."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

STAGES = ("process", "combine", "analyze")

ATTEMPT_MARK = "DS_FLOW_ATTEMPT"
"""The environment variable that holds `<batch>/<n>` in each process of an attempt."""


class FileState(StrEnum):
    """Where one version of one file is."""

    WAITING = "waiting"
    BATCHED = "batched"
    PROCESSED = "processed"
    QUARANTINED = "quarantined"
    SUPERSEDED = "superseded"


FILE_MOVES: dict[FileState, frozenset[FileState]] = {
    # waiting -> processed: a run by hand published it
    FileState.WAITING: frozenset(set(FileState) - {FileState.WAITING}),
    FileState.BATCHED: frozenset(
        {FileState.PROCESSED, FileState.QUARANTINED, FileState.SUPERSEDED, FileState.WAITING}
    ),
    FileState.QUARANTINED: frozenset(
        {FileState.WAITING, FileState.PROCESSED, FileState.SUPERSEDED}
    ),
    # superseded -> waiting: it was never read, and its content is back
    # superseded -> quarantined: a look could not read the file, and now again cannot
    FileState.SUPERSEDED: frozenset(
        {FileState.WAITING, FileState.PROCESSED, FileState.QUARANTINED}
    ),
    FileState.PROCESSED: frozenset(),  # final
}


class Cause(StrEnum):
    """Why a file version is quarantined or superseded."""

    NAME = "name"  # control characters or undecodable bytes in the name
    UNREADABLE = "unreadable"  # it could not be opened or read
    GONE = "gone"  # it was removed before it was read
    CHANGED = "changed"  # its content changed before it was read
    REPLACED = "replaced"  # a newer version came before it was read
    REJECTED = "rejected"  # it was read, but is not a table, or the transform failed on it
    DEAD = "dead"  # its batch used up its attempts
    CANCELLED = "cancelled"  # a person cancelled its batch


UNREAD_CAUSES = frozenset({Cause.UNREADABLE, Cause.GONE, Cause.CHANGED})
"""Causes after which nothing was read. The same content, seen again, waits again."""


class BatchState(StrEnum):
    """Where a batch is. A rerun is a new batch."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


# The commit on disk is the truth: a person's `resume` may publish a batch in any state.
BATCH_MOVES: dict[BatchState, frozenset[BatchState]] = {
    BatchState.QUEUED: frozenset({BatchState.RUNNING, BatchState.CANCELLED, BatchState.SUCCEEDED}),
    BatchState.RUNNING: frozenset(
        {BatchState.SUCCEEDED, BatchState.RETRYING, BatchState.DEAD, BatchState.CANCELLED}
    ),
    BatchState.RETRYING: frozenset(
        {BatchState.RUNNING, BatchState.DEAD, BatchState.CANCELLED, BatchState.SUCCEEDED}
    ),
    BatchState.DEAD: frozenset({BatchState.SUCCEEDED}),
    BatchState.CANCELLED: frozenset({BatchState.SUCCEEDED}),
    BatchState.SUCCEEDED: frozenset(),
}

LIVE_BATCHES = (BatchState.QUEUED, BatchState.RUNNING, BatchState.RETRYING)


class RunState(StrEnum):
    """Where one attempt at a batch is."""

    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    LOST = "lost"  # neither a live process nor an exit code


LIVE_RUNS = (RunState.STARTING, RunState.RUNNING)
ENDED_RUNS = tuple(state for state in RunState if state not in LIVE_RUNS)

RUN_MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.STARTING: frozenset({RunState.RUNNING, *ENDED_RUNS}),
    RunState.RUNNING: frozenset(ENDED_RUNS),
    # An end is final, unless a commit on disk says that the run succeeded.
    **dict.fromkeys(ENDED_RUNS, frozenset({RunState.SUCCEEDED})),
    RunState.SUCCEEDED: frozenset(),
}

COUNTED_RUNS = frozenset({RunState.FAILED, RunState.TIMED_OUT})
"""Ends that use up an attempt. Lost and stopped runs start again at once."""


class JobState(StrEnum):
    """What a backend reports of one job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"  # the backend cannot tell; never an end


class FailureClass(StrEnum):
    """Why a job failed, sorted by what is done about it."""

    USER_CODE = "user_code"  # a non-zero exit code: not tried again within an attempt
    CRASH = "crash"  # ended by a signal it caused itself: done again with one file a job
    MEMORY = "memory"  # tried again with more
    LIMIT = "limit"  # it reached its run limit
    KILLED = "killed"  # by a signal from outside: tried again
    BY_HAND = "by_hand"  # ended by its owner or an administrator: not tried again within an attempt
    INFRASTRUCTURE = "infrastructure"  # tried again


SITES_LIMIT = "the site's "
"""How the reason begins of a job that ended at a limit which no setting of ds-flow raises."""

STARVED = "out of memory: killed by the kernel"
_ALLOWED = re.compile(r"([0-9]{1,9}) (group|host)")


def starved(word: str | None) -> str:
    """Say why a job was killed that ran out of memory.

    `word` is what memory_allowed in bash/oom_kills.sh printed: how much there was.
    """
    found = _ALLOWED.fullmatch(word or "")
    if found is None:
        return STARVED
    allows = "its control group allows" if found[2] == "group" else "its host has"
    return f"{STARVED} ({allows} {int(found[1]):,} MB)"


class Trigger(StrEnum):
    """What made a batch."""

    ARRIVAL = "arrival"
    RERUN = "rerun"
    RETRY = "retry"
    SCHEDULE = "schedule"
    MANUAL = "manual"  # `student_flow.py run` by hand


RERUN_TRIGGERS = (Trigger.RERUN, Trigger.SCHEDULE)
"""Triggers of a rerun. Batches of new files go first."""

STATES_TAKEN_BY = {
    Trigger.ARRIVAL: frozenset({FileState.WAITING}),
    Trigger.RETRY: frozenset({FileState.QUARANTINED}),
    **dict.fromkeys(RERUN_TRIGGERS, frozenset({FileState.PROCESSED, FileState.QUARANTINED})),
}
"""The states of unclaimed files that a batch may take, by its trigger."""


class FireOutcome(StrEnum):
    """What a schedule's fire did."""

    RUN = "run"
    VERIFIED = "verified"  # nothing had changed, and the outputs of the last run are as published
    NOTHING = "nothing"  # there was no file to take
    MISSED = "missed"  # it was noticed too late, and the schedule does not catch up
    SKIPPED = "skipped"  # a pause was in force


class DeliveryState(StrEnum):
    """Where the hand-over of one run to one command is."""

    WAITING = "waiting"
    DONE = "done"
    GIVEN_UP = "given_up"  # by a person
    DROPPED = "dropped"  # its command is in the settings no more


class Clock(Protocol):
    """The time, passed in so that a test can move it."""

    def now(self) -> datetime:
        """Wall-clock time in UTC, for people and records only."""

    def monotonic_s(self) -> float:
        """Seconds that never jump, for every duration."""


class Stat(NamedTuple):
    """What stays the same in an unchanged file. The ledger keeps it as five integers in a text."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int  # changes even if a rewrite restores the mtime

    def __str__(self) -> str:
        return f"{self[0]} {self[1]} {self[2]} {self[3]} {self[4]}"

    def is_touched(self, known: str) -> bool:
        """Whether size and mtime are those of an earlier look: its rights or its place changed."""
        return known.split()[2:4] == [str(self.size_bytes), str(self.mtime_ns)]


class Sighting(NamedTuple):
    """One look at one file. `path` is escaped and relative to the project root."""

    path: str
    stat: Stat


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that is still arriving: what the last look found, and since when it is so."""

    sighting: Sighting
    unchanged_since_s: float  # monotonic
    reason: str = ""  # why it is held, although it has not changed for long enough
    is_settling: bool = True  # False: a process has it open for writing, nobody knows how long


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A file that has finished arriving: with its fingerprint, or why it is unusable."""

    sighting: Sighting
    sha256: str | None = None
    cause: Cause | None = None
    reason: str = ""
    look_again: bool = False  # the problem may pass without changing the file
