"""The inbox compared with the ledger: what arrives, what was passed over, what matches nothing."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ds_flow.core import DispatchError, Sighting, counted, unescape
from ds_flow.inbox import (
    Late,
    Look,
    Misnamed,
    Pattern,
    being_read,
    last_look,
    late_ones,
    needed_quiet_s,
    scan_files,
)
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.upkeep import Record

SCANS = 2  # a running daemon has seen a file after so many: it may come while one is under way
BACKLOG_SECONDS = 600.0  # a running daemon may need so long to read many or large files


@dataclass(slots=True)
class InboxCheck:
    """The inbox compared with the ledger."""

    arriving: int = 0
    ignored: int = 0
    unaccounted: list[str] = field(default_factory=list)
    reading: list[tuple[str, int, int]] = field(default_factory=list)  # how far, of how much
    looked_at: str | None = None  # when a daemon last did, whose counts these are
    reason: str = ""  # why the counts cannot add up; "" if they do
    lost: str = ""  # why the inbox cannot be scanned
    misnamed: list[Misnamed] = field(default_factory=list)  # they match nothing
    unmarked: int = 0  # of those that arrive: they wait for their markers
    late: list[Late] = field(default_factory=list)  # files and markers that wait too long


def check_inbox(
    settings: Settings, ledger: Ledger, pid: int | None, now: datetime, record: Record | None
) -> InboxCheck:
    """Take a daemon's word for a large inbox, else look."""
    if pid is None:
        return _look(settings, ledger, InboxCheck(), is_watched=False, now=now)
    check = InboxCheck(reading=[*being_read(settings.work_root)])
    if last := last_look(settings.work_root, pid, settings.pattern, now):
        check.arriving, check.ignored = last.arriving, last.ignored
        check.looked_at = last.looked_at
        check.misnamed = [Misnamed(*one) for one in record.misnamed] if record else []
        check.late = [Late(*one) for one in record.late] if record else []
        check.unmarked = record.unmarked if record else 0
        return check
    return _look(settings, ledger, check, is_watched=True, now=now)


def _look(
    settings: Settings, ledger: Ledger, check: InboxCheck, *, is_watched: bool, now: datetime
) -> InboxCheck:
    pattern = Pattern.of(settings)
    try:
        found = scan_files(pattern)
    except DispatchError as error:
        return InboxCheck(reason=str(error), lost=str(error))
    check.ignored, check.misnamed = len(found.ignored), found.misnamed
    reading = {path for path, *_ in check.reading}
    limit_s = arriving_s(settings, is_watched=is_watched)
    for seen in _unknown(ledger, found.sightings):
        path = os.path.join(settings.root, unescape(seen.path))
        # By the wall clock, which may jump: these numbers are for people only.
        age_s = max(0.0, now.timestamp() - seen.stat.ctime_ns / 1e9)
        if (
            seen.path in reading
            or age_s < limit_s
            or age_s < needed_quiet_s(path, str(pattern.base), limit_s)
        ):
            check.arriving += 1
        else:
            check.unaccounted.append(seen.path)
    _count_unmarked(settings, ledger, check, found, now)
    if check.unaccounted:
        number = counted(len(check.unaccounted), "file")
        check.reason = f"{number} in the inbox that the ledger does not know"
    return check


def _count_unmarked(
    settings: Settings, ledger: Ledger, check: InboxCheck, found: Look, now: datetime
) -> None:
    """Count what waits for its marker, and name what waits too long."""
    if not (found.held or found.alone):
        return
    pattern = Pattern.of(settings)
    unknown = {*_unknown(ledger, [one.sighting for one in found.held])}
    held = [one for one in found.held if one.sighting in unknown]
    check.unmarked = len(held)
    check.arriving += len(held)
    after = timedelta(minutes=settings.watch.marker_minutes)
    check.late = late_ones(
        held, found.alone, now, after, lambda one: ledger.read.has_path_within(*pattern.span(one))
    )


def _unknown(ledger: Ledger, sightings: list[Sighting]) -> Iterator[Sighting]:
    """Keep what is new or changed. A known file with an empty stat is about to be read again."""
    known = ledger.read.seen([seen.path for seen in sightings])
    return (seen for seen in sightings if known.get(seen.path) not in {"", str(seen.stat)})


def arriving_s(settings: Settings, *, is_watched: bool) -> float:
    """How long after its last change a file may still be arriving."""
    watch = settings.watch
    quiet_s = max(watch.quiet_seconds, settings.batch.quiet_seconds)
    scans_s = SCANS * max(watch.rescan_seconds, watch.poll_seconds)
    return quiet_s + (max(scans_s, BACKLOG_SECONDS) if is_watched else 0)
