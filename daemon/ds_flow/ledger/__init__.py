"""The SQLite ledger, the only code that knows SQL."""

from ds_flow.ledger.events import Alert, LongRun
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.moves import ANALYSIS_FAILED, LEFT_OUT
from ds_flow.ledger.queries import BatchRow, FileRow, Reading, RunRow
from ds_flow.ledger.schedules import RUN_PREFIX, Fire, LastRun, ScheduleRow
from ds_flow.ledger.store import fault_of

__all__ = [
    "ANALYSIS_FAILED",
    "LEFT_OUT",
    "RUN_PREFIX",
    "Alert",
    "BatchRow",
    "FileRow",
    "Fire",
    "LastRun",
    "Ledger",
    "LongRun",
    "Reading",
    "RunRow",
    "ScheduleRow",
    "fault_of",
]
