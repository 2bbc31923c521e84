"""How a batch becomes published: intent, links, the commit link; and recovery by intent."""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ds_flow.core import BatchError, DispatchError, Manifest
from ds_flow.system import (
    link_new,
    open_private,
    part_name,
    read_json,
    sync_dir,
    sync_files,
    write_json,
)
from ds_flow.work.directory import attempt_dir, read_commit, read_manifest, work_root

REMOVED = "removed"
"""The folder in the output folder that holds the manifests of outputs that retention removed."""

OUTPUT_NAME = re.compile(r"(processed|final_combined)_[^/\0\ud800-\udfff]+\.csv")


class AlreadyCommittedError(DispatchError):
    """Another run published this batch; this one must publish nothing."""

    def __init__(self, batch: str, run_id: str) -> None:
        super().__init__(f"batch {batch} is already published, by run {run_id}")
        self.run_id = run_id


class BusyError(DispatchError):
    """Somebody publishes, or removes outputs, at this very moment."""


@contextmanager
def publish_lock(output_dir: Path, *, waits: bool = True) -> Iterator[None]:
    """Hold the one lock under which outputs are made or taken back.

    The kernel gives it back when its holder dies, so an intent found under it is nobody's work.
    Who does not wait gets a BusyError while another holds it. Raises DispatchError if nobody
    can: that concerns every batch.
    """
    path = work_root(output_dir) / "publish.lock"
    try:
        descriptor = open_private(path)
    except OSError as error:
        raise DispatchError(f"{path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise BusyError(f"{path} is held: a publication goes on") from error
        except OSError as error:
            raise DispatchError(f"{path} cannot be locked: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)


def publish(work: Path, manifest: Manifest, sources: Mapping[str, Path], output_dir: Path) -> None:
    """Publish a batch's outputs under their final names, and commit.

    `sources` maps each output's name to the file that has its bytes. Done again by the same run,
    it changes nothing. Raises AlreadyCommittedError if another run has committed the batch.
    """
    with publish_lock(output_dir):
        committed = _recover(work, output_dir)
        if committed is not None:
            if committed.run_id != manifest.run_id:
                raise AlreadyCommittedError(committed.batch, committed.run_id)
            return
        _refuse_taken(output_dir, sources)
        attempt = attempt_dir(work, manifest.attempt)
        _write_intent(attempt, manifest.run_id, list(sources))
        sync_files(sources.values())
        for name, source in sources.items():
            link_new(source, output_dir / name)
        sync_dir(output_dir)
        write_json(attempt / "manifest.json", manifest.to_json())
        link_new(attempt / "manifest.json", work / "committed.json")  # this is the commit
        sync_dir(work)
        _recover(work, output_dir)


def _refuse_taken(output_dir: Path, names: Iterable[str]) -> None:
    """Spare other people's files: recovery would remove whatever has a name in an intent."""
    for name in names:
        if os.path.lexists(output_dir / name):
            raise DispatchError(
                f"{output_dir / name} exists already and is not this run's: "
                "move it away, then retry"
            )


def _write_intent(attempt: Path, run_id: str, names: list[str]) -> None:
    write_json(attempt / "intent.json", {"run_id": run_id, "names": names})
    for folder in (attempt.parent, attempt.parent.parent, attempt.parent.parent.parent):
        sync_dir(folder)


def recover(work: Path, output_dir: Path) -> Manifest | None:
    """Finish a committed batch's publication, or take back what an uncommitted one had begun.

    Raises BusyError while another publication goes on, BatchError if files cannot be read.
    """
    with publish_lock(output_dir, waits=False):
        return _recover(work, output_dir)


def _recover(work: Path, output_dir: Path) -> Manifest | None:
    try:
        manifest = read_commit(work)
    except FileNotFoundError:
        for intent in sorted(work.glob("attempts/*/intent.json")):
            _take_back(intent, output_dir)
        return None
    target = output_dir / manifest_name(manifest.run_id)
    if not target.exists():
        link_new(work / "committed.json", target)
        sync_dir(output_dir)
    return manifest


def _take_back(intent: Path, output_dir: Path) -> None:
    """Remove exactly the names that one uncommitted attempt meant to make."""
    row = read_json(intent)
    try:
        run_id, names = str(row["run_id"]), [str(name) for name in row["names"]]
    except (TypeError, KeyError) as error:
        raise BatchError(f"{intent}: not an intent of this version: {error!r}") from error
    if (output_dir / manifest_name(run_id)).exists():
        raise BatchError(f"{intent}: run {run_id} has a manifest but no commit; not touched")
    for name in names:
        if not (OUTPUT_NAME.fullmatch(name) and name.endswith(f"_{run_id}.csv")):
            raise BatchError(f"{intent}: {name!r} is not an output's name of that run; not touched")
        (output_dir / name).unlink(missing_ok=True)
        (output_dir / part_name(name)).unlink(missing_ok=True)
    sync_dir(output_dir)
    intent.unlink()


def manifest_name(run_id: str) -> str:
    """The published manifest's file name."""
    return f"manifest_{run_id}.json"


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


def find_manifest(output_dir: Path, run_id: str) -> Path | None:
    """Find a run's manifest, be its outputs there or removed."""
    name = manifest_name(run_id)
    places = (output_dir / name, output_dir / REMOVED / name)
    return next((path for path in places if path.exists()), None)


def remove_outputs(output_dir: Path, run_ids: Iterable[str]) -> None:
    """Remove the outputs of runs; their manifests stay, in the folder of the removed.

    The manifests are moved first, so that whoever finds one in its place finds its outputs, too.
    Done again, it goes on where it was stopped.
    """
    folder = output_dir / REMOVED
    with publish_lock(output_dir):
        folder.mkdir(exist_ok=True)
        manifests = []
        for path in filter(None, (find_manifest(output_dir, run_id) for run_id in run_ids)):
            manifests.append(read_manifest(path))
            path.replace(folder / path.name)
        sync_dir(folder)
        sync_dir(output_dir)
        for manifest in manifests:
            for output in manifest.outputs:
                (output_dir / output.name).unlink(missing_ok=True)
