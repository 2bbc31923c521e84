"""An analysis that is done again, over the combined file that its run published."""

import fcntl
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ds_flow.core import (
    ATTEMPT_MARK,
    CHECKOUT,
    DispatchError,
    DsFlowError,
    Plan,
    RequestError,
    Trigger,
)
from ds_flow.dispatch import has_jobs_elsewhere
from ds_flow.runs.kill_jobs import cancel_batch_jobs
from ds_flow.runs.launch import Runs
from ds_flow.settings import Settings
from ds_flow.system import link_new, open_log, read_word
from ds_flow.work import (
    ANALYSIS,
    analysis_name,
    attempt_dir,
    create_work_dir,
    last_attempt,
    manifest_name,
    measured,
    new_attempt,
    publish_analysis,
    read_analysis,
    read_manifest,
    read_plan,
    remove_work_dir,
    scratch,
    work_dirs,
)

SCRIPT = CHECKOUT / "flows" / "steps" / "analyze_again.py"
ENDING_SECONDS = 60.0  # for jobs elsewhere that nobody waits for any more

Record = Callable[[int, str], None]
"""Enters the number of a published analysis, and why it failed, in the ledger."""


@dataclass(frozen=True, slots=True)
class Analyzed:
    """What came of an analysis: its file in the output folder, and why it failed."""

    name: str
    error: str


def analyze_again(settings: Settings, run_id: str, record: Record) -> Analyzed:
    """Do the analysis of a published run again, and wait for its end.

    It may be killed at any moment. The next call goes on from what is on disk. Raises RequestError
    if there is nothing to analyze, DispatchError if the analysis could not be run.

    1. Take up the work directory that an interrupted call left, or make one.
    2. Link the published combined file into it, and compare its hash with the manifest.
    3. Run the analysis in a process of its own, as an attempt in that directory.
    4. Publish the result under the run's next number, and record it.
    5. Remove the work directory.
    """
    if not settings.stages["analyze"].command:
        raise RequestError("compute.stages.analyze.command is empty: there is no analysis")
    combined = _combined_name(settings, run_id)
    work = _work_dir(settings, run_id, record)
    with _alone(work, run_id) as lock:
        if not (work / ANALYSIS).exists():
            _link_combined(settings, work, run_id, combined)
            _run(settings, work, run_id, combined, lock)
        return _finish(settings, work, run_id, record)


def _combined_name(settings: Settings, run_id: str) -> str:
    try:
        manifest = read_manifest(settings.output_dir / manifest_name(run_id))
    except FileNotFoundError:
        raise RequestError(f"run {run_id}: its outputs are not there any more") from None
    name = next((output.name for output in manifest.outputs if not output.source), "")
    if not name:
        raise RequestError(f"run {run_id} has no combined file")
    return name


def _link_combined(settings: Settings, work: Path, run_id: str, name: str) -> None:
    """Give the combined file a name in the work directory: a container sees nothing else of ours.

    Raises RequestError if it is gone or is not as it was published.
    """
    manifest = read_manifest(settings.output_dir / manifest_name(run_id))
    published = next(output for output in manifest.outputs if output.name == name)
    target = work / "combined" / name
    target.parent.mkdir(exist_ok=True)
    try:
        link_new(settings.output_dir / name, target)
        is_same = measured(target) == (published.sha256, published.bytes)
    except FileNotFoundError:
        is_same = False
    if not is_same:
        remove_work_dir(work)
        raise RequestError(f"{name} is not as it was published: ds-flow verify {run_id}")


# --------------------------------------------------------------------------- the work directory


def _work_dir(settings: Settings, run_id: str, record: Record) -> Path:
    """Find what an interrupted call left, or plan anew.

    What was begun under other settings is ended first; if it has a result, that is kept.
    """
    options, selection = settings.options(), f"analysis:{run_id}"
    for work in _left(settings, selection):
        if read_plan(work).options == options:
            return work
        with _alone(work, run_id):
            if (work / ANALYSIS).exists():
                _finish(settings, work, run_id, record)
            else:
                _end(settings, work)
    plan = Plan(
        batch=secrets.token_hex(5),
        trigger=Trigger.MANUAL,
        formed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        files=(),
        options=options,
        selection=selection,
    )
    return create_work_dir(settings.output_dir, plan)


def _left(settings: Settings, selection: str) -> Iterator[Path]:
    for work in work_dirs(settings.output_dir):
        with suppress(DsFlowError, OSError):  # another batch's, and named elsewhere
            plan = read_plan(work)
            if plan.trigger == Trigger.MANUAL and plan.selection == selection:
                yield work


@contextmanager
def _alone(work: Path, run_id: str) -> Iterator[int]:
    """Hold a work directory's lock. The analysis inherits it, and may outlive this process."""
    try:
        lock = open_log(work / "lock", 0o600)
    except FileNotFoundError:
        raise RequestError(f"run {run_id} was analyzed just now: ds-flow show {run_id}") from None
    try:
        _lock(lock, run_id)
        yield lock
    finally:
        os.close(lock)


def _lock(lock: int, run_id: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RequestError(f"run {run_id} is being analyzed already") from None


# --------------------------------------------------------------------------- the analysis


def _run(settings: Settings, work: Path, run_id: str, combined: str, lock: int) -> None:
    """Run the analysis to its end. Raises DispatchError if it leaves no result.

    A person who interrupts it ends it: nothing of it is left.
    """
    number = new_attempt(work)
    own = {ATTEMPT_MARK: f"{work.name}/{number}", "TMPDIR": str(scratch(work))}
    log_file = settings.log_dir / f"run_{run_id}.log"
    with os.fdopen(open_log(log_file, 0o640), "ab") as output:
        child = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(work), run_id, str(work / "combined" / combined)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.root,
            env={**settings.run_environment(os.environ), **own},
            pass_fds=[lock],
        )
    try:
        code = child.wait()
    except KeyboardInterrupt:
        _end(settings, work)
        raise
    if (work / ANALYSIS).exists():
        return
    said = read_word(attempt_dir(work, number) / "error") or f"exit code {code}: see {log_file}"
    if not has_jobs_elsewhere(work / "jobs"):
        remove_work_dir(work)
    raise DispatchError(f"run {run_id}: the analysis could not be run: {said}")


def _end(settings: Settings, work: Path) -> None:
    """End an analysis and remove its work directory. Raises DispatchError if its jobs go on."""
    for number in range(1, last_attempt(work) + 1):
        Runs().kill(work.name, number)
    environ = settings.run_environment(os.environ)
    if left := cancel_batch_jobs(work, environ, ENDING_SECONDS):
        raise DispatchError(f"these jobs may be alive; end them by hand: {', '.join(left)}")
    remove_work_dir(work)


def _finish(settings: Settings, work: Path, run_id: str, record: Record) -> Analyzed:
    error: str = read_analysis(work / ANALYSIS)["error"]
    number = publish_analysis(work, settings.output_dir, run_id)
    record(number, error)
    remove_work_dir(work)
    return Analyzed(analysis_name(run_id, number), error)
