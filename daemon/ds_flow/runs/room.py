"""Whether the disks have room for a batch, by what is known of it, and what to do if not."""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from ds_flow.core import SET_PREFIX, PlannedFile
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.system import is_there, need, space_lacking
from ds_flow.work import Batch


def why_no_room(settings: Settings, ledger: Ledger, batch_id: str) -> str:
    """Say which disk has no room for a batch's outputs, or takes nothing more; "" if all do.

    What its last run has measured counts. Before that, it is estimated, and what is there already
    needs no more room. Files that are gone or replaced need none: a run will only set them aside.
    """
    why = space_lacking(settings, batch_id, _wanted(settings, ledger, batch_id))
    if not why:
        return ""
    batch = Batch.at(settings.output_dir, batch_id)
    files = ledger.read.planned(batch_id)
    left = _still_there(settings, ledger, batch_id, files)
    if len(left) == len(files):
        return why
    return space_lacking(settings, batch_id, _needed(settings, ledger, batch, left))


def why_others_first(settings: Settings, ledger: Ledger, batch_id: str) -> str:
    """Say which live runs are to have the room that the disk still has; "" if there is more.

    What they have not yet written seems to be free.
    """
    others = _others(ledger, batch_id)
    if not others:
        return ""
    needed = _wanted(settings, ledger, batch_id) + _promised(settings, ledger, batch_id)
    if not space_lacking(settings, batch_id, needed):
        return ""
    return f"batch {batch_id} waits: the disk has room for {', '.join(others)}, which runs"


def split_off(settings: Settings, ledger: Ledger, batch_id: str, now: datetime) -> str:
    """Give those files of a batch for which there is no room a batch of their own; its id, or "".

    The smallest files stay, as many as there is room for beside the live runs. Only for a batch
    that never started. A complete set stays together.
    """
    row = ledger.read.batch(batch_id)
    if row is not None and row.selection.startswith(SET_PREFIX):
        return ""
    promised = _promised(settings, ledger, batch_id)
    batch = Batch.at(settings.output_dir, batch_id)
    files = ledger.read.planned(batch_id)
    left = _still_there(settings, ledger, batch_id, files)
    left.sort(key=lambda file: file.size_bytes)
    fitting, too_many = 0, len(left) + 1
    while too_many - fitting > 1:
        tried = (fitting + too_many) // 2
        needed = _needed(settings, ledger, batch, left[:tried])
        if space_lacking(settings, batch_id, needed + promised):
            too_many = tried
        else:
            fitting = tried
    if fitting in {0, len(left)}:
        return ""
    new_batch = secrets.token_hex(5)
    ledger.split(batch_id, {file.path for file in left[fitting:]}, new_batch, now)
    return new_batch


def _others(ledger: Ledger, batch_id: str) -> list[str]:
    return [f"batch {run.batch}" for run in ledger.read.live_runs() if run.batch != batch_id]


def _promised(settings: Settings, ledger: Ledger, batch_id: str) -> int:
    """How many bytes the runs of other batches are still going to write."""
    promised = 0
    for run in ledger.read.live_runs():
        if run.batch != batch_id:
            with suppress(OSError):  # its folder refuses: that is told, and stops no other batch
                promised += _wanted(settings, ledger, run.batch)
    return promised


def _wanted(settings: Settings, ledger: Ledger, batch_id: str) -> int:
    batch = Batch.at(settings.output_dir, batch_id)
    measured = batch.needed_bytes()
    return measured or _needed(settings, ledger, batch, ledger.read.planned(batch_id))


def _needed(settings: Settings, ledger: Ledger, batch: Batch, files: Sequence[PlannedFile]) -> int:
    return max(0, need(settings, files, ledger.history.growth()) - batch.result_bytes())


def _still_there(
    settings: Settings, ledger: Ledger, batch_id: str, files: Sequence[PlannedFile]
) -> list[PlannedFile]:
    """Leave out the files that a run would find gone or replaced."""
    replaced = ledger.read.replaced(batch_id)
    return [file for file in files if file.path not in replaced and not _is_gone(settings, file)]


def _is_gone(settings: Settings, file: PlannedFile) -> bool:
    try:
        places = file.places(str(settings.root), str(settings.inbox))
        return not any(is_there(base, path) for path, base in places)
    except OSError:
        return False
