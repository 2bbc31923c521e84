"""`ds-flow resume`: end a pause."""

import argparse

from ds_flow.cli.arguments import NO_WAIT, Arguments
from ds_flow.core import RequestError
from ds_flow.system import DONE, put

HELP = "end a pause: what waited starts now"
ARGUMENTS: Arguments = (NO_WAIT,)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import carry_out, who
    from ds_flow.ledger import LINE

    settings, at = load(args), now()
    with open_ledger(settings, at) as ledger:
        ended = ledger.pauses.end(LINE, who(), at)
    planned = settings.planned_pause(at)
    if ended is not None:
        put(f"resumed; it was {ended.sentence}")
    if planned is not None:
        raise RequestError(f"{planned.sentence}; to end it sooner, change `maintenance` and reload")
    if ended is None:
        put("nothing is paused")
        return DONE
    return carry_out(settings, no_wait=args.no_wait)
