"""`ds-flow serve`: the daemon, in the foreground."""

import argparse
import signal

from ds_flow.cli.arguments import Arguments
from ds_flow.system import DONE, INTERRUPTED

HELP = "run the daemon in the foreground until it is told to stop"
ARGUMENTS: Arguments = ()


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load
    from ds_flow.service import service

    with service(load(args)) as process:
        process.serve()
    return INTERRUPTED if process.stop_signal == signal.SIGINT else DONE
