"""`ds-flow logs`: the log of a run."""

import argparse

from ds_flow.cli.arguments import RUN, Arguments, argument, flag
from ds_flow.system import DONE

HELP = "print the log of a run"
ARGUMENTS: Arguments = (
    argument("run_name", metavar="RUN", nargs="?", default="last", help=f"{RUN} (default: last)"),
    flag("-f", "--follow", help="print new lines until the run has ended"),
)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.follow_log import find_log, put_log
    from ds_flow.cli.project import reading

    with reading(args) as (settings, ledger):
        put_log(find_log(settings, ledger, args.run_name), follow=args.follow)
    return DONE
