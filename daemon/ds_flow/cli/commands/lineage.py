"""`ds-flow lineage`: what an output was made from, and what was made of an input."""

import argparse
import sys
from pathlib import Path

from ds_flow.cli.arguments import JSON, Arguments, UsageError, argument, flag
from ds_flow.core import Document, moment
from ds_flow.system import DONE, put, put_document

HELP = "show what an output was made from, or what was made of an input"
ARGUMENTS: Arguments = (
    argument("path", metavar="PATH", nargs="?", help="an input, or an output by its path or name"),
    JSON,
    flag("--mermaid", help="print a drawing for Mermaid"),
    flag("--send", help="send the OpenLineage events that are due; the daemon does so by itself"),
)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import reading
    from ds_flow.views import lineage_document, lineage_mermaid, lineage_tree

    if args.json + args.mermaid + args.send > 1:
        raise UsageError("lineage: only one of --json, --mermaid and --send")
    if args.send == (args.path is not None):
        raise UsageError("lineage: give either a PATH or --send")
    if args.send:
        return _send(args)
    with reading(args) as (settings, ledger):
        document = lineage_document(settings, ledger, args.path, str(Path.cwd()))
    if args.json:
        put_document(document)
    elif args.mermaid:
        sys.stdout.write(lineage_mermaid(document))
    else:
        for depth, node in lineage_tree(document):
            put(f"{'  ' * depth}{_told(node)}")
    return DONE


def _send(args: argparse.Namespace) -> int:
    import socket

    from ds_flow.cli.project import now, reading
    from ds_flow.upkeep import send_lineage

    with reading(args) as (settings, ledger):
        socket.setdefaulttimeout(settings.alerts.limit_seconds)
        send_lineage(settings, ledger, now())
    return DONE


def _told(node: Document) -> str:
    if node["kind"] == "input":
        return f"{node['path']}  version {node['version']}"
    removed = ", removed since" if node["removed"] else ""
    return f"{node['path']}  run {node['run_id']}, {moment(node['published_at'])}{removed}"
