"""Metaflow's datastore on disk: who uses it, and what in it is no longer needed.

Each run has a folder of its own. The contents of its artifacts lie in `data/` under their SHA-1,
shared by all runs. Metaflow never removes any of it.
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ds_flow.core import DispatchError
from ds_flow.system.private_files import open_regular

FLOW_NAME = "StudentDataFlow"
STORE_LOCK = ".ds-flow.lock"
STORE_TRASH = ".ds-flow-trash"
SIDECAR = "_meta"  # beside each blob
NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP})  # for nobody here, so nobody sweeps


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """One run's folder, and when something last came into it."""

    path: Path
    touched_s: float  # since the epoch


def store_folder(root: Path) -> Path:
    """Name the datastore of a project."""
    return root / ".metaflow"


# --------------------------------------------------------------------------- who uses it


def hold_store(root: Path) -> None:
    """Keep others from sweeping as long as this process lives. Waits while another one sweeps.

    Metaflow does not write a blob again that is there already. So a sweep beside a run could remove
    a blob that the run is about to refer to.
    """
    try:
        store_folder(root).mkdir(exist_ok=True)
        fcntl.flock(_open_lock(root, os.O_RDONLY), fcntl.LOCK_SH)  # for ever
    except OSError as error:
        if os.access(store_folder(root), os.W_OK) and error.errno not in NO_LOCKS:
            # A run that nobody knows of could be swept away.
            raise DispatchError(
                f"{store_folder(root) / STORE_LOCK} cannot be held: {error.strerror}"
            ) from error
        # Who may not write here runs nothing here, and may still read logs.


def why_store_not_held(root: Path) -> str:
    """Say why no run of this user could hold the store, or "". Another user may own its lock."""
    path = store_folder(root) / STORE_LOCK
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return ""
    except OSError as error:
        return "" if error.errno in NO_LOCKS else f"{path} cannot be held: {error.strerror}"
    return ""


def _open_lock(root: Path, access: int) -> int:
    """Open the lock, made if need be, for those who may write beside it: any of them may run."""
    descriptor = open_regular(store_folder(root) / STORE_LOCK, access | os.O_CREAT)
    around = store_folder(root).stat()
    writers = around.st_mode & 0o022
    with suppress(OSError):  # another user's, who has seen to it
        os.fchmod(descriptor, 0o600 | writers | writers << 1)
        os.fchown(descriptor, around.st_uid if os.geteuid() == 0 else -1, around.st_gid)
    return descriptor


@contextmanager
def alone_in_store(root: Path) -> Iterator[bool]:
    """Keep runs from starting; yields whether none is alive, as the kernel's lock says."""
    descriptor = _open_lock(root, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


# --------------------------------------------------------------------------- runs


def stored_runs(root: Path) -> Iterator[StoredRun]:
    """Every run that Metaflow has a folder of, except the one that it names as the latest."""
    flow = store_folder(root) / FLOW_NAME
    latest = _latest(flow)
    for entry in _runs(flow):
        if entry.name != latest:
            yield StoredRun(path=Path(entry), touched_s=_touched_s(entry))


def _runs(flow: Path) -> Iterator[os.DirEntry[str]]:
    return (one for one in _folders(flow) if one.name not in {"data", "_meta"})


def _latest(flow: Path) -> str:
    try:
        return (flow / "latest_run").read_text().strip()
    except FileNotFoundError:
        return ""


def _touched_s(run: os.DirEntry[str]) -> float:
    tasks = (task for step in _folders(run) for task in (step, *_folders(step)))
    return max(one.stat().st_mtime for one in (run, *tasks))


def _folders(path: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
        return [one for one in entries if one.is_dir(follow_symlinks=False)]
    return []


def remove_stored_run(run: Path) -> None:
    """Remove a run's cards and its folder. Nobody ever sees half of one.

    The folder is the last: a process that is killed before that comes again for it.
    """
    store = run.parent.parent
    cards = store / "mf.cards" / run.parent.name / "runs" / run.name
    for path in (cards, run):
        trash = store / STORE_TRASH / f"{run.name}-{secrets.token_hex(4)}"
        trash.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            path.rename(trash)
    empty_store_trash(store)


def empty_store_trash(store: Path) -> None:
    """Remove what is in the trash, also what an earlier process left there."""
    shutil.rmtree(store / STORE_TRASH, ignore_errors=True)


# --------------------------------------------------------------------------- blobs


def unused_blobs(root: Path, without: Collection[str] = ()) -> Iterator[Path]:
    """Every blob that no run refers to, or would once the runs `without` are gone.

    Only true while no run is alive. Raises DispatchError if a run's record cannot be read: then
    nobody knows what it refers to.
    """
    flow = store_folder(root) / FLOW_NAME
    used: set[str] = set()
    for run in _runs(flow):
        if run.name not in without:
            used.update(_objects(run))
    for part in _folders(flow / "data"):
        with os.scandir(part) as blobs:
            yield from (Path(blob) for blob in blobs if blob.name.removesuffix(SIDECAR) not in used)


def _objects(run: os.DirEntry[str]) -> Iterator[str]:
    for step in _folders(run):
        for task in _folders(step):
            with os.scandir(task) as files:
                records = [one.path for one in files if one.name.endswith(".data.json")]
            for record in records:
                yield from _read_objects(Path(record))


def _read_objects(record: Path) -> Iterator[str]:
    try:
        yield from map(str, json.loads(record.read_bytes())["objects"].values())
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise DispatchError(f"{record}: cannot be read: {error!r}; no blob is removed") from error
