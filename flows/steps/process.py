"""The process step: every file gets an output, or a reason why it has none."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ds_flow.core import ATTEMPT_MARK, Plan, Rejected, output_stems, place_of, unescape
from ds_flow.dispatch import JobSpec, Outcome
from ds_flow.work import LASTING, Batch, Result, own_code
from steps import job_exit
from steps.jobs import (
    BLAMELESS,
    CODE,
    STEPS,
    Range,
    error_of,
    gave_up,
    job_for,
    last_words,
    python_for,
    reason_of,
    run_jobs,
)

MOST_FOLDERS = 20  # of the archive, as mounts of their own


def process_shards(batch: Batch, group: str, shards: Sequence[Range]) -> None:
    """Give every file of these shards a result: an output, or a reason why it has none.

    1. Each shard is one job.
    2. If a job ends before it reached every file, the first file without a result is suspect.
       It becomes a job of its own, and the files after it another one.
    3. A file that ends its job alone is set aside.

    Raises DispatchError if neither a job's code nor its input is to blame for its failure.
    """
    stage = ProcessStage(batch, f"process-{group}")
    left = [(first, last, "") for first, last in shards]
    while left:
        jobs = [stage.job(part) for part in left]
        outcomes = run_jobs(batch, "process", stage.name, jobs)
        left = [
            again
            for part, outcome in zip(left, outcomes, strict=True)
            for again in stage.left(part, outcome)
        ]


def require_fit(batch: Batch, attempt: int) -> None:
    """Let a job of the stage load the team's code, and process nothing.

    Raises UnfitError if it cannot, and DispatchError if the job failed otherwise.
    """
    stage = ProcessStage(batch, f"process-load{attempt}")
    (outcome,) = run_jobs(batch, "process", stage.name, [stage.job(NO_FILES)])
    if outcome.failure:
        raise error_of(batch, "process", stage.name, outcome)


Part = tuple[int, int, str]
"""A shard's first and last position, and a suffix that sets it apart from an earlier attempt's."""

NO_FILES: Part = (1, 0, "")


class ProcessStage:
    """One group's share of the process stage: which jobs it has, and which are left."""

    def __init__(self, batch: Batch, name: str) -> None:
        self.batch = batch
        self.name = name
        self.plan = batch.plan
        self.attempt = os.environ.get(ATTEMPT_MARK, "")
        self._results = batch.results
        self._stems = output_stems(file.path for file in self.plan.files)

    def job(self, part: Part) -> JobSpec:
        """The job that processes a part."""
        first, last, suffix = part
        folder, files = self._results.folder, f"{first}-{last}"
        script = str(STEPS / "process_job.py")
        command = (
            python_for(self.plan, "process"),
            script,
            str(self.batch.folder),
            str(folder),
            files,
        )
        job = job_for(self.plan, "process", f"{folder.name}/{files}{suffix}", command)
        reads = (*CODE, *_inputs(self.plan), self.batch.plan_file)
        return replace(job, reads=reads, writes=(folder,))

    def left(self, part: Part, outcome: Outcome) -> list[Part]:
        """The parts that are still to be done of a part whose job has ended."""
        if outcome.failure in BLAMELESS or gave_up(self.batch, self.name, outcome):
            raise error_of(self.batch, "process", self.name, outcome)
        first, last, _ = part
        results = {n: self._results.get(self._stem(n)) for n in range(first, last + 1)}
        if missing := [n for n, result in results.items() if result is None]:
            return self._isolate(missing[0], part, outcome)
        is_old = outcome.opened_by != self.attempt
        if is_old and any(_may_change(result) for result in results.values()):
            return [(first, last, f"@{self.attempt}")]
        return []

    def _stem(self, position: int) -> str:
        return self._stems[self.plan.files[position].path]

    def _isolate(self, suspect: int, part: Part, outcome: Outcome) -> list[Part]:
        """Give the file that a job ended on a job of its own. If it had that, set it aside."""
        first, last, suffix = part
        if first < last:
            rest = [(suspect + 1, last, suffix)] if suspect < last else []
            return [(suspect, suspect, suffix), *rest]
        file = self.plan.files[suspect]
        why = reason_of("process", outcome) or "it ended without a result"
        if outcome.exit_code == job_exit.OUT_OF_FILES:
            why = job_exit.OUT_OF_FILES_REASON
        if outcome.exit_code == job_exit.NO_MEMORY:
            why = last_words(self.batch, self.name, outcome) or why
        where = f",{place}" if (place := place_of(asdict(outcome))) else ""
        rejected = Rejected(
            path=file.path,
            version=file.version,
            sha256=file.sha256,
            cause="raised",
            reason=f"the process crashed on this file alone{where}: {why}",
        )
        self._results.set_aside(self._stem(suspect), rejected)
        return []


def _may_change(result: Result | Rejected | None) -> bool:
    """Whether another attempt may have another result."""
    return isinstance(result, Rejected) and result.cause not in LASTING


def _inputs(plan: Plan) -> Iterator[Path]:
    """Everything of the project that the process stage reads, and nothing else."""
    inbox = Path(plan.options.inbox or plan.options.root)
    # Links in it may lead to files in it by its real path.
    yield from {inbox, inbox.resolve(), *own_code(plan.options), *_kept(plan)}


def _kept(plan: Plan) -> set[Path]:
    """The folders of runs whose inputs ds-flow has put away, as far as these are read again."""
    folders = {
        Path(plan.options.root, unescape(one.kept_at.removesuffix(f"/{one.path.lstrip('/')}")))
        for one in plan.files
        if one.kept_at
    }
    if len(folders) > MOST_FOLDERS:  # a command line is only so long
        folders = {folder.parent for folder in folders}
    return {folder for folder in folders if folder.is_dir()}
