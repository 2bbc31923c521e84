"""What the flow's steps do, as functions that a test can call without Metaflow."""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ds_flow.core import (
    ATTEMPT_MARK,
    CHECKOUT,
    STARVED,
    DispatchError,
    FailureClass,
    NoRoomError,
    Plan,
    Rejected,
    RequestError,
    cut_shards,
    output_stems,
)
from ds_flow.dispatch import JobSpec, Outcome, log_of, run_stage
from ds_flow.system import masked, write_bytes, write_json
from ds_flow.work import (
    LASTING,
    Result,
    is_plain,
    marked_attempt,
    name_attempt,
    own_code,
    read_plan,
    results_for,
    work_root,
)
from steps import job_exit
from steps.verdicts import union, verdicts

STEPS = Path(__file__).resolve().parent
NOT_ITS_OWN = frozenset({FailureClass.INFRASTRUCTURE, FailureClass.BY_HAND})
"""Failures for which neither a job's code nor its input is to blame."""

Range = tuple[int, int]
"""First and last position of a shard's files in the plan, both included."""


# --------------------------------------------------------------------------- start


def work_dir(output_dir: str, batch: str) -> Path:
    """Find a planned batch. Raises RequestError or DispatchError if none was named or planned."""
    work = work_root(Path(output_dir)) / batch
    if not batch:
        raise RequestError("no batch is named: --batch ID")
    read_plan(work)
    return work


def begin(work: Path, run_id: str) -> list[list[Range]]:
    """Name the attempt by its Run ID; the groups of shards that its tasks dispatch, never none."""
    plan = read_plan(work)
    attempt = marked_attempt(work)
    if attempt is not None:
        name_attempt(work, attempt, run_id, Path(plan.options.log_dir))
    results_for(work, plan.options).forget_torn()
    shards = list(_ranges(plan))
    # One task waits for any number of jobs that run elsewhere; local ones are its own children.
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


# --------------------------------------------------------------------------- process


def process(work: Path, group: str, shards: Sequence[Range]) -> None:
    """Give every file of these shards a verdict. Raises DispatchError if that cannot be done.

    A shard whose process ended before its time is done again without the file that it ended on,
    and that file alone; a file that ends its process alone is set aside.
    """
    stage = _Process(work, f"process-{group}")
    left = [(first, last, "") for first, last in shards]
    while left:
        jobs = [stage.job(part) for part in left]
        outcomes = _run(work, stage.plan, "process", stage.name, jobs)
        left = [
            again
            for part, outcome in zip(left, outcomes, strict=True)
            for again in stage.left(part, outcome)
        ]


Part = tuple[int, int, str]
"""A shard's first and last position, and a suffix that tells it from an earlier attempt's."""


class _Process:
    """One group's share of the process stage."""

    def __init__(self, work: Path, name: str) -> None:
        self.work = work
        self.name = name
        self.plan = read_plan(work)
        self.attempt = os.environ.get(ATTEMPT_MARK, "")
        self._results = results_for(work, self.plan.options)
        self._stems = output_stems(file.path for file in self.plan.files)

    def job(self, part: Part) -> JobSpec:
        first, last, suffix = part
        folder, files = self._results.folder, f"{first}-{last}"
        script = str(STEPS / "process_job.py")
        command = (_python(self.plan, "process"), script, str(self.work), str(folder), files)
        job = _job(self.plan, "process", f"{folder.name}/{files}{suffix}", command)
        reads = (*CODE, *_inputs(self.plan), self.work / "batch.json")
        return replace(job, reads=reads, writes=(folder,))

    def left(self, part: Part, outcome: Outcome) -> list[Part]:
        """What is yet to be done of a part whose job has ended."""
        if outcome.failure in NOT_ITS_OWN or outcome.exit_code in job_exit.OWN:
            raise _failed(self.work, "process", self.name, outcome)
        first, last, _ = part
        verdicts = {n: self._results.get(self._stem(n)) for n in range(first, last + 1)}
        if unjudged := [n for n, verdict in verdicts.items() if verdict is None]:
            return self._isolate(unjudged[0], part, outcome)
        is_old = outcome.opened_by != self.attempt
        if is_old and any(_may_change(verdict) for verdict in verdicts.values()):
            return [(first, last, f"@{self.attempt}")]
        return []

    def _stem(self, position: int) -> str:
        return self._stems[self.plan.files[position].path]

    def _isolate(self, suspect: int, part: Part, outcome: Outcome) -> list[Part]:
        """Set the file that a process ended on apart; alone, it is set aside."""
        first, last, suffix = part
        if first < last:
            rest = [(suspect + 1, last, suffix)] if suspect < last else []
            return [(suspect, suspect, suffix), *rest]
        file = self.plan.files[suspect]
        why = _why("process", outcome) or "ended before its verdict"
        if outcome.exit_code == job_exit.OUT_OF_FILES:
            why = job_exit.OUT_OF_FILES_REASON
        rejected = Rejected(
            path=file.path,
            version=file.version,
            sha256=file.sha256,
            cause="raised",
            reason=f"its process, alone with it: {why}",
        )
        self._results.set_aside(self._stem(suspect), rejected)
        return []


