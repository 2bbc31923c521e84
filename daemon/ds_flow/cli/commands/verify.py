"""`ds-flow verify`: read outputs again and compare them with their manifests."""

import argparse
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import JSON, RUN, Arguments, argument
from ds_flow.core import Document, RequestError, RunState, counted
from ds_flow.system import DONE, FAILED, put, put_long_document

if TYPE_CHECKING:
    from ds_flow.ledger import Ledger, RunRow
    from ds_flow.settings import Settings

HELP = "read outputs again and name those that changed since they were published"
ARGUMENTS: Arguments = (
    argument("run_name", metavar="RUN", nargs="?", help=f"only this one: {RUN}"),
    JSON,
)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import reading
    from ds_flow.views import find_run

    with reading(args) as (settings, ledger):
        runs = [find_run(ledger, args.run_name)] if args.run_name else list(ledger.read.runs())
        published = [run for run in runs if run.state == RunState.SUCCEEDED and not run.removed_at]
        if args.run_name and not published:
            raise RequestError(f"run {args.run_name} has no outputs: none published, or removed")
        answers = [_document(settings, ledger, run) for run in published]
    faults = [f"run {one['run_id']}: {fault}" for one in answers for fault in one["faults"]]
    if args.json:
        put_long_document("runs", answers)
    else:
        for fault in faults:
            put(fault)
        if not faults:
            put(f"{counted(len(published), 'run')}: all outputs match their manifests")
    return FAILED if faults else DONE


def _document(settings: "Settings", ledger: "Ledger", row: "RunRow") -> Document:
    """One published run, with every way in which its outputs differ from its manifest."""
    from ds_flow.schedules import verify_outputs

    found = verify_outputs(settings.output_dir, ledger.read, row.run_id or "")
    return {"run_id": row.run_id, "faults": [fault for fault in found if fault]}
