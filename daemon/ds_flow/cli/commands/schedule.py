"""`ds-flow schedule`: list the schedules, or fire one now."""

import argparse
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import JSON, NO_WAIT, Arguments, UsageError, argument
from ds_flow.cli.commands import pause
from ds_flow.core import Document, RequestError, moment
from ds_flow.system import DONE, Cell, Moment, put, put_long_document, put_table

if TYPE_CHECKING:
    from ds_flow.settings import Schedule, Settings

HELP = "list schedules with their fires; fire, pause or resume one"
ARGUMENTS: Arguments = (
    argument(
        "action",
        nargs="?",
        choices=("run", "pause", "resume"),
        help="fire one now, or skip its fires until it is resumed",
    ),
    argument("name", nargs="?", metavar="NAME", help="the schedule to fire, pause or resume"),
    pause.UNTIL,
    pause.WHY,
    JSON,
    NO_WAIT,
)


def run(args: argparse.Namespace) -> int:
    if (args.action is None) != (args.name is None):
        raise UsageError("schedule: name the schedule: ds-flow schedule run NAME")
    if args.action != "pause" and (args.until or args.why):
        raise UsageError("schedule: --until and --why go with pause")
    return {"run": _fire, "pause": _pause, "resume": _resume, None: _list}[args.action](args)


def _named(args: argparse.Namespace, settings: "Settings") -> "Schedule":
    """The schedule that the arguments name. Raises RequestError if there is none."""
    schedules = {one.name: one for one in settings.schedule}
    if args.name not in schedules:
        known = ", ".join(schedules) or "none"
        raise RequestError(f"no schedule {args.name!r} in {settings.file}; it has: {known}")
    return schedules[args.name]


def _pause(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import wake, who

    settings, at = load(args), now()
    name = _named(args, settings).name
    with open_ledger(settings, at) as ledger:
        paused = ledger.pauses.begin(name, pause.asked_pause(args, who(), at), at)
    put(f"schedule {name}: {paused.sentence}; its fires are skipped")
    wake(settings)
    return DONE


def _resume(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import wake, who

    settings, at = load(args), now()
    with open_ledger(settings, at) as ledger:
        ended = ledger.pauses.end(args.name, who(), at)
        if ended is None:
            _named(args, settings)
    wake(settings)
    put(f"schedule {args.name}: {'resumed' if ended else 'is not paused'}")
    return DONE


def _fire(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import carry_out

    settings, at, name = load(args), now(), args.name
    timetable = _named(args, settings).timetable
    with open_ledger(settings, at) as ledger:
        before = ledger.schedules.last(name)
        ledger.schedules.ask(name, timetable, at)
    put(f"schedule {name}: fires now")
    code = carry_out(settings, no_wait=args.no_wait)
    with open_ledger(settings, at) as ledger:
        last = ledger.schedules.last(name)
    if last is not None and last != before:
        put(f"schedule {name}: {last.fire.outcome}: {last.fire.detail}".rstrip(": "))
    return code


def _list(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import now, reading
    from ds_flow.views import schedule_document

    with reading(args) as (settings, ledger):
        at = now()
        schedules = (schedule_document(ledger, one, at) for one in settings.schedule)
        if args.json:
            put_long_document("schedules", schedules)
        else:
            headings = ("name", "cron", "timezone", "select", "next_at", "last_at", "outcome")
            put_table((*headings, "run_id", "detail"), map(_row, schedules))
    return DONE


def _row(one: Document) -> list[Cell]:
    times = [Moment(at) if (at := one[key]) else None for key in ("next_at", "last_at")]
    named = [one[key] for key in ("name", "cron", "timezone", "select")]
    late = f"missed at {moment(one['last_due_at'])}, and caught up" if one["was_late"] else ""
    paused = f"paused by {one['paused']['who']}" if one["paused"] else ""
    detail = "; ".join(filter(None, (paused, late, one["detail"])))
    return [*named, *times, one["outcome"], one["run_id"], detail]
