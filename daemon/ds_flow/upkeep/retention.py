"""Retention: what is kept for how long, and the removal of the rest (`ds-flow gc`)."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path

from ds_flow.core import BatchState, DispatchError, DsFlowError, Trigger, counted, unescape
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.system import (
    alone_in_store,
    empty_store_trash,
    paths_below,
    remove_stored_run,
    store_folder,
    stored_runs,
    unused_blobs,
)
from ds_flow.upkeep.child import only_one
from ds_flow.upkeep.receipt_files import old_receipts
from ds_flow.work import (
    Batch,
    all_logs,
    batches_in,
    find_manifest,
    is_committed,
    log_places,
    remove_outputs,
)

log = logging.getLogger(__name__)

DONE = "gc.done"
QUIET_DAYS = 1  # a run by hand that changed later may be alive, and the ledger does not know it
REMOVED_AT_ONCE = 100  # runs whose outputs go together
WAITS_FOR_RUNS = "a run is alive: unused Metaflow blobs are removed another time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outdated:
    """Something that is to be removed."""

    what: str
    name: str
    size_bytes: int
    count: int = 1
    remove: Callable[[], None]
    runs: tuple[str, ...] = ()  # whose outputs they are


@dataclass(slots=True)
class Collected:
    """What was removed, or would be, by kind; and what had to stay for now, with the reason."""

    counts: Counter[str] = field(default_factory=Counter)
    sizes_bytes: Counter[str] = field(default_factory=Counter)
    runs: list[str] = field(default_factory=list)  # whose outputs they were
    left: list[str] = field(default_factory=list)

    def add(self, one: Outdated) -> None:
        """Count one removal."""
        self.counts[one.what] += one.count
        self.sizes_bytes[one.what] += one.size_bytes
        self.runs += one.runs


@dataclass(frozen=True, slots=True)
class Retention:
    """One collection over one project. It may be killed at any point; the next one goes on."""

    settings: Settings
    ledger: Ledger
    now: datetime
    is_dry: bool

    def collect(self) -> Collected:
        """Remove what is outdated, and record that. Raises RequestError while another one runs."""
        found = Collected()
        with only_one(self.settings, "gc", "another `ds-flow gc` is running here"):
            for part in (
                self.logs,
                self.receipts,
                self.work,
                self.outputs,
                self.archive,
                self.metaflow_runs,
                self.events,
            ):
                for one in part():
                    self._take(one, found)
            self._sweep(found)
            if not self.is_dry:
                self.ledger.history.note(DONE, _summary(found), self.now)
        return found

    def _take(self, one: Outdated, found: Collected) -> None:
        if not self.is_dry:
            try:
                one.remove()
            except (OSError, DsFlowError) as error:  # the rest goes on
                log.warning("gc.left", extra={"what": one.what, "path": one.name, "why": error})
                found.left.append(f"{one.what} {one.name}: {error}")
                return
        found.add(one)

    def _before(self, days: float) -> datetime:
        return self.now - timedelta(days=days)

    # ------------------------------------------------------------------ what is outdated

    def logs(self) -> Iterator[Outdated]:
        """Logs of runs that have not been written to for long, except those of live runs."""
        before_s = self._before(self.settings.retention.log_days).timestamp()
        live = {
            path
            for run in self.ledger.read.live_runs()
            for path in log_places(self.settings.log_dir, run.batch, run.attempt, run.run_id)
        }
        for path in all_logs(self.settings.log_dir):
            with suppress(FileNotFoundError):
                status = path.stat()
                if status.st_mtime < before_s and path not in live:
                    yield _file("logs", path, status.st_size)

    def receipts(self) -> Iterator[Outdated]:
        """Receipts of files that are gone, as long after they were written as logs are kept."""
        before_s = self._before(self.settings.retention.log_days).timestamp()
        for path, size_bytes, remove in old_receipts(str(self.settings.inbox), before_s):
            yield Outdated(what="receipts", name=path, size_bytes=size_bytes, remove=remove)

    def work(self) -> Iterator[Outdated]:
        """Work directories of dead batches, and of runs by hand that never published."""
        before = self._before(self.settings.retention.work_days)
        for batch in batches_in(self.settings.output_dir):
            if self._is_given_up(batch) and _last_change_s(batch) < before.timestamp():
                yield Outdated(
                    what="work directories",
                    name=batch.id,
                    size_bytes=_size_bytes(batch.folder),
                    remove=batch.remove,
                )

    def _is_given_up(self, batch: Batch) -> bool:
        if self.ledger.read.has_live_run(batch.id):
            return False
        row = self.ledger.read.batch(batch.id)
        try:
            is_over = row.state == BatchState.DEAD if row else batch.plan.trigger == Trigger.MANUAL
            return is_over and not is_committed(batch)
        except (DsFlowError, OSError):
            return False

    def outputs(self) -> Iterator[Outdated]:
        """Outputs of runs whose every file was published again, if the settings ask for that."""
        history, keep = self.ledger.history, self.settings.retention
        if keep.output_days is not None:
            why = f"replaced, and older than {keep.output_days:g} days"
            runs = history.replaced_runs(self._before(keep.output_days), 1)
            yield from self._outputs_of(runs, why)
        if keep.output_count is not None:
            why = f"replaced by {counted(keep.output_count, 'newer run')}"
            runs = history.replaced_runs(self.now, keep.output_count)
            yield from self._outputs_of(runs, why)

    def _outputs_of(self, runs: Iterable[str], why: str) -> Iterator[Outdated]:
        """In groups, since each removal costs a few flushes of the disk."""
        free = filter(self._is_recorded, runs)
        while some := tuple(islice(free, REMOVED_AT_ONCE)):
            names = [name for run_id in some for name in self.ledger.read.outputs(run_id)]
            yield Outdated(
                what="outputs",
                name=f"of run {some[0]} to {some[-1]}",
                size_bytes=sum(_file_bytes(self.settings.output_dir / name) for name in names),
                count=len(names),
                remove=partial(self._remove_outputs, some, why),
                runs=some,
            )

    def archive(self) -> Iterator[Outdated]:
        """Inputs that were archived long ago, if the settings ask for that."""
        days = self.settings.retention.archive_days
        if days is None:
            return
        why = f"archived for longer than {days:g} days"
        for some in self.ledger.away.kept(self._before(days)):
            paths = [self.settings.root / unescape(to) for _, to in some]
            yield Outdated(
                what="archived inputs",
                name=f"{some[0][1]} to {some[-1][1]}",
                size_bytes=sum(map(_file_bytes, paths)),
                count=len(some),
                remove=partial(self._remove_archived, [file for file, _ in some], paths, why),
            )

    def _remove_archived(self, files: Sequence[int], paths: Sequence[Path], why: str) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
            with suppress(OSError, ValueError):  # it has other files; it is in another folder
                for folder in path.relative_to(self.settings.archive_dir).parents:
                    (self.settings.archive_dir / folder).rmdir()
        self.ledger.away.forget(files, why, self.now)

    def _is_recorded(self, run_id: str) -> bool:
        """Whether this run's publication is complete and recorded."""
        run = self.ledger.read.run(run_id)
        is_open = run is not None and (self.settings.work_root / run.batch).exists()
        return not is_open and find_manifest(self.settings.output_dir, run_id) is not None

    def _remove_outputs(self, runs: Sequence[str], why: str) -> None:
        remove_outputs(self.settings.output_dir, runs)
        self.ledger.history.remove_outputs(runs, why, self.now)
        for run_id in runs:
            log.info("run.removed", extra={"run_id": run_id, "why": why})

    def metaflow_runs(self) -> Iterator[Outdated]:
        """Metaflow's folders of runs that have not changed for long, or that are too many."""
        keep = self.settings.retention
        before_s = self._before(keep.metaflow_days).timestamp()
        quiet_s = self._before(QUIET_DAYS).timestamp()
        live = {run.run_id for run in self.ledger.read.live_runs()}
        stored = sorted(stored_runs(self.settings.root), key=lambda run: -run.touched_s)
        for number, run in enumerate(stored, start=2):  # the latest one is not among them
            is_over = number > keep.metaflow_count and run.touched_s < quiet_s
            if (run.touched_s < before_s or is_over) and run.path.name not in live:
                yield Outdated(
                    what="Metaflow runs",
                    name=run.path.name,
                    size_bytes=_size_bytes(run.path),
                    remove=partial(remove_stored_run, run.path),
                )

    def _sweep(self, found: Collected) -> None:
        """Remove the blobs that no run refers to, while no run is alive and none can start."""
        root = self.settings.root
        if not store_folder(root).is_dir():
            return
        try:
            with alone_in_store(root) as is_alone:
                if not is_alone:
                    found.left.append(WAITS_FOR_RUNS)
                    return
                if not self.is_dry:
                    empty_store_trash(store_folder(root))
                going = {one.name for one in self.metaflow_runs()} if self.is_dry else set()
                for blob in unused_blobs(root, going):
                    self._take(_file("Metaflow blobs", blob, _file_bytes(blob)), found)
        except (OSError, DispatchError) as error:
            log.warning("gc.left", extra={"what": "Metaflow blobs", "why": error})
            found.left.append(str(error))

    def events(self) -> Iterator[Outdated]:
        """Old events, except the last one of each file, run, batch and kind."""
        history = self.ledger.history
        for some in history.old_events(self._before(self.settings.retention.event_days)):
            yield Outdated(
                what="events",
                name=f"{some[0]} to {some[-1]}",
                size_bytes=0,  # the ledger reuses the space and does not shrink
                count=len(some),
                remove=partial(history.forget, some),
            )


def _summary(found: Collected) -> str:
    counts = ", ".join(f"{count} {what}" for what, count in sorted(found.counts.items()))
    return counts or "nothing to remove"


def _file(what: str, path: Path, size_bytes: int) -> Outdated:
    return Outdated(
        what=what,
        name=str(path),
        size_bytes=size_bytes,
        remove=partial(path.unlink, missing_ok=True),
    )


def _file_bytes(path: Path) -> int:
    """Bytes that removing this name frees: none while the file has another name.

    A job could leave a path that is too long, or a link to anything.
    """
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_blocks * 512 if status.st_nlink == 1 else 0


def _size_bytes(folder: Path) -> int:
    return sum(map(_file_bytes, paths_below(folder)))


def _last_change_s(batch: Batch) -> float:
    """When an attempt last changed something here, in seconds since the epoch."""
    last = batch.last_attempt()
    return max(batch.folder.stat().st_mtime, batch.last_progress_ns(last) / 1e9)
