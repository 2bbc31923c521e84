"""From the inbox to queued batches: look, settle, admit, form."""

from ds_flow.inbox.admission import Admission
from ds_flow.inbox.misnamed import Misnamed, how_to_mend, judge_name
from ds_flow.inbox.progress import being_read, last_look, told
from ds_flow.inbox.scan import (
    Pattern,
    needed_quiet_s,
    require_answer,
    scan_files,
    sight_file,
)
from ds_flow.inbox.watcher import Inbox

__all__ = [
    "Admission",
    "Inbox",
    "Misnamed",
    "Pattern",
    "being_read",
    "how_to_mend",
    "judge_name",
    "last_look",
    "needed_quiet_s",
    "require_answer",
    "scan_files",
    "sight_file",
    "told",
]
