"""Problems of the daemon, its settings, its backends, the disks and the schedules."""

import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta

from ds_flow.core import MAINTENANCE, FireOutcome, counted, for_event, moment
from ds_flow.ledger import PastFire
from ds_flow.system import service_in
from ds_flow.upkeep import Spool, metaflow_delay, still_missing
from ds_flow.views.engine import SILENT
from ds_flow.views.look import Look
from ds_flow.views.night import DAY
from ds_flow.views.problem import Problem
from ds_flow.views.schedules import was_late

STUCK = timedelta(minutes=10)  # after which a daemon that has left no word does not turn
FORGOTTEN = timedelta(days=1)  # after which a pause without an end needs a person
METAFLOW_LATE = timedelta(minutes=15)  # a service may be away for a moment
FIRES = 3  # of each schedule
CHANGED = "is not as it was published"
_at = datetime.fromisoformat


def daemon(look: Look) -> Iterator[Problem]:
    """Say that no daemon is running, or that it does not turn."""
    if look.pid is None:
        yield Problem(
            kind="daemon",
            text="the daemon is not running, so new files are not processed",
            remedy="start it; `ds-flow once` works off what waits, without a daemon",
            command=_service(look, "start"),
        )
    elif look.record and look.now - datetime.fromisoformat(look.record.at) > STUCK:
        yield Problem(
            kind="daemon",
            text=f"the daemon (pid {look.pid}) has done nothing since {moment(look.record.at)}",
            remedy="see in its log where it is stuck, then end it and start it again",
            command=_service(look, "restart"),
            since=look.record.at,
        )


def _service(look: Look, verb: str) -> str:
    """The command that starts, restarts or reloads the daemon, installed as a service or not."""
    if service := service_in(look.settings.root):
        return f"sudo systemctl {verb} {service.unit}"
    by_hand = {
        "start": "ds-flow serve",
        "restart": f"kill {look.pid}",
        "reload": f"kill -HUP {look.pid}",
    }
    return by_hand[verb]


def settings(look: Look) -> Iterator[Problem]:
    """Say that the daemon has refused the settings on disk, and why.

    If this command could read them, they are good: they need a restart, or were corrected since.
    """
    refused = look.settings.refused or (look.record.refused if look.record else "")
    if not refused:
        return
    why = refused.removeprefix("settings refused: ")
    text = f"the settings on disk are bad, and the daemon goes on with the old ones: {why}"
    remedy, verb = "correct them, then reload; a restart would fail until then", "reload"
    if not look.settings.refused:
        text = f"the daemon goes on with its old settings, because it refused the new ones: {why}"
        remedy, verb = "restart it; if they were corrected since, a reload is enough", "restart"
    yield Problem(
        kind="settings",
        text=text,
        remedy=remedy,
        command=f"ds-flow check && {_service(look, verb)}",
        since=look.record.refused_at or None if look.record else None,
    )


def paused(look: Look) -> Iterator[Problem]:
    """Say that nothing new starts. A pause without an end that lasts may have been forgotten."""
    pause = look.paused
    if pause is not None:
        yield Problem(
            kind="paused",
            text=f"nothing new starts: {pause.sentence}",
            remedy="what has come waits; it starts after the pause",
            command="ds-flow resume" if pause.who != MAINTENANCE else "",
            since=pause.since_at.isoformat(),
            needs_person=pause.until_at is None and look.now - pause.since_at > FORGOTTEN,
        )
    for one in look.settings.schedule:
        if found := look.ledger.pauses.of(one.name, look.now):
            yield Problem(
                kind="paused",
                text=f"schedule {one.name} does not fire: {found.sentence}",
                remedy="its fires are skipped until then",
                command=f"ds-flow schedule resume {shlex.quote(one.name)}",
                since=found.since_at.isoformat(),
                needs_person=False,
            )


def space(look: Look) -> Iterator[Problem]:
    """Say that disk space is low."""
    if look.low_space:
        yield Problem(
            kind="space",
            text=f"space is low, and no new batch starts: {look.low_space}",
            remedy="make room; everything goes on by itself then",
            command="ds-flow gc --dry-run",
        )


