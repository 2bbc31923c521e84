"""Problems of files, batches and runs."""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from os.path import join

from ds_flow.core import (
    BatchState,
    Cause,
    counted,
    for_event,
    for_file,
    local_time,
    moment,
    unescape,
)
from ds_flow.inbox import how_to_mend
from ds_flow.ledger import SetAside
from ds_flow.settings import Settings
from ds_flow.system import is_there
from ds_flow.views.look import Look
from ds_flow.views.night import DAY
from ds_flow.views.problem import Problem

NAMED = 5  # of each kind; the others are one line
CONSIDERED = 1000  # quarantined files: those that have left the inbox are no problem any more


def inbox(look: Look) -> Iterator[Problem]:
    """Name a lost inbox, and files that were passed over."""
    check = look.inbox
    if check.lost:
        yield Problem(
            kind="inbox",
            text=check.lost,
            remedy="bring the folder back; what is in it is then taken by itself",
            command=f"ls -ld -- {shlex.quote(str(look.settings.inbox))}",
        )
    elif check.unaccounted and look.pid is not None:
        count = counted(len(check.unaccounted), "file")
        yield Problem(
            kind="unaccounted",
            text=f"{count} in the inbox that the ledger does not know: {check.unaccounted[0]}",
            remedy="see why the file was not taken",
            command=f"ds-flow explain -- {shlex.quote(check.unaccounted[0])}",
        )


def held_back(look: Look) -> Iterator[Problem]:
    """Name batches that cannot start."""
    for why in look.held_back:
        yield Problem(
            kind="held_back",
            text=why,
            remedy="remove the cause; the batch goes on by itself then",
            command="ds-flow check",
        )


def dead(look: Look) -> Iterator[Problem]:
    """Name dead batches, except those whose files something else has taken since."""
    found = look.ledger.overview.dead(NAMED + 1)
    for batch in found[:NAMED]:
        yield Problem(
            kind="dead",
            text=f"batch {batch.id} has used up its attempts: {batch.reason}",
            remedy=f"remove the cause (its log: `ds-flow logs {batch.id}`), then retry it",
            command=f"ds-flow retry {batch.id}",
            since=batch.ended_at,
        )
    if len(found) > NAMED:
        text = "more batches are dead"
        yield Problem(kind="dead", text=text, remedy="see all", command="ds-flow runs")


def set_aside(look: Look) -> Iterator[Problem]:
    """Name quarantined files that are still there. Whoever removes one has seen to it."""
    found = look.ledger.overview.set_aside(CONSIDERED)
    still = (one for one in found if one.cause != Cause.DEAD and _is_there(look.settings, one))
    here = [*islice(still, NAMED + 1)]
    for one in here[:NAMED]:
        remedy = for_file(one.cause, one.path)
        yield Problem(
            kind="quarantined",
            text=f"{one.path} is set aside: {one.reason}",
            remedy=remedy.text,
            command=remedy.command,
            since=one.at,
            needs_person=one.cause != Cause.CANCELLED,
        )
    if len(here) > NAMED:
        yield Problem(
            kind="quarantined",
            text="more files are set aside",
            remedy="see all, with their reasons",
            command="ds-flow files --state quarantined",
        )


def _is_there(settings: Settings, one: SetAside) -> bool:
    """Whether a file is in the inbox, or where ds-flow has put it."""
    with suppress(OSError):
        kept = bool(one.kept_at) and is_there("/", join(settings.root, unescape(one.kept_at)))
        return kept or is_there(str(settings.inbox), join(settings.root, unescape(one.path)))
    return True  # nobody can tell


def analyses(look: Look) -> Iterator[Problem]:
    """Name failed analyses that nothing has made up for."""
    for run in look.ledger.history.failed_analyses()[:NAMED]:
        remedy = for_event("analysis.failed", run_id=run.run_id or "")
        yield Problem(
            kind="analysis",
            text=f"the analysis of run {run.run_id} failed: {run.analysis_error};"
            " its data is published",
            remedy=remedy.text,
            command=remedy.command,
            since=run.ended_at,
        )


