"""What the process stage has found of a batch: the good files, the bad ones, and their columns."""

from collections.abc import Sequence
from pathlib import Path

from ds_flow.core import DispatchError, PlannedFile, Rejected, output_stems
from ds_flow.work import Result, read_plan, results_for

APPENDED = 3  # processed_at, source_file, tag: an output's last columns


def verdicts(work: Path) -> tuple[list[Result], list[Rejected]]:
    """Give each file's verdict, in the plan's order. Raises DispatchError if one has none."""
    plan = read_plan(work)
    results = results_for(work, plan.options)
    good: list[Result] = []
    bad: list[Rejected] = []
    stems = output_stems(file.path for file in plan.files)
    for planned in plan.files:
        path, verdict = planned.path, results.get(stems[planned.path])
        if verdict is None or not _is_on(planned, verdict):
            why = "flows/, bash/ or the transform changed during this run, or its output is gone"
            raise DispatchError(f"{path}: no result of the process stage ({why})")
        if isinstance(verdict, Rejected):
            bad.append(verdict)
        elif plan.options.columns == "strict" and good and verdict.columns != good[0].columns:
            bad.append(_other_columns(verdict, good[0]))
        else:
            good.append(verdict)
    return good, bad


def _is_on(planned: PlannedFile, verdict: Result | Rejected) -> bool:
    """Whether a verdict is on the very file that was planned: a job may say anything."""
    is_it = (verdict.path, verdict.version) == (planned.path, planned.version)
    is_read = isinstance(verdict, Result) and planned.sha256 is not None
    return is_it and (not is_read or verdict.sha256 == planned.sha256)


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
