"""Files, batches, runs and jobs: their shapes, their states, and the moves that are legal."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, Self

STAGES = ("process", "combine", "analyze")

STEM_BYTES = 200  # a longer stem is shortened, so that every output name stays under 255 bytes
SHORT_STEM_BYTES = 180


class FileState(StrEnum):
    """Where one version of one file is."""

    WAITING = "waiting"
    BATCHED = "batched"
    PROCESSED = "processed"
    QUARANTINED = "quarantined"
    SUPERSEDED = "superseded"


FILE_MOVES: dict[FileState, frozenset[FileState]] = {
    # waiting -> processed: a run by hand took it
    FileState.WAITING: frozenset(set(FileState) - {FileState.WAITING}),
    FileState.BATCHED: frozenset(
        {FileState.PROCESSED, FileState.QUARANTINED, FileState.SUPERSEDED, FileState.WAITING}
    ),
    FileState.QUARANTINED: frozenset(
        {FileState.WAITING, FileState.PROCESSED, FileState.SUPERSEDED}
    ),
    # superseded -> waiting: it ended unread, and its content is back
    FileState.SUPERSEDED: frozenset({FileState.WAITING, FileState.PROCESSED}),
    FileState.PROCESSED: frozenset(),  # once in a committed run, for ever
}


class Cause(StrEnum):
    """Why a file version is quarantined or superseded."""

    NAME = "name"  # control characters or undecodable bytes in the name
    UNREADABLE = "unreadable"  # it could not be opened or read
    GONE = "gone"  # it went before it was read
    CHANGED = "changed"  # its content changed before it was read
    REPLACED = "replaced"  # a newer version came before it was read
    REJECTED = "rejected"  # it was read, and is not a table or failed alone
    DEAD = "dead"  # its batch used up its attempts
    CANCELLED = "cancelled"  # a person cancelled its batch


UNREAD = frozenset({Cause.UNREADABLE, Cause.GONE, Cause.CHANGED})
"""Causes after which the same content, seen again, waits again."""


class BatchState(StrEnum):
    """Where a batch is; a rerun is a new batch."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


# The commit link is the truth: a person's `resume` may publish a batch that no run of ours holds.
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
    # An end is final, but for a commit that says otherwise: the commit link is the truth.
    **dict.fromkeys(ENDED_RUNS, frozenset({RunState.SUCCEEDED})),
    RunState.SUCCEEDED: frozenset(),
}

COUNTED_RUNS = frozenset({RunState.FAILED, RunState.TIMED_OUT})
"""Ends that use up an attempt; lost and stopped runs start again at once."""


class JobState(StrEnum):
    """What a backend says of one job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"  # the backend cannot say; never a verdict


class FailureClass(StrEnum):
    """Why a job failed, sorted by what treats it."""

    USER_CODE = "user_code"  # a non-zero exit code: never tried again within an attempt
    CRASH = "crash"  # ended by a signal of its own making: redone one file a job
    MEMORY = "memory"  # tried again with more
    LIMIT = "limit"  # its run limit
    KILLED = "killed"  # by an owner, an administrator, or a signal from outside
    INFRASTRUCTURE = "infrastructure"  # tried again as it was


class Trigger(StrEnum):
    """What made a batch."""

    ARRIVAL = "arrival"
    RERUN = "rerun"
    RETRY = "retry"
    SCHEDULE = "schedule"
    MANUAL = "manual"  # `student_flow.py run` by hand


class Clock(Protocol):
    """Time comes in, so that a test can move it."""

    def now(self) -> datetime:
        """Wall-clock time in UTC, for people and records only."""

    def monotonic_s(self) -> float:
        """Seconds that never jump, for every duration."""


# --------------------------------------------------------------------------- the inbox


class Stat(NamedTuple):
    """What two looks at an unchanged file agree on. In the ledger: five integers in one text."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int  # a rewrite that restores the mtime still moves it

    def __str__(self) -> str:
        return " ".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote."""
        return cls._make(map(int, text.split()))


class Sighting(NamedTuple):
    """One look at one file. `path` is escaped and relative to the project root."""

    path: str
    stat: Stat


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that is still arriving: what the last look saw, and when that was first seen."""

    sighting: Sighting
    unchanged_since_s: float  # monotonic
    reason: str = "not yet seen unchanged for the quiet time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A file that has finished arriving, fingerprinted, or unusable with a cause and reason."""

    sighting: Sighting
    sha256: str | None = None
    cause: Cause | None = None
    reason: str = ""


def escape(raw: str) -> str:
    r"""Turn a raw path into the text that the ledger, logs and people see.

    A backslash is doubled; control characters and undecodable bytes (surrogate escapes) become
    `\xNN`. No two raw paths share a text, and `unescape` gives the raw path back.
    """
    if raw.isprintable() and "\\" not in raw:
        return raw
    return "".join(
        "\\\\"
        if char == "\\"
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        if is_hostile(char)
        else char
        for char in raw
    )


def unescape(path: str) -> str:
    """Give back the raw path that `escape` was given."""
    if "\\" not in path:
        return path
    raw, rest = bytearray(), path.encode()
    while rest:
        if rest.startswith(b"\\x"):
            raw.append(int(rest[2:4], 16))
            rest = rest[4:]
        else:
            raw += rest[:1] if not rest.startswith(b"\\\\") else b"\\"
            rest = rest[1:] if not rest.startswith(b"\\\\") else rest[2:]
    return raw.decode("utf-8", "surrogateescape")


