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
    Batch,
    analysis_name,
    batches_in,
    manifest_name,
    measured,
    publish_analysis,
    read_analysis,
    read_manifest,
    run_log,
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
    batch = _batch_of(settings, run_id, record)
    with _alone(batch, run_id) as lock:
        if not batch.analysis.exists():
            _link_combined(settings, batch, run_id, combined)
            _run(settings, batch, run_id, combined, lock)
        return _finish(batch, run_id, record)


def _combined_name(settings: Settings, run_id: str) -> str:
    try:
        manifest = read_manifest(settings.output_dir / manifest_name(run_id))
    except FileNotFoundError:
        raise RequestError(f"run {run_id}: its outputs are not there any more") from None
    name = next((output.name for output in manifest.outputs if not output.source), "")
    if not name:
        raise RequestError(f"run {run_id} has no combined file")
    return name


def _link_combined(settings: Settings, batch: Batch, run_id: str, name: str) -> None:
    """Give the combined file a name in the work directory: a container sees nothing else of ours.

    Raises RequestError if it is gone or is not as it was published.
    """
    manifest = read_manifest(settings.output_dir / manifest_name(run_id))
    published = next(output for output in manifest.outputs if output.name == name)
    target = batch.combined / name
    target.parent.mkdir(exist_ok=True)
    try:
        link_new(settings.output_dir / name, target)
        is_same = measured(target) == (published.sha256, published.bytes)
    except FileNotFoundError:
        is_same = False
    if not is_same:
        batch.remove()
        raise RequestError(f"{name} is not as it was published: ds-flow verify {run_id}")


# --------------------------------------------------------------------------- the work directory


def _batch_of(settings: Settings, run_id: str, record: Record) -> Batch:
    """Find what an interrupted call left, or plan anew.

    What was begun under other settings is ended first; if it has a result, that is kept.
    """
    options, selection = settings.options(), f"analysis:{run_id}"
    for batch in _left(settings, selection):
        if batch.plan.options == options:
            return batch
        with _alone(batch, run_id):
            if batch.analysis.exists():
                _finish(batch, run_id, record)
            else:
                _end(settings, batch)
    plan = Plan(
        batch=secrets.token_hex(5),
        trigger=Trigger.MANUAL,
        formed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        files=(),
        options=options,
        selection=selection,
    )
    return Batch.create(settings.output_dir, plan)


def _left(settings: Settings, selection: str) -> Iterator[Batch]:
    for batch in batches_in(settings.output_dir):
        with suppress(DsFlowError, OSError):  # another batch's, and named elsewhere
            if (batch.plan.trigger, batch.plan.selection) == (Trigger.MANUAL, selection):
                yield batch


@contextmanager
def _alone(batch: Batch, run_id: str) -> Iterator[int]:
    """Hold a work directory's lock. The analysis inherits it, and may outlive this process."""
    try:
        lock = open_log(batch.folder / "lock", 0o600)
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


def _run(settings: Settings, batch: Batch, run_id: str, combined: str, lock: int) -> None:
    """Run the analysis to its end. Raises DispatchError if it leaves no result.

    A person who interrupts it ends it: nothing of it is left.
    """
    number = batch.new_attempt()
    own = {ATTEMPT_MARK: f"{batch.id}/{number}", "TMPDIR": str(batch.scratch)}
    log_file = run_log(settings.log_dir, run_id)
    with os.fdopen(open_log(log_file, 0o640), "ab") as output:
        child = subprocess.Popen(
            [
                sys.executable,
                str(SCRIPT),
                str(batch.folder),
                run_id,
                str(batch.combined / combined),
            ],
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
        _end(settings, batch)
        raise
    if batch.analysis.exists():
        return
    said = read_word(batch.attempt_dir(number) / "error") or f"exit code {code}: see {log_file}"
    if not has_jobs_elsewhere(batch.jobs):
        batch.remove()
    raise DispatchError(f"run {run_id}: the analysis could not be run: {said}")


def _end(settings: Settings, batch: Batch) -> None:
    """End an analysis and remove its work directory. Raises DispatchError if its jobs go on."""
    for number in range(1, batch.last_attempt() + 1):
        Runs().kill(batch.id, number)
    environ = settings.run_environment(os.environ)
    if left := cancel_batch_jobs(batch, environ, ENDING_SECONDS):
        raise DispatchError(f"these jobs may be alive; end them by hand: {', '.join(left)}")
    batch.remove()


def _finish(batch: Batch, run_id: str, record: Record) -> Analyzed:
    error: str = read_analysis(batch.analysis)["error"]
    number = publish_analysis(batch, run_id)
    record(number, error)
    batch.remove()
    return Analyzed(analysis_name(run_id, number), error)
