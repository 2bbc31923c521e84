"""Beside the line: alerts, expected files, disk space, retention."""

from ds_flow.upkeep.retention import Collected, Retention
from ds_flow.upkeep.upkeep import Upkeep

__all__ = [
    "Collected",
    "Retention",
    "Upkeep",
]
