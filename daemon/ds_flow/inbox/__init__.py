"""From the inbox to queued batches: look, settle, admit, form."""

from ds_flow.inbox.admission import Admission
from ds_flow.inbox.after import After
from ds_flow.inbox.markers import Late, late_ones
from ds_flow.inbox.misnamed import Misnamed, how_to_mend, judge_name
from ds_flow.inbox.pattern import Look, Pattern
from ds_flow.inbox.progress import being_read, last_look, told
from ds_flow.inbox.scan import (
    needed_quiet_s,
    require_answer,
    scan_files,
    sight_file,
    why_unready,
)
from ds_flow.inbox.watcher import Inbox

__all__ = [
    "Admission",
    "After",
    "Inbox",
    "Late",
    "Look",
    "Misnamed",
    "Pattern",
    "being_read",
    "how_to_mend",
    "judge_name",
    "last_look",
    "late_ones",
    "needed_quiet_s",
    "require_answer",
    "scan_files",
    "sight_file",
    "told",
    "why_unready",
]
