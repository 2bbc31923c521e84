"""Where one file is, and why: what the ledger knows, and what a look at the file adds."""

import math
import os
import shlex
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from ds_flow.core import (
    BatchState,
    Cause,
    Document,
    FileState,
    Manifest,
    Sighting,
    Stat,
    escape,
    for_event,
    for_file,
    in_backquotes,
    moment,
    sentence,
)
from ds_flow.dispatch import StageJobs, told
from ds_flow.inbox import (
    Pattern,
    being_read,
    how_to_mend,
    judge_name,
    needed_quiet_s,
    require_answer,
    sight_file,
    why_unready,
)
from ds_flow.inbox import told as how_far
from ds_flow.ledger import LEFT_OUT, BatchRow, FileRow, Ledger
from ds_flow.runs import pause_of, why_must_wait, why_no_slot, why_not_started
from ds_flow.settings import TEMPORARY, Settings, matches
from ds_flow.system import space_shortage, user_name
from ds_flow.views.documents import jobs_by_stage
from ds_flow.views.lookup import Place
from ds_flow.views.sets import set_of
from ds_flow.work import manifest_of

READABLE = 0o444  # for everyone, as far as the folders above allow
NO_DAEMON = "no daemon is running: start it, or run `ds-flow once`"


@dataclass(frozen=True, slots=True)
class Question:
    """The file in question, and what the answer is drawn from."""

    settings: Settings
    ledger: Ledger
    place: Place
    has_daemon: bool
    now: datetime


def explanation(question: Question) -> Document:
    """Answer with one JSON object: one sentence, what to do next, and the history."""
    path = question.place.path
    latest = next(iter(question.ledger.read.latest([path])), None)
    known, next_step = _from_ledger(question, latest) if latest else ("", "")
    seen, advice = _from_look(question, latest)
    return {
        "path": path,
        "verdict": _sentence(known, seen),
        "next": advice or next_step,
        "state": latest.state if latest else None,
        "version": latest.version if latest else None,
        "run_id": latest.run_id if latest else None,
        "drift": _drift(question, latest),
        "jobs": [asdict(stage) for stage in _jobs(question, latest)],
        "events": [asdict(event) for event in question.ledger.read.events(path)],
    }


def _sentence(*parts: str) -> str:
    text = "; ".join(part for part in parts if part)
    end = "" if text.endswith("?") else "."
    return f"{text[:1].upper()}{text[1:]}{end}"


# --------------------------------------------------------------------------- from the ledger


def _from_ledger(question: Question, row: FileRow) -> tuple[str, str]:
    """Say where the latest version is, and what to do next ("" for nothing)."""
    version = f"version {row.version}"
    match row.state:
        case FileState.WAITING:
            return f"{version} is waiting for a batch, {_forming(question)}", _who_forms(question)
        case FileState.BATCHED:
            return f"{version} is {_in_batch(question, row)}", _batch_advice(question, row)
        case FileState.PROCESSED:
            again = f", and is {_in_batch(question, row)} for another" if row.batch else ""
            left_out = _left_out(question, row)
            notes = _notes(question, row)
            away = _put_away(row)
            return f"{version} was processed by run {row.run_id}{away}{again}{left_out}{notes}", ""
        case FileState.QUARANTINED:
            return f"{version} is quarantined{_put_away(row)}: {row.reason}", remedy(question, row)
        case FileState.SUPERSEDED:
            return f"{version} is superseded: {row.reason}", ""


def _put_away(row: FileRow) -> str:
    """Say where ds-flow has put a version; "" if it is in the inbox as far as is known."""
    if row.away == "going":
        return f", and is on its way to {row.kept_at}" if row.kept_at else ", and is being deleted"
    if row.away != "gone":
        return ""
    return f", and was moved to {row.kept_at}" if row.kept_at else ", and was deleted then"


def _forming(question: Question) -> str:
    """Say when a batch forms, or why none does."""
    settings, path = question.settings, question.place.path
    if pause := pause_of(settings, question.ledger, question.now):
        return f"and none forms now: {pause.sentence}"
    if one := set_of(settings, question.ledger, path, question.now):
        return f"and {one['text']}"
    if why := space_shortage(settings):
        return f"and none forms while space is low: {why}"
    if not settings.inbox.is_dir():
        return f"and none forms while the inbox {settings.inbox} is missing"
    if why := why_no_slot(settings, question.ledger):
        return f"which forms when a run may start: {why}"
    return f"which forms {settings.batch.quiet_seconds:g} s after the last file"


def _who_forms(question: Question) -> str:
    return "" if question.has_daemon else NO_DAEMON


