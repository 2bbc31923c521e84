"""`ds-flow report`: one run, or all of a span, as one HTML file."""

import argparse
import re
import sys
from datetime import timedelta
from pathlib import Path

from ds_flow.cli.arguments import JSON, RUN, Arguments, UsageError, argument, flag
from ds_flow.system import DONE, put, put_document, write_bytes

HELP = "write a report of a run, or of the last day, as one HTML file"
ARGUMENTS: Arguments = (
    argument("run_name", metavar="RUN", nargs="?", help=RUN),
    argument("--since", metavar="SPAN", help="all of the last 90m, 24h (the default) or 7d"),
    argument("--output", metavar="FILE", type=Path, help="write to this file"),
    flag("--daily", help="write that of the last 24 hours to reports/ in the output folder"),
    JSON,
)

NIGHT = "24h"
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import now, reading
    from ds_flow.reports import report_html
    from ds_flow.views import find_run, run_report, span_report

    if args.run_name and args.since:
        raise UsageError("report: a RUN or --since, not both")
    if args.daily:
        return _write_daily(args)
    span = span_of(args.since or NIGHT)
    with reading(args) as (settings, ledger):
        if args.run_name:
            document = run_report(settings, ledger, find_run(ledger, args.run_name), now())
        else:
            document = span_report(settings, ledger, now() - span, now())
    if args.json:
        put_document(document)
    elif args.output:
        write_bytes(args.output, report_html(document).encode(errors="replace"), is_durable=False)
    else:
        sys.stdout.write(report_html(document))
    return DONE


def _write_daily(args: argparse.Namespace) -> int:
    """Write the report of a day under its date, and note that for an alert."""
    from ds_flow.cli.project import now, reading
    from ds_flow.reports import report_html
    from ds_flow.upkeep import WRITTEN
    from ds_flow.views import output_folder, span_report

    if args.run_name or args.since or args.output or args.json:
        raise UsageError("report: --daily goes with no other argument")
    with reading(args) as (settings, ledger):
        at = now()
        name = f"reports/report_{at.astimezone().date().isoformat()}.html"
        page = report_html(span_report(settings, ledger, at - span_of(NIGHT), at))
        path = settings.output_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, page.encode(errors="replace"), is_durable=False)
        ledger.history.note(WRITTEN, output_folder(settings) + name, at)
    put(str(path))
    return DONE


def span_of(words: str) -> timedelta:
    """Read a span such as 24h. Raises UsageError if it is none."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", words)
    if found is None:
        raise UsageError(f"report: --since {words!r} is no span; write 90m, 24h or 7d")
    return int(found[1]) * UNITS[found[2]]
