"""`ds-flow deliver`: hand published runs over to the commands of publish.then, now."""

import argparse

from ds_flow.cli.arguments import NO_WAIT, Arguments, argument, flag
from ds_flow.system import DONE, FAILED

HELP = "hand published runs over again, or give that up"
ARGUMENTS: Arguments = (
    argument("runs", nargs="+", metavar="RUN", help="a Run ID, or the batch of a run"),
    flag("--skip", help="give up what waits, so that later runs go on"),
    NO_WAIT,
)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import carry_out, record_each
    from ds_flow.service import deliver, give_up_delivery
    from ds_flow.views import find_run

    settings, at = load(args), now()
    ask = give_up_delivery if args.skip else deliver
    with open_ledger(settings, at) as ledger:
        recorded, refused = record_each(
            args.runs, lambda name: ask(ledger, find_run(ledger, name), at)
        )
    code = carry_out(settings, no_wait=args.no_wait) if recorded else DONE
    return code or min(refused, FAILED)
