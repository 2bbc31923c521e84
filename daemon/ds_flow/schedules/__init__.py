"""Reruns: what a selection means, when a schedule fires, verification."""

from ds_flow.schedules.fires import Fires
from ds_flow.schedules.selection import choose_files, selected_files
from ds_flow.schedules.verification import verify_outputs

__all__ = [
    "Fires",
    "choose_files",
    "selected_files",
    "verify_outputs",
]
