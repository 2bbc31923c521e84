"""`ds-flow cancel`: end a batch and its run."""

import argparse
from collections.abc import Collection
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import BATCHES, NO_WAIT, Arguments
from ds_flow.system import DONE, FAILED, INTERRUPTED, put

if TYPE_CHECKING:
    from ds_flow.service import Service

HELP = "cancel batches and end their runs"
ARGUMENTS: Arguments = (BATCHES, NO_WAIT)

POLL_SECONDS = 0.1


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import carry_out, record_each, wake
    from ds_flow.service import cancel, service
    from ds_flow.views import find_batch

    settings, at = load(args), now()
    running: list[str] = []
    with open_ledger(settings, at) as ledger:

        def record(name: str) -> str:
            batch = find_batch(ledger, name)
            is_live, words = cancel(settings, ledger, batch, at)
            running.extend([batch] if is_live else [])
            return words

        recorded, refused = record_each(args.batches, record)
    code = min(refused, FAILED)
    if not recorded or wake(settings) or not running:
        return code
    if args.no_wait:
        return carry_out(settings, no_wait=True) or code
    with service(settings) as process:
        return _await_ends(process, running) or code


def _await_ends(process: "Service", batches: Collection[str]) -> int:
    """Wait until the runs of these batches have ended, and start nothing; the exit code."""
    process.engine.is_draining = True
    read = process.engine.ledger.read
    while any(map(read.has_live_run, batches)):
        if process.stops:
            return INTERRUPTED
        if not process.engine.tick():
            process.wake.wait(POLL_SECONDS)
    for batch in map(read.batch, batches):
        if batch is not None:
            put(f"batch {batch.id}: {batch.state}")
    return DONE
