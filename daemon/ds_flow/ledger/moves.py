"""Which files have moved since an event, for whoever tells each of them what became of it."""

from datetime import datetime

from ds_flow.ledger.store import Store, text

_OF_A_BATCH = ("run.running", "run.failed", "run.timed_out", "run.lost", "run.stopped")
"""Events after which all files of a batch stand elsewhere, without an event of their own."""


class Moves:
    """Questions about the newest events; each reads a bounded number of them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def newest(self) -> int:
        """The id of the newest event; 0 if there is none."""
        row = self._store.row("SELECT max(id) FROM event")
        return row[0] or 0 if row else 0

    def before(self, at: datetime) -> int:
        """The id of the last event before a time; 0 if there is none."""
        row = self._store.row("SELECT max(id) FROM event WHERE at < ?", (text(at),))
        return row[0] or 0 if row else 0

    def since(self, after: int, limit: int) -> tuple[list[str], list[str], int]:
        """The files and the batches of the next events, and the last of these; 0 without any."""
        rows = self._store.rows(
            "SELECT event.id, kind, path, batch_id FROM event LEFT JOIN file ON file.id = file_id"
            " WHERE event.id > ? ORDER BY event.id LIMIT ?",
            (after, limit),
        )
        files = dict.fromkeys(path for _, _, path, _ in rows if path is not None)
        batches = dict.fromkeys(batch for _, kind, _, batch in rows if kind in _OF_A_BATCH)
        return list(files), list(batches), rows[-1][0] if rows else 0
