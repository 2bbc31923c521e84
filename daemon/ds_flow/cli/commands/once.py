"""`ds-flow once`: one pass without the daemon."""

import argparse
import math

from ds_flow.cli.arguments import Arguments, argument, seconds

HELP = "process everything that is there, then exit"
EXAMPLES = ("ds-flow once", "ds-flow once --timeout 60")


ARGUMENTS: Arguments = (
    argument(
        "--timeout",
        type=seconds,
        default=math.inf,
        metavar="SECONDS",
        help="wait so long for files that still arrive, then exit with 1 (default: for ever)",
    ),
)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.process_now import process_now
    from ds_flow.cli.project import load

    return process_now(load(args), timeout_s=args.timeout)
