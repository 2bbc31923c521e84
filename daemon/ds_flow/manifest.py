"""The manifest: what a run published."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


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
