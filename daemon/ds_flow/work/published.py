"""What stands in the output folder: the names of published files, and what puts or removes them."""

import csv
import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ds_flow.core import BatchError, LedgerError, Manifest
from ds_flow.system import link_new, open_regular, read_json, sync_dir
from ds_flow.work.results import is_plain, measured

REMOVED = "removed"
"""The folder in the output folder that holds the manifests of outputs that retention removed."""

HEADER_BYTES = 16 * 2**20  # as long as a record of a table may be
ANALYSIS_NAME = re.compile(r"analysis_([^/\0]+)_([1-9][0-9]{0,8})\.json")
OUTPUT_NAME = re.compile(
    r"(processed_[^/\0\ud800-\udfff]+\.csv|final_combined_[^/\0\ud800-\udfff]+\.(csv|parquet))"
)


def is_output_of(run_id: str, name: str) -> bool:
    """Whether a run may publish an output under this name: a bare one, with its Run ID."""
    return bool(OUTPUT_NAME.fullmatch(name)) and name.rpartition(".")[0].endswith(f"_{run_id}")


def put_name(source: Path, target: Path) -> None:
    """Give a file its published name, or leave the name as it is if it has these bytes already.

    Raises FileExistsError if another file has the name, BatchError if the source is not a plain
    file.
    """
    if not is_plain(source.lstat()):
        raise BatchError(f"{source}: is not a regular file; remove it")
    try:
        link_new(source, target)
    except FileExistsError:
        if is_plain(target.lstat()) and measured(target) == measured(source):
            return  # a copy, where the file system cannot link
        why = "another file has this name, and the output cannot be put there: move it away"
        raise FileExistsError(errno.EEXIST, why, str(target)) from None


def manifest_name(run_id: str) -> str:
    """The published manifest's file name."""
    return f"manifest_{run_id}.json"


def profile_name(run_id: str) -> str:
    """The file name of what describes a run's inputs and its combined file."""
    return f"profile_{run_id}.json"


def names_of(manifest: Manifest) -> list[str]:
    """The names of all that a run has published beside its manifest."""
    profile = [manifest.profile] if manifest.profile else []
    return [*(output.name for output in manifest.outputs), *profile]


def analysis_name(run_id: str, number: int) -> str:
    """The file name of an analysis that was done again. The first one is in the manifest."""
    return f"analysis_{run_id}_{number}.json"


def newest_analyses(output_dir: Path) -> dict[str, int]:
    """The number of the newest analysis of each run whose analysis was done again."""
    newest: dict[str, int] = {}
    for folder in (output_dir, output_dir / REMOVED):
        for run_id, number in _analyses_in(folder):
            newest[run_id] = max(number, newest.get(run_id, 0))
    return newest


def find_analysis(output_dir: Path, run_id: str, number: int) -> Path | None:
    """Find an analysis that was done again, be its run's outputs there or removed."""
    name = analysis_name(run_id, number)
    places = (output_dir / name, output_dir / REMOVED / name)
    return next((path for path in places if path.exists()), None)


def _analyses_in(folder: Path) -> list[tuple[str, int]]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - as for manifests
    except FileNotFoundError:
        return []
    found = (ANALYSIS_NAME.fullmatch(name) for name in names if name.startswith("analysis_"))
    return [(one[1], int(one[2])) for one in found if one]


def published_manifests(output_dir: Path) -> Iterator[Path]:
    """Every published manifest, oldest Run ID first."""
    return (output_dir / name for name in manifest_names(output_dir))


def removed_manifests(output_dir: Path) -> Iterator[Path]:
    """Every manifest whose outputs retention removed, oldest Run ID first."""
    return published_manifests(output_dir / REMOVED)


def manifest_names(folder: Path) -> list[str]:
    """The names of the manifests in a folder that may hold a hundred thousand files, in order."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a Path for each file would cost ten times as much
    except FileNotFoundError:
        return []
    found = (name for name in names if name.startswith("manifest_") and name.endswith(".json"))
    return sorted(found, key=by_run_id)


def by_run_id(name: str) -> tuple[int, str]:
    """Sort names of manifests by it: the oldest Run ID first."""
    return len(name), name


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises BatchError if it is not one, FileNotFoundError if gone."""
    try:
        return Manifest.from_json(read_json(path))
    except (TypeError, KeyError) as error:
        raise BatchError(f"{path}: not a manifest of this version: {error!r}") from error


def columns_of(output: Path) -> list[str]:
    """The names of an output's columns. Raises OSError if it is gone, ValueError if it has none."""
    csv.field_size_limit(HEADER_BYTES)  # the module refuses names over 128 KiB otherwise
    with os.fdopen(open_regular(output), encoding="utf-8", newline="") as file:
        try:
            return next(csv.reader(file), [])
        except csv.Error as error:
            raise ValueError(f"{output}: {error}") from error


def find_manifest(output_dir: Path, run_id: str) -> Path | None:
    """Find a run's manifest, be its outputs there or removed."""
    name = manifest_name(run_id)
    places = (output_dir / name, output_dir / REMOVED / name)
    return next((path for path in places if path.exists()), None)


def manifest_of(output_dir: Path, run_id: str) -> Manifest | None:
    """Read a run's manifest; None if it is gone, or cannot be read."""
    with suppress(LedgerError, OSError):
        if path := find_manifest(output_dir, run_id):
            return read_manifest(path)
    return None


def remove_outputs(output_dir: Path, run_ids: Iterable[str]) -> None:
    """Remove the outputs of runs; their manifests and analyses stay, in the folder of the removed.

    The manifests move first, so a manifest that is in its place has its outputs. Whoever
    finds the manifest among the removed ones reveals nothing. A call that was interrupted can be
    repeated.
    """
    folder = output_dir / REMOVED
    folder.mkdir(exist_ok=True)
    manifests = []
    run_ids = set(run_ids)
    for name in (analysis_name(*one) for one in _analyses_in(output_dir) if one[0] in run_ids):
        (output_dir / name).replace(folder / name)
    for path in filter(None, (find_manifest(output_dir, run_id) for run_id in run_ids)):
        manifests.append(read_manifest(path))
        path.replace(folder / path.name)
    sync_dir(folder)
    sync_dir(output_dir)
    for manifest in manifests:
        for name in names_of(manifest):
            (output_dir / name).unlink(missing_ok=True)
