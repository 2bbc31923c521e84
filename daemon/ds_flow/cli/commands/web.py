"""`ds-flow web`: the page, in the foreground."""

import argparse
import signal

from ds_flow.cli.arguments import Arguments
from ds_flow.system import DONE, INTERRUPTED

HELP = "serve the page in the foreground until it is told to stop"
ARGUMENTS: Arguments = ()


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load
    from ds_flow.web import serve_page

    settings = load(args, to_work=False, needs_dotenv=False)
    return INTERRUPTED if serve_page(settings) == signal.SIGINT else DONE
