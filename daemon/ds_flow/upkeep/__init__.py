"""Beside the line: alerts, expected files, disk space, retention."""

from ds_flow.upkeep.beside import Beside
from ds_flow.upkeep.daily import WRITTEN
from ds_flow.upkeep.expected_files import still_missing
from ds_flow.upkeep.lineage_post import send_lineage
from ds_flow.upkeep.metaflow_post import metaflow_delay, send_runs
from ds_flow.upkeep.record import RECORD, Heard, Record, leave_record, named, read_record
from ds_flow.upkeep.retention import Collected, Retention
from ds_flow.upkeep.spool import Spool
from ds_flow.upkeep.upkeep import Upkeep

__all__ = [
    "RECORD",
    "WRITTEN",
    "Beside",
    "Collected",
    "Heard",
    "Record",
    "Retention",
    "Spool",
    "Upkeep",
    "leave_record",
    "metaflow_delay",
    "named",
    "read_record",
    "send_lineage",
    "send_runs",
    "still_missing",
]
