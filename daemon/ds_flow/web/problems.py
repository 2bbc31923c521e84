"""Whether all is well, and if not, what to do first."""

from collections.abc import Iterator
from dataclasses import dataclass

from ds_flow.core import Document, counted

PENDING = ("queued", "running", "retrying")


@dataclass(frozen=True, slots=True)
class ToDo:
    """One thing that needs a person."""

    what: str
    how: str = ""  # the remedy, in words or as a command
    where: str = ""  # the address on this page


def things_to_do(status: Document) -> list[ToDo]:
    """The things that need a person, the most pressing first."""
    return [*_of_the_daemon(status), *_of_the_site(status), *_of_files(status)]


def _of_the_daemon(status: Document) -> Iterator[ToDo]:
    files, batches = status["files"], status["batches"]
    pending = files["waiting"] + status["arriving"] + len(status["unaccounted"])
    pending += sum(batches.get(state, 0) for state in PENDING)
    if pending and not status["daemon"]["running"]:
        yield ToDo("The daemon is not running, and work waits for it.", "start the daemon")
    if status["reason"]:
        yield ToDo(f"The counts do not add up: {status['reason']}.", "`ds-flow status` names them")


def _of_the_site(status: Document) -> Iterator[ToDo]:
    if status["low_space"]:
        yield ToDo(f"Disk space is low: {status['low_space']}.", "make room; no new batch starts")
    for why in status["held_back"]:
        yield ToDo(f"Held back: {why}.")


def _of_files(status: Document) -> Iterator[ToDo]:
    if count := status["files"]["quarantined"]:
        verb = "was" if count == 1 else "were"
        what = f"{counted(count, 'file')} {verb} set aside."
        yield ToDo(what, "each has its reason and its remedy", "/quarantine")
    for one in status["failed_analyses"]:
        what = f"The analysis of run {one['run_id']} failed: {one['analysis_error']}."
        how = f"`ds-flow rerun --analyze {one['run_id']}`"
        yield ToDo(what, how, f"/runs/{one['run_id']}")