def _may_change(verdict: Result | Rejected | None) -> bool:
    """Whether another attempt may judge otherwise."""
    return isinstance(verdict, Rejected) and verdict.cause not in LASTING


# --------------------------------------------------------------------------- combine


def combine(work: Path) -> Path | None:
    """Join the processed files into one; its path, or None if there is no good file.

    Raises DispatchError if the transform failed on every file: then it, not they, is at fault.
    """
    plan = read_plan(work)
    good, bad = verdicts(work)
    if not good:
        raised = [item for item in bad if item.cause == "raised"]
        if raised:
            raise DispatchError(f"every file failed; {raised[0].path}: {raised[0].reason}")
        return None
    columns = union([result.columns for result in good])
    sources = _aligned(work, plan, good, columns)
    key = hashlib.sha256("\0".join([*columns, *map(str, sources)]).encode()).hexdigest()[:16]
    target = work / "combined" / f"{key}.csv"
    target.parent.mkdir(exist_ok=True)
    names = _put_list(target.with_suffix(".list"), sources)
    command = ("bash", str(CHECKOUT / "bash" / "combine.sh"), str(target))
    job = _job(plan, "combine", key, command, stdin=names)
    reads = (*CODE, *dict.fromkeys(source.parent for source in sources))
    _run_one(work, plan, "combine", replace(job, reads=reads, writes=(target.parent,)))
    _require_plain(target)
    return target


def _require_plain(combined: Path) -> None:
    """A job may have left anything: what follows reads it as this user."""
    try:
        is_good = is_plain(combined.lstat())
    except FileNotFoundError:
        is_good = False
    if not is_good:
        raise DispatchError(f"{combined}: the job that combines left no regular file")


def _aligned(
    work: Path, plan: Plan, good: Sequence[Result], columns: tuple[str, ...]
) -> list[Path]:
    """The files to combine, all with these columns: rewritten ones where theirs differ."""
    folder = results_for(work, plan.options).folder
    sources = [folder / result.output for result in good]
    odd = [
        source for source, result in zip(sources, good, strict=True) if result.columns != columns
    ]
    if not odd:
        return sources
    key = hashlib.sha256("\0".join([*columns, *map(str, odd)]).encode()).hexdigest()[:16]
    target = work / "aligned" / key
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / "columns.json", columns)
    names = _put_list(target / "sources.list", odd)
    command = (_python(plan, "combine"), str(STEPS / "align_job.py"), str(target))
    job = _job(plan, "combine", key, command, stdin=names)
    reads = (*CODE, target / "columns.json", *dict.fromkeys(source.parent for source in odd))
    _run_one(work, plan, "combine", replace(job, reads=reads, writes=(target,)), "align")
    return [target / source.name if source in set(odd) else source for source in sources]


def _put_list(path: Path, names: Sequence[Path]) -> Path:
    write_bytes(path, b"".join(os.fsencode(name) + b"\0" for name in names))
    return path


