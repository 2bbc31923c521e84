"""What a person can do about each kind of trouble, in words, and what to type."""

import shlex
from typing import NamedTuple

from ds_flow.core.states import Cause


class Remedy(NamedTuple):
    """What to do, and the command that does it or tells more; "" if there is none."""

    text: str
    command: str = ""


def for_file(cause: str | None, path: str) -> Remedy:
    """Say what to do about a quarantined file. `path` is as in the ledger."""
    name = shlex.quote(path)
    release, explain = f"ds-flow release -- {name}", f"ds-flow explain -- {name}"
    match cause:
        case Cause.NAME:
            return Remedy("rename the file", explain)
        case Cause.GONE | Cause.CHANGED:
            return Remedy("put it into the inbox again", explain)
        case Cause.UNREADABLE:
            return Remedy("make it readable, then release it", release)
        case Cause.REJECTED:
            return Remedy("correct the file and put it into the inbox again, or remove it", explain)
    return Remedy("remove the cause, then release the file", release)


FOR_KINDS = {
    "analysis.failed": Remedy("remove the cause, then do the analysis again"),
    "backend.silent": Remedy("bring it back; runs wait for it, then go on", "ds-flow check"),
    "batch.dead": Remedy("remove the cause, then retry the batch"),
    "batch.drifted": Remedy("ask their sender whether this is meant"),
    "batch.held_back": Remedy("remove the cause; the batch then goes on", "ds-flow status"),
    "delivery.failing": Remedy("remove the cause; it is tried again by itself, or now"),
    "file.left_out": Remedy("correct the file; until then, its earlier output stays"),
    "file.unmarked": Remedy(
        "ask its sender; make the marker yourself once the file is complete", "ds-flow status"
    ),
    "file.misnamed": Remedy("rename it, or save it as CSV under such a name", "ds-flow status"),
    "files.missing": Remedy("ask their sender", "ds-flow status"),
    "line.paused": Remedy("nothing, if this is meant; `ds-flow resume` ends it", "ds-flow status"),
    "line.resumed": Remedy("nothing", "ds-flow status"),
    "marker.alone": Remedy("ask its sender for the file, or remove the marker", "ds-flow status"),
    "report.written": Remedy("open it in a browser"),
    "schedule.caught_up": Remedy(
        "see why the daemon was down, or the machine asleep, at that time", "ds-flow schedule"
    ),
    "schedule.missed": Remedy("fire it now, or wait for its next time"),
    "schedule.paused": Remedy("nothing, if this is meant", "ds-flow schedule"),
    "schedule.resumed": Remedy("nothing", "ds-flow schedule"),
    "set.incomplete": Remedy(
        "ask the sender of what is missing; a file that comes late is taken", "ds-flow status"
    ),
    "settings.refused": Remedy("correct them, then reload", "ds-flow check"),
    "space.low": Remedy("make room; everything then goes on", "ds-flow gc --dry-run"),
}
"""What to do about an event, by its kind."""


def for_event(
    kind: str, path: str = "", cause: str | None = None, batch: str = "", run_id: str = ""
) -> Remedy:
    """Say what to do about one event of the history, of which this much is known."""
    if kind == "file.quarantined":
        return for_file(cause, path)
    remedy = FOR_KINDS.get(kind, Remedy("see what is wrong", "ds-flow status"))
    commands = {
        "analysis.failed": f"ds-flow rerun --analyze {run_id}" if run_id else "",
        "batch.drifted": f"ds-flow show {run_id}" if run_id else "",
        "batch.dead": f"ds-flow retry {batch}" if batch else "",
        "delivery.failing": f"ds-flow deliver {run_id}" if run_id else "",
        "file.left_out": f"ds-flow explain -- {shlex.quote(path)}" if path else "",
        "schedule.missed": "ds-flow schedule",
    }
    return remedy._replace(command=commands.get(kind) or remedy.command or "ds-flow status")
