"""How a batch is published: gather its files, commit by one rename, reveal them in `out/`.

Publication only goes forward. Nothing is visible before the commit, and nothing is taken back
after it. See docs/publication.md.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ds_flow.core import BatchError, DispatchError, Manifest
from ds_flow.system import link_new, sync_dir, sync_files, write_json
from ds_flow.work.batch import Batch
from ds_flow.work.published import (
    REMOVED,
    is_output_of,
    manifest_name,
    manifest_names,
    names_of,
    profile_name,
    put_name,
)
from ds_flow.work.upgrade import OLD_COMMIT, upgrade

COMMITTED = "committed"  # a batch's folder of published files: that it is there is the commit
IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTEMPTY})  # of a rename to a folder that has files


class AlreadyCommittedError(DispatchError):
    """Another run published this batch; this one must publish nothing."""

    def __init__(self, batch: str, run_id: str) -> None:
        super().__init__(f"batch {batch} is already published, by run {run_id}")
        self.run_id = run_id


def publish(batch: Batch, manifest: Manifest, sources: Mapping[str, Path]) -> Manifest:
    """Publish a batch's outputs under their final names; the manifest that was committed.

    `sources` maps each output's name to the file that has its bytes. A run that publishes again
    only reveals the rest. Raises AlreadyCommittedError if another run committed the batch,
    DispatchError if another file has the name of an output.

    1. Gather the outputs and the manifest in a folder, and sync them.
    2. Rename that folder to `committed`. This is the commit: it fails if one is there.
    3. Reveal them.
    """
    if not is_committed(batch):
        _refuse_taken(batch.output_dir, [*sources, manifest_name(manifest.run_id)])
        with _gathering(batch, manifest.attempt) as folder:
            _gather(folder, manifest, sources)
            _commit(folder, batch)
    try:
        committed = reveal(batch) or manifest
    except FileNotFoundError:
        if batch.folder.exists():
            raise
        return manifest  # another process revealed and recorded it, and removed the directory
    if committed.run_id != manifest.run_id:
        raise AlreadyCommittedError(committed.batch, committed.run_id)
    return committed


def _refuse_taken(output_dir: Path, names: Iterable[str]) -> None:
    """Refuse a name that another file has while another attempt can still choose other names."""
    for name in names:
        if os.path.lexists(output_dir / name):
            raise DispatchError(
                f"{output_dir / name} exists already and is not this run's: "
                "move it away, then retry"
            )


@contextmanager
def _gathering(batch: Batch, attempt: int) -> Iterator[Path]:
    """Make a folder for one publication; it is gone afterwards, or has become the commit."""
    folder = batch.folder / f"publishing-{attempt}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _gather(folder: Path, manifest: Manifest, sources: Mapping[str, Path]) -> None:
    sync_files(sources.values())
    for name, source in sources.items():
        link_new(source, folder / name)
    write_json(folder / manifest_name(manifest.run_id), manifest.to_json())  # syncs the folder


def _commit(folder: Path, batch: Batch) -> None:
    """Make a folder the commit, unless another process got there first."""
    try:
        folder.rename(batch.folder / COMMITTED)
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise


def is_committed(batch: Batch) -> bool:
    """Whether a run has committed this batch, in this version's way or the earlier one's."""
    return any(os.path.lexists(batch.folder / name) for name in (COMMITTED, OLD_COMMIT))


def reveal(batch: Batch) -> Manifest | None:
    """Give a committed batch's files their names in the output folder; None if it has no commit.

    Any process may do this, at any time and again. It removes nothing, and the manifest comes
    last, so a manifest that is in its place has its outputs. Raises FileExistsError if another
    file has one of the names, BatchError if the commit is not what `publish` makes.

    1. Sync the commit, so no file can be visible whose commit a power loss takes back.
    2. Put the outputs, and sync their names; put the manifest, and sync its name.
       Where the manifest is in its place, or among the removed ones, this was done before.
    """
    upgrade(batch)
    try:
        manifest = read_commit(batch)
    except FileNotFoundError:
        return None
    sync_dir(batch.folder)
    folder, name = batch.folder / COMMITTED, manifest_name(manifest.run_id)
    output_dir = batch.output_dir
    if not os.path.lexists(output_dir / REMOVED / name):
        if not os.path.lexists(output_dir / name):
            for part in names_of(manifest):
                put_name(folder / part, output_dir / part)
            sync_dir(output_dir)
        put_name(folder / name, output_dir / name)
    sync_dir(output_dir)
    return manifest


def read_commit(batch: Batch) -> Manifest:
    """Read a batch's commit. Raises BatchError if it is not its own, FileNotFoundError if none."""
    folder = batch.folder / COMMITTED
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise BatchError(f"{folder}: is not a folder; remove it")
    names = manifest_names(folder)
    if len(names) != 1:
        raise BatchError(f"{folder}: holds {len(names)} manifests, and must hold one")
    manifest = batch.read_own_manifest(folder / names[0])
    run_id = manifest.run_id
    if names[0] != manifest_name(run_id):
        raise BatchError(f"{folder}: {names[0]!r} is not the manifest's name of run {run_id}")
    for output in manifest.outputs:
        if not is_output_of(run_id, output.name):
            raise BatchError(f"{folder}: {output.name!r} is not an output's name of run {run_id}")
    if manifest.profile not in {"", profile_name(run_id)}:
        raise BatchError(
            f"{folder}: {manifest.profile!r} is not the profile's name of run {run_id}"
        )
    return manifest
