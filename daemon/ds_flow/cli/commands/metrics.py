"""`ds-flow metrics`: what Prometheus reads."""

import argparse
import sys
from pathlib import Path

from ds_flow.cli.arguments import Arguments, argument
from ds_flow.system import DONE, running_pid, write_bytes

HELP = "print the metrics in the text format of Prometheus"
ARGUMENTS: Arguments = (
    argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write them to a file instead, such as one for node_exporter's textfile collector",
    ),
)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import now, reading
    from ds_flow.views import metrics_text

    with reading(args) as (settings, ledger):
        text = metrics_text(settings, ledger, running_pid(settings), now())
    if args.output:
        write_bytes(args.output, text.encode(), is_durable=False)
    else:
        sys.stdout.write(text)
    return DONE
