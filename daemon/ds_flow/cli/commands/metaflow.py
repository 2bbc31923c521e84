"""`ds-flow metaflow`: send runs to the Metaflow service that the settings name."""

import argparse

from ds_flow.cli.arguments import Arguments, flag
from ds_flow.system import DONE, put

HELP = "send runs to the Metaflow service; the daemon does so by itself"
ARGUMENTS: Arguments = (flag("--follow", help="go on as long as a run lives, for some minutes"),)


def run(args: argparse.Namespace) -> int:
    import socket

    from ds_flow.cli.project import now, reading
    from ds_flow.upkeep import send_runs

    with reading(args) as (settings, ledger):
        if settings.metaflow.metadata == "local":
            put("metaflow.metadata is local: runs are sent nowhere")
            return DONE
        socket.setdefaulttimeout(settings.alerts.limit_seconds)
        send_runs(settings, ledger, now(), follow=args.follow)
    return DONE