def misnamed(look: Look) -> Iterator[Problem]:
    """Name files that match nothing. Only one that is named nearly like an input is urgent."""
    for one in look.inbox.misnamed[:NAMED]:
        rename = f"; {one.nearest} would be read" if one.nearest else ""
        yield Problem(
            kind="ignored",
            text=f"{one.path} is not read: {one.why}{rename}",
            remedy=how_to_mend(one.path, one.nearest),
            command=f"ds-flow explain -- {shlex.quote(one.path)}",
            needs_person=one.is_alike,
        )


def unmarked(look: Look) -> Iterator[Problem]:
    """Name files that wait too long for their markers, and markers without files."""
    for one in look.inbox.late[: 2 * NAMED]:
        remedy = for_event("marker.alone" if one.is_marker else "file.unmarked")
        yield Problem(
            kind="marker",
            text=f"{one.path} is {one.why}" if one.is_marker else f"{one.path} {one.why}",
            remedy=remedy.text,
            command=f"ds-flow explain -- {shlex.quote(one.path)}",
            since=one.since,
        )


def incomplete(look: Look) -> Iterator[Problem]:
    """Name the sets of the last day that formed although files were missing, and still are."""
    if (rule := look.settings.batch.rule) is None:
        return
    for at, selection, detail in look.ledger.sets.incomplete_since(look.now - DAY, NAMED):
        if len(look.ledger.sets.paths(selection)) < rule.expect:
            remedy = for_event("set.incomplete")
            yield Problem(
                kind="set",
                text=f"a set formed without all its files: {detail}",
                remedy=remedy.text,
                command=remedy.command,
                since=at,
            )


def retrying(look: Look) -> Iterator[Problem]:
    """Name batches that have failed and are tried again."""
    most = look.settings.run.attempts
    for batch in look.ledger.read.batches_in(BatchState.RETRYING)[:NAMED]:
        runs = look.ledger.read.runs_of(batch.id)
        if runs and runs[-1].run_id:
            last = runs[-1]
            yield Problem(
                kind="retrying",
                text=f"attempt {last.attempt} at batch {batch.id} failed: {last.error};"
                f" it is tried again at {moment(batch.due_at)}, up to {most} times in all",
                remedy="nothing, if the cause passes; else remove it, or retry at once",
                command=f"ds-flow logs {batch.id}",
                since=last.ended_at,
                needs_person=False,
            )


def lost(look: Look) -> Iterator[Problem]:
    """Name runs that ended without an exit code of their own, until their batch is published."""
    for run in look.ledger.overview.lost(look.now - DAY, NAMED):
        again = f"it was started again as {run.again}" if run.again else "it starts again by itself"
        yield Problem(
            kind="lost",
            text=f"run {run.name} was lost at {local_time(run.ended_at)}: {run.error}; {again}",
            remedy="nothing; if it happens again, see who ends it",
            command=f"ds-flow logs {run.name}",
            since=run.ended_at.isoformat(),
            needs_person=False,
        )


def drifted(look: Look) -> Iterator[Problem]:
    """Name files that were marked in the last week. They are published all the same."""
    for one in look.drift[:NAMED]:
        remedy = for_event("batch.drifted", run_id=one.run_id)
        yield Problem(
            kind="drift",
            text=f"{one.path} is published, but differs from the files before it: {one.text}",
            remedy=remedy.text,
            command=remedy.command,
            since=one.at,
            needs_person=False,
        )
    if look.drifted > NAMED:
        yield Problem(
            kind="drift",
            text=f"{look.drifted - NAMED} more files differ from those before them",
            remedy="see all of the week in a report",
            command="ds-flow report --since 7d --output week.html",
            needs_person=False,
        )
