"""Commits: enter what a run published."""

from collections.abc import Mapping
from datetime import datetime

from ds_flow.core import (
    BATCH_MOVES,
    UNREAD_CAUSES,
    BatchError,
    BatchState,
    Cause,
    FileState,
    Input,
    Manifest,
    PlannedFile,
    Rejected,
    RunState,
)
from ds_flow.ledger.batches import Batches
from ds_flow.ledger.deliveries import Deliveries
from ds_flow.ledger.events import ANALYSIS_FAILED, JOBS_REDONE, LEFT_OUT
from ds_flow.ledger.families import Families
from ds_flow.ledger.files import Files
from ds_flow.ledger.runs import Runs
from ds_flow.ledger.store import Store, text


class Commits:
    """What a manifest adds up to, within the caller's transaction."""

    def __init__(
        self, store: Store, files: Files, batches: Batches, runs: Runs, deliveries: Deliveries
    ) -> None:
        self._store = store
        self._files = files
        self._batches = batches
        self._runs = runs
        self._deliveries = deliveries
        self._families = Families(store)

    def record(self, manifest: Manifest, now: datetime, *, is_old: bool = False) -> bool:
        """Enter a commit. Returns whether it was new.

        The commit on disk is the truth, so it wins over any other state of its batch and run.

        1. Nothing to do if a succeeded run has its Run ID.
        2. Enter the batch and the run if the ledger lacks them, and move the run to `succeeded`.
        3. Move each file that it published to `processed`. A file that was published before keeps
           its state and gets an event.
        4. Enter the outputs.
        5. Set aside the files that it rejected.
        6. Move the batch to `succeeded`. Files that the manifest does not name are quarantined.
        7. Note a failed analysis, and jobs that failed and were done again.
        8. Add the files that were not published before to their families; note those marked.
        9. Enter to which commands it is handed over, unless it is old.
        """
        known = self._store.row(
            "SELECT 1 FROM run WHERE run_id = ? AND state = 'succeeded'", (manifest.run_id,)
        )
        if known:
            return False
        run = self._succeed_run(manifest, now)
        files, new = self._publish_files(manifest, now)
        self._enter_outputs(manifest, run, files)
        for rejected in manifest.rejected:
            self._set_aside(rejected, manifest, now)
        self._succeed_batch(manifest, now)
        if why := manifest.analysis_error:
            self._store.note(now, ANALYSIS_FAILED, batch_id=manifest.batch, run=run, detail=why)
        if why := manifest.redone:
            self._store.note(now, JOBS_REDONE, batch_id=manifest.batch, run=run, detail=why)
        self._families.add(manifest, new)
        self._families.note(manifest, run, {item.path: files[item.path] for item in new}, now)
        if not is_old:
            self._deliveries.enter(run, now)
        return True

    def _publish_files(
        self, manifest: Manifest, now: datetime
    ) -> tuple[dict[str, int], list[Input]]:
        """Publish every input. Returns each path's row, and which were not published before."""
        files: dict[str, int] = {}
        new: list[Input] = []
        for item in manifest.inputs:
            files[item.path], is_new = self._publish_file(item, manifest, now)
            new += [item] if is_new else []
        return files, new

    def _enter_outputs(self, manifest: Manifest, run: int, files: Mapping[str, int]) -> None:
        self._store.change_many(
            "INSERT INTO output (run, name, file_id, sha256, size_bytes, rows)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                (run, out.name, files.get(out.source), out.sha256, out.bytes, out.rows)
                for out in manifest.outputs
            ),
        )

    def _succeed_run(self, manifest: Manifest, now: datetime) -> int:
        batch, attempt = manifest.batch, manifest.attempt
        if not self._store.row("SELECT 1 FROM batch WHERE id = ?", (batch,)):
            self._batches.enter(
                batch,
                BatchState.QUEUED,
                manifest.trigger,
                manifest.started_at,
                manifest.selection,
            )
        if not self._store.row(
            "SELECT 1 FROM run WHERE batch_id = ? AND attempt = ?", (batch, attempt)
        ):
            self._store.insert(
                "INSERT INTO run (batch_id, attempt, state, started_at, ended_at)"
                " VALUES (?, ?, 'lost', ?, ?)",
                (batch, attempt, manifest.started_at, manifest.published_at),
            )
        run = self._runs.move_to_end(
            batch,
            attempt,
            RunState.SUCCEEDED,
            error="",
            results=len(manifest.inputs) + len(manifest.rejected),
            now=now,
        )
        self._store.change(
            "UPDATE run SET run_id = ?, analysis_error = ? WHERE id = ?",
            (manifest.run_id, manifest.analysis_error, run),
        )
        return run

    def _publish_file(self, item: Input, manifest: Manifest, now: datetime) -> tuple[int, bool]:
        known = PlannedFile(
            path=item.path, version=item.version, sha256=item.sha256, size_bytes=item.bytes
        )
        file = self._files.find_or_enter(known, f"run {manifest.run_id}", now)
        self._store.insert(
            "INSERT OR IGNORE INTO batch_file (batch_id, file_id, live) VALUES (?, ?, 0)",
            (manifest.batch, file),
        )
        is_new = self._files.state(file) != FileState.PROCESSED
        if not is_new:
            why = f"again, by run {manifest.run_id}"
            self._store.note(
                now, "file.published", file_id=file, batch_id=manifest.batch, detail=why
            )
        else:
            self._files.move(
                file,
                FileState.PROCESSED,
                now,
                reason=f"run {manifest.run_id}",
                batch=manifest.batch,
            )
        return file, is_new

    def _set_aside(self, item: Rejected, manifest: Manifest, now: datetime) -> None:
        cause = Cause(item.cause) if item.cause in set(Cause) else Cause.REJECTED
        # What was not read has other bytes by now.
        known = None if item.version and cause in UNREAD_CAUSES else item.sha256
        file = self._files.find(item.path, item.version, known)
        if file is None:
            if item.sha256 is None or cause in UNREAD_CAUSES:
                return  # a run by hand did not read it: the inbox will see it
            seen = PlannedFile(
                path=item.path, version=item.version, sha256=item.sha256, size_bytes=0
            )
            file = self._files.find_or_enter(seen, f"run {manifest.run_id}", now)
        old = self._files.state(file)
        if old == FileState.PROCESSED:
            why = f"run {manifest.run_id}: {item.sentence}"
            self._store.note(now, LEFT_OUT, file_id=file, batch_id=manifest.batch, detail=why)
        if old not in {FileState.BATCHED, FileState.WAITING}:
            return  # set aside or processed already
        state = FileState.SUPERSEDED if cause == Cause.CHANGED else FileState.QUARANTINED
        self._files.move(file, state, now, cause, item.sentence, batch=manifest.batch)
        if cause in UNREAD_CAUSES:
            self._files.look_again(file)

    def _succeed_batch(self, manifest: Manifest, now: datetime) -> None:
        batch = manifest.batch
        old = self._batches.state(batch)
        if BatchState.SUCCEEDED not in BATCH_MOVES[old]:
            raise BatchError(f"batch {batch} is {old} already, and not by run {manifest.run_id}")
        for file, _ in self._batches.files_left(batch):
            why = f"run {manifest.run_id} does not account for it"
            self._files.move(file, FileState.QUARANTINED, now, Cause.REJECTED, why, batch=batch)
        self._store.change_one(
            "UPDATE batch SET state = 'succeeded', ended_at = ?, reason = ''"
            " WHERE id = ? AND state = ?",
            (text(now), batch, old),
            f"batch {batch}",
        )
        self._store.note(now, "batch.succeeded", batch_id=batch, detail=f"run {manifest.run_id}")
