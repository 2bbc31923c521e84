"""`ds-flow report`: one run, or all of a span, as one HTML file."""

import argparse
import re
import sys
from datetime import timedelta
from pathlib import Path

from ds_flow.cli.arguments import JSON, RUN, Arguments, UsageError, argument
from ds_flow.system import DONE, put_document, write_bytes

HELP = "write a report of a run, or of the last day, as one HTML file"
ARGUMENTS: Arguments = (
    argument("run_name", metavar="RUN", nargs="?", help=RUN),
    argument("--since", metavar="SPAN", help="all of the last 90m, 24h (the default) or 7d"),
    argument("--output", metavar="FILE", type=Path, help="write to this file"),
    JSON,
)

NIGHT = "24h"
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import now, reading
    from ds_flow.views import find_run, report_html, run_report, span_report

    if args.run_name and args.since:
        raise UsageError("report: a RUN or --since, not both")
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


def span_of(words: str) -> timedelta:
    """Read a span such as 24h. Raises UsageError if it is none."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", words)
    if found is None:
        raise UsageError(f"report: --since {words!r} is no span; write 90m, 24h or 7d")
    return int(found[1]) * UNITS[found[2]]
