"""The start step: name the attempt and cut its files into shards."""

import os
from collections.abc import Iterator
from pathlib import Path

from ds_flow.core import Plan, RequestError, cut_shards
from ds_flow.work import marked_attempt, name_attempt, read_plan, results_for, work_root
from steps.jobs import Range


def work_dir(output_dir: str, batch: str) -> Path:
    """Find the work directory of a planned batch. The output folder is relative to the project.

    Raises RequestError if no batch is named or it is another project's, DispatchError if it has no
    plan.
    """
    root = Path(os.environ["DS_FLOW_CONFIG"]).parents[1]
    work = work_root(root / output_dir) / batch
    if not batch:
        raise RequestError("name a batch: --batch ID")
    of = read_plan(work).options.root
    if not root.samefile(of):
        raise RequestError(f"batch {batch} is of the project {of}, and this run of {root}")
    return work


def begin(work: Path, run_id: str) -> list[list[Range]]:
    """Name the attempt by its Run ID. Returns one group of shards for each process task."""
    plan = read_plan(work)
    attempt = marked_attempt(work)
    if attempt is not None:
        name_attempt(work, attempt, run_id, Path(plan.options.log_dir))
    results_for(work, plan.options).forget_torn()
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
