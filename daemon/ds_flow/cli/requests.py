"""What a person asks for: recorded in the ledger, then left to the daemon or worked off here."""

import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Self, TypeVar

from ds_flow.cli.lookup import find_batch, find_place
from ds_flow.cli.progress import shown
from ds_flow.cli.report import opened
from ds_flow.core import BatchState, Cause, FileState, RequestError, Trigger, counted
from ds_flow.dispatch import has_jobs_elsewhere
from ds_flow.ledger import LEFT_OUT, RUN_PREFIX, FileRow, Ledger, Reading
from ds_flow.runs import cancel_batch_jobs, tidy_work_dir
from ds_flow.schedules import choose_files, selected_files
from ds_flow.service import Service, service
from ds_flow.settings import Settings
from ds_flow.system import DONE, FAILED, INTERRUPTED, put, running_pid, say, wake_daemon

NAMED_OUTPUTS = 20  # of one run, in the summary
POLL_SECONDS = 0.1
CANCEL_SECONDS = 60.0  # that a person waits for a cluster

Item = TypeVar("Item")


# --------------------------------------------------------------------------- working here


@dataclass(frozen=True, slots=True)
class Tally:
    """What there was before some work, to tell what came of it."""

    published: set[str]
    quarantined: set[int]
    dead: set[str]

    @classmethod
    def of(cls, read: Reading) -> Self:
        """Count what is there now."""
        return cls(
            read.run_ids(),
            {row.id for row in read.files_in(FileState.QUARANTINED)},
            {batch.id for batch in read.batches_in(BatchState.DEAD)},
        )


def work_off(chosen: Settings, judged_anew: Collection[int] = ()) -> int:
    """Work off everything that is there, and say what came of it; the exit code.

    `judged_anew`: quarantined files that count as new ones if they are so at the end, too.
    Raises RequestError if a daemon is running.
    """
    with service(chosen) as made:
        ledger = made.engine.ledger
        before = Tally.of(ledger.read)
        before.quarantined.difference_update(judged_anew)
        with shown(chosen):
            made.once()
        code = _summarize(chosen, ledger, before)
        if made.stops:
            return INTERRUPTED
        if lost := made.engine.admission.inbox_error:
            say(lost)
            return FAILED
        return code


def _summarize(chosen: Settings, ledger: Ledger, before: Tally) -> int:
    read = ledger.read
    news = read.run_ids() - before.published
    published = [run for run in read.runs() if run.run_id in news]
    for run in published:
        names = read.outputs(run.run_id or "")
        files = counted(len(read.batch_paths(run.batch)), "file")
        put(f"run {run.run_id}: {files}, {counted(len(names), 'output')}")
        for name in names[:NAMED_OUTPUTS]:
            put(f"  {os.path.relpath(chosen.output_dir / name, chosen.root)}")
        if len(names) > NAMED_OUTPUTS:
            put(f"  and {len(names) - NAMED_OUTPUTS} more: ds-flow show {run.run_id}")
    set_aside = [one for run in published for one in ledger.history.set_aside(run.batch)]
    told = [f"left out: {path}: {why}" for kind, path, why in set_aside if kind == LEFT_OUT]
    told += [
        f"analysis failed: run {run.run_id}: {why}"
        for run in published
        for why in ledger.history.failed_analyses(run.batch)
    ]
    told += [
        f"quarantined: {row.path}: {row.reason}"
        for row in read.files_in(FileState.QUARANTINED)
        if row.id not in before.quarantined
    ]
    told += [
        f"dead: batch {batch.id}: {batch.reason}"
        for batch in read.batches_in(BatchState.DEAD)
        if batch.id not in before.dead
    ]
    for line in told:
        put(line)
    if not (published or told):
        put("nothing new")
    return FAILED if told else DONE


def _carry_out(chosen: Settings, *, no_wait: bool, judged_anew: Collection[int] = ()) -> int:
    """See to it that a recorded wish is done: by the daemon, else here; the exit code."""
    if _wake(chosen):
        return DONE
    if no_wait:
        say("no daemon is running: this is done by the next `ds-flow once` or `ds-flow serve`")
        return DONE
    return work_off(chosen, judged_anew)


