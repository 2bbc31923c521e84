"""The start step: name the attempt and cut its files into shards."""

import os
from collections.abc import Iterator
from pathlib import Path

from ds_flow.core import Plan, RequestError, cut_shards
from ds_flow.work import Batch
from steps.jobs import Range


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
    """Name the attempt by its Run ID. Returns one group of shards for each process task."""
    plan = batch.plan
    attempt = batch.marked_attempt()
    if attempt is not None:
        batch.name_attempt(attempt, run_id, Path(plan.options.log_dir))
    batch.results.forget_torn()
    shards = list(_ranges(plan))
    # One task can wait for any number of jobs elsewhere. Local jobs are children of their task.
    is_local = plan.options.stages["process"].executor == "local"
    tasks = len(os.sched_getaffinity(0)) if is_local else 1
    groups = [shards[start::tasks] for start in range(min(tasks, len(shards)))]
    size_mb = sum(file.size_bytes for file in plan.files) / 2**20
    print(
        f"batch {plan.batch} ({plan.trigger}): {len(plan.files)} files, {size_mb:.1f} MB,"
        f" in {len(shards)} shards of {len(groups)} groups"
    )
    return groups


def _ranges(plan: Plan) -> Iterator[Range]:
    first = 0
    for shard in cut_shards(plan.files, plan.options):
        yield first, first + len(shard) - 1
        first += len(shard)
