"""`ds-flow once`: one pass without the daemon."""

import argparse

from ds_flow.cli.arguments import Arguments

HELP = "process everything that is there, then exit"
ARGUMENTS: Arguments = ()


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.process_now import process_now
    from ds_flow.cli.project import load

    return process_now(load(args))