def engine(look: Look) -> Iterator[Problem]:
    """Name backends that do not answer."""
    for one in look.engine["backends"]:
        if one["state"] == SILENT:
            yield Problem(
                kind="engine",
                text=f"{one['backend']} does not answer: {one['why']}",
                remedy=f"bring {one['backend']} back, or make it known to ds-flow's user;"
                " runs wait for it and then go on",
                command="ds-flow check",
                since=one["since"],
            )


def alerts(look: Look) -> Iterator[Problem]:
    """Say that people cannot be told of anything."""
    count, since = Spool(look.settings.work_root).late(look.now)
    if count and look.pid is not None:
        file = shlex.quote(str(look.settings.log_dir / "ds-flow.log"))
        yield Problem(
            kind="alerts",
            text=f"{counted(count, 'alert')} could not be sent",
            remedy="see in the log why, and correct the settings under alerts; they are then sent",
            command=f"grep alert.failed -- {file} | tail -n 3",
            since=since,
        )


def metaflow(look: Look) -> Iterator[Problem]:
    """Say that a Metaflow service has taken no runs for some time."""
    delay = metaflow_delay(look.settings)
    if delay and look.now - _at(delay[0]) > METAFLOW_LATE:
        yield Problem(
            kind="metaflow",
            text=f"no runs are sent to the Metaflow service: {delay[1]}",
            remedy="bring the service back, or correct the settings under metaflow; runs go on"
            " meanwhile, and are sent then",
            command="ds-flow metaflow",
            since=delay[0],
        )


def line(look: Look) -> Iterator[Problem]:
    """Name what the daemon itself says it waits for."""
    said = look.record.problems if look.record else ()
    known = {look.inbox.lost, *look.held_back}
    for why in said:
        if why not in known and not (look.low_space and "low space" in why):
            yield Problem(
                kind="line",
                text=why,
                remedy="remove the cause; the daemon goes on by itself then",
                command="ds-flow check",
            )


def expected(look: Look) -> Iterator[Problem]:
    """Name expected files that have not come."""
    for one in look.settings.expect:
        if found := still_missing(look.settings, one, look.ledger, look.now):
            text, since = found
            yield Problem(
                kind="missing_files",
                text=f"expected files have not come: {text}",
                remedy=for_event("files.missing").text,
                command="ds-flow files",
                since=since,
            )


def fires(look: Look) -> Iterator[Problem]:
    """Name what was missed, caught up or made again in the last day."""
    for schedule in look.settings.schedule:
        found = look.ledger.overview.fires(schedule.name, look.now - DAY, FIRES)
        for number, fire in enumerate(found):
            if fire.outcome == FireOutcome.MISSED and number == 0:
                yield _missed(fire)
            elif was_late(fire.outcome, _at(fire.due_at), _at(fire.at), fire.detail):
                yield _caught_up(fire)
            if CHANGED in fire.detail:
                yield _changed(fire)


def _missed(fire: PastFire) -> Problem:
    return Problem(
        kind="schedule",
        text=f"schedule {fire.schedule} was missed: {fire.detail}",
        remedy=for_event("schedule.missed").text,
        command=f"ds-flow schedule run {shlex.quote(fire.schedule)}",
        since=fire.due_at,
    )


def _caught_up(fire: PastFire) -> Problem:
    remedy = for_event("schedule.caught_up")
    return Problem(
        kind="caught_up",
        text=f"schedule {fire.schedule} was missed at {moment(fire.due_at)}"
        f" and caught up at {moment(fire.at)}",
        remedy=remedy.text,
        command=remedy.command,
        since=fire.due_at,
        needs_person=False,
    )


def _changed(fire: PastFire) -> Problem:
    done = f"run {fire.run_id} has made them again" if fire.run_state == "succeeded" else ""
    return Problem(
        kind="outputs",
        text=f"outputs were changed: {fire.detail}; {done or 'a rerun makes them again'}",
        remedy="see who changed the files in the output folder",
        command="ds-flow verify",
        since=fire.at,
        needs_person=False,
    )
