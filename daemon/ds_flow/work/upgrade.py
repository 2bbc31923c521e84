"""What the version before the `committed` folder left of a publication, brought to today's form.

That version linked outputs into `out/` first, under `out/.work/publish.lock` and by the names in an
attempt's `intent.json`, and committed by linking the manifest to `committed.json`. This module can
go once no project of that version is left.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ds_flow.core import BatchError
from ds_flow.system import link_new, open_private, part_name, read_json, sync_dir
from ds_flow.work.batch import Batch
from ds_flow.work.published import (
    find_manifest,
    is_output_of,
    manifest_name,
    put_name,
)
from ds_flow.work.root import work_root

OLD_COMMIT = "committed.json"


def upgrade(batch: Batch) -> None:
    """Turn an old commit into a new one, and take back what an old publication had only begun.

    Raises BatchError if the old files are not what that version wrote, BlockingIOError while one of
    its processes may still publish.
    """
    if os.path.lexists(batch.folder / OLD_COMMIT):
        _upgrade_commit(batch)
    elif not os.path.lexists(batch.folder / "committed"):
        for intent in sorted(batch.folder.glob("attempts/*/intent.json")):
            with old_lock(batch.output_dir):
                if not os.path.lexists(
                    batch.folder / OLD_COMMIT
                ):  # else it was committed meanwhile
                    _take_back(intent, batch.output_dir)


def _upgrade_commit(batch: Batch) -> None:
    """Make the folder `committed` from an old commit, whose outputs are published already."""
    old, output_dir = batch.folder / OLD_COMMIT, batch.output_dir
    manifest = batch.read_own_manifest(old)
    name = manifest_name(manifest.run_id)
    if find_manifest(output_dir, manifest.run_id) is None:
        put_name(old, output_dir / name)
        sync_dir(output_dir)
    if not os.path.lexists(batch.folder / "committed"):
        folder = batch.folder / f"publishing-{secrets.token_hex(4)}"
        folder.mkdir()
        link_new(old, folder / name)
        sync_dir(folder)
        folder.rename(batch.folder / "committed")
        sync_dir(batch.folder)
    old.unlink(missing_ok=True)


def _take_back(intent: Path, output_dir: Path) -> None:
    """Remove exactly the names that one dead, uncommitted attempt meant to make."""
    try:
        row = read_json(intent)
    except FileNotFoundError:  # another process got there first
        return
    try:
        run_id, names = str(row["run_id"]), [str(name) for name in row["names"]]
    except (TypeError, KeyError) as error:
        raise BatchError(f"{intent}: not an intent of this version: {error!r}") from error
    if (output_dir / manifest_name(run_id)).exists():
        raise BatchError(f"{intent}: run {run_id} has a manifest but no commit; not touched")
    for name in names:
        if not is_output_of(run_id, name):
            raise BatchError(f"{intent}: {name!r} is not an output's name of that run; not touched")
        (output_dir / name).unlink(missing_ok=True)
        (output_dir / part_name(name)).unlink(missing_ok=True)
    sync_dir(output_dir)
    intent.unlink()


@contextmanager
def old_lock(output_dir: Path) -> Iterator[None]:
    """Hold the lock under which the old version published. No process then works on an intent."""
    path = work_root(output_dir) / "publish.lock"
    descriptor = open_private(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            why = "a process of the earlier version is publishing; this is tried again"
            raise BlockingIOError(error.errno, why, str(path)) from None
        yield
    finally:
        os.close(descriptor)
