"""`ds-flow verify`: read outputs again and compare them with their manifests."""

import argparse
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import JSON, RUN, Arguments, argument
from ds_flow.core import Document, RequestError, RunState, counted
from ds_flow.system import DONE, FAILED, put, put_long_document

if TYPE_CHECKING:
    from ds_flow.ledger import Ledger, RunRow
    from ds_flow.settings import Settings

HELP = "read outputs again and name those that changed since publication"
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
    if args.json:
        put_long_document("runs", answers)
    else:
        _put(answers)
    return FAILED if any(_counts(one, args.run_name) for one in answers) else DONE


def _counts(answer: Document, named: str | None) -> bool:
    """Whether a changed run is a failure: not if newer runs have made up for it, unless asked."""
    return bool(answer["faults"]) and (not answer["replaced"] or named is not None)


def _put(answers: list[Document]) -> None:
    """Name each fault, and what makes the outputs again."""
    changed = [one for one in answers if one["faults"]]
    for one in changed:
        for fault in one["faults"]:
            put(f"run {one['run_id']}: {fault}")
        if one["replaced"]:
            put(f"run {one['run_id']}: newer runs have published all its files again")
        else:
            put(f"run {one['run_id']}: `{one['rerun']}` makes its outputs again, under a new name")
    if not changed:
        put(f"{counted(len(answers), 'run')}: all outputs match their manifests")


def _document(settings: "Settings", ledger: "Ledger", row: "RunRow") -> Document:
    """One published run, with every way in which its outputs differ from its manifest."""
    from ds_flow.schedules import verify_outputs

    run_id = row.run_id or ""
    faults = [fault for fault in verify_outputs(settings.output_dir, ledger.read, run_id) if fault]
    return {
        "run_id": row.run_id,
        "faults": faults,
        "replaced": bool(faults) and ledger.overview.is_replaced(run_id),
        "rerun": f"ds-flow rerun {run_id}" if faults else None,
    }