def is_hostile(text: str) -> bool:
    """Say whether a name holds control characters or undecodable bytes."""
    return any(unicodedata.category(char) in {"Cc", "Cs"} for char in text)


# --------------------------------------------------------------------------- the plan of a batch


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    """Where and with what one stage's jobs run."""

    executor: str = "local"
    cpus: int = 1
    memory_mb: int = 2048
    limit_minutes: int = 720
    queue: str = ""
    image: str = ""
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The part of the settings that decides a batch's outputs, frozen for all its attempts."""

    project_name: str
    root: str
    output_dir: str  # absolute
    log_dir: str  # absolute
    tag: str = ""
    delimiter: str = "auto"
    encoding: str = "utf-8"
    columns: str = "union"
    transform: str = "transforms:transform"
    shard_mb: int = 64
    max_shards: int = 64
    stages: Mapping[str, StageOptions] = field(default_factory=dict)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote; raises TypeError or KeyError on any other shape."""
        stages = {
            name: StageOptions(**{**stage, "command": tuple(stage["command"])})
            for name, stage in row["stages"].items()
        }
        return cls(**{**row, "stages": stages})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFile:
    """One file of a batch. A run by hand knows neither version nor hash beforehand."""

    path: str
    version: int | None
    sha256: str | None
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`batch.json`: what a batch is made of; written once, read by every attempt."""

    batch: str
    trigger: str
    formed_at: str
    files: tuple[PlannedFile, ...]
    options: Options

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises TypeError or KeyError on any other shape."""
        files = tuple(PlannedFile(**planned) for planned in row["files"])
        return cls(**{**row, "files": files, "options": Options.from_json(row["options"])})


# --------------------------------------------------------------------------- the manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file that a run read whole and published."""

    path: str
    version: int | None
    sha256: str  # of the very bytes that were parsed
    bytes: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A published file. `source` is the input's path, or "" for the combined file."""

    name: str
    source: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A file of the batch that is not among the inputs, and why."""

    path: str
    version: int | None
    sha256: str | None
    cause: str  # rejected, raised (by the transform), changed, gone, unreadable
    reason: str
    line: int | None = None

    @property
    def sentence(self) -> str:
        """The reason, with the line if it has one."""
        return self.reason if self.line is None else f"line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a run published: the content of `manifest_<RunID>.json` (schema 1)."""

    schema: int
    project: str
    run_id: str
    pathspec: str
    flow: str
    batch: str
    trigger: str
    attempt: int
    attempts: tuple[Mapping[str, Any], ...]
    tag: str
    host: str
    user: str
    started_at: str
    published_at: str
    code_fingerprint: str
    git_commit: str
    settings_fingerprint: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    rejected: tuple[Rejected, ...]
    jobs: tuple[Mapping[str, Any], ...]
    analysis: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """One JSON object, as the manifest's JSON Schema describes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises TypeError or KeyError on any other shape."""
        return cls(
            **{
                **row,
                "inputs": tuple(Input(**item) for item in row["inputs"]),
                "outputs": tuple(Output(**item) for item in row["outputs"]),
                "rejected": tuple(Rejected(**item) for item in row["rejected"]),
                "attempts": tuple(row["attempts"]),
                "jobs": tuple(row["jobs"]),
            }
        )


def output_stems(paths: Iterable[str]) -> dict[str, str]:
    """Give each escaped path of a batch the stem of its output name, unique in the batch.

    The input's own stem; where that is not unique, or over 200 bytes, its first 180 bytes at a
    character border, "-" and 8 hex digits of the path's SHA-256.
    """
    own = {path: _stem(unescape(path)) for path in paths}
    often = Counter(own.values())
    short = {
        path: _short_stem(stem, path)
        for path, stem in own.items()
        if often[stem] > 1 or len(stem.encode()) > STEM_BYTES
    }
    taken = set(short.values())  # a file may be named like a shortened one
    return {
        path: short.get(path) or (_short_stem(stem, path) if stem in taken else stem)
        for path, stem in own.items()
    }


def _stem(raw: str) -> str:
    name = raw.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _short_stem(stem: str, path: str) -> str:
    start = stem.encode()[:SHORT_STEM_BYTES].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(unescape(path).encode()).hexdigest()[:8]}"


def cut_shards(files: Sequence[PlannedFile], options: Options) -> list[list[PlannedFile]]:
    """Cut a batch's files into shards of about `shard_mb`, in order, at most `max_shards`.

    A file costs its bytes and a quarter of a MiB, since opening and writing a small file costs
    about as much as reading that.
    """
    costs = [item.size_bytes + FILE_COST_BYTES for item in files]
    size = max(options.shard_mb * 2**20, -(-sum(costs) // options.max_shards))
    shards: list[list[PlannedFile]] = []
    room = 0
    for item, cost in zip(files, costs, strict=True):
        if not shards or (cost > room and len(shards) < options.max_shards):
            shards.append([])
            room = size
        shards[-1].append(item)
        room -= cost
    return shards


FILE_COST_BYTES = 2**18
