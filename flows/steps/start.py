"""The start step: name the attempt and cut its files into shards."""

import os
from pathlib import Path

from ds_flow.core import Plan, RequestError, counted, cut_groups
from ds_flow.work import Batch
from steps.jobs import Range
from steps.process import require_fit


def open_batch(output_dir: str, batch_id: str) -> Batch:
    """Open a planned batch. The output folder is relative to the project.

    Raises RequestError if no batch is named or it is another project's, DispatchError if it has no
    plan.
    """
    root = Path(os.environ["DS_FLOW_CONFIG"]).parents[1]
    if not batch_id:
        raise RequestError("name a batch: --batch ID")
    batch = Batch.at(root / output_dir, batch_id)
    of = batch.plan.options.root
    if not root.samefile(of):
        raise RequestError(f"batch {batch_id} is of the project {of}, and this run of {root}")
    return batch


def begin(batch: Batch, run_id: str) -> list[list[Range]]:
    """Name the attempt by its Run ID. Returns one group of shards for each process task.

    An attempt that finds the team's code still unfit gets no Run ID: so it has never begun.
    """
    plan = batch.plan
    attempt = batch.marked_attempt()
    if attempt is not None:
        if batch.was_unfit():
            require_fit(batch, attempt)
        batch.name_attempt(attempt, run_id, Path(plan.options.log_dir))
    batch.results.forget_torn()
    # One task can wait for any number of jobs elsewhere. Local jobs are children of their task.
    is_local = plan.options.stages["process"].executor == "local"
    tasks = len(os.sched_getaffinity(0)) if is_local else 1
    groups = _ranges(plan, tasks)
    shards = sum(map(len, groups))
    size_mb = sum(file.size_bytes for file in plan.files) / 2**20
    print(
        f"batch {plan.batch} ({plan.trigger}): {counted(len(plan.files), 'file')},"
        f" {size_mb:.1f} MB, in {counted(shards, 'shard')} of {counted(len(groups), 'group')}"
    )
    return groups


def _ranges(plan: Plan, tasks: int) -> list[list[Range]]:
    """Name each group's shards by the positions of their first and last files."""
    ranges: list[list[Range]] = []
    first = 0
    for group in cut_groups(plan.files, plan.options, tasks):
        ranges.append([])
        for shard in group:
            ranges[-1].append((first, first + len(shard) - 1))
            first += len(shard)
    return ranges
