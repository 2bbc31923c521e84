"""Where one file is and why: what the ledger says of it, and what a look at it says now."""

import math
import os
import shlex
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ds_flow.cli.lookup import Place
from ds_flow.core import BatchState, Cause, FileState, Stat, escape
from ds_flow.inbox import Pattern, needed_quiet_s, sight_file
from ds_flow.ledger import LEFT_OUT, FileRow, Ledger
from ds_flow.settings import TEMPORARY, Settings, matches

NO_DAEMON = "no daemon is running: start it, or run `ds-flow once`"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, and what it is answered from."""

    chosen: Settings
    ledger: Ledger
    place: Place
    has_daemon: bool
    now: datetime


def explain(asked: Asked) -> dict[str, Any]:
    """Answer as one JSON object: the verdict in a sentence, what to do next, and the history."""
    path = asked.place.path
    versions = asked.ledger.read.versions(path)
    latest = versions[-1] if versions else None
    known, following = _known(asked, latest) if latest else ("", "")
    found, advice = _found(asked, latest)
    return {
        "path": path,
        "verdict": _sentence(known, found),
        "next": advice or following,
        "state": latest.state if latest else None,
        "version": latest.version if latest else None,
        "run_id": latest.run_id if latest else None,
        "events": [asdict(event) for event in asked.ledger.read.events(path)],
    }


def _sentence(*parts: str) -> str:
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}."


# --------------------------------------------------------------------------- what the ledger says


def _known(asked: Asked, row: FileRow) -> tuple[str, str]:
    """Say where the latest version is, and what to do about it if anything."""
    version = f"version {row.version}"
    match row.state:
        case FileState.WAITING:
            quiet_s = asked.chosen.batch.quiet_seconds
            said = (
                f"{version} is waiting for a batch, which forms {quiet_s:g} s after the last file"
            )
            return said, "" if asked.has_daemon else NO_DAEMON
        case FileState.BATCHED:
            return f"{version} is {_in_batch(asked, row)}", _batch_advice(asked, row)
        case FileState.PROCESSED:
            again = f", and is {_in_batch(asked, row)} for another" if row.batch else ""
            left_out = _left_out(asked, row)
            return f"{version} was processed by run {row.run_id}{again}{left_out}", ""
        case FileState.QUARANTINED:
            return f"{version} is quarantined: {row.reason}", _remedy(asked, row)
        case FileState.SUPERSEDED:
            return f"{version} is superseded: {row.reason}", ""


def _left_out(asked: Asked, row: FileRow) -> str:
    """Say by which run, and why, a published version was left out since it was published last."""
    moves = {"file.processed", "file.published", LEFT_OUT}
    events = [event for event in asked.ledger.read.events(row.path) if event.kind in moves]
    is_so = events and events[-1].kind == LEFT_OUT
    return f", and was left out since by {events[-1].detail}" if is_so else ""


def _in_batch(asked: Asked, row: FileRow) -> str:
    batch = asked.ledger.read.batch(row.batch or "")
    if batch is None:
        return "in a batch"
    runs = asked.ledger.read.runs_of(batch.id)
    last = f", attempt {runs[-1].attempt}" if runs else ""
    named = f", run {runs[-1].run_id}" if runs and runs[-1].run_id else ""
    due = f", due at {batch.due_at}" if batch.state == BatchState.RETRYING else ""
    why = f" after: {runs[-1].error}" if runs and runs[-1].error else ""
    return f"in batch {batch.id}, which is {batch.state}{last}{named}{due}{why}"


def _batch_advice(asked: Asked, row: FileRow) -> str:
    if not asked.has_daemon:
        return NO_DAEMON
    return f"`ds-flow logs -f {row.batch}` follows its run" if row.batch else ""


def _remedy(asked: Asked, row: FileRow) -> str:
    release = f"`ds-flow release -- {shlex.quote(row.path)}`"
    match row.cause:
        case Cause.NAME:
            return "rename the file"
        case Cause.GONE | Cause.CHANGED:
            return "put it into the inbox again"
        case Cause.UNREADABLE:
            return f"make it readable, then {release}"
        case Cause.REJECTED:
            return f"correct it and put it into the inbox again, or {release} to read it once more"
    log = f" (its log: `ds-flow logs {batch}`)" if (batch := _last_batch(asked, row)) else ""
    return f"remove the cause{log}, then {release}"


def _last_batch(asked: Asked, row: FileRow) -> str | None:
    """Find the batch that a dead or cancelled version was in, by the reason that it was given."""
    word = row.reason.removeprefix("batch ").partition(":")[0]
    return word if asked.ledger.read.runs_of(word) else None


# --------------------------------------------------------------------------- what a look says


def _found(asked: Asked, latest: FileRow | None) -> tuple[str, str]:
    """Say what the look adds to the ledger's word, with advice; two times "" if nothing."""
    seen = judge(Pattern.parse(asked.chosen.pattern, asked.chosen.root), asked.place.raw)
    if isinstance(seen, str):
        return _not_seen(seen, latest), ""
    known = asked.ledger.read.seen([asked.place.path]).get(asked.place.path)
    if known == str(seen):
        return "", ""
    if known == "":
        return "the daemon is to look at it again", "" if asked.has_daemon else NO_DAEMON
    what = "it has changed since, and what is there now is" if latest else "it is"
    why, advice = _arriving(asked, seen)
    return f"{what} still arriving: {why}", advice


def _not_seen(why: str, latest: FileRow | None) -> str:
    if latest is None:
        return f"no input: {why}"
    return "" if latest.cause == Cause.GONE else f"now it is no input: {why}"


def _arriving(asked: Asked, seen: Stat) -> tuple[str, str]:
    watch = asked.chosen.watch
    rest_s = needed_quiet_s(asked.place.raw, watch.quiet_seconds)
    if math.isinf(rest_s):
        return "a process has it open for writing", "close it"
    age_s = max(0.0, asked.now.timestamp() - seen.ctime_ns / 1e9)
    if age_s < rest_s:
        return f"it changed {age_s:.1f} s ago, and must rest for {rest_s:g} s", ""
    if not asked.has_daemon:
        return "nothing has looked at it yet", NO_DAEMON
    return f"the daemon looks at it within {watch.rescan_seconds:g} s", ""


def judge(pattern: Pattern, raw: str) -> Stat | str:
    """Look at one absolute path as a scan would, or say why a scan would pass over it."""
    below = os.path.relpath(raw, pattern.base)
    parts = tuple(below.split("/"))
    if parts[0] in {".", ".."}:
        return f"it does not lie below the inbox {escape(str(pattern.base))}"
    odd = next((part for part in parts if TEMPORARY.fullmatch(part)), None)
    if odd is not None:
        return f"{escape(odd)} is a hidden or temporary name, which never matches"
    if not matches(str(Path(pattern.base, *pattern.parts)), raw):
        return f"its name does not match the pattern {escape('/'.join(pattern.parts))}"
    folders = (pattern.base.joinpath(*parts[:depth]) for depth in range(1, len(parts)))
    if link := next((folder for folder in folders if folder.is_symlink()), None):
        return f"{escape(str(link))} is a symbolic link to a folder, which is not followed"
    return _sight(pattern.base, raw)


def _sight(base: Path, raw: str) -> Stat | str:
    try:
        seen = sight_file(raw, os.path.realpath(base))
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    return f"it is {seen}" if isinstance(seen, str) else seen
