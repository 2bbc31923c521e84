"""The ledger: every move of every file, batch and run. One public method is one transaction."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ds_flow.core import (
    LIVE_BATCHES,
    BatchState,
    Dead,
    FileState,
    Manifest,
    Plan,
    RequestError,
    RetryAt,
    RunState,
    Settled,
    Trigger,
)
from ds_flow.ledger.away import Away
from ds_flow.ledger.batches import NO_REASONS, Batches
from ds_flow.ledger.commits import Commits
from ds_flow.ledger.deliveries import Deliveries
from ds_flow.ledger.events import History
from ds_flow.ledger.families import Families
from ds_flow.ledger.figures import Figures
from ds_flow.ledger.files import Files
from ds_flow.ledger.lineage import Lineage
from ds_flow.ledger.moves import Moves
from ds_flow.ledger.names import Names
from ds_flow.ledger.overview import Overview
from ds_flow.ledger.pages import Pages
from ds_flow.ledger.pauses import Pauses
from ds_flow.ledger.queries import Reading
from ds_flow.ledger.read_only import Answer, ask
from ds_flow.ledger.runs import Runs
from ds_flow.ledger.schedules import Schedules
from ds_flow.ledger.sets import Sets
from ds_flow.ledger.store import Store


class Ledger:
    """The moves. Everything else has a name of its own: `read` is every question of the line."""

    def __init__(self, path: Path, store: Store | None = None) -> None:
        self._store = store or Store(path)
        self.read = Reading(self._store)
        self._files = Files(self._store)
        self._batches = Batches(self._store, self._files)
        self._runs = Runs(self._store, self.read, self._batches)
        self.deliveries = Deliveries(self._store)
        self._commits = Commits(
            self._store, self._files, self._batches, self._runs, self.deliveries
        )
        self.schedules = Schedules(self._store, self._batches)
        self.away = Away(self._store)
        self.pauses = Pauses(self._store)
        self.history = History(self._store)
        self.figures = Figures(self._store)
        self.lineage = Lineage(self._store)
        self.moves = Moves(self._store)
        self.overview = Overview(self._store)
        self.families = Families(self._store)
        self.pages = Pages(self._store)
        self.names = Names(self._store)
        self.sets = Sets(self._store)

    def back_up(self, file: Path) -> None:
        """Copy the ledger to a new file, whoever works with it. Raises FileExistsError."""
        self._store.back_up(file)

    def close(self) -> None:
        """Give the file back."""
        self._store.close()

    # ------------------------------------------------------------------ files

    def admit(self, settled: Iterable[Settled], now: datetime) -> list[tuple[str, FileState]]:
        """Enter what has finished arriving. Returns each path with its latest version's state."""
        with self._store.transaction():
            return [(item.sighting.path, self._files.admit(item, now)) for item in settled]

    def release(self, file: int, now: datetime) -> FileState:
        """Let a quarantined version wait again. Returns its state then.

        A version that was never read whole stays quarantined until it was looked at again.
        Raises RequestError if it is not quarantined.
        """
        with self._store.transaction():
            return self._files.release(file, now)

    # ------------------------------------------------------------------ batches

    def form(
        self,
        batch: str,
        file_ids: Sequence[int],
        trigger: Trigger,
        now: datetime,
        selection: str = "",
        *,
        detail: str = "",
        also: Collection[FileState] = (),
        notes: Mapping[str, str] = NO_REASONS,
    ) -> int:
        """Make a batch of those files that are free. Returns how many; without any, no batch.

        `also`: further states whose files it takes. `notes`: further events, by kind.
        """
        with self._store.transaction():
            return self._batches.form(
                batch,
                file_ids,
                trigger,
                now,
                detail=detail,
                selection=selection,
                also=also,
                notes=notes,
            )

    def leave_replaced(self, batch: str, now: datetime) -> int:
        """Let a batch that never started give up replaced versions; how many files are left.

        Without any left, it is cancelled.
        """
        with self._store.transaction():
            return self._batches.leave_replaced(batch, now)

    def split(self, batch: str, paths: Collection[str], new_batch: str, now: datetime) -> None:
        """Give some files of a batch that never started to a new batch."""
        with self._store.transaction():
            self._batches.split(batch, paths, new_batch, now)

    def retry(self, batch: str, new_batch: str, now: datetime) -> str:
        """Start a batch again by request. Returns the id of the batch that will run."""
        with self._store.transaction():
            return self._batches.retry_now(batch, new_batch, now)

    def hold_back(self, batch: str, why: str, now: datetime) -> bool:
        """Note once why a batch cannot start now; whether that is news."""
        with self._store.transaction():
            return self._batches.hold_back(batch, why, now)

    def cancel(self, batch: str, now: datetime) -> BatchState:
        """Cancel a batch. If it is running, ask for its run's end. Returns its state then."""
        with self._store.transaction():
            state = self._batches.state(batch)
            if state not in LIVE_BATCHES:
                raise RequestError(f"batch {batch} is {state} already")
            why = "cancelled by request"
            if state == BatchState.RUNNING:
                self._runs.ask_end(batch, RunState.CANCELLED, why, now)
                return state
            self._batches.end(batch, BatchState.CANCELLED, why, now)
            return BatchState.CANCELLED

    def restart(self, batch: str, new_batch: str, why: str, now: datetime) -> None:
        """Cancel a batch that has no live run, and give its files to a new one."""
        with self._store.transaction():
            self._batches.end(batch, BatchState.CANCELLED, why, now)
            self._batches.form_again(batch, new_batch, now)

    def adopt(self, plan: Plan, attempt: int, now: datetime) -> None:
        """Enter a batch that a lost ledger knew, from its plan, with its last attempt as live.

        How that attempt ended is found out as for any other.
        """
        with self._store.transaction():
            self._batches.adopt(plan, now)
            self._runs.enter(plan.batch, attempt, now)

    # ------------------------------------------------------------------ runs

    def start_run(self, batch: str, now: datetime, at_least: int = 1) -> int:
        """Enter the next attempt at a batch, before its process exists. Returns its number.

        `at_least` skips numbers that a person's `resume` has taken in the work directory.
        """
        with self._store.transaction():
            return self._runs.start(batch, now, at_least)

    def name_run(self, batch: str, attempt: int, run_id: str, now: datetime) -> None:
        """Record a started run's Run ID."""
        with self._store.transaction():
            self._runs.name(batch, attempt, run_id, now)

    def ask_end(self, batch: str, state: RunState, why: str, now: datetime) -> None:
        """Record why a live run is about to be ended, so that the reason outlives the asker."""
        with self._store.transaction():
            self._runs.ask_end(batch, state, why, now)

    def end_run(
        self,
        batch: str,
        attempt: int,
        state: RunState,
        *,
        error: str,
        results: int,
        then: RetryAt | Dead | None,
        now: datetime,
        reasons: Mapping[str, str] = NO_REASONS,
    ) -> None:
        """Record the end of a run that published nothing, and what follows from it.

        `then` is None for a cancelled run. `reasons` gives by path why a file failed, where that
        is known of it alone.
        """
        with self._store.transaction():
            self._runs.end(
                batch,
                attempt,
                state,
                error=error,
                results=results,
                then=then,
                now=now,
                reasons=reasons,
            )

    def record(self, manifest: Manifest, now: datetime, *, is_old: bool = False) -> bool:
        """Enter what a run published. Returns whether it was new to the ledger.

        `is_old`: a ledger before this one knew it, so it may have been handed over already.
        """
        with self._store.transaction():
            return self._commits.record(manifest, now, is_old=is_old)

    def record_analysis(self, run_id: str, number: int, error: str, now: datetime) -> None:
        """Enter what came of an analysis that was done again; `error` is "" if it succeeded."""
        with self._store.transaction():
            self._runs.analyze_again(run_id, number, error, now)


def ask_ledger(path: Path, question: Callable[[Ledger], Answer]) -> Answer:
    """Ask the ledger without creating or changing anything; the question may be asked again.

    Raises LedgerError, DispatchError.
    """
    return ask(path, lambda store: question(Ledger(path, store)))
