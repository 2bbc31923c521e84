"""What a person must know and do now: one list of problems, the most urgent first."""

import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from os.path import join

from ds_flow.core import (
    BatchState,
    Cause,
    Document,
    FireOutcome,
    counted,
    for_file,
    unescape,
)
from ds_flow.inbox import Misnamed
from ds_flow.ledger import Ledger
from ds_flow.runs import why_must_wait
from ds_flow.settings import Settings
from ds_flow.system import is_there, space_shortage
from ds_flow.views.inbox import InboxCheck, check_inbox
from ds_flow.views.night import DAY

NAMED = 5  # of each kind; the others are counted
RETRY_WAIT = timedelta(minutes=1)
CONSIDERED = 100  # quarantined files: those that have left the inbox are no problem any more

OK, ATTENTION, DOWN = "ok", "attention", "down"
"""The verdicts: nothing to do; something needs a person; the daemon is not running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as it should be."""

    kind: str
    text: str  # what, and why
    remedy: str = ""  # what to do
    command: str = ""  # what to type
    since: str | None = None
    needs_person: bool = True  # False: it mends itself, or is only good to know


def problems(settings: Settings, ledger: Ledger, pid: int | None, now: datetime) -> list[Problem]:
    """Everything that is wrong now, most urgent first. `pid` is the running daemon's."""
    return find_problems(settings, ledger, pid, now, check_inbox(settings, ledger, pid, now))


def find_problems(
    settings: Settings, ledger: Ledger, pid: int | None, now: datetime, inbox: InboxCheck
) -> list[Problem]:
    """As `problems`, with a look at the inbox that was taken already."""
    found = [
        *_daemon(pid),
        *_inbox(settings, inbox),
        *_space(settings),
        *_held_back(settings, ledger, now),
        *_dead(ledger),
        *_set_aside(settings, ledger),
        *_analyses(ledger),
        *_misnamed(inbox.misnamed),
        *_fires(settings, ledger, now),
    ]
    return sorted(found, key=lambda one: not one.needs_person)


def verdict(pid: int | None, found: Iterable[Problem]) -> str:
    """Say in one word how things are."""
    if pid is None:
        return DOWN
    return ATTENTION if any(one.needs_person for one in found) else OK


def health_document(pid: int | None, found: list[Problem]) -> Document:
    """The problems, and what they come to, for programs."""
    return {
        "verdict": verdict(pid, found),
        "summary": _summary(pid, found),
        "problems": [asdict(one) for one in found],
    }


def _summary(pid: int | None, found: list[Problem]) -> str:
    """Say it in one line."""
    urgent = [one for one in found if one.needs_person and one.kind != "daemon"]
    more = f", and {len(urgent) - 1} more" if len(urgent) > 1 else ""
    words = f"{urgent[0].text}{more}" if urgent else ""
    line = {
        DOWN: f"the daemon is not running{'; ' if words else ''}{words}",
        ATTENTION: words,
        OK: "all is well",
    }[verdict(pid, found)]
    return " ".join(line.split())


# --------------------------------------------------------------------------- each kind


def _daemon(pid: int | None) -> Iterator[Problem]:
    if pid is None:
        yield Problem(
            kind="daemon",
            text="the daemon is not running, so new files are not processed",
            remedy="start it: the service, or `ds-flow serve`; `ds-flow once` works off what waits",
            command="sudo systemctl start ds-flow",
        )


def _inbox(settings: Settings, inbox: InboxCheck) -> Iterator[Problem]:
    if inbox.lost:
        yield Problem(
            kind="inbox",
            text=inbox.lost,
            remedy="bring the folder back; what is in it is then taken by itself",
            command=f"ls -ld -- {shlex.quote(str(settings.inbox))}",
        )
    elif inbox.unaccounted:
        count = counted(len(inbox.unaccounted), "file")
        yield Problem(
            kind="unaccounted",
            text=f"{count} in the inbox that the ledger does not know: {inbox.unaccounted[0]}",
            remedy="see why the file was not taken",
            command=f"ds-flow explain -- {shlex.quote(inbox.unaccounted[0])}",
        )


def _space(settings: Settings) -> Iterator[Problem]:
    if why := space_shortage(settings):
        yield Problem(
            kind="space",
            text=f"space is low, and no new batch starts: {why}",
            remedy="make room; everything goes on by itself then",
            command="ds-flow gc --dry-run",
        )


