"""`ds-flow schedule`: list the schedules, or fire one now."""

import argparse

from ds_flow.cli.arguments import JSON, NO_WAIT, Arguments, UsageError, argument
from ds_flow.core import Document, RequestError, moment
from ds_flow.system import DONE, Cell, Moment, put, put_long_document, put_table

HELP = "list schedules with their next and last fires, or fire one now"
ARGUMENTS: Arguments = (
    argument("action", nargs="?", choices=("run",), help="fire one now"),
    argument("name", nargs="?", metavar="NAME", help="the schedule to fire"),
    JSON,
    NO_WAIT,
)


def run(args: argparse.Namespace) -> int:
    if (args.action is None) != (args.name is None):
        raise UsageError("schedule: name the schedule: ds-flow schedule run NAME")
    return _fire(args) if args.action else _list(args)


def _fire(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import carry_out

    settings, at, name = load(args), now(), args.name
    schedules = {one.name: one for one in settings.schedule}
    if name not in schedules:
        known = ", ".join(schedules) or "none"
        raise RequestError(f"no schedule {name!r} in {settings.file}; it has: {known}")
    with open_ledger(settings, at) as ledger:
        before = ledger.schedules.last(name)
        ledger.schedules.ask(name, schedules[name].timetable, at)
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
    detail = "; ".join(filter(None, (late, one["detail"])))
    return [*named, *times, one["outcome"], one["run_id"], detail]
