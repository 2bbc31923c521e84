"""`ds-flow help`: the commands, or one of them."""

import argparse

from ds_flow.cli.arguments import Arguments, argument
from ds_flow.system import DONE, put_lines

HELP = "explain the commands, or one of them"
ARGUMENTS: Arguments = (argument("command", nargs="?", metavar="COMMAND", default=""),)


def run(args: argparse.Namespace) -> int:
    """Print what `main` has put into the arguments."""
    parsers = args.parsers
    if args.command not in parsers:
        args.parsers[""].parse_args([args.command])  # raises, and says what was perhaps meant
    put_lines(parsers[args.command].format_help().rstrip())
    return DONE
