"""`ds-flow retry`: the next attempt of a batch, now."""

import argparse

from ds_flow.cli.arguments import BATCHES, NO_WAIT, Arguments
from ds_flow.system import DONE, FAILED

HELP = "retry batches now that are dead or wait for their next attempt"
ARGUMENTS: Arguments = (BATCHES, NO_WAIT)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import carry_out, record_each
    from ds_flow.service import retry
    from ds_flow.views import find_batch

    settings, at = load(args), now()
    with open_ledger(settings, at) as ledger:
        recorded, refused = record_each(
            args.batches, lambda name: retry(ledger, find_batch(ledger, name), at)
        )
    code = carry_out(settings, no_wait=args.no_wait) if recorded else DONE
    return code or min(refused, FAILED)
