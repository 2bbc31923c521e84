"""`ds-flow runs`: every run, oldest first."""

import argparse
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import JSON, Arguments, argument, state_option
from ds_flow.core import Document, RunState
from ds_flow.system import DONE, Cell, Moment, put_long_document, put_table

if TYPE_CHECKING:
    from ds_flow.dispatch import StageJobs


def count(text: str) -> int:
    """Read a positive number. Its name is argparse's word for it: "invalid count value"."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


HELP = "list runs, oldest first"
ARGUMENTS: Arguments = (
    state_option(RunState, "only runs in this state"),
    argument("-n", "--limit", type=count, metavar="N", help="only the newest N"),
    JSON,
)

HEADINGS = ("run_id", "batch", "state", "trigger", "started_at", "inputs", "outputs", "error")


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import reading
    from ds_flow.views import newest_runs

    with reading(args) as (settings, ledger):
        state = RunState(args.state) if args.state else None
        runs = newest_runs(settings, ledger, state, args.limit)
        if args.json:
            put_long_document("runs", (run for run, _ in runs))
        else:
            put_table(HEADINGS, (_row(run, jobs) for run, jobs in runs))
    return DONE


def _row(run: Document, jobs: "list[StageJobs]") -> list[Cell]:
    from ds_flow.dispatch import told

    batch = f"{run['batch']}/{run['attempt']}"
    first = [run["run_id"], batch, run["state"], run["trigger"], Moment(run["started_at"])]
    analysis = f"analysis failed: {run['analysis_error']}" if run["analysis_error"] else ""
    failed = [one["reason"] for one in run["deliveries"] if one["next_try_at"] and one["failures"]]
    handed = f"not handed over: {failed[0]}" if failed else ""
    note = run["error"] or analysis or handed or "; ".join(map(told, jobs))
    return [*first, len(run["inputs"]), len(run["outputs"]), note]
