"""Files that leave the inbox after their run: which are to, which are on their way, which are gone.

`file.away` is null for a version that is in the inbox as far as is known. It is `going` from before
the first change on the disk until that is recorded, so a process that dies in between leaves a row
to go on with. It is `gone` with `away_to`, where the content is kept, or "" if it was deleted; and
`none` if it had left the inbox already.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from ds_flow.ledger.queries import IS_LOOK
from ds_flow.ledger.store import Row, Store, text

REMOVED_AT_ONCE = 500  # in one transaction
_ROW = f"""
    SELECT id, path, version, sha256, stat, reason, away_to,
        coalesce((SELECT run_id FROM batch_file
            CROSS JOIN run ON run.batch_id = batch_file.batch_id AND +run.state = 'succeeded'
            WHERE batch_file.file_id = file.id ORDER BY run.id LIMIT 1), ''),
        NOT EXISTS (SELECT 1 FROM file AS newer WHERE newer.path = file.path
            AND newer.version > file.version AND NOT ({IS_LOOK}))
    FROM file
"""
_UNCLAIMED = "NOT EXISTS (SELECT 1 FROM batch_file WHERE file_id = file.id AND live)"
# Without the hint, SQLite takes the index of all states, and reads every version that has left.
_WHICH = {
    "processed": "INDEXED BY file_published WHERE state = 'processed' AND away IS NULL",
    "rejected": "INDEXED BY file_rejected WHERE state = 'quarantined' AND away IS NULL"
    " AND cause = 'rejected'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwayRow:
    """A version that is to leave, or is on its way."""

    id: int
    path: str
    version: int
    sha256: str | None
    stat: str  # as last seen; "" if it is to be looked at again
    reason: str  # why it was rejected
    away_to: str
    run_id: str  # the first that published or rejected it; "" if none is known
    is_newest: bool


class Gone(NamedTuple):
    """A version that has left the inbox."""

    id: int
    kind: str  # of the event
    to: str
    stat: str  # as it looked then


class Away:
    """Moves and questions. Each move is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def going(self) -> list[AwayRow]:
        """Those that are on their way: after a start, the ones that another process began."""
        return [_row(row) for row in self._store.rows(f"{_ROW} WHERE away = 'going' ORDER BY id")]

    def to_go(self, which: str, after: int, limit: int) -> list[AwayRow]:
        """The next versions in the inbox whose run is over: `processed` or `rejected` ones."""
        return [
            _row(row)
            for row in self._store.rows(
                f"{_ROW} {_WHICH[which]} AND id > ? AND {_UNCLAIMED} ORDER BY id LIMIT ?",
                (after, limit),
            )
        ]

    def begin(self, places: Sequence[tuple[int, str]], now: datetime) -> set[int]:
        """Let versions be on their way, each to its place; which of them are.

        One that a batch has claimed since stays: its run reads it where it is.
        """
        with self._store.transaction():
            return {
                file
                for file, to in places
                if self._store.change(
                    "UPDATE file SET away = 'going', away_to = ?, away_at = ?"
                    f" WHERE id = ? AND away IS NULL AND {_UNCLAIMED}",
                    (to, text(now), file),
                )
            }

    def record(
        self,
        now: datetime,
        *,
        gone: Sequence[Gone] = (),
        none: Sequence[int] = (),
        stays: Sequence[int] = (),
    ) -> None:
        """Enter what became of them. What has come again since is in the inbox."""
        with self._store.transaction():
            for one in gone:
                self._store.change(
                    "UPDATE file SET away = iif(stat = ?2, 'gone', NULL),"
                    " away_to = iif(stat = ?2, away_to, ''), away_at = iif(stat = ?2, ?3, NULL)"
                    " WHERE id = ?1",
                    (one.id, one.stat, text(now)),
                )
                self._store.note(now, one.kind, file_id=one.id, detail=one.to)
            for away, files in (("none", none), (None, stays)):
                self._store.change_many(
                    "UPDATE file SET away = ?, away_to = '', away_at = NULL WHERE id = ?",
                    ((away, file) for file in files),
                )

    # ------------------------------------------------------------------ retention

    def kept(self, before: datetime) -> Iterator[list[tuple[int, str]]]:
        """Published versions that were archived before a time: ids and places.

        They come in lists, each for one call of `forget`. Those that a batch reads are not among
        them.
        """
        last = 0
        while rows := self._store.rows(
            "SELECT id, away_to FROM file WHERE away = 'gone' AND away_to <> '' AND away_at < ?"
            f" AND state = 'processed' AND id > ? AND {_UNCLAIMED} ORDER BY id LIMIT ?",
            (text(before), last, REMOVED_AT_ONCE),
        ):
            last = rows[-1][0]
            yield [(file, to) for file, to in rows]

    def forget(self, files: Sequence[int], why: str, now: datetime) -> None:
        """Record that archived versions were removed."""
        with self._store.transaction():
            for file in files:
                self._store.change("UPDATE file SET away_to = '' WHERE id = ?", (file,))
                self._store.note(now, "input.deleted", file_id=file, detail=why)


def _row(row: Row) -> AwayRow:
    file, path, version, sha256, stat, reason, away_to, run_id, is_newest = row
    return AwayRow(
        id=file,
        path=path,
        version=version,
        sha256=sha256,
        stat=stat,
        reason=reason,
        away_to=away_to,
        run_id=run_id,
        is_newest=bool(is_newest),
    )
