"""Do all pending work in this process, with a progress bar and a summary."""

import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Self

from ds_flow.cli.progress import progress_bar
from ds_flow.core import BatchState, FileState, counted
from ds_flow.ledger import LEFT_OUT, Ledger, Reading, RunRow
from ds_flow.service import Service, service
from ds_flow.settings import Settings
from ds_flow.system import DONE, FAILED, INTERRUPTED, put, say
from ds_flow.views import not_handed_over, sets_document

NAMED_OUTPUTS = 20  # of each run, in the summary


@dataclass(frozen=True, slots=True)
class Tally:
    """What the ledger held before the work began. The summary leaves it out."""

    published: set[str]
    quarantined: set[int]
    dead: set[str]

    @classmethod
    def of(cls, read: Reading) -> Self:
        """Read it from the ledger."""
        return cls(
            read.run_ids(),
            {row.id for row in read.files_in(FileState.QUARANTINED)},
            {batch.id for batch in read.batches_in(BatchState.DEAD)},
        )


def process_now(
    settings: Settings, released: Collection[int] = (), timeout_s: float = math.inf
) -> int:
    """Do all pending work, print a summary, and return the exit code.

    `released`: quarantined files that a person has just released. If they end in quarantine again,
    the summary names them. `timeout_s`: how long to wait for files that still arrive.
    Raises RequestError if a daemon is running.
    """
    with service(settings) as process:
        ledger = process.engine.ledger
        before = Tally.of(ledger.read)
        before.quarantined.difference_update(released)
        with progress_bar(settings):
            left = process.once(timeout_s)
        code = summarize(settings, ledger, before)
        for line in [*_waiting(process)][:NAMED_OUTPUTS]:
            put(line)
        if process.stops:
            return INTERRUPTED
        if pause := process.engine.pause:
            say(f"{pause.sentence}; nothing was started")
        if error := process.engine.admission.inbox_error:
            say(error)
            return FAILED
        for path, why in left.items():
            put(f"still arriving: {path}: {why}")
        return FAILED if left else code


def summarize(settings: Settings, ledger: Ledger, before: Tally) -> int:
    """Print what has changed since `before`; 1 if something went wrong."""
    new_ids = ledger.read.run_ids() - before.published
    published = [run for run in ledger.read.runs() if run.run_id in new_ids]
    for run in published:
        _put_outputs(settings, ledger.read, run)
    problems = [*_problems_of_runs(ledger, published), *_problems_since(ledger.read, before)]
    problems += _not_handed_over(settings, ledger)
    for line in problems:
        put(line)
    if not (published or problems):
        put("nothing new")
    return FAILED if problems else DONE


def _waiting(process: Service) -> Iterator[str]:
    """Say which files wait for others to come."""
    engine = process.engine
    for one in sets_document(engine.settings, engine.ledger, engine.clock.now()):
        yield f"not processed: a set {one['text']}"
    for held in engine.admission.inbox.waiting.held.values():
        yield f"not taken: {held.sighting.path} {held.why}"


def _put_outputs(settings: Settings, read: Reading, run: RunRow) -> None:
    names = read.outputs(run.run_id or "")
    files = counted(len(read.batch_paths(run.batch)), "file")
    put(f"run {run.run_id}: {files}, {counted(len(names), 'output')}")
    for name in names[:NAMED_OUTPUTS]:
        put(f"  {os.path.relpath(settings.output_dir / name, settings.root)}")
    if len(names) > NAMED_OUTPUTS:
        put(f"  and {len(names) - NAMED_OUTPUTS} more: ds-flow show {run.run_id}")


def _problems_of_runs(ledger: Ledger, published: Collection[RunRow]) -> Iterator[str]:
    for run in published:
        for kind, path, why in ledger.history.set_aside(run.batch):
            if kind == LEFT_OUT:
                yield f"left out: {path}: {why}"
    for run in published:
        if run.analysis_error:
            yield f"analysis failed: run {run.run_id}: {run.analysis_error}"


def _not_handed_over(settings: Settings, ledger: Ledger) -> Iterator[str]:
    for row, waiting in ledger.deliveries.firsts():
        if row.attempts:
            yield f"not handed over: {not_handed_over(settings, row, waiting)}"


def _problems_since(read: Reading, before: Tally) -> Iterator[str]:
    for row in read.files_in(FileState.QUARANTINED):
        if row.id not in before.quarantined:
            yield f"quarantined: {row.path}: {row.reason}"
    for batch in read.batches_in(BatchState.DEAD):
        if batch.id not in before.dead:
            yield f"dead: batch {batch.id}: {batch.reason}"
    for batch in read.batches_in(BatchState.RETRYING):
        if why := read.never_began(batch.id):
            yield f"held back: batch {batch.id}: {why}"
