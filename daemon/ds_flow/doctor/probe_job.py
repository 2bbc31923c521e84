"""Run one small job on a stage's backend, to see whether the stage could work there."""

import os
import re
import secrets
import tempfile
import time
from pathlib import Path

from ds_flow.core import CHECKOUT, DispatchError, JobState, program_of, python_on
from ds_flow.dispatch import (
    LIVE,
    Backend,
    JobSpec,
    Report,
    Round,
    make_backends,
    open_round,
    stages_in,
)
from ds_flow.doctor.finding import Level
from ds_flow.settings import Settings
from ds_flow.work import make_root

LIMIT_SECONDS = 60.0  # a job that still waits in a busy queue is a warning
JOB_MINUTES = 5
CODE = (CHECKOUT / "flows", CHECKOUT / "bash", CHECKOUT / "daemon")
IMPORTS = ("-c", "import pandas, pyarrow, ds_flow.work")
TOOLS = ("bash", "-c", "type awk cmp cut head sed sync tail tr xargs")
NO_PROGRAM = "no program"
FIND_PROGRAM = f'command -v "$0" || {{ echo "{NO_PROGRAM} $0 there"; exit 127; }}'
NO_SHELL = re.compile(r"exit code 127$|\bsh\b\W.{0,40}not found", re.IGNORECASE)


def probe(settings: Settings, stage: str, limit_s: float = LIMIT_SECONDS) -> tuple[Level, str]:
    """Run a job as the stage would, in a folder in `.work` that is removed again."""
    options = settings.options()
    executor = options.stages[stage].executor
    try:
        root = make_root(settings.output_dir)
        with tempfile.TemporaryDirectory(
            prefix=".check-", dir=root, ignore_cleanup_errors=True
        ) as name:
            backend = make_backends(options.site, settings.run_environment(os.environ))[executor]
            written = Path(name, "written")
            written.mkdir()
            job = _job(settings, stage, written)
            commands = [backend.command(job)]
            batch = secrets.token_hex(5)
            one_job = open_round(Path(name, stage), batch, "check", executor, [job], commands)
            return _outcome(one_job, backend, limit_s)
    except (DispatchError, OSError) as error:
        return "fault", str(error)


def _job(settings: Settings, stage: str, folder: Path) -> JobSpec:
    options = settings.stages[stage]
    program, *_ = *program_of(options.command, options.executor), "true"
    python = (python_on(options.executor), "-P")
    commands: dict[str, tuple[str, ...]] = {
        "process": (*python, *IMPORTS),
        "combine": TOOLS,
        "analyze": ("sh", "-c", FIND_PROGRAM, program),
    }
    return JobSpec(
        key=stage,
        command=commands[stage],
        cpus=options.cpus,
        memory_mb=options.memory_mb,
        limit_minutes=JOB_MINUTES,
        queue=options.queue,
        image=options.image,
        extra=options.extra,
        reads=() if stage == "analyze" else CODE,
        writes=(folder,),
    )


def _outcome(one_job: Round, backend: Backend, limit_s: float) -> tuple[Level, str]:
    try:
        report = _await_end(one_job, backend, limit_s)
        why = _why_pending(one_job, backend) if report.state in LIVE else ""
    finally:
        _cancel(one_job, backend, limit_s)
    if report.state in LIVE:
        return "warning", f"a job was still {report.state} after {limit_s:g} s{why}: cancelled"
    host = (one_job.claim_of(1) or ("", "", ""))[0]
    lines = one_job.log_of(1).strip().splitlines()
    if report.state == JobState.SUCCEEDED:
        return "ok", f"a job ran on {host} and reached the work directory"
    last = lines[-1] if lines else ""
    if _lacks_shell(one_job, report.reason, last):
        return "warning", "the image has no sh, so no probe job can look for the program in it"
    return "fault", f"a job failed: {report.reason}" + (f": {last}" if last else "")


def _why_pending(one_job: Round, backend: Backend) -> str:
    """The backend's reason for pending, which it has after two looks."""
    backend.ask(one_job, one_job.indices)
    (stage,) = stages_in(one_job.folder.parent.parent)
    return f" ({'; '.join(stage.pending_reasons)})" if stage.pending_reasons else ""


def _lacks_shell(one_job: Round, reason: str, last_line: str) -> bool:
    """Whether a probe of an analysis needs sh and has none. The analysis itself needs none."""
    is_such = one_job.executor == "docker" and one_job.jobs[0].key == "analyze"
    if not is_such or one_job.environment_file.exists():
        return False
    return bool(NO_SHELL.search(reason)) and not last_line.startswith(NO_PROGRAM)


def _await_end(one_job: Round, backend: Backend, limit_s: float) -> Report:
    end_s = time.monotonic() + limit_s
    while True:
        backend.submit(one_job)
        report = backend.ask(one_job, one_job.indices)[1]
        if report.state not in LIVE or time.monotonic() > end_s:
            return report
        time.sleep(backend.poll_seconds[0])  # noqa: TID251 - there is no event to wait for


def _cancel(one_job: Round, backend: Backend, limit_s: float) -> None:
    """Cancel until no job is left that could still write to the folder."""
    end_s = time.monotonic() + limit_s
    while not backend.cancel(one_job) and time.monotonic() < end_s:
        time.sleep(backend.poll_seconds[0])  # noqa: TID251 - there is no event to wait for
