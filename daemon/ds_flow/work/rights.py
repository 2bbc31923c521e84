"""Whether this user may write where a run writes: another user may have worked here."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ds_flow.core import WORK
from ds_flow.system import FLOW_NAME, store_folder, user_name
from ds_flow.work.root import work_root

if TYPE_CHECKING:
    from ds_flow.settings import Settings  # an image has no pydantic


DEPTH = 6  # .work, a batch, jobs, a stage, a round, a file


def why_refused(settings: "Settings", batch: str = "") -> str:
    """Say which path that a run uses refuses this user, and the remedy; "" if none does.

    Without a batch, the paths of all batches count.
    """
    folders = (
        (settings.log_dir, iter(())),
        (settings.output_dir, iter(())),
        (work_root(settings.output_dir), _of_batch(work_root(settings.output_dir) / batch)),
        (store_folder(settings.root), _of_store(store_folder(settings.root) / FLOW_NAME)),
    )
    for top, inside in folders:
        for path in (top, *inside):
            if path.exists() and not os.access(path, _needed(path), effective_ids=True):
                return f"{path} {_why(path, top)}"
    return ""


def _of_store(flow: Path) -> Iterator[Path]:
    """Where Metaflow adds files or writes them again: a run's own folder is new."""
    yield flow
    yield from (path for path in _inside(flow) if path.is_file())
    yield flow / "data"
    yield from _inside(flow / "data")


def _of_batch(work: Path) -> Iterator[Path]:
    """All that a run may use. What a job has left deeper than that holds nobody up.

    Nor does where its links lead: nobody follows them.
    """
    level = [work]
    for _ in range(DEPTH):
        yield from level
        level = [path for one in level for path in _inside(one) if not path.is_symlink()]


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []  # it is judged by itself, or does not exist yet


def _needed(path: Path) -> int:
    if path.is_dir():
        return os.R_OK | os.W_OK | os.X_OK
    return os.R_OK if WORK in path.parts else os.R_OK | os.W_OK


def _why(path: Path, top: Path) -> str:
    owner = path.lstat().st_uid
    if owner == os.geteuid():
        return f"cannot be written to: chmod -R u+rwX {top}"
    own = user_name(os.geteuid())
    return (
        f"belongs to {user_name(owner)}, and ds-flow runs as {own}, which may not write to it:"
        f" chown -R {own}: {top}"
    )
