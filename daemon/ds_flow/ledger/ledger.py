"""The ledger: every move of every file, batch and run. One public method is one transaction."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from ds_flow.core import (
    BATCH_MOVES,
    LIVE_BATCHES,
    TAKEN,
    BatchError,
    BatchState,
    Cause,
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
from ds_flow.ledger.events import History
from ds_flow.ledger.files import Versions
from ds_flow.ledger.moves import Recording
from ds_flow.ledger.queries import Reading
from ds_flow.ledger.schedules import Schedules
from ds_flow.ledger.store import Store, text

NO_REASONS: Mapping[str, str] = MappingProxyType({})


class Ledger:
    """The writers' side; `read` is the readers', and what is about no single thing stands apart."""

    def __init__(self, path: Path) -> None:
        self._store = Store(path)
        self._moves = Recording(self._store)
        self._versions = Versions(self._store, self._moves)
        self.read = Reading(self._store)
        self.schedules = Schedules(self._store, self._moves, self._form)
        self.history = History(self._store, self._moves)

    def close(self) -> None:
        """Give the file back."""
        self._store.close()

    # ------------------------------------------------------------------ files

    def admit(self, settled: Iterable[Settled], now: datetime) -> list[tuple[str, FileState]]:
        """Enter what has finished arriving; each path with the state of its latest version."""
        with self._store.transaction():
            return [(item.sighting.path, self._versions.admit(item, now)) for item in settled]

    def release(self, file: int, now: datetime) -> FileState:
        """Let a quarantined version wait again; its state then.

        One that was never read whole is looked at again first, and stays set aside until then.
        Raises RequestError if it is not quarantined.
        """
        with self._store.transaction():
            return self._versions.release(file, now)

    # ------------------------------------------------------------------ batches

    def form(
        self,
        batch: str,
        file_ids: Sequence[int],
        trigger: Trigger,
        now: datetime,
        selection: str = "",
    ) -> int:
        """Claim for a new batch those files that it may take still; how many. None make no batch.

        Waiting files become batched; a processed one stays so, and only its claim is new.
        """
        with self._store.transaction():
            return self._form(batch, file_ids, trigger, now, selection=selection)

    def _form(
        self,
        batch: str,
        file_ids: Sequence[int],
        trigger: Trigger,
        now: datetime,
        *,
        detail: str = "",
        selection: str = "",
    ) -> int:
        states = {file: self._unclaimed_state(file) for file in file_ids}
        free = {file: state for file, state in states.items() if state in TAKEN[trigger]}
        if not free:
            return 0
        self._store.insert(
            "INSERT INTO batch (id, state, trigger, formed_at, due_at, selection)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (batch, BatchState.QUEUED, trigger, text(now), text(now), selection),
        )
        self._store.change_many(
            "INSERT INTO batch_file (batch_id, file_id) VALUES (?, ?)",
            ((batch, file) for file in free),
        )
        said = ", ".join(filter(None, (f"{len(free)} files", detail)))
        self._moves.note(now, "batch.queued", batch_id=batch, detail=said)
        for file, state in free.items():
            if state == FileState.QUARANTINED:
                self._moves.move_file(file, FileState.WAITING, now, reason=f"{trigger}")
            if state != FileState.PROCESSED:
                self._moves.move_file(file, FileState.BATCHED, now, batch=batch)
        return len(free)

    def _unclaimed_state(self, file: int) -> FileState | None:
        """Read a version's state now; None while a live batch claims it."""
        row = self._store.row(
            "SELECT state FROM file WHERE id = ? AND NOT EXISTS"
            " (SELECT 1 FROM batch_file WHERE file_id = file.id AND live)",
            (file,),
        )
        return FileState(row[0]) if row else None

    def retry(self, batch: str, new_batch: str, now: datetime) -> str:
        """Start a batch's next attempt at once; the id of the batch that will run.

        A dead batch stays dead: what it left quarantined becomes `new_batch`.
        """
        with self._store.transaction():
            state = self._moves.batch_state(batch)
            if state == BatchState.RETRYING:
                self._store.change("UPDATE batch SET due_at = ? WHERE id = ?", (text(now), batch))
                self._moves.note(
                    now, "batch.retrying", batch_id=batch, detail="at once, by request"
                )
                return batch
            if state != BatchState.DEAD:
                raise RequestError(
                    f"batch {batch} is {state}; only a retrying or dead one can be retried"
                )
            left = self._store.rows(
                "SELECT file.id FROM batch_file JOIN file ON file.id = file_id"
                " WHERE batch_id = ? AND state = 'quarantined' AND cause = 'dead'"
                " AND NOT EXISTS (SELECT 1 FROM file AS newer WHERE newer.path = file.path"
                "                 AND newer.version > file.version) ORDER BY file.id",
                (batch,),
            )
            if not left:
                raise RequestError(f"batch {batch}: none of its files is left to retry")
            files = [row[0] for row in left]
            self._form(new_batch, files, Trigger.RETRY, now, detail=f"retries {batch}")
            return new_batch

    def cancel(self, batch: str, now: datetime) -> BatchState:
        """Cancel a batch, or ask for its run's end if it is running; its state then."""
        with self._store.transaction():
            state = self._moves.batch_state(batch)
            if state not in LIVE_BATCHES:
                raise RequestError(f"batch {batch} is {state} already")
            if state == BatchState.RUNNING:
                self._ask_end(batch, RunState.CANCELLED, "cancelled by request", now)
                return state
            self._end_batch(batch, BatchState.CANCELLED, "cancelled by request", now)
            return BatchState.CANCELLED

    def _end_batch(
        self,
        batch: str,
        new: BatchState,
        why: str,
        now: datetime,
        reasons: Mapping[str, str] = NO_REASONS,
    ) -> None:
        """End a batch without a result: its files are quarantined, with their own reasons first."""
        old = self._moves.batch_state(batch)
        if new not in BATCH_MOVES[old]:
            raise BatchError(f"batch {batch}: {old} -> {new} is not a legal move")
        self._store.change_one(
            "UPDATE batch SET state = ?, ended_at = ?, reason = ? WHERE id = ? AND state = ?",
            (new, text(now), why, batch, old),
            f"batch {batch}",
        )
        self._moves.note(now, f"batch.{new}", batch_id=batch, detail=why)
        cause = Cause.DEAD if new == BatchState.DEAD else Cause.CANCELLED
        for file, path in self._moves.unended_files(batch):
            own = reasons.get(path)
            reason = f"{own} (batch {batch} is {new})" if own else f"batch {batch}: {why}"
            self._moves.move_file(file, FileState.QUARANTINED, now, cause, reason, batch=batch)

    def adopt(self, plan: Plan, attempt: int, now: datetime) -> None:
        """Enter a batch that a lost ledger knew, from its plan, with its last attempt as live.

        What became of that attempt is learnt as of any other.
        """
        with self._store.transaction():
            self._moves.adopt(plan, attempt, now)

    # ------------------------------------------------------------------ runs

    def start_run(self, batch: str, now: datetime, at_least: int = 1) -> int:
        """Enter the next attempt at a batch, before its process exists; its number.

        `at_least` passes over numbers that a person's `resume` has taken in the work directory.
        """
        with self._store.transaction():
            old = self._moves.batch_state(batch)
            if BatchState.RUNNING not in BATCH_MOVES[old]:
                raise BatchError(f"batch {batch}: {old} -> running is not a legal move")
            self._store.change_one(
                "UPDATE batch SET state = 'running' WHERE id = ? AND state = ?",
                (batch, old),
                f"batch {batch}",
            )
            attempt = max(self._moves.next_attempt(batch), at_least)
            run = self._moves.enter_run(batch, attempt, RunState.STARTING, now)
            self._moves.note(
                now, "run.starting", batch_id=batch, run=run, detail=f"attempt {attempt}"
            )
            return attempt

    def name_run(self, batch: str, attempt: int, run_id: str, now: datetime) -> None:
        """Record a started run's Run ID."""
        with self._store.transaction():
            run = self._moves.run_of(batch, attempt)
            self._store.change_one(
                "UPDATE run SET state = 'running', run_id = ? WHERE id = ? AND state = 'starting'",
                (run_id, run),
                f"run {batch}/{attempt}",
            )
            self._moves.note(now, "run.running", batch_id=batch, run=run, detail=f"Run ID {run_id}")

    def ask_end(self, batch: str, state: RunState, why: str, now: datetime) -> None:
        """Record why a live run is about to be ended, so that its verdict outlives the asker."""
        with self._store.transaction():
            self._ask_end(batch, state, why, now)

    def _ask_end(self, batch: str, state: RunState, why: str, now: datetime) -> None:
        changed = self._store.change(
            "UPDATE run SET ending = ?, error = ?"
            " WHERE batch_id = ? AND ended_at IS NULL AND (ending IS NULL OR ? = 'cancelled')",
            (state, why, batch, state),
        )
        if changed:
            self._moves.note(now, "run.ending", batch_id=batch, detail=why)

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
        """Record a run that published nothing, and what follows: None for a cancelled one.

        `reasons` gives by path why a file of the batch failed, where that is known of it alone.
        """
        with self._store.transaction():
            self._moves.end_run(batch, attempt, state, error=error, results=results, now=now)
            if self._moves.batch_state(batch) != BatchState.RUNNING:
                return  # a person's `resume` published it meanwhile
            match then:
                case None:
                    self._end_batch(batch, BatchState.CANCELLED, error, now)
                case Dead(why):
                    last = f"{why}; last: {error}"
                    self._end_batch(batch, BatchState.DEAD, last, now, reasons)
                case RetryAt(at):
                    self._retry_at(batch, at, now)

    def _retry_at(self, batch: str, at: datetime, now: datetime) -> None:
        self._store.change_one(
            "UPDATE batch SET state = 'retrying', due_at = ? WHERE id = ? AND state = 'running'",
            (text(at), batch),
            f"batch {batch}",
        )
        self._moves.note(now, "batch.retrying", batch_id=batch, detail=f"due {text(at)}")

    def record(self, manifest: Manifest, now: datetime) -> bool:
        """Enter what a run published; whether that was news. It wins over any other state."""
        with self._store.transaction():
            return self._moves.record(manifest, now)


__all__ = ["Ledger"]
