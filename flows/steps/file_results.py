"""The results of a batch's files after the process step, and the columns they have."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ds_flow.core import (
    DispatchError,
    LedgerError,
    Manifest,
    PlannedFile,
    Rejected,
    output_stems,
)
from ds_flow.system import read_json, write_json
from ds_flow.work import (
    Batch,
    Result,
    has_settings,
    published_manifests,
    read_manifest,
)
from steps.union_limit import APPENDED, fitting


def file_results(
    batch: Batch, published: Path | None = None
) -> tuple[list[Result], list[Rejected]]:
    """The good files and the bad ones, in the plan's order.

    `published` is the folder of what was published before, if that is not the batch's own.

    Raises DispatchError if a file has no result.
    """
    judged = _judged(batch)
    good = [one for one in judged if isinstance(one, Result)]
    if good and batch.plan.options.columns == "strict":
        reference = _reference(batch, good, published or batch.output_dir)
        judged = [reference.judged(one) if isinstance(one, Result) else one for one in judged]
    good = [one for one in judged if isinstance(one, Result)]
    fits = iter(fitting(good, batch.plan.options.max_columns))
    judged = [next(fits) if isinstance(one, Result) else one for one in judged]
    good = [one for one in judged if isinstance(one, Result)]
    return good, [one for one in judged if isinstance(one, Rejected)]


def _judged(batch: Batch) -> list[Result | Rejected]:
    judged: list[Result | Rejected] = []
    stems = output_stems(file.path for file in batch.plan.files)
    for planned in batch.plan.files:
        path, result = planned.path, batch.results.get(stems[planned.path])
        if result is None or not _is_of(planned, result):
            why = "flows/, bash/ or the transform changed during this run, or its output is gone"
            raise DispatchError(f"{path}: no result of the process stage ({why})")
        judged.append(result)
    return judged


def _is_of(planned: PlannedFile, result: Result | Rejected) -> bool:
    """Whether a result belongs to the planned file: a job could have written anything."""
    is_same = (result.path, result.version) == (planned.path, planned.version)
    is_read = isinstance(result, Result) and planned.sha256 is not None
    return is_same and (not is_read or result.sha256 == planned.sha256)


def union(headers: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """All data columns in the order of their first appearance, then the three appended ones."""
    data = dict.fromkeys(name for header in headers for name in header[:-APPENDED])
    return (*data, *headers[0][-APPENDED:])


# --------------------------------------------------------------------------- csv.columns: strict


@dataclass(frozen=True, slots=True)
class Reference:
    """The columns that `csv.columns: strict` demands."""

    columns: tuple[str, ...]  # none if no file can be right
    whose: str  # whose they are, or why there are none
    advice: str

    def judged(self, result: Result) -> Result | Rejected:
        """The result if it has these columns, else why it is rejected."""
        if result.columns == self.columns:
            return result
        return Rejected(
            path=result.path,
            version=result.version,
            sha256=result.sha256,
            cause="rejected",
            reason=f"csv.columns is strict, and {self._why_not(result.columns)}; {self.advice}",
        )

    def _why_not(self, columns: tuple[str, ...]) -> str:
        if not self.columns:
            return self.whose
        if odd := set(columns) ^ set(self.columns):
            return f"columns {', '.join(sorted(odd))} differ from those of {self.whose}"
        return f"its columns are in another order than those of {self.whose}"


def _reference(batch: Batch, good: Sequence[Result], published: Path) -> Reference:
    """What these files are held against: what was published before, else most of them.

    It is written down, so that it stays the same when another run publishes meanwhile.
    """
    path = batch.folder / f"columns_{batch.results.folder.name}.json"
    with suppress(FileNotFoundError):
        row = read_json(path)
        return Reference(**{**row, "columns": tuple(row["columns"])})
    last = _published_last(batch, published)
    reference = _of_run(last) if last else _of_most(good)
    write_json(path, asdict(reference))
    return reference


def _published_last(batch: Batch, published: Path) -> Manifest | None:
    """The newest run that published a file, if it had the present code and settings."""
    for path in reversed(list(published_manifests(published))):
        with suppress(LedgerError, OSError):
            manifest = read_manifest(path)
            if manifest.inputs:
                is_same = manifest.code_fingerprint == batch.code_fingerprint
                return manifest if is_same and has_settings(manifest, batch.plan.options) else None
    return None


def _of_run(manifest: Manifest) -> Reference:
    advice = "if they are right, set csv.columns to union for one batch"
    return Reference(manifest.columns, f"run {manifest.run_id}", advice)


def _of_most(good: Sequence[Result]) -> Reference:
    headers = Counter(one.columns for one in good)
    columns, count = headers.most_common(1)[0]
    if 2 * count > len(good):
        return Reference(columns, "most files of this batch", "correct it, and send it again")
    why = f"this batch has {len(headers)} different headers, none of them in most files"
    return Reference((), why, "release the right files first")