def _left_out(question: Question, row: FileRow) -> str:
    """Name the rerun that left a published version out, if none has published it since."""
    moves = {"file.processed", "file.published", LEFT_OUT}
    events = [event for event in question.ledger.read.events(row.path) if event.kind in moves]
    is_left_out = events and events[-1].kind == LEFT_OUT
    return f", but was later left out by {events[-1].detail}" if is_left_out else ""


def _notes(question: Question, row: FileRow) -> str:
    """What the run noted of its input, such as a last line without a line end, and of its jobs."""
    manifest = _manifest(question, row)
    if manifest is None:
        return ""
    notes = [note for item in manifest.inputs if item.path == row.path for note in item.notes]
    redone = [f"jobs that failed and were done again: {manifest.redone}"] if manifest.redone else []
    said = "".join(f"; note: {note}" for note in (*notes, *redone))
    drift = _drift_in(manifest, row)
    return f"{said}; drift: {sentence(drift)}" if drift else said


def _drift(question: Question, row: FileRow | None) -> list[str]:
    """In what a version differs from the files of its family, as its last run has found it."""
    manifest = _manifest(question, row) if row else None
    return _drift_in(manifest, row) if manifest and row else []


def _drift_in(manifest: Manifest, row: FileRow) -> list[str]:
    return [mark.text for mark in manifest.drift if mark.path == row.path]


def _manifest(question: Question, row: FileRow) -> Manifest | None:
    """The manifest of the last run that published a version."""
    return manifest_of(question.settings.output_dir, row.run_id or "")


def _in_batch(question: Question, row: FileRow) -> str:
    batch = question.ledger.read.batch(row.batch or "")
    if batch is None:
        return "in a batch"
    runs = question.ledger.read.runs_of(batch.id)
    attempt = f", attempt {runs[-1].attempt}" if runs else ""
    run_id = f", run {runs[-1].run_id}" if runs and runs[-1].run_id else ""
    due = f", due at {moment(batch.due_at)}" if batch.state == BatchState.RETRYING else ""
    error = (runs and runs[-1].error) or question.ledger.read.never_began(batch.id)
    why = f" after: {error}" if error else ""
    jobs = "".join(f"; {words}" for words in map(told, _jobs(question, row)))
    held = f"; held back: {held}" if (held := _held_back(question, batch)) else ""
    return f"in batch {batch.id}, which is {batch.state}{attempt}{run_id}{due}{why}{jobs}{held}"


def _jobs(question: Question, row: FileRow | None) -> list[StageJobs]:
    """The jobs of a version's live batch, by stage."""
    return jobs_by_stage(question.settings, row.batch) if row and row.batch else []


def _held_back(question: Question, batch: BatchRow) -> str:
    """Say why a batch has no run, or would have none if it were due."""
    if batch.state == BatchState.RUNNING:
        return ""
    if batch.state == BatchState.QUEUED or datetime.fromisoformat(batch.due_at) <= question.now:
        pause = pause_of(question.settings, question.ledger, question.now)
        why = why_not_started(question.settings, question.ledger, batch)
        return pause.sentence if pause else why
    why = why_must_wait(question.settings, question.ledger, batch.id)
    return why.removeprefix(f"batch {batch.id} waits: ")


def _batch_advice(question: Question, row: FileRow) -> str:
    if not question.has_daemon:
        return NO_DAEMON
    has_run = question.ledger.read.runs_of(row.batch or "")
    return f"`ds-flow logs -f {row.batch}` follows its run" if has_run else ""


def remedy(question: Question, row: FileRow) -> str:
    """Say what a person should do about a quarantined version."""
    release = f"`ds-flow release -- {shlex.quote(in_backquotes(row.path))}`"
    match row.cause:
        case Cause.NAME | Cause.GONE | Cause.CHANGED:
            return for_file(row.cause, row.path).text
        case Cause.UNREADABLE:
            return f"{_make_readable(question.place.raw)}, then {release}"
        case Cause.REJECTED:
            tried = release.replace("release", "try", 1)
            again = f"put it into the inbox again, or {release} to read it again"
            return f"correct it or your transform ({tried} shows what comes of it); then {again}"
    batch = _last_batch(question, row)
    log = f" (its log: `ds-flow logs {batch}`)" if batch else ""
    return f"remove the cause{log}, then {release}"


def _make_readable(raw: str) -> str:
    """Say whose a file is and what mode keeps the daemon out, if one does."""
    with suppress(OSError):
        status = os.lstat(raw)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISREG(status.st_mode) and mode & READABLE != READABLE:
            whose = f"it belongs to {user_name(status.st_uid)} and its mode is {mode:o}"
            return f"{whose}: chmod a+r {shlex.quote(escape(raw))}"
    return "make it readable"


