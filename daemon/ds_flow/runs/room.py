"""Whether the disks have room for a batch, by what is known of it."""

from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.system import need, space_lacking
from ds_flow.work import Batch


def why_no_room(settings: Settings, ledger: Ledger, batch_id: str) -> str:
    """Say which disk has no room for a batch's outputs, or takes nothing more; "" if all do.

    What its last run has measured counts. Before that, it is estimated, and what is there already
    needs no more room.
    """
    batch = Batch.at(settings.output_dir, batch_id)
    needed = batch.needed_bytes()
    if not needed:
        files = ledger.read.planned(batch_id)
        needed = max(0, need(settings, files, ledger.history.growth()) - batch.result_bytes())
    return space_lacking(settings, batch_id, needed)
