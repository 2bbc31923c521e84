"""What the ledger knows of complete sets: their batches have a selection that names them."""

from datetime import datetime

from ds_flow.core import Member
from ds_flow.ledger.store import Store, text


class Sets:
    """Every question about sets. It changes nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def newest_event(self) -> int:
        """The number of the newest event. As long as it is the same, nothing has moved."""
        row = self._store.row("SELECT max(id) FROM event")
        return int(row[0] or 0) if row else 0

    def sum_waiting(self) -> tuple[int, int]:
        """How many versions wait, and the sum of their ids: whether others wait than before."""
        row = self._store.row("SELECT count(*), sum(id) FROM file WHERE state = 'waiting'")
        return (int(row[0]), int(row[1] or 0)) if row else (0, 0)

    def waiting(self, after: int = 0) -> list[Member]:
        """Every waiting version, or the newer ones, oldest first."""
        rows = self._store.rows(
            "SELECT id, size_bytes, path, seen_at FROM file WHERE state = 'waiting' AND id > ?"
            " ORDER BY id",
            (after,),
        )
        return [
            Member(file, size, path, datetime.fromisoformat(at)) for file, size, path, at in rows
        ]

    def is_formed(self, selection: str) -> bool:
        """Whether a batch of this set was made, except one that was cancelled."""
        row = self._store.row(
            "SELECT 1 FROM batch WHERE selection = ? AND selection <> '' AND state <> 'cancelled'"
            " LIMIT 1",
            (selection,),
        )
        return row is not None

    def is_claimed(self, selection: str) -> bool:
        """Whether a batch that has not ended, a rerun's too, has a file of this set."""
        row = self._store.row(
            "SELECT 1 FROM batch JOIN batch_file AS mine ON mine.batch_id = batch.id"
            " JOIN file ON file.id = mine.file_id JOIN file AS version ON version.path = file.path"
            " JOIN batch_file AS claim ON claim.file_id = version.id AND claim.live"
            " WHERE selection = ? AND selection <> '' AND batch.state <> 'cancelled' LIMIT 1",
            (selection,),
        )
        return row is not None

    def paths(self, selection: str) -> list[str]:
        """The paths of all files of this set's batches."""
        rows = self._store.rows(
            "SELECT DISTINCT path FROM batch JOIN batch_file ON batch_id = batch.id"
            " JOIN file ON file.id = file_id"
            " WHERE selection = ? AND selection <> '' AND batch.state <> 'cancelled' ORDER BY path",
            (selection,),
        )
        return [row[0] for row in rows]

    def before(self, selection: str) -> list[str]:
        """The paths of the newest other set with the same key."""
        start = selection.partition("=")[0]
        row = self._store.row(
            "SELECT selection FROM batch WHERE selection > ?1 || '=' AND selection < ?1 || '>'"
            " AND selection <> ?2 AND state <> 'cancelled' ORDER BY rowid DESC LIMIT 1",
            (start, selection),
        )
        return self.paths(row[0]) if row else []

    def incomplete_since(self, at: datetime, limit: int) -> list[tuple[str, str, str]]:
        """The sets that formed although files were missing: when, the selection, and what was said.

        Newest first.
        """
        rows = self._store.rows(
            "SELECT event.at, selection, detail FROM event JOIN batch ON batch.id = batch_id"
            " WHERE kind = 'set.incomplete' AND event.at > ? ORDER BY event.id DESC LIMIT ?",
            (text(at), limit),
        )
        return [(row[0], row[1], row[2]) for row in rows]
