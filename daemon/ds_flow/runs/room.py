"""Whether the disks have room for a batch, by what is known of it."""

from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.system import need, space_lacking
from ds_flow.work import needed_bytes, result_bytes, work_root


def why_no_room(settings: Settings, ledger: Ledger, batch: str) -> str:
    """Say which disk has no room for a batch's outputs, or takes nothing more; "" if all do.

    What its last run has measured counts. Before that, it is estimated, and what is there already
    needs no more room.
    """
    work = work_root(settings.output_dir) / batch
    needed = needed_bytes(work)
    if not needed:
        files = ledger.read.planned(batch)
        needed = max(0, need(settings, files, ledger.history.growth()) - result_bytes(work))
    return space_lacking(settings, batch, needed)
