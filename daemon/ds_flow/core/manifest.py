"""The manifest: what a run published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

from ds_flow.core.families import Look

NAMED = 3  # jobs that are named in a sentence


class Compared(StrEnum):
    """How an output of a rerun compares with the last run of the same selection."""

    NOT = ""  # not compared: there was no such run, or its manifest is gone
    IDENTICAL = "identical"  # except processed_at
    CHANGED = "changed"
    NEW = "new"  # that run had no output from this source


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file that a run read to its end and published."""

    path: str
    version: int | None
    sha256: str  # of the very bytes that were parsed
    bytes: int
    rows: int
    columns: int
    delimiter: str = ""  # that was used; "" in manifests of older versions
    encoding: str = ""  # the same
    format: str = ""  # csv, csv.gz, csv.zst, xlsx or parquet
    notes: tuple[str, ...] = ()  # what was left out, or may be wrong
    shape: int | None = None  # which of the manifest's `shapes` its columns are; None: not compared
    empty: tuple[int, ...] = ()  # cells of each of these columns
    rows_read: int = 0  # of the input; `rows` are what the transform gave; 0 in older manifests

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `shallow` gave."""
        known = _known(cls, row)
        lists = {name: tuple(known.get(name, ())) for name in ("notes", "empty")}
        return cls(**{**known, **lists})


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A published file. `source` is the input's path, or "" for the combined file.

    That may be there twice, as CSV and as Parquet; the CSV comes first.
    """

    name: str
    source: str
    sha256: str
    bytes: int
    rows: int
    content_sha256: str = ""  # without processed_at; "" in manifests of older versions
    compared: str = Compared.NOT
    because: tuple[str, ...] = ()  # why it changed: input, code, settings, tag, other

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `shallow` gave."""
        known = _known(cls, row)
        return cls(**{**known, "because": tuple(known.get("because", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A file of the batch that was not published, and why."""

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
class Drifted:
    """One thing in which an input differs from the files of its family before."""

    path: str
    version: int | None
    family: str
    kind: str  # missing, new, renamed, reordered, rows, empty; more: there are others
    column: str  # "" for the whole file
    text: str
    since: str = ""  # the day of the first file like it; "" if this is the first


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
    selection: str = ""  # what a rerun was over
    transform: str = ""  # the file that was used, relative to the project if it is inside
    compared_with: str = ""  # Run ID of the last run of the same selection
    columns: tuple[str, ...] = ()  # of the combined file; () in manifests of older versions
    shapes: tuple[tuple[str, ...], ...] = ()  # the different lists of columns of the inputs
    drift: tuple[Drifted, ...] = ()
    profile: str = ""  # the file beside it that describes what was read; "" if there is none

    @property
    def analysis_error(self) -> str:
        """Why the analysis failed. "" if it did not, or if there was none."""
        return str((self.analysis or {}).get("error", ""))

    @property
    def redone(self) -> str:
        """The jobs that failed and were done again, and why. "" if there were none."""
        return first_of(failed_and_done_again(self.jobs), "; ")

    @property
    def drifted(self) -> str:
        """The first few marks that tell of a new change. "" if there is none."""
        return first_of([f"{one.path}: {one.text}" for one in self.drift if not one.since], "; ")

    def look(self, item: Input) -> Look | None:
        """What an input had, for its family. None if it is not compared."""
        if item.shape is None or not 0 <= item.shape < len(self.shapes):
            return None
        columns = self.shapes[item.shape]
        is_whole = len(item.empty) == len(columns)
        return Look(columns=columns, rows=item.rows_read, empty=item.empty) if is_whole else None

    def to_json(self) -> dict[str, Any]:
        """One JSON object, as the manifest's JSON Schema describes it."""
        return {
            **shallow(self),
            "inputs": tuple(map(shallow, self.inputs)),
            "outputs": tuple(map(shallow, self.outputs)),
            "rejected": tuple(map(shallow, self.rejected)),
            "drift": tuple(map(shallow, self.drift)),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises TypeError or KeyError on any other shape.

        Keys that a later version added are passed over.
        """
        return cls(
            **{
                **_known(cls, row),
                "inputs": tuple(map(Input.from_json, row["inputs"])),
                "outputs": tuple(map(Output.from_json, row["outputs"])),
                "rejected": tuple(Rejected(**_known(Rejected, item)) for item in row["rejected"]),
                "attempts": tuple(row["attempts"]),
                "jobs": tuple(row["jobs"]),
                "columns": tuple(row.get("columns", ())),
                "shapes": tuple(map(tuple, row.get("shapes", ()))),
                "drift": tuple(Drifted(**_known(Drifted, one)) for one in row.get("drift", ())),
            }
        )


def shallow(made: Any) -> dict[str, Any]:
    """The fields of a dataclass as they are; `asdict` would copy everything in them."""
    return {field.name: getattr(made, field.name) for field in fields(made)}


def _known(kind: type[Any], row: Mapping[str, Any]) -> dict[str, Any]:
    return {key.name: row[key.name] for key in fields(kind) if key.name in row}


# --------------------------------------------------------------------------- jobs


def failed_and_done_again(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the jobs that failed and were done again, each with its place and its reason.

    `jobs` holds every job of a batch in the order of their rounds, as a manifest has them. What is
    no job is passed over.
    """
    found = [job for job in jobs if isinstance(job, Mapping)]
    last = {_identity(job): number for number, job in enumerate(found)}
    return [
        f"{job.get('stage')} job {job.get('round')}[{job.get('index')}]"
        f"{place_of(job)}: {job.get('reason')}"
        for number, job in enumerate(found)
        if job.get("failure") and last[_identity(job)] > number
    ]


def _identity(job: Mapping[str, Any]) -> tuple[str, str]:
    """What a job has in common with the one that does its work again."""
    return str(job.get("stage")), str(job.get("key"))


def first_of(words: Sequence[str], between: str) -> str:
    """Join the first few words and count the others."""
    more = len(words) - NAMED
    return between.join(words[:NAMED]) + (f" and {more} more" if more > 0 else "")


def place_of(job: Mapping[str, Any]) -> str:
    """Where a job ran, and under which id there: " on HOST (ID)", as far as it is known.

    A local job ran here, and its process is gone: that is "".
    """
    if job.get("backend") == "local":
        return ""
    host, native_id = job.get("host"), job.get("native_id")
    return (f" on {host}" if host else "") + (f" ({native_id})" if native_id else "")


# --------------------------------------------------------------------------- comparing


def compare_manifests(new: Manifest, old: Manifest, *, has_same_settings: bool) -> Manifest:
    """Compare each output with an earlier run's, and say why it has changed.

    `has_same_settings` says whether the settings, except the tag, are those of the earlier run.
    """
    before = {_made(output): output for output in old.outputs}
    made_from, was_made_from = _inputs(new), _inputs(old)
    common = {
        "code": new.code_fingerprint != old.code_fingerprint,
        "settings": not has_same_settings,
        "tag": new.tag != old.tag,
    }
    outputs = (
        _compared(
            output,
            before.get(_made(output)),
            {"input": made_from.get(output.source) != was_made_from.get(output.source), **common},
        )
        for output in new.outputs
    )
    return replace(new, outputs=tuple(outputs), compared_with=old.run_id)


def _made(output: Output) -> tuple[str, bool]:
    """What an output is, whichever run made it: its source, and its kind of file."""
    return output.source, output.name.endswith(".parquet")


def _inputs(manifest: Manifest) -> dict[str, object]:
    """What each output was made from, by its source: one input, or all of them if combined."""
    each = {item.path: item.sha256 for item in manifest.inputs}
    return {**each, "": list(each.items())}


def _compared(output: Output, before: Output | None, changes: Mapping[str, bool]) -> Output:
    if before is None:
        return replace(output, compared=Compared.NEW)
    causes = tuple(cause for cause, has_changed in changes.items() if has_changed)
    is_same = output.content_sha256 == before.content_sha256
    if is_same if before.content_sha256 else not causes:
        return replace(output, compared=Compared.IDENTICAL)
    return replace(output, compared=Compared.CHANGED, because=causes or ("other",))
