"""`ds-flow detach`: make a project that was copied one of its own."""

import argparse
from contextlib import closing

from ds_flow.cli.arguments import Arguments
from ds_flow.system import DONE, put

HELP = "make a copied project one of its own; its open batches start anew"
ARGUMENTS: Arguments = ()


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now
    from ds_flow.ledger import Ledger
    from ds_flow.runs import admit_commits, disown_batches, rebuild_ledger
    from ds_flow.system import single_instance
    from ds_flow.work import detach, make_root

    settings, at = load(args), now()
    make_root(settings.output_dir)
    with single_instance(settings):
        with closing(Ledger(settings.ledger)) as ledger:
            admit_commits(ledger, settings.output_dir, at)
            rebuild_ledger(ledger, settings.output_dir, at)
            count = disown_batches(ledger, settings.output_dir, at)
        detach(settings.output_dir, settings.root)
    put(f"{settings.root} is a project of its own now; batches that start anew: {count}")
    return DONE
