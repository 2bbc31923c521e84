"""What a name may be that a person has only begun to type."""

from ds_flow.ledger.store import Store

AFTER_ALL = "\U0010ffff"


class Names:
    """Each question reads at most `limit` rows of an index."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def runs(self, begun: str, limit: int) -> list[str]:
        """The Run IDs that begin with a text, newest first."""
        return self._list(
            "SELECT run_id FROM run WHERE run_id BETWEEN ? AND ? ORDER BY run_id DESC LIMIT ?",
            begun,
            limit,
        )

    def batches(self, begun: str, limit: int) -> list[str]:
        """The batches whose id begins with a text, newest first."""
        return self._list(
            "SELECT id FROM batch WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT ?", begun, limit
        )

    def paths(self, begun: str, limit: int) -> list[str]:
        """The paths of known files that begin with a text, as the ledger writes them."""
        return self._list(
            "SELECT DISTINCT path FROM file WHERE path BETWEEN ? AND ? ORDER BY path LIMIT ?",
            begun,
            limit,
        )

    def last_run(self) -> str | None:
        """The Run ID of the newest run, or its batch while it has none; None without a run."""
        row = self._store.row("SELECT coalesce(run_id, batch_id) FROM run ORDER BY id DESC LIMIT 1")
        return str(row[0]) if row else None

    def _list(self, sql: str, begun: str, limit: int) -> list[str]:
        return [str(row[0]) for row in self._store.rows(sql, (begun, begun + AFTER_ALL, limit))]
