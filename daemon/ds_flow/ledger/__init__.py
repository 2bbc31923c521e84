"""The SQLite ledger, the only code that knows SQL.

`ledger` is what others call: each of its public methods is one transaction. What happens in it
stands where its name says:

    files      enter, admit, move and release a version of a file
    batches    form, retry and end a batch
    runs       start a run, record its end
    commits    enter what a run published
    deliveries hand that over to commands
    schedules  schedules and their fires
    away       which inputs leave the inbox after their run
    pauses     pauses of the line and of schedules
    events     the history: alerts, retention
    figures    counts and sums for metrics and reports; changes nothing
    lineage    what was made from what; changes nothing
    moves      which files moved since an event; changes nothing
    families   what the files of each family had, and which were marked
    queries    every question; changes nothing
    overview   short questions about the whole
    names      what a person has begun to type
    pages      the questions of the page, each of a bounded answer
    rows       rows as frozen values
    store      the SQLite file: open, migrate, transactions, errors
    read_only  the same file, for a process that may not write
"""

from ds_flow.ledger.away import AwayRow, Gone
from ds_flow.ledger.deliveries import DELIVERY_DONE, FAILING, DeliveryRow
from ds_flow.ledger.events import ANALYSIS_FAILED, JOBS_REDONE, LEFT_OUT, Alert, LongRun, Told
from ds_flow.ledger.families import BATCH_DRIFTED, DriftRow
from ds_flow.ledger.figures import Histogram
from ds_flow.ledger.ledger import Ledger, ask_ledger
from ds_flow.ledger.lineage import Made, RunEvent
from ds_flow.ledger.overview import FAILURES, PastFire
from ds_flow.ledger.pages import Done, FilesPage, ListedRun
from ds_flow.ledger.pauses import LINE
from ds_flow.ledger.queries import Reading
from ds_flow.ledger.rows import BatchRow, FileRow, RunRow, SetAside
from ds_flow.ledger.schedules import RUN_PREFIX, Fire, LastRun, ScheduleRow
from ds_flow.ledger.store import fault_of

__all__ = [
    "ANALYSIS_FAILED",
    "BATCH_DRIFTED",
    "DELIVERY_DONE",
    "FAILING",
    "FAILURES",
    "JOBS_REDONE",
    "LEFT_OUT",
    "LINE",
    "RUN_PREFIX",
    "Alert",
    "AwayRow",
    "BatchRow",
    "DeliveryRow",
    "Done",
    "DriftRow",
    "FileRow",
    "FilesPage",
    "Fire",
    "Gone",
    "Histogram",
    "LastRun",
    "Ledger",
    "ListedRun",
    "LongRun",
    "Made",
    "PastFire",
    "Reading",
    "RunEvent",
    "RunRow",
    "ScheduleRow",
    "SetAside",
    "Told",
    "ask_ledger",
    "fault_of",
]
