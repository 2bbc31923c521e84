"""What a rerun is over: the files that a selection means, and those of them that it cannot take."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from ds_flow.core import Cause, FileState, unescape
from ds_flow.ledger import FileRow, Reading
from ds_flow.settings import Schedule, Settings, matches
from ds_flow.system import ask_mounts, is_there

READ_WHOLE = frozenset({Cause.DEAD, Cause.REJECTED, Cause.CANCELLED})
"""Causes after which a version can be read again as it is."""

NAMED = 20  # of the files that are left out for the same kind of reason
FILES_A_PULSE = 1000
GONE = "is no longer there"


def selection_name(schedule: Schedule) -> str:
    """Name what a schedule's reruns are over: those of the same name are compared."""
    own = schedule.select == "since_last"
    return f"since_last:{schedule.name}" if own else schedule.select


def selected_files(chosen: Settings, read: Reading, selection: str) -> Iterator[FileRow]:
    """Give the newest version of each file that a selection means."""
    if selection.startswith("since_last:"):
        return read.unpublished(selection)
    match selection:
        case "all":
            return read.newest(FileState.PROCESSED)
        case "failed":
            failed = read.newest(FileState.QUARANTINED)
            return (row for row in failed if row.cause in {Cause.DEAD, Cause.REJECTED})
        case pattern:
            return _matching(chosen, pattern, read.newest(FileState.PROCESSED))


def coming_files(chosen: Settings, read: Reading, selection: str) -> Iterator[FileRow]:
    """Give the files that a selection will mean once the batch that they wait for is published."""
    rows = chain.from_iterable(map(read.newest, (FileState.BATCHED, FileState.WAITING)))
    if selection == "failed":
        return iter(())
    is_any = selection == "all" or selection.startswith("since_last:")
    return rows if is_any else _matching(chosen, selection, rows)


def _matching(chosen: Settings, pattern: str, rows: Iterable[FileRow]) -> Iterator[FileRow]:
    whole = chosen.whole(pattern)
    return (row for row in rows if matches(whole, _raw(chosen, row)))


def _raw(chosen: Settings, row: FileRow) -> str:
    return os.path.join(chosen.root, unescape(row.path))


@dataclass(frozen=True, slots=True)
class Choice:
    """The files that a rerun takes, and the paths of the others, each with the reason."""

    free: list[FileRow] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """Name what is left out, but of what is gone only the number."""
        named = [f"{path} {why}" for path, why in self.left_out.items() if why != GONE]
        more = f"and {len(named) - NAMED} more" if len(named) > NAMED else ""
        gone = Counter(self.left_out.values())[GONE]
        there = f"{gone} no longer there" if gone else ""
        said = "; ".join(filter(None, (*named[:NAMED], more, there)))
        return f"left out: {said}" if said else ""

    @property
    def why_nothing(self) -> str:
        """Say why there is nothing to take, and whether that passes."""
        passes = any(why != GONE for why in self.left_out.values())
        return (self.sentence or "this file does not exist") + "; run it again later" * passes


def choose_files(
    chosen: Settings, rows: Iterable[FileRow], pulse: Callable[[], None] = lambda: None
) -> Choice:
    """Sort out the files that cannot be taken now. `pulse` is called within long work."""
    choice = Choice()
    ask_mounts(str(chosen.inbox))
    for number, row in enumerate(rows):
        if number % FILES_A_PULSE == 0:
            pulse()
        if why := _obstacle(chosen, row):
            choice.left_out[row.path] = why
        else:
            choice.free.append(row)
    return choice


def _obstacle(chosen: Settings, row: FileRow) -> str:
    if row.batch:
        return f"is in batch {row.batch}"
    if row.state in {FileState.WAITING, FileState.SUPERSEDED}:
        return f"is {row.state}"
    if row.state == FileState.QUARANTINED and row.cause not in READ_WHOLE:
        return f"is quarantined: {row.reason}"
    if row.away and not row.kept_at and row.away != "none":
        return GONE  # deleted after its publication
    try:
        is_kept = row.kept_at and is_there("/", os.path.join(chosen.root, unescape(row.kept_at)))
        return "" if is_kept or is_there(str(chosen.inbox), _raw(chosen, row)) else GONE
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