def _last_batch(question: Question, row: FileRow) -> str | None:
    """Find the batch of a dead or cancelled version. Its reason begins with "batch ID"."""
    word = row.reason.removeprefix("batch ").partition(":")[0]
    return word if question.ledger.read.runs_of(word) else None


# --------------------------------------------------------------------------- from a look


def _from_look(question: Question, latest: FileRow | None) -> tuple[str, str]:
    """Say what a look at the file adds, and what to do next; "" and "" if nothing."""
    settings, path = question.settings, question.place.path
    seen = look(Pattern.of(settings), question.place.raw)
    if isinstance(seen, str):
        return _not_seen(seen, latest), "" if latest else _better_name(question)
    known = question.ledger.read.seen([path]).get(path)
    if known == str(seen):
        return "", ""
    if known == "":
        return "the next scan reads it again", "" if question.has_daemon else NO_DAEMON
    mine = Sighting(path, seen)
    why = "" if seen.is_touched(known or "") else why_unready(Pattern.of(settings), mine)
    if why:
        what = "it has changed since, and the new content" if latest else "it"
        return f"{what} {why}", for_event("file.unmarked").text
    what = "it has changed since, and the new content is" if latest else "it is"
    why, advice = _arriving(question, seen)
    return f"{what} still arriving: {why}", advice


def _not_seen(why: str, latest: FileRow | None) -> str:
    if latest is None:
        return f"not an input: {why}"
    is_meant = latest.cause == Cause.GONE or latest.away in {"going", "gone"}
    return "" if is_meant else f"it is no longer an input: {why}"


def _is_file(raw: str) -> bool:
    """Whether a file is there; a link is none, and is not followed: it may lead to a dead mount."""
    try:
        return stat.S_ISREG(os.lstat(raw).st_mode)
    except OSError:
        return False


def _better_name(question: Question) -> str:
    """Say how a file whose name matches nothing would be read; "" if nothing comes to mind."""
    folder, name = os.path.split(question.place.raw)
    pattern = Pattern.of(question.settings)
    whole = str(Path(pattern.base, *pattern.parts))
    if matches(whole, question.place.raw) or not _is_file(question.place.raw):
        return ""
    judged = judge_name(name, pattern.parts[-1])
    if judged is None or not matches(whole, os.path.join(folder, judged[1])):
        return ""
    return f"{how_to_mend(name, judged[1])}: {escape(judged[1])} would be read"


def _arriving(question: Question, seen: Stat) -> tuple[str, str]:
    watch = question.settings.watch
    for path, *far in being_read(question.settings.work_root) if question.has_daemon else ():
        if path == question.place.path:
            return how_far(*far), ""
    base = str(Pattern.of(question.settings).base)
    quiet_s = needed_quiet_s(question.place.raw, base, watch.quiet_seconds)
    if math.isinf(quiet_s):
        return "a process has it open for writing", "close it"
    age_s = max(0.0, question.now.timestamp() - seen.ctime_ns / 1e9)
    if age_s < quiet_s:
        return f"it changed {age_s:.1f} s ago and must stay unchanged for {quiet_s:g} s", ""
    if not question.has_daemon:
        return "no scan has seen it yet", NO_DAEMON
    return f"the daemon scans it within {watch.rescan_seconds:g} s", ""


def look(pattern: Pattern, raw: str) -> Stat | str:
    """Look at one absolute path as a scan would, or say why a scan skips it."""
    require_answer(pattern)
    below = os.path.relpath(raw, pattern.base)
    parts = tuple(below.split("/"))
    if parts[0] in {".", ".."}:
        return f"it is outside the inbox {escape(str(pattern.base))}"
    odd = next((part for part in parts if TEMPORARY.fullmatch(part)), None)
    if odd is not None:
        return f"{escape(odd)} is a hidden or temporary name, which never matches"
    if pattern.is_marker(raw):
        return "it is a marker, which says that another file is complete"
    if not matches(str(Path(pattern.base, *pattern.parts)), raw):
        return f"its name does not match the pattern {escape('/'.join(pattern.parts))}"
    folders = (pattern.base.joinpath(*parts[:depth]) for depth in range(1, len(parts)))
    if link := next((folder for folder in folders if folder.is_symlink()), None):
        return f"{escape(str(link))} is a symbolic link to a folder, and scans do not follow it"
    return _stat(pattern.base, raw)


def _stat(base: Path, raw: str) -> Stat | str:
    try:
        seen = sight_file(raw, str(base))
    except FileNotFoundError:
        return "this file does not exist"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return f"it is {seen}" if isinstance(seen, str) else seen