def _wake(chosen: Settings) -> bool:
    try:
        return wake_daemon(chosen)
    except PermissionError:
        say(f"the daemon (pid {running_pid(chosen)}) is another user's: it learns of this in time")
        return True


def _each(items: Iterable[Item], record: Callable[[Item], str]) -> tuple[int, int]:
    """Record one wish after the other, printing what became of it; how many, and how many not."""
    recorded = refused = 0
    for item in items:
        try:
            put(record(item))
            recorded += 1
        except RequestError as error:
            say(str(error))
            refused += 1
    return recorded, refused


# --------------------------------------------------------------------------- retry, cancel


def retry(chosen: Settings, names: Iterable[str], now: datetime, *, no_wait: bool) -> int:
    """Start the next attempt of batches at once, of a dead one as a new batch; the exit code."""
    with opened(chosen, now) as ledger:
        recorded, refused = _each(names, partial(_retry, ledger, now))
    code = _carry_out(chosen, no_wait=no_wait) if recorded else DONE
    return code or min(refused, FAILED)


def _retry(ledger: Ledger, now: datetime, name: str) -> str:
    batch = find_batch(ledger, name)
    again = ledger.retry(batch, secrets.token_hex(5), now)
    return f"batch {batch}: tried again at once" + (f", as batch {again}" * (again != batch))


def cancel(chosen: Settings, names: Iterable[str], now: datetime, *, no_wait: bool) -> int:
    """Cancel batches, and end their runs; the exit code."""
    running: list[str] = []
    with opened(chosen, now) as ledger:
        recorded, refused = _each(names, partial(_cancel, chosen, ledger, running, now))
    code = min(refused, FAILED)
    if not recorded or _wake(chosen) or not running:
        return code
    if no_wait:
        return _carry_out(chosen, no_wait=True) or code
    with service(chosen) as made:
        return _follow_ends(made, running) or code


def _cancel(chosen: Settings, ledger: Ledger, running: list[str], now: datetime, name: str) -> str:
    batch = find_batch(ledger, name)
    if ledger.cancel(batch, now) == BatchState.CANCELLED:
        return f"batch {batch}: cancelled{_end_jobs(chosen, ledger, batch)}"
    running.append(batch)
    return f"batch {batch}: its run is being ended"


def _end_jobs(chosen: Settings, ledger: Ledger, batch: str) -> str:
    """End the jobs that a batch without a run has left elsewhere; a remark if some stay."""
    work = chosen.work_root / batch
    is_elsewhere = has_jobs_elsewhere(work / "jobs")
    environ = chosen.run_environment(os.environ)
    live = cancel_batch_jobs(work, environ, CANCEL_SECONDS) if is_elsewhere else []
    if not live:
        tidy_work_dir(ledger, work)
    return f"; jobs of {', '.join(live)} could not be ended" if live else ""


def _follow_ends(made: Service, batches: Collection[str]) -> int:
    """Follow the runs of these batches to their ends, and start nothing; the exit code."""
    made.engine.is_draining = True
    read = made.engine.ledger.read
    while any(map(read.has_live_run, batches)):
        if made.stops:
            return INTERRUPTED
        if not made.engine.tick():
            made.wake.wait(POLL_SECONDS)
    for batch in map(read.batch, batches):
        if batch is not None:
            put(f"batch {batch.id}: {batch.state}")
    return DONE


# --------------------------------------------------------------------------- release


