"""`ds-flow status`: count everything, and check that the counts add up."""

import argparse
from collections.abc import Iterable, Iterator, Mapping

from ds_flow.cli.arguments import JSON, Arguments
from ds_flow.core import BatchState, Document
from ds_flow.system import DONE, put, put_document, running_pid

HELP = "count files, batches and runs, and check that the counts add up"
ARGUMENTS: Arguments = (JSON,)

NAMED_READINGS = 5  # large files that are being read


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import now, reading
    from ds_flow.views import status_document

    with reading(args) as (settings, ledger):
        document = status_document(settings, ledger, running_pid(settings), now())
        dead = [batch.id for batch in ledger.read.batches_in(BatchState.DEAD)]
        dead = [batch for batch in dead if ledger.read.has_dead_files(batch)]  # not yet retried
    if args.json:
        put_document(document)
    else:
        put_status(document, dead)
    return DONE


def put_status(status: Document, dead: Iterable[str]) -> None:
    """Print the document, and what to do next. `dead`: batches that can be retried."""
    daemon = status["daemon"]
    put(
        f"daemon     {'running, pid ' + str(daemon['pid']) if daemon['running'] else 'not running'}"
    )
    put(f"files      {status['discovered']}{_counts(status['files'])}")
    _put_inbox(status)
    put(f"batches    {sum(status['batches'].values())}{_counts(status['batches'])}")
    put(f"runs       {sum(status['runs'].values())}{_counts(status['runs'])}")
    put(f"accounted  {'yes' if status['accounted'] else 'no: ' + status['reason']}")
    for path in status["unaccounted"]:
        put(f"           {path}")
    for batch, words in _jobs_told(status["jobs"]):
        put(f"jobs       {batch}: {words}")
    if status["low_space"]:
        put(f"low space  {status['low_space']}; no new batch starts")
    for why in status["held_back"]:
        put(f"held back  {why}")
    _put_analyses(status)
    for advice in _advice(status, dead):
        put(f"next       {advice}")


def _put_inbox(status: Document) -> None:
    from ds_flow.inbox import told

    if status["arriving"]:
        put(f"arriving   {status['arriving']}")
    if status["ignored"]:
        put(f"ignored    {status['ignored']}")
    if status["looked_at"]:
        put(f"looked     {status['looked_at']}, by the daemon: the inbox is large")
    for one in status["reading"][:NAMED_READINGS]:
        put(f"reading    {one['path']}: {told(one['read_bytes'], one['size_bytes'])}")


def _jobs_told(jobs: Iterable[Document]) -> Iterator[tuple[str, str]]:
    from ds_flow.dispatch import StageJobs, told

    for row in jobs:
        stage = {name: row[name] for name in row if name not in {"batch", "run_id"}}
        yield row["batch"], told(StageJobs(**stage))


def _put_analyses(status: Document) -> None:
    if status["analyses_failed"]:
        put(f"analyses   {status['analyses_failed']} failed")
    for one in status["failed_analyses"]:
        put(f"           run {one['run_id']}: {one['analysis_error']}")


def _counts(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f": {listed}" if listed else ""


def _advice(status: Document, dead: Iterable[str]) -> Iterator[str]:
    files, batches = status["files"], status["batches"]
    pending = files["waiting"] + status["arriving"] + len(status["unaccounted"])
    pending += sum(batches.get(state, 0) for state in ("queued", "running", "retrying"))
    if pending and not status["daemon"]["running"]:
        yield "start the daemon, or run `ds-flow once`"
    if files["quarantined"]:
        yield "`ds-flow files --state quarantined` says why files are quarantined"
        yield from (f"`ds-flow retry {batch}` retries a dead batch" for batch in dead)
    if status["analyses_failed"]:
        yield "`ds-flow rerun --analyze RUN` does a failed analysis again"
