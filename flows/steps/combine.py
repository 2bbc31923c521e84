"""The combine step: join the processed files into one."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path

from ds_flow.core import CHECKOUT, DispatchError, NoRoomError
from ds_flow.system import free_bytes, write_json
from ds_flow.work import Batch, Result, is_plain
from steps.file_results import file_results, union
from steps.jobs import CODE, STEPS, job_for, put_list, python_for, run_one


def combine_files(batch: Batch) -> Path | None:
    """Join the processed files into one. Returns its path, or None if there is no good file.

    Raises DispatchError if the transform failed on every file: the transform is then to blame.
    """
    good, bad = file_results(batch)
    if not good:
        raised = [item for item in bad if item.cause == "raised"]
        if raised:
            raise DispatchError(f"every file failed; {raised[0].path}: {raised[0].reason}")
        return None
    columns = union([result.columns for result in good])
    _require_room(batch, good, columns)
    sources = _align_files(batch, good, columns)
    key = hashlib.sha256("\0".join([*columns, *map(str, sources)]).encode()).hexdigest()[:16]
    target = batch.combined / f"{key}.csv"
    target.parent.mkdir(exist_ok=True)
    names = put_list(target.with_suffix(".list"), sources)
    command = ("bash", str(CHECKOUT / "bash" / "combine.sh"), str(target))
    job = job_for(batch.plan, "combine", key, command, stdin=names)
    reads = (*CODE, *dict.fromkeys(source.parent for source in sources))
    run_one(batch, "combine", replace(job, reads=reads, writes=(target.parent,)))
    _require_plain(target)
    if batch.plan.options.parquet:
        _write_parquet(batch, target)
    return target


def parquet_of(combined: Path) -> Path:
    """Where the same table is as Parquet, if the settings want that."""
    return combined.with_suffix(".parquet")


def _write_parquet(batch: Batch, combined: Path) -> None:
    target = parquet_of(combined)
    script = str(STEPS / "parquet_job.py")
    command = (python_for(batch.plan, "combine"), script, str(combined), str(target))
    job = job_for(batch.plan, "combine", f"{combined.stem}.parquet", command)
    reads = (*CODE, combined.parent)
    run_one(batch, "combine", replace(job, reads=reads, writes=(target.parent,)), "parquet")
    _require_plain(target)


def _require_room(batch: Batch, good: Sequence[Result], columns: tuple[str, ...]) -> None:
    """Raise NoRoomError if the joined file, and copies with more columns, cannot fit on the disk.

    A file gets an empty cell in each row for a column that it lacks. What an earlier attempt has
    left of them needs no more room.
    """
    sizes = [one.output_bytes + one.rows * (len(columns) - len(one.columns)) for one in good]
    copies = (size for size, one in zip(sizes, good, strict=True) if one.columns != columns)
    there = [*batch.folder.glob("combined/*.csv"), *batch.folder.glob("aligned/*/*.csv")]
    needed = sum(sizes) + sum(copies) - sum(path.stat().st_size for path in there)
    free = free_bytes(batch.folder)
    if free < needed:
        why = f"{free / 2**20:.1f} MB free, {needed / 2**20:.1f} needed to combine"
        raise NoRoomError(f"no room on a disk: {batch.folder} has {why}", needed)


def _require_plain(combined: Path) -> None:
    """Raise DispatchError if the job left no regular file: this user reads it from here on."""
    try:
        is_good = is_plain(combined.lstat())
    except FileNotFoundError:
        is_good = False
    if not is_good:
        raise DispatchError(f"{combined}: the combine job left no regular file")


def _align_files(batch: Batch, good: Sequence[Result], columns: tuple[str, ...]) -> list[Path]:
    """The files to combine, all with these columns. Files with other columns are rewritten."""
    folder = batch.results.folder
    sources = [folder / result.output for result in good]
    is_odd = [result.columns != columns for result in good]
    odd = list(compress(sources, is_odd))
    if not odd:
        return sources
    key = hashlib.sha256("\0".join([*columns, *map(str, odd)]).encode()).hexdigest()[:16]
    target = batch.folder / "aligned" / key
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / "columns.json", columns)
    names = put_list(target / "sources.list", odd)
    command = (python_for(batch.plan, "combine"), str(STEPS / "align_job.py"), str(target))
    job = job_for(batch.plan, "combine", key, command, stdin=names)
    reads = (*CODE, target / "columns.json", *dict.fromkeys(source.parent for source in odd))
    run_one(batch, "combine", replace(job, reads=reads, writes=(target,)), "align")
    whole = zip(sources, is_odd, strict=True)
    return [target / source.name if is_aligned else source for source, is_aligned in whole]
