"""`ds-flow gc`: remove what the retention settings no longer keep."""

import argparse
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import JSON, Arguments, flag
from ds_flow.core import Document, counted
from ds_flow.system import DONE, put, put_document, put_table

if TYPE_CHECKING:
    from ds_flow.upkeep import Collected

HELP = "remove what the retention settings no longer keep"
ARGUMENTS: Arguments = (flag("--dry-run", help="only list what would be removed"), JSON)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import now, reading
    from ds_flow.upkeep import Retention

    with reading(args) as (settings, ledger):
        collected = Retention(settings, ledger, now(), args.dry_run).collect()
    document = _document(collected, is_dry=args.dry_run)
    if args.json:
        put_document(document)
    else:
        _put_collected(document)
    return DONE


def _document(collected: "Collected", *, is_dry: bool) -> Document:
    """What was removed or would be, and what could not be removed and why."""
    return {
        "dry_run": is_dry,
        "removed": {
            what: {"count": count, "bytes": collected.sizes_bytes[what]}
            for what, count in sorted(collected.counts.items())
        },
        "runs": collected.runs,
        "left": collected.left,
    }


def _put_collected(answer: Document) -> None:
    headings = ("would be removed" if answer["dry_run"] else "removed", "count", "MB")
    rows = (
        [what, one["count"], f"{one['bytes'] / 2**20:.1f}"]
        for what, one in answer["removed"].items()
    )
    put_table(headings, rows)
    if answer["runs"]:
        put(f"outputs of {counted(len(answer['runs']), 'run')}; --json names them")
    for why in answer["left"]:
        put(f"not removed: {why}")
