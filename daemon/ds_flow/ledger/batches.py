"""Batches: form one, move it, retry it, end it."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from ds_flow.core import (
    BATCH_MOVES,
    RERUN_TRIGGERS,
    SET_PREFIX,
    STATES_TAKEN_BY,
    BatchError,
    BatchState,
    Cause,
    FileState,
    Plan,
    RequestError,
    Trigger,
    counted,
    local_time,
)
from ds_flow.ledger.files import Files
from ds_flow.ledger.queries import IS_LOOK, REPLACED_FILES
from ds_flow.ledger.store import Row, Store, text

NO_REASONS: Mapping[str, str] = MappingProxyType({})


class Batches:
    """Moves of batches, within the caller's transaction."""

    def __init__(self, store: Store, files: Files) -> None:
        self._store = store
        self._files = files

    def state(self, batch: str) -> BatchState:
        """A batch's state now. Raises BatchError if it is unknown."""
        return BatchState(
            self._store.value("SELECT state FROM batch WHERE id = ?", batch, f"batch {batch}")
        )

    def require_move(self, batch: str, new: BatchState) -> BatchState:
        """A batch's state now. Raises BatchError if it may not move from there to `new`."""
        old = self.state(batch)
        if new not in BATCH_MOVES[old]:
            raise BatchError(f"batch {batch}: {old} -> {new} is not a legal move")
        return old

    def files_left(self, batch: str) -> list[Row]:
        """The ids and paths of a batch's versions that still are in it."""
        return self._store.rows(
            "SELECT id, path FROM batch_file JOIN file ON id = file_id"
            " WHERE batch_id = ? AND state = 'batched' ORDER BY id",
            (batch,),
        )

    # ------------------------------------------------------------------ form

    def form(
        self,
        batch: str,
        file_ids: Sequence[int],
        trigger: Trigger,
        now: datetime,
        *,
        detail: str = "",
        selection: str = "",
        also: Collection[FileState] = (),
        notes: Mapping[str, str] = NO_REASONS,
    ) -> int:
        """Make a batch of those files that are free. Returns how many; without any, no batch.

        `also`: further states whose files it takes. `notes`: further events, by kind.

        1. Leave out files that a live batch claims, and files in a state that this trigger does
           not take.
        2. Enter the batch and its claims.
        3. Move its files to `batched`. A processed one keeps its state; only its claim is new.
        """
        states = {file: self._unclaimed_state(file) for file in file_ids}
        takes = STATES_TAKEN_BY[trigger] | {*also}
        free = {file: state for file, state in states.items() if state in takes}
        if not free:
            return 0
        self.enter(batch, BatchState.QUEUED, trigger, text(now), selection)
        self._store.change_many(
            "INSERT INTO batch_file (batch_id, file_id) VALUES (?, ?)",
            ((batch, file) for file in free),
        )
        details = ", ".join(filter(None, (counted(len(free), "file"), detail)))
        for kind, said in {"batch.queued": details, **notes}.items():
            self._store.note(now, kind, batch_id=batch, detail=said)
        for file, state in free.items():
            if state == FileState.QUARANTINED:
                self._files.move(file, FileState.WAITING, now, reason=f"{trigger}")
            if state != FileState.PROCESSED:
                self._files.move(file, FileState.BATCHED, now, batch=batch)
        return len(free)

    def enter(
        self, batch: str, state: BatchState, trigger: str, formed_at: str, selection: str
    ) -> None:
        """Enter a batch that is due at once, without its files."""
        self._store.insert(
            "INSERT INTO batch (id, state, trigger, formed_at, due_at, selection)"
            " VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
            (batch, state, trigger, formed_at, selection),
        )

    def _unclaimed_state(self, file: int) -> FileState | None:
        """A version's state now; None while a live batch claims it, or if it was deleted."""
        row = self._store.row(
            "SELECT state FROM file WHERE id = ?"
            " AND (away IS NULL OR away = 'none' OR away_to <> '') AND NOT EXISTS"
            " (SELECT 1 FROM batch_file WHERE file_id = file.id AND live)",
            (file,),
        )
        return FileState(row[0]) if row else None

    # ------------------------------------------------------------------ before its first run

    def leave_replaced(self, batch: str, now: datetime) -> int:
        """Let a queued batch give up versions that a newer one has replaced; how many are left.

        Only for a batch without a plan on disk. In a set's batch, the newer ones that wait take
        their place. A batch without any file left is cancelled.
        """
        self._require_queued(batch)
        replaced = self._store.rows(REPLACED_FILES, (batch,))
        left = len(self.files_left(batch)) - len(replaced)
        for file, _ in replaced:
            why = "a newer version came before it was read"
            self._files.move(file, FileState.SUPERSEDED, now, Cause.REPLACED, why, batch=batch)
        newer = self._waiting_of_set(batch, [path for _, path in replaced])
        if not (left or newer):
            self.end(batch, BatchState.CANCELLED, "newer versions of all its files have come", now)
            return 0
        self._store.change_many(
            "DELETE FROM batch_file WHERE batch_id = ? AND file_id = ?",
            ((batch, file) for file, _ in replaced),
        )
        for file in newer:
            self._store.insert(
                "INSERT INTO batch_file (batch_id, file_id) VALUES (?, ?)", (batch, file)
            )
            self._files.move(file, FileState.BATCHED, now, batch=batch)
        return left + len(newer)

    def _waiting_of_set(self, batch: str, paths: Sequence[str]) -> list[int]:
        """The versions of these paths that wait, if the batch is a set's."""
        selection = self._store.value(
            "SELECT selection FROM batch WHERE id = ?", batch, f"batch {batch}"
        )
        if not selection.startswith(SET_PREFIX):
            return []
        waiting = "SELECT id FROM file WHERE path = ? AND state = 'waiting'"
        return [row[0] for path in paths for row in self._store.rows(waiting, (path,))]

    def split(self, batch: str, paths: Collection[str], new_batch: str, now: datetime) -> None:
        """Give some files of a queued batch without a plan on disk to a new batch."""
        self._require_queued(batch)
        moving = [file for file, path in self.files_left(batch) if path in paths]
        self._store.change(
            "INSERT INTO batch (id, state, trigger, formed_at, due_at, selection)"
            " SELECT ?, state, trigger, formed_at, due_at, selection FROM batch WHERE id = ?",
            (new_batch, batch),
        )
        self._store.change_many(
            "UPDATE batch_file SET batch_id = ? WHERE batch_id = ? AND file_id = ?",
            ((new_batch, batch, file) for file in moving),
        )
        detail = (
            f"{counted(len(moving), 'file')} of batch {batch}, for which the disk has no room now"
        )
        self._store.note(now, "batch.queued", batch_id=new_batch, detail=detail)
        for file in moving:
            self._store.note(now, "file.batched", file_id=file, batch_id=new_batch)

    def _require_queued(self, batch: str) -> None:
        if (state := self.state(batch)) != BatchState.QUEUED:
            raise BatchError(f"batch {batch} is {state}, no longer queued")

    def adopt(self, plan: Plan, now: datetime) -> None:
        """Enter a running batch from its plan, in a ledger that was lost.

        Its files are entered where they are missing, and claimed. A file that was quarantined was
        released before the ledger was lost, since the plan has it.
        """
        batch = plan.batch
        self.enter(batch, BatchState.RUNNING, plan.trigger, plan.formed_at, plan.selection)
        self._store.note(
            now, "batch.running", batch_id=batch, detail="known from its work directory"
        )
        for item in plan.files:
            file = self._files.find_or_enter(item, f"batch {batch}", now)
            self._store.insert(
                "INSERT OR IGNORE INTO batch_file (batch_id, file_id) VALUES (?, ?)", (batch, file)
            )
            if self._files.state(file) == FileState.QUARANTINED:
                self._files.move(file, FileState.WAITING, now, reason=f"in batch {batch}")
            if self._files.state(file) == FileState.WAITING:
                self._files.move(file, FileState.BATCHED, now, batch=batch)

    # ------------------------------------------------------------------ run, retry

    def start(self, batch: str) -> None:
        """Move a batch to `running`. The event is its run's."""
        old = self.require_move(batch, BatchState.RUNNING)
        self._store.change_one(
            "UPDATE batch SET state = 'running' WHERE id = ? AND state = ?",
            (batch, old),
            f"batch {batch}",
        )

    def retry_at(self, batch: str, at: datetime, now: datetime) -> None:
        """Let a running batch start again at a time."""
        self._store.change_one(
            "UPDATE batch SET state = 'retrying', due_at = ? WHERE id = ? AND state = 'running'",
            (text(at), batch),
            f"batch {batch}",
        )
        self._store.note(now, "batch.retrying", batch_id=batch, detail=f"due {local_time(at)}")

    def hold_back(self, batch: str, why: str, now: datetime) -> bool:
        """Note why a batch cannot start now; whether that is news since its last run began."""
        last = self._store.row(
            "SELECT kind, detail FROM event WHERE batch_id = ?"
            " AND kind IN ('batch.held_back', 'run.running') ORDER BY id DESC LIMIT 1",
            (batch,),
        )
        is_news = last != ("batch.held_back", why)
        if is_news:
            self._store.note(now, "batch.held_back", batch_id=batch, detail=why)
        return is_news

    def retry_now(self, batch: str, new_batch: str, now: datetime) -> str:
        """Start a batch again by request. Returns the id of the batch that will run.

        A retrying batch is due at once. A dead batch stays dead: the files that it left
        quarantined become `new_batch`. Raises RequestError for any other state, and if no file is
        left.
        """
        state = self.state(batch)
        if state == BatchState.RETRYING:
            self._store.change("UPDATE batch SET due_at = ? WHERE id = ?", (text(now), batch))
            self._store.note(now, "batch.retrying", batch_id=batch, detail="at once, by request")
            return batch
        if state != BatchState.DEAD:
            raise RequestError(
                f"batch {batch} is {state}; only a retrying or dead one can be retried"
            )
        files = self._files_to_retry(batch)
        if not files:
            raise RequestError(f"batch {batch}: none of its files is left to retry")
        self._form_like(batch, new_batch, files, f"retries {batch}", now)
        return new_batch

    def _files_to_retry(self, batch: str) -> list[int]:
        """The versions that a dead batch left quarantined; with them, a rerun's published ones."""
        rows = self._store.rows(
            "SELECT file.id, state FROM batch_file JOIN file ON file.id = file_id"
            " WHERE batch_id = ? AND (state = 'processed' OR state = 'quarantined'"
            "                         AND cause = 'dead')"
            " AND NOT EXISTS (SELECT 1 FROM file AS newer WHERE newer.path = file.path"
            f"                AND newer.version > file.version AND NOT ({IS_LOOK}))"
            " ORDER BY file.id",
            (batch,),
        )
        is_left = any(state == FileState.QUARANTINED for _, state in rows)
        return [file for file, _ in rows] if is_left else []

    def form_again(self, batch: str, new_batch: str, now: datetime) -> None:
        """Make a new batch of the files of one that has just ended."""
        rows = self._store.rows("SELECT file_id FROM batch_file WHERE batch_id = ?", (batch,))
        self._form_like(
            batch, new_batch, sorted(row[0] for row in rows), f"in place of {batch}", now
        )

    def _form_like(
        self, batch: str, new_batch: str, files: Sequence[int], detail: str, now: datetime
    ) -> None:
        """Make a batch that is over what another one was over; a rerun stays a rerun."""
        row = self._store.row("SELECT trigger, selection FROM batch WHERE id = ?", (batch,))
        trigger, selection = row or (Trigger.RETRY, "")
        again = Trigger(trigger) if trigger in RERUN_TRIGGERS else Trigger.RETRY
        self.form(new_batch, files, again, now, detail=detail, selection=selection)

    # ------------------------------------------------------------------ end

    def end(
        self,
        batch: str,
        new: BatchState,
        why: str,
        now: datetime,
        reasons: Mapping[str, str] = NO_REASONS,
    ) -> None:
        """End a batch without a result. Its files are quarantined.

        `reasons` gives by path why a file failed, where that is known of it alone.
        """
        old = self.require_move(batch, new)
        self._store.change_one(
            "UPDATE batch SET state = ?, ended_at = ?, reason = ? WHERE id = ? AND state = ?",
            (new, text(now), why, batch, old),
            f"batch {batch}",
        )
        self._store.note(now, f"batch.{new}", batch_id=batch, detail=why)
        cause = Cause.DEAD if new == BatchState.DEAD else Cause.CANCELLED
        for file, path in self.files_left(batch):
            own = reasons.get(path)
            reason = f"{own} (batch {batch} is {new})" if own else f"batch {batch}: {why}"
            self._files.move(file, FileState.QUARANTINED, now, cause, reason, batch=batch)