def _held_back(settings: Settings, ledger: Ledger, now: datetime) -> Iterator[Problem]:
    for why in held_back(settings, ledger, now):
        yield Problem(
            kind="held_back",
            text=why,
            remedy="remove the cause; the batch goes on by itself then",
            command="ds-flow check",
        )


def _dead(ledger: Ledger) -> Iterator[Problem]:
    found = ledger.overview.dead(NAMED + 1)
    for batch in found[:NAMED]:
        yield Problem(
            kind="dead",
            text=f"batch {batch.id} has used up its attempts: {batch.reason}",
            remedy=f"remove the cause (its log: `ds-flow logs {batch.id}`), then retry it",
            command=f"ds-flow retry {batch.id}",
            since=batch.ended_at,
        )
    if len(found) > NAMED:
        yield Problem(
            kind="dead", text="more batches are dead", remedy="see all", command="ds-flow runs"
        )


def _set_aside(settings: Settings, ledger: Ledger) -> Iterator[Problem]:
    """Quarantined files that still are in the inbox. Whoever removes one has dealt with it."""
    found = (one for one in ledger.overview.set_aside(CONSIDERED) if one.cause != Cause.DEAD)
    shown = 0
    for one in found:
        if not _is_in_inbox(settings, one.path):
            continue
        if shown == NAMED:
            yield Problem(
                kind="quarantined",
                text="more files are set aside",
                remedy="see all, with their reasons",
                command="ds-flow files --state quarantined",
            )
            return
        shown += 1
        remedy = for_file(one.cause, one.path)
        yield Problem(
            kind="quarantined",
            text=f"{one.path} is set aside: {one.reason}",
            remedy=remedy.text,
            command=remedy.command,
            since=one.at,
            needs_person=one.cause != Cause.CANCELLED,
        )


def _is_in_inbox(settings: Settings, path: str) -> bool:
    with suppress(OSError):
        return is_there(str(settings.inbox), join(settings.root, unescape(path)))
    return True  # nobody can tell


def _analyses(ledger: Ledger) -> Iterator[Problem]:
    for run in ledger.history.failed_analyses()[:NAMED]:
        yield Problem(
            kind="analysis",
            text=f"the analysis of run {run.run_id} failed: {run.analysis_error};"
            " its data is published",
            remedy="remove the cause, then do the analysis again",
            command=f"ds-flow rerun --analyze {run.run_id}",
            since=run.ended_at,
        )


def _misnamed(found: Iterable[Misnamed]) -> Iterator[Problem]:
    for one in list(found)[:NAMED]:
        rename = f"; {one.nearest} would be read" if one.nearest else ""
        yield Problem(
            kind="ignored",
            text=f"{one.path} is not read: {one.why}{rename}",
            remedy="rename it, or save it as CSV under such a name",
            command=f"ds-flow explain -- {shlex.quote(one.path)}",
            needs_person=one.is_alike,
        )


def _fires(settings: Settings, ledger: Ledger, now: datetime) -> Iterator[Problem]:
    for schedule in settings.schedule:
        for fire in ledger.overview.fires(schedule.name, now - DAY, 1):
            if fire.outcome == FireOutcome.MISSED:
                yield Problem(
                    kind="schedule",
                    text=f"schedule {fire.schedule} was missed: {fire.detail}",
                    remedy="fire it now, or wait for its next time",
                    command=f"ds-flow schedule run {shlex.quote(fire.schedule)}",
                    since=fire.due_at,
                )


# --------------------------------------------------------------------------- held back


def held_back(settings: Settings, ledger: Ledger, now: datetime) -> Iterator[str]:
    """Say why batches cannot start: disks and folders that refuse, runs that never began."""
    soon = now + RETRY_WAIT  # a run that has just met a full disk is to be followed by another
    for batch in ledger.read.due_batches(soon)[:NAMED]:
        if why := why_must_wait(settings, ledger, batch.id):
            yield why
    read = ledger.read
    tried = [*read.batches_in(BatchState.RETRYING), *read.batches_in(BatchState.RUNNING)]
    for batch in tried[:NAMED]:
        if why := read.never_began(batch.id):
            yield f"batch {batch.id} waits: {why}"