def release(
    chosen: Settings, typed: Iterable[str] | None, cwd: str, now: datetime, *, no_wait: bool
) -> int:
    """Let quarantined files wait again, all of them if `typed` is None; the exit code."""
    with opened(chosen, now) as ledger:
        if typed is None:
            rows = list(ledger.read.files_in(FileState.QUARANTINED))
            paths = [row.path for row in rows if row.cause != Cause.NAME]
            if len(paths) < len(rows):
                say(f"{counted(len(rows) - len(paths), 'file')} must be renamed first")
        else:
            paths = [find_place(chosen, ledger, one, cwd).path for one in typed]
        released: list[int] = []
        record = partial(_release, ledger, released, now)
        recorded, refused = _each(dict.fromkeys(paths), record)
    if not recorded and not refused:
        put("nothing is quarantined that could be released")
    code = _carry_out(chosen, no_wait=no_wait, judged_anew=released) if recorded else DONE
    return code or min(refused, FAILED)


def _release(ledger: Ledger, released: list[int], now: datetime, path: str) -> str:
    versions = ledger.read.versions(path)
    if not versions:
        raise RequestError(f"{path} is not known; `ds-flow explain` says more")
    set_aside = [row for row in versions if row.state == FileState.QUARANTINED]
    row = set_aside[-1] if set_aside else versions[-1]
    state = ledger.release(row.id, now)
    released.append(row.id)
    become = "to be looked at again" if state == FileState.QUARANTINED else state
    return f"{row.path} version {row.version}: {become}"


# --------------------------------------------------------------------------- rerun


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which files a rerun is to take: those of runs, single ones, all published, all failed."""

    runs: Collection[str] = ()
    files: Collection[str] = ()
    is_all: bool = False
    is_failed: bool = False

    @property
    def selection(self) -> str:
        """The name of what it is over, as schedules have it, or "" if it has none."""
        if self.is_all or self.is_failed:
            return "all" if self.is_all else "failed"
        return f"{RUN_PREFIX}{next(iter(self.runs))}" if len(self.runs) == 1 else ""


def rerun(chosen: Settings, wanted: Wanted, cwd: str, now: datetime, *, no_wait: bool) -> int:
    """Run the newest versions of files once more, as one batch; the exit code.

    What is gone or claimed is named and left out. Raises RequestError if nothing is left.
    """
    with opened(chosen, now) as ledger:
        choice = choose_files(chosen, _rows(chosen, ledger, wanted, cwd))
        for path, why in choice.left_out.items():
            say(f"left out: {path} {why}")
        batch = secrets.token_hex(5)
        ids = [row.id for row in choice.free]
        files = ledger.form(batch, ids, Trigger.RERUN, now, wanted.selection)
        if not files:
            raise RequestError("nothing to rerun: no such file is published, there and unclaimed")
        put(f"batch {batch}: {counted(files, 'file')}")
    return _carry_out(chosen, no_wait=no_wait)


def _rows(chosen: Settings, ledger: Ledger, wanted: Wanted, cwd: str) -> Iterator[FileRow]:
    if wanted.is_all or wanted.is_failed:
        yield from selected_files(chosen, ledger.read, wanted.selection)
        return
    named = [find_place(chosen, ledger, one, cwd).path for one in wanted.files]
    for name in wanted.runs:
        named += ledger.read.batch_paths(find_batch(ledger, name))
    known = {row.path: row for row in ledger.read.latest(list(dict.fromkeys(named)))}
    for path in dict.fromkeys(named):
        if path in known:
            yield known[path]
        else:
            say(f"left out: {path} is not known")


# --------------------------------------------------------------------------- schedules


def fire(chosen: Settings, name: str, now: datetime, *, no_wait: bool) -> int:
    """Fire a schedule now; the exit code. Raises RequestError if there is none of that name."""
    named = {one.name: one for one in chosen.schedule}
    if name not in named:
        known = ", ".join(named) or "there is none"
        raise RequestError(f"no schedule {name!r} in {chosen.file}: {known}")
    with opened(chosen, now) as ledger:
        before = ledger.schedules.last(name)
        ledger.schedules.ask(name, named[name].timetable, now)
    put(f"schedule {name}: fires now")
    code = _carry_out(chosen, no_wait=no_wait)
    with opened(chosen, now) as ledger:
        last = ledger.schedules.last(name)
    if last is not None and last != before:
        put(f"schedule {name}: {last.fire.outcome}: {last.fire.detail}".rstrip(": "))
    return code
