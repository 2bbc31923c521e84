"""What the steps share: describe a stage's jobs, run them, turn their failure into an error."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ds_flow.core import (
    ATTEMPT_MARK,
    CHECKOUT,
    SITES_LIMIT,
    STARVED,
    DispatchError,
    FailureClass,
    NoRoomError,
    Plan,
    UnfitError,
    place_of,
    python_on,
)
from ds_flow.dispatch import JobSpec, Outcome, log_of, run_stage
from ds_flow.system import free_bytes, masked, refusal, write_bytes
from ds_flow.work import Batch
from steps import job_exit
from steps.user_code import OwnCode

STEPS = Path(__file__).resolve().parent
CODE = (CHECKOUT / "flows", CHECKOUT / "bash", CHECKOUT / "daemon")
"""What ds-flow's own commands are made of."""

BLAMELESS = frozenset({FailureClass.INFRASTRUCTURE, FailureClass.BY_HAND})
"""Failures for which neither the job's code nor its input is to blame."""

LIMITS = {FailureClass.MEMORY: "memory_mb", FailureClass.LIMIT: "limit_minutes"}
"""The settings of a stage that end its jobs."""

LAST_LINE_CHARACTERS = 500  # of what a job printed, in a reason

Range = tuple[int, int]
"""First and last position of a shard's files in the plan, both included."""


def python_for(plan: Plan, stage: str) -> str:
    """The Python interpreter for a stage's jobs: this one, or the image's."""
    return python_on(plan.options.stages[stage].executor)


def job_for(
    plan: Plan, stage: str, key: str, command: tuple[str, ...], stdin: Path | None = None
) -> JobSpec:
    """Describe a job with its stage's settings."""
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
        extra=options.extra,
    )


def put_list(path: Path, names: Sequence[Path]) -> Path:
    """Write a list of paths for a job's standard input, each ended by a NUL byte."""
    write_bytes(path, b"".join(os.fsencode(name) + b"\0" for name in names))
    return path


def run_jobs(batch: Batch, stage: str, part: str, jobs: Sequence[JobSpec]) -> list[Outcome]:
    """Run jobs of a stage and repeat what they printed, so that the run's log has it.

    `part` names their folder in `jobs/`: a stage may have several.
    """
    outcomes = run_stage(
        batch.jobs / part,
        executor=batch.plan.options.stages[stage].executor,
        site=batch.plan.options.site,
        batch=batch.id,
        attempt=os.environ.get(ATTEMPT_MARK, ""),
        jobs=jobs,
    )
    for outcome in outcomes:
        printed = log_of(batch.jobs / part, outcome).rstrip()
        if printed:
            text = masked(printed, os.environ)
            print(f"[{outcome.round}[{outcome.index}]]\n{text}", flush=True)
    return outcomes


def run_one(batch: Batch, stage: str, job: JobSpec, part: str = "") -> None:
    """Run one job. Raises DispatchError if it failed."""
    (outcome,) = run_jobs(batch, stage, part or stage, [job])
    if outcome.failure:
        raise error_of(batch, stage, part or stage, outcome)


def gave_up(batch: Batch, part: str, outcome: Outcome) -> bool:
    """Whether our own job gave up by itself. Then it says so in the last line that it prints.

    A transform that ends its process may leave the same exit code, and says nothing.
    """
    if outcome.exit_code not in job_exit.OWN:
        return False
    if outcome.exit_code == job_exit.NO_ROOM and refusal(batch.folder):
        return True  # its log is on that disk
    return bool(last_words(batch, part, outcome))


def last_words(batch: Batch, part: str, outcome: Outcome) -> str:
    """Why our own job gave up, as the last line that it printed says; "" if that is not its own."""
    printed = log_of(batch.jobs / part, outcome).strip().splitlines()
    is_own = printed and printed[-1].startswith(job_exit.SAID)
    return printed[-1].partition(": ")[2] if is_own else ""


def error_of(batch: Batch, stage: str, part: str, outcome: Outcome) -> DispatchError:
    """The error to raise for a failed job; with the last line it printed, if its code failed."""
    why = (gave_up(batch, part, outcome) and last_words(batch, part, outcome)) or (
        f"{reason_of(stage, outcome)}{_last_line(batch, part, outcome)}"
    )
    why = f"job {outcome.round}[{outcome.index}]{place_of(asdict(outcome))}: {why}"
    if outcome.exit_code == job_exit.NO_ROOM:
        full = (
            refusal(batch.folder)
            or f"{batch.folder} has {free_bytes(batch.folder) / 2**20:.1f} MB free"
        )
        return NoRoomError(f"no room on a disk: {full}: {why}")
    if outcome.exit_code == job_exit.SETTINGS and gave_up(batch, part, outcome):
        return UnfitError(why)
    return DispatchError(why)


def _last_line(batch: Batch, part: str, outcome: Outcome) -> str:
    """The last line that a job printed, if its own code failed, and which line of that did."""
    printed = log_of(batch.jobs / part, outcome).strip("\n").rstrip().splitlines()
    if not printed or outcome.failure != FailureClass.USER_CODE:
        return ""
    line = OwnCode(Path(batch.plan.options.root)).line_printed(printed)
    cut = line[:LAST_LINE_CHARACTERS]
    return f": {line}" if line == cut else f": {cut} ..."


def reason_of(stage: str, outcome: Outcome) -> str:
    """Why a job failed. If it reached a limit of its own, also which setting raises that."""
    if outcome.reason.startswith((STARVED, SITES_LIMIT)) or outcome.failure not in LIMITS:
        return outcome.reason
    return f"{outcome.reason}; raise compute.stages.{stage}.{LIMITS[outcome.failure]}"
