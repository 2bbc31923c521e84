"""Runs: enter an attempt at a batch, name it, ask for its end, record its end."""

from collections.abc import Mapping
from datetime import datetime

from ds_flow.core import RUN_MOVES, BatchError, BatchState, Dead, RetryAt, RunState
from ds_flow.ledger.batches import NO_REASONS, Batches
from ds_flow.ledger.events import ANALYSIS_FAILED, ANALYSIS_SUCCEEDED
from ds_flow.ledger.queries import Reading
from ds_flow.ledger.store import Store, text


class Runs:
    """Moves of runs, within the caller's transaction."""

    def __init__(self, store: Store, read: Reading, batches: Batches) -> None:
        self._store = store
        self._read = read
        self._batches = batches

    def id_of(self, batch: str, attempt: int) -> int:
        """The id of an attempt's row. Raises BatchError if there is none."""
        row = self._store.row(
            "SELECT id FROM run WHERE batch_id = ? AND attempt = ?", (batch, attempt)
        )
        if row is None:
            raise BatchError(f"no run {batch}/{attempt}")
        return int(row[0])

    def start(self, batch: str, now: datetime, at_least: int) -> int:
        """Enter the next attempt at a batch. Returns its number.

        `at_least` skips numbers that a person's `resume` has taken in the work directory.
        """
        self._batches.start(batch)
        attempt = max(self._read.next_attempt(batch), at_least)
        self.enter(batch, attempt, now)
        return attempt

    def enter(self, batch: str, attempt: int, now: datetime) -> None:
        """Insert a run that is starting."""
        run = self._store.insert(
            "INSERT INTO run (batch_id, attempt, state, started_at) VALUES (?, ?, ?, ?)",
            (batch, attempt, RunState.STARTING, text(now)),
        )
        self._store.note(now, "run.starting", batch_id=batch, run=run, detail=f"attempt {attempt}")

    def name(self, batch: str, attempt: int, run_id: str, now: datetime) -> None:
        """Record a started run's Run ID."""
        run = self.id_of(batch, attempt)
        self._store.change_one(
            "UPDATE run SET state = 'running', run_id = ? WHERE id = ? AND state = 'starting'",
            (run_id, run),
            f"run {batch}/{attempt}",
        )
        self._store.note(now, "run.running", batch_id=batch, run=run, detail=f"Run ID {run_id}")

    def ask_end(self, batch: str, state: RunState, why: str, now: datetime) -> None:
        """Record why a live run is about to be ended. A person's request replaces other reasons."""
        changed = self._store.change(
            "UPDATE run SET ending = ?, error = ?"
            " WHERE batch_id = ? AND ended_at IS NULL AND (ending IS NULL OR ? = 'cancelled')",
            (state, why, batch, state),
        )
        if changed:
            self._store.note(now, "run.ending", batch_id=batch, detail=why)

    def end(
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

        1. Move the run to its end.
        2. If a person's `resume` has published the batch meanwhile, nothing follows.
        3. Otherwise the batch is cancelled (`then` is None), dead, or starts again later.
        """
        self.move_to_end(batch, attempt, state, error=error, results=results, now=now)
        if self._batches.state(batch) != BatchState.RUNNING:
            return
        match then:
            case None:
                self._batches.end(batch, BatchState.CANCELLED, error, now)
            case Dead(why):
                last = f"{why}; last: {error}"
                self._batches.end(batch, BatchState.DEAD, last, now, reasons)
            case RetryAt(at):
                self._batches.retry_at(batch, at, now)

    def analyze_again(self, run_id: str, number: int, error: str, now: datetime) -> None:
        """Record what came of an analysis that was done again. The newest one counts."""
        changed = self._store.change(
            "UPDATE run SET analyses = ?, analysis_error = ? WHERE run_id = ? AND analyses < ?",
            (number, error, run_id, number),
        )
        if changed:
            batch, run = self._store.rows(
                "SELECT batch_id, id FROM run WHERE run_id = ?", (run_id,)
            )[0]
            kind = ANALYSIS_FAILED if error else ANALYSIS_SUCCEEDED
            detail = error or f"run {run_id}, done again"
            self._store.note(now, kind, batch_id=batch, run=run, detail=detail)

    def move_to_end(
        self,
        batch: str,
        attempt: int,
        state: RunState,
        *,
        error: str,
        results: int,
        now: datetime,
    ) -> int:
        """Move a run to its end. Returns its row's id."""
        run = self.id_of(batch, attempt)
        old = RunState(self._store.value("SELECT state FROM run WHERE id = ?", run, f"run {run}"))
        if state not in RUN_MOVES[old]:
            raise BatchError(f"run {batch}/{attempt}: {old} -> {state} is not a legal move")
        self._store.change_one(
            "UPDATE run SET state = ?, error = ?, results = ?, ended_at = ?"
            " WHERE id = ? AND state = ?",
            (state, error, results, text(now), run, old),
            f"run {batch}/{attempt}",
        )
        self._store.note(now, f"run.{state}", batch_id=batch, run=run, detail=error)
        return run