# --------------------------------------------------------------------------- analyze


def analyze(work: Path, combined: Path | None) -> dict[str, Any] | None:
    """Run the analysis on the combined file; its command, what it printed, and why it failed.

    The data is good whatever becomes of that. Raises DispatchError if the job could not be done.
    """
    plan = read_plan(work)
    command = plan.options.stages["analyze"].command
    if combined is None or not command:
        return None
    job = _job(plan, "analyze", combined.stem, (*command, str(combined)))
    job = replace(job, reads=(combined.parent,))
    (outcome,) = _run(work, plan, "analyze", "analyze", [job])
    if outcome.failure in NOT_ITS_OWN:
        raise _failed(work, "analyze", "analyze", outcome)
    printed = log_of(work / "jobs" / "analyze", outcome)
    error = str(_failed(work, "analyze", "analyze", outcome)) if outcome.failure else ""
    return {
        "command": list(command),
        "stdout": masked(printed, os.environ),
        "error": masked(error, os.environ),
    }


# --------------------------------------------------------------------------- jobs


CODE = (CHECKOUT / "flows", CHECKOUT / "bash", CHECKOUT / "daemon")
"""What the commands of ds-flow's own are made of."""


def _python(plan: Plan, stage: str) -> str:
    """Name this interpreter, or that of an image."""
    return "python3" if plan.options.stages[stage].executor == "docker" else sys.executable


def _inputs(plan: Plan) -> Iterator[Path]:
    """Everything of the project that the process stage reads, and no more of it."""
    inbox = Path(plan.options.inbox or plan.options.root)
    # Links in it may lead to files in it by its real path.
    yield from {inbox, inbox.resolve(), *own_code(plan.options)}


def _job(
    plan: Plan, stage: str, key: str, command: tuple[str, ...], stdin: Path | None = None
) -> JobSpec:
    options = plan.options.stages[stage]
    return JobSpec(
        key=key,
        command=command,
        stdin=stdin,
        cpus=options.cpus,
        memory_mb=options.memory_mb,
        limit_minutes=options.limit_minutes,
        queue=options.queue,
        image=options.image,
    )


def _run(work: Path, plan: Plan, stage: str, part: str, jobs: Sequence[JobSpec]) -> list[Outcome]:
    """Run jobs and repeat what they printed, so that the run's log has it."""
    outcomes = run_stage(
        work / "jobs" / part,
        executor=plan.options.stages[stage].executor,
        site=plan.options.site,
        batch=plan.batch,
        attempt=os.environ.get(ATTEMPT_MARK, ""),
        jobs=jobs,
    )
    for outcome in outcomes:
        printed = log_of(work / "jobs" / part, outcome).rstrip()
        if printed:
            print(
                f"[{outcome.round}[{outcome.index}]]\n{masked(printed, os.environ)}",
                flush=True,
            )
    return outcomes


def _run_one(work: Path, plan: Plan, stage: str, job: JobSpec, part: str = "") -> Outcome:
    (outcome,) = _run(work, plan, stage, part or stage, [job])
    if outcome.failure:
        raise _failed(work, stage, part or stage, outcome)
    return outcome


def _failed(work: Path, stage: str, part: str, outcome: Outcome) -> DispatchError:
    printed = log_of(work / "jobs" / part, outcome).strip().splitlines()
    is_cause = printed and outcome.failure == FailureClass.USER_CODE
    last = f": {printed[-1]}" if is_cause else ""
    why = f"job {outcome.round}[{outcome.index}]: {_why(stage, outcome)}{last}"
    if outcome.exit_code == job_exit.NO_ROOM:
        return NoRoomError(f"no room on a disk: {why}")
    return DispatchError(why)


def _why(stage: str, outcome: Outcome) -> str:
    """Why a job failed; where it came up to its own limit of memory, which setting gives more."""
    if outcome.failure != FailureClass.MEMORY or outcome.reason == STARVED:
        return outcome.reason
    return f"{outcome.reason}; raise compute.stages.{stage}.memory_mb"
