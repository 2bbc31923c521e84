"""One job of a stage on its backend, to see whether the stage could work there."""

import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import Literal

from ds_flow.core import CHECKOUT, PYTHON, DispatchError, JobState
from ds_flow.dispatch import LIVE, Backend, JobSpec, Report, Round, backends, open_round
from ds_flow.settings import Settings
from ds_flow.work import make_root

LIMIT_SECONDS = 60.0  # in a busy queue it may wait for longer; then that is said
JOB_MINUTES = 5
IMPORTS = ("-c", "import pandas, pyarrow, ds_flow.work")
TOOLS = ("bash", "-c", "type awk cmp cut head sed sync tail tr xargs")


Verdict = Literal["ok", "warning", "fault"]


def attempt(settings: Settings, stage: str, limit_s: float = LIMIT_SECONDS) -> tuple[Verdict, str]:
    """Run a job as the stage would: whether that works, and what was seen.

    It may write to a folder in `.work` and leaves nothing behind.
    """
    options = settings.options()
    executor = options.stages[stage].executor
    try:
        root = make_root(settings.output_dir)
        with tempfile.TemporaryDirectory(
            prefix=".check-", dir=root, ignore_cleanup_errors=True
        ) as name:
            backend = backends(options.site, settings.run_environment(os.environ))[executor]
            written = Path(name, "written")
            written.mkdir()
            job = _job(settings, stage, written)
            commands = [backend.command(job)]
            batch = secrets.token_hex(5)
            tried = open_round(Path(name, stage), batch, "check", executor, [job], commands)
            return _seen(tried, backend, limit_s)
    except (DispatchError, OSError) as error:
        return "fault", str(error)


def _job(settings: Settings, stage: str, folder: Path) -> JobSpec:
    options = settings.stages[stage]
    program = options.command[0] if options.command else "true"
    python = ("python3", "-P") if options.executor == "docker" else PYTHON
    commands: dict[str, tuple[str, ...]] = {
        "process": (*python, *IMPORTS),
        "combine": TOOLS,
        "analyze": ("sh", "-c", 'command -v "$0"', program),
    }
    return JobSpec(
        key=stage,
        command=commands[stage],
        cpus=options.cpus,
        memory_mb=options.memory_mb,
        limit_minutes=JOB_MINUTES,
        queue=options.queue,
        image=options.image,
        reads=(CHECKOUT / "flows", CHECKOUT / "bash", CHECKOUT / "daemon"),
        writes=(folder,),
    )


def _seen(tried: Round, backend: Backend, limit_s: float) -> tuple[Verdict, str]:
    report = _awaited(tried, backend, limit_s)
    _take_back(tried, backend, limit_s)
    if report.state in LIVE:
        return "warning", f"a job is {report.state} after {limit_s:g} s, and was taken back"
    host = (tried.claim_of(1) or ("", "", ""))[0]
    words = tried.log_of(1).strip().splitlines()
    if report.state == JobState.SUCCEEDED:
        return "ok", f"a job ran on {host} and saw the work directory"
    return "fault", f"a job failed: {report.reason}" + (f": {words[-1]}" if words else "")


def _take_back(tried: Round, backend: Backend, limit_s: float) -> None:
    """Wait until nothing of it is left that could still write to the folder."""
    end_s = time.monotonic() + limit_s
    while not backend.cancel(tried) and time.monotonic() < end_s:
        time.sleep(backend.poll_seconds[0])  # noqa: TID251 - nothing else to do


def _awaited(tried: Round, backend: Backend, limit_s: float) -> Report:
    end_s = time.monotonic() + limit_s
    while True:
        backend.submit(tried)
        report = backend.ask(tried, tried.indices)[1]
        if report.state not in LIVE or time.monotonic() > end_s:
            return report
        time.sleep(backend.poll_seconds[0])  # noqa: TID251 - nothing else to do
