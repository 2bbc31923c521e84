"""The moves that the ledger's transactions are made of, each called inside one."""

from datetime import datetime

from ds_flow.core import (
    BATCH_MOVES,
    FILE_MOVES,
    RUN_MOVES,
    UNREAD,
    BatchError,
    BatchState,
    Cause,
    FileState,
    Input,
    Manifest,
    Plan,
    PlannedFile,
    Rejected,
    RunState,
)
from ds_flow.ledger.store import Row, Store, text

LEFT_OUT = "file.left_out"  # by a rerun: what an earlier run published stays
ANALYSIS_FAILED = "analysis.failed"


class Recording:
    """Single moves, each a compare-and-set with its event, and what a commit adds up to."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(
        self,
        now: datetime,
        kind: str,
        *,
        file_id: int | None = None,
        batch_id: str | None = None,
        run: int | None = None,
        detail: str = "",
    ) -> None:
        """Append one event."""
        self._store.insert(
            "INSERT INTO event (at, kind, file_id, batch_id, run, detail)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (text(now), kind, file_id, batch_id, run, detail),
        )

    # ------------------------------------------------------------------ files

    def enter_file(
        self,
        *,
        path: str,
        version: int,
        sha256: str | None,
        size_bytes: int,
        stat: str,
        state: FileState,
        now: datetime,
        cause: Cause | None = None,
        reason: str = "",
    ) -> int:
        """Insert a version; its id."""
        return self._store.insert(
            "INSERT INTO file"
            " (path, version, sha256, size_bytes, stat, seen_at, state, cause, reason)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (path, version, sha256, size_bytes, stat, text(now), state, cause, reason),
        )

    def file_state(self, file: int) -> FileState:
        """Read a version's state now."""
        return FileState(self._one("SELECT state FROM file WHERE id = ?", file, f"file {file}"))

    def move_file(
        self,
        file: int,
        new: FileState,
        now: datetime,
        cause: Cause | None = None,
        reason: str = "",
        batch: str | None = None,
    ) -> None:
        """Move a version along one legal edge, or raise BatchError and change nothing."""
        old = self.file_state(file)
        if new not in FILE_MOVES[old]:
            raise BatchError(f"file {file}: {old} -> {new} is not a legal move")
        self._store.change_one(
            "UPDATE file SET state = ?, cause = ?, reason = ? WHERE id = ? AND state = ?",
            (new, cause, reason if cause else "", file, old),
            f"file {file}",
        )
        self.note(now, f"file.{new}", file_id=file, batch_id=batch, detail=reason)

    def look_again(self, file: int) -> None:
        """Forget how a version looked when last seen, so that the next look takes it for new."""
        self._store.change("UPDATE file SET stat = '' WHERE id = ?", (file,))

    # ------------------------------------------------------------------ batches and runs

    def batch_state(self, batch: str) -> BatchState:
        """Read a batch's state now. Raises BatchError if there is no such batch."""
        return BatchState(
            self._one("SELECT state FROM batch WHERE id = ?", batch, f"batch {batch}")
        )

    def unended_files(self, batch: str) -> list[Row]:
        """The ids and paths of a batch's versions that still are in it."""
        return self._store.rows(
            "SELECT id, path FROM batch_file JOIN file ON id = file_id"
            " WHERE batch_id = ? AND state = 'batched' ORDER BY id",
            (batch,),
        )

    def next_attempt(self, batch: str) -> int:
        """The number after the last attempt's."""
        row = self._store.row("SELECT max(attempt) FROM run WHERE batch_id = ?", (batch,))
        return int(row[0] or 0) + 1 if row else 1

    def enter_run(self, batch: str, attempt: int, state: RunState, now: datetime) -> int:
        """Insert a live run; its row's id."""
        return self._store.insert(
            "INSERT INTO run (batch_id, attempt, state, started_at) VALUES (?, ?, ?, ?)",
            (batch, attempt, state, text(now)),
        )

    def run_of(self, batch: str, attempt: int) -> int:
        """The id of an attempt's row. Raises BatchError if there is none."""
        row = self._store.row(
            "SELECT id FROM run WHERE batch_id = ? AND attempt = ?", (batch, attempt)
        )
        if row is None:
            raise BatchError(f"no run {batch}/{attempt}")
        return int(row[0])

    def end_run(
        self,
        batch: str,
        attempt: int,
        state: RunState,
        *,
        error: str,
        results: int,
        now: datetime,
    ) -> int:
        """Move a run to its end; its row's id."""
        run = self.run_of(batch, attempt)
        old = RunState(self._one("SELECT state FROM run WHERE id = ?", run, f"run {run}"))
        if state not in RUN_MOVES[old]:
            raise BatchError(f"run {batch}/{attempt}: {old} -> {state} is not a legal move")
        self._store.change_one(
            "UPDATE run SET state = ?, error = ?, results = ?, ended_at = ?"
            " WHERE id = ? AND state = ?",
            (state, error, results, text(now), run, old),
            f"run {batch}/{attempt}",
        )
        self.note(now, f"run.{state}", batch_id=batch, run=run, detail=error)
        return run

    def adopt(self, plan: Plan, attempt: int, now: datetime) -> None:
        """Enter a batch and its live run from its plan."""
        self._store.insert(
            "INSERT INTO batch (id, state, trigger, formed_at, due_at, selection)"
            " VALUES (?, 'running', ?, ?, ?, ?)",
            (plan.batch, plan.trigger, plan.formed_at, plan.formed_at, plan.selection),
        )
        self.note(now, "batch.running", batch_id=plan.batch, detail="known from its work directory")
        for item in plan.files:
            file = self._find_or_enter(item, f"batch {plan.batch}", now)
            self._store.insert(
                "INSERT OR IGNORE INTO batch_file (batch_id, file_id) VALUES (?, ?)",
                (plan.batch, file),
            )
            if (
                self.file_state(file) == FileState.QUARANTINED
            ):  # released before the ledger was lost
                self.move_file(file, FileState.WAITING, now, reason=f"in batch {plan.batch}")
            if self.file_state(file) == FileState.WAITING:
                self.move_file(file, FileState.BATCHED, now, batch=plan.batch)
        run = self.enter_run(plan.batch, attempt, RunState.STARTING, now)
        self.note(now, "run.starting", batch_id=plan.batch, run=run, detail=f"attempt {attempt}")

    # ------------------------------------------------------------------ a commit

    def record(self, manifest: Manifest, now: datetime) -> bool:
        """Enter a commit; whether that was news."""
        known = self._store.row(
            "SELECT 1 FROM run WHERE run_id = ? AND state = 'succeeded'", (manifest.run_id,)
        )
        if known:
            return False
        run = self._succeed_run(manifest, now)
        files = {item.path: self._publish_file(item, manifest, now) for item in manifest.inputs}
        self._store.change_many(
            "INSERT INTO output (run, name, file_id, sha256, size_bytes, rows)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                (run, out.name, files.get(out.source), out.sha256, out.bytes, out.rows)
                for out in manifest.outputs
            ),
        )
        for rejected in manifest.rejected:
            self._set_aside(rejected, manifest, now)
        self._succeed_batch(manifest, now)
        if why := manifest.analysis_error:
            self.note(now, ANALYSIS_FAILED, batch_id=manifest.batch, run=run, detail=why)
        return True

    def _succeed_run(self, manifest: Manifest, now: datetime) -> int:
        batch, attempt = manifest.batch, manifest.attempt
        if not self._store.row("SELECT 1 FROM batch WHERE id = ?", (batch,)):
            self._store.insert(
                "INSERT INTO batch (id, state, trigger, formed_at, due_at, selection)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    batch,
                    BatchState.QUEUED,
                    manifest.trigger,
                    manifest.started_at,
                    manifest.started_at,
                    manifest.selection,
                ),
            )
        if not self._store.row(
            "SELECT 1 FROM run WHERE batch_id = ? AND attempt = ?", (batch, attempt)
        ):
            self._store.insert(
                "INSERT INTO run (batch_id, attempt, state, started_at, ended_at)"
                " VALUES (?, ?, 'lost', ?, ?)",
                (batch, attempt, manifest.started_at, manifest.published_at),
            )
        run = self.end_run(
            batch,
            attempt,
            RunState.SUCCEEDED,
            error="",
            results=len(manifest.inputs) + len(manifest.rejected),
            now=now,
        )
        self._store.change("UPDATE run SET run_id = ? WHERE id = ?", (manifest.run_id, run))
        return run

    def _publish_file(self, item: Input, manifest: Manifest, now: datetime) -> int:
        known = PlannedFile(
            path=item.path, version=item.version, sha256=item.sha256, size_bytes=item.bytes
        )
        file = self._find_or_enter(known, f"run {manifest.run_id}", now)
        self._store.insert(
            "INSERT OR IGNORE INTO batch_file (batch_id, file_id, live) VALUES (?, ?, 0)",
            (manifest.batch, file),
        )
        if self.file_state(file) == FileState.PROCESSED:
            why = f"again, by run {manifest.run_id}"
            self.note(now, "file.published", file_id=file, batch_id=manifest.batch, detail=why)
        else:
            self.move_file(
                file,
                FileState.PROCESSED,
                now,
                reason=f"run {manifest.run_id}",
                batch=manifest.batch,
            )
        return file

    def _set_aside(self, item: Rejected, manifest: Manifest, now: datetime) -> None:
        cause = Cause(item.cause) if item.cause in set(Cause) else Cause.REJECTED
        known = None if item.version and cause in UNREAD else item.sha256  # it has other bytes now
        file = self._find(item.path, item.version, known)
        if file is None:
            if item.sha256 is None or cause in UNREAD:
                return  # by hand, and not read: the inbox will see it
            seen = PlannedFile(
                path=item.path, version=item.version, sha256=item.sha256, size_bytes=0
            )
            file = self._find_or_enter(seen, f"run {manifest.run_id}", now)
        old = self.file_state(file)
        if old == FileState.PROCESSED:
            why = f"run {manifest.run_id}: {item.sentence}"
            self.note(now, LEFT_OUT, file_id=file, batch_id=manifest.batch, detail=why)
        if old not in {FileState.BATCHED, FileState.WAITING}:
            return  # set aside or processed already
        state = FileState.SUPERSEDED if cause == Cause.CHANGED else FileState.QUARANTINED
        self.move_file(file, state, now, cause, item.sentence, batch=manifest.batch)
        if cause in UNREAD:
            self.look_again(file)

    def _succeed_batch(self, manifest: Manifest, now: datetime) -> None:
        batch = manifest.batch
        old = self.batch_state(batch)
        if BatchState.SUCCEEDED not in BATCH_MOVES[old]:
            raise BatchError(f"batch {batch} is {old} already, and not by run {manifest.run_id}")
        for file, _ in self.unended_files(batch):
            why = f"run {manifest.run_id} does not account for it"
            self.move_file(file, FileState.QUARANTINED, now, Cause.REJECTED, why, batch=batch)
        self._store.change_one(
            "UPDATE batch SET state = 'succeeded', ended_at = ?, reason = ''"
            " WHERE id = ? AND state = ?",
            (text(now), batch, old),
            f"batch {batch}",
        )
        self.note(now, "batch.succeeded", batch_id=batch, detail=f"run {manifest.run_id}")

    def _find(self, path: str, version: int | None, sha256: str | None) -> int | None:
        """The version that a manifest means: by number if the content agrees, else by content.

        In a rebuilt ledger the number may be missing. Content that is published already then is
        another version's: a file may have had it twice.
        """
        row = self._store.row(
            "SELECT id FROM file WHERE path = ? AND (version = ? OR ? IS NULL)"
            " AND (sha256 = ? OR ? IS NULL) ORDER BY version DESC LIMIT 1",
            (path, version, version, sha256, sha256),
        ) or self._store.row(
            "SELECT id FROM file WHERE path = ? AND sha256 = ? AND state <> 'processed'"
            " ORDER BY version DESC LIMIT 1",
            (path, sha256),
        )
        return int(row[0]) if row else None

    def _find_or_enter(self, item: PlannedFile, known_from: str, now: datetime) -> int:
        """Give a version's id; one that only the disk knows is entered, to be looked at again."""
        file = self._find(item.path, item.version, item.sha256)
        if file is not None:
            return file
        file = self.enter_file(
            path=item.path,
            version=self._next_version(item.path, item.version),
            sha256=item.sha256,
            size_bytes=item.size_bytes,
            stat="",
            state=FileState.WAITING,
            now=now,
        )
        self.note(now, "file.waiting", file_id=file, detail=f"known from {known_from}")
        return file

    def _next_version(self, path: str, said: int | None) -> int:
        """The number of a version that only a manifest knows: its own, if that still is free."""
        row = self._store.row(
            "SELECT max(version), max(version = ?) FROM file WHERE path = ?", (said, path)
        )
        newest, is_taken = row or (None, None)
        return said if said and not is_taken else (newest or 0) + 1

    def _one(self, sql: str, key: object, what: str) -> str:
        row = self._store.row(sql, (key,))
        if row is None:
            raise BatchError(f"no {what}")
        return str(row[0])
