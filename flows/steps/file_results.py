"""The results of a batch's files after the process step, and the columns they have."""

from collections.abc import Sequence
from pathlib import Path

from ds_flow.core import DispatchError, PlannedFile, Rejected, output_stems
from ds_flow.work import Result, read_plan, results_for

APPENDED = 3  # an output's last columns: processed_at, source_file, tag


def file_results(work: Path) -> tuple[list[Result], list[Rejected]]:
    """The good files and the bad ones, in the plan's order.

    Raises DispatchError if a file has no result.
    """
    plan = read_plan(work)
    results = results_for(work, plan.options)
    good: list[Result] = []
    bad: list[Rejected] = []
    stems = output_stems(file.path for file in plan.files)
    for planned in plan.files:
        path, result = planned.path, results.get(stems[planned.path])
        if result is None or not _is_of(planned, result):
            why = "flows/, bash/ or the transform changed during this run, or its output is gone"
            raise DispatchError(f"{path}: no result of the process stage ({why})")
        if isinstance(result, Rejected):
            bad.append(result)
        elif plan.options.columns == "strict" and good and result.columns != good[0].columns:
            bad.append(_other_columns(result, good[0]))
        else:
            good.append(result)
    return good, bad


def _is_of(planned: PlannedFile, result: Result | Rejected) -> bool:
    """Whether a result belongs to the planned file: a job could have written anything."""
    is_same = (result.path, result.version) == (planned.path, planned.version)
    is_read = isinstance(result, Result) and planned.sha256 is not None
    return is_same and (not is_read or result.sha256 == planned.sha256)


def _other_columns(result: Result, first: Result) -> Rejected:
    odd = set(result.columns) ^ set(first.columns)
    what = f"columns {', '.join(sorted(odd))}" if odd else "the order of its columns"
    return Rejected(
        path=result.path,
        version=result.version,
        sha256=result.sha256,
        cause="rejected",
        reason=f"csv.columns is strict, and {what} differ from {first.path}'s",
    )


def union(headers: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """All data columns in the order of their first appearance, then the three appended ones."""
    data = dict.fromkeys(name for header in headers for name in header[:-APPENDED])
    return (*data, *headers[0][-APPENDED:])
