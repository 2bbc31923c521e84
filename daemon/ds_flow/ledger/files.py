"""Files: enter a version, move it, admit what has arrived, release what is quarantined."""

from datetime import datetime

from ds_flow.core import (
    FILE_MOVES,
    UNREAD_CAUSES,
    BatchError,
    Cause,
    FileState,
    PlannedFile,
    RequestError,
    Settled,
)
from ds_flow.ledger.queries import IS_LOOK
from ds_flow.ledger.store import Row, Store, text


class Files:
    """Moves of file versions, within the caller's transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # ------------------------------------------------------------------ one version

    def state(self, file: int) -> FileState:
        """A version's state now."""
        return FileState(
            self._store.value("SELECT state FROM file WHERE id = ?", file, f"file {file}")
        )

    def move(
        self,
        file: int,
        new: FileState,
        now: datetime,
        cause: Cause | None = None,
        reason: str = "",
        batch: str | None = None,
    ) -> None:
        """Move a version along one legal edge, or raise BatchError and change nothing."""
        old = self.state(file)
        if new not in FILE_MOVES[old]:
            raise BatchError(f"file {file}: {old} -> {new} is not a legal move")
        self._store.change_one(
            "UPDATE file SET state = ?, cause = ?, reason = ? WHERE id = ? AND state = ?",
            (new, cause, reason if cause else "", file, old),
            f"file {file}",
        )
        self._store.note(now, f"file.{new}", file_id=file, batch_id=batch, detail=reason)

    def look_again(self, file: int) -> None:
        """Forget how a version looked when last seen, so that the next look takes it for new.

        How it looked may be noted with a later look that could not read it.
        """
        self._store.change(
            "UPDATE file SET stat = '' WHERE id = ?1 OR id IN"
            " (SELECT newer.id FROM file AS mine JOIN file AS newer ON newer.path = mine.path"
            f" WHERE mine.id = ?1 AND newer.version > mine.version AND {IS_LOOK})",
            (file,),
        )

    def _enter(
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
        """Insert a version and return its id."""
        return self._store.insert(
            "INSERT INTO file"
            " (path, version, sha256, size_bytes, stat, seen_at, state, cause, reason)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (path, version, sha256, size_bytes, stat, text(now), state, cause, reason),
        )

    # ------------------------------------------------------------------ arrivals

    def admit(self, new: Settled, now: datetime) -> FileState:
        """Enter one settled file. Returns the state of its path's latest version.

        1. Compare the content with the latest version's. If that one was never read, compare with
           the version before it, too.
        2. The content is known: note that it was seen again. A later version that was never read
           is superseded. If the known version was superseded or quarantined unread, it waits again.
        3. The content is new: supersede the latest version if it was never read, and enter the
           next version.
        """
        versions = self._store.rows(
            "SELECT id, version, sha256, state, cause FROM file WHERE path = ?"
            " ORDER BY version DESC LIMIT 2",
            (new.sighting.path,),
        )
        for file, _, sha256, state, cause in versions:
            if sha256 is None and new.sha256 is not None:
                continue
            if sha256 != new.sha256:
                break
            self._note_again(new, file, versions[0][1], now)
            if file != versions[0][0] and versions[0][3] != FileState.SUPERSEDED:
                self._supersede(versions[0], f"version {versions[1][1]} has its content", now)
            if new.cause is None and cause in UNREAD_CAUSES | {Cause.REPLACED}:
                self.move(file, FileState.WAITING, now, reason="seen again, unread")
                return FileState.WAITING
            if new.cause is not None and state == FileState.SUPERSEDED:
                self.move(file, FileState.QUARANTINED, now, new.cause, new.reason)
                return FileState.QUARANTINED
            return FileState(state)
        return self._enter_version(new, versions[0] if versions else None, now)

    def _note_again(self, new: Settled, file: int, latest: int, now: datetime) -> None:
        """Note that the content of a known file was seen again, in its path's latest version."""
        # Another mtime means that it came again. With another ctime alone, perhaps only its mode
        # has changed.
        path, mtime_ns = new.sighting.path, new.sighting.stat.mtime_ns
        self._store.change(
            "UPDATE file SET seen_at = iif(stat = '' OR instr(stat, ?), seen_at, ?), stat = ?"
            " WHERE path = ? AND version = ?",
            (f" {mtime_ns} ", text(now), _stat_to_keep(new), path, latest),
        )
        self._store.change(  # it has come again: where an earlier copy is kept does not matter
            "UPDATE file SET away = NULL, away_to = '', away_at = NULL"
            " WHERE id = ? AND away IN ('gone', 'none')",
            (file,),
        )

    def _enter_version(self, new: Settled, latest: Row | None, now: datetime) -> FileState:
        if latest is not None and _is_unread(latest):
            self._supersede(latest, "a newer version came before it was read", now)
        state = FileState.WAITING if new.cause is None else FileState.QUARANTINED
        version = latest[1] + 1 if latest else 1
        file = self._enter(
            path=new.sighting.path,
            version=version,
            sha256=new.sha256,
            size_bytes=new.sighting.stat.size_bytes,
            stat=_stat_to_keep(new),
            state=state,
            cause=new.cause,
            reason=new.reason,
            now=now,
        )
        detail = new.reason or f"version {version}"
        self._store.note(now, f"file.{state}", file_id=file, detail=detail)
        return state

    def _supersede(self, version: Row, why: str, now: datetime) -> None:
        self.move(version[0], FileState.SUPERSEDED, now, Cause.REPLACED, why)

    # ------------------------------------------------------------------ release

    def release(self, file: int, now: datetime) -> FileState:
        """Let a quarantined version wait again, or be looked at again. Returns its state then."""
        path, version, state, cause, latest = self._store.rows(
            "SELECT path, version, state, cause,"
            " (SELECT max(version) FROM file AS newer"
            f"  WHERE newer.path = file.path AND NOT ({IS_LOOK}))"
            " FROM file WHERE id = ?",
            (file,),
        )[0]
        if state != FileState.QUARANTINED:
            raise RequestError(f"{path} version {version} is {state}, not quarantined")
        if cause == Cause.NAME:
            raise RequestError(f"{path}: rename it; such a name is never processed")
        if version != latest:
            why = f"version {latest} came"
            self.move(file, FileState.SUPERSEDED, now, Cause.REPLACED, why)
            return FileState.SUPERSEDED
        if cause in UNREAD_CAUSES:
            self.look_again(file)
            self._store.note(now, "file.released", file_id=file, detail="to be looked at again")
            return FileState.QUARANTINED
        self.move(file, FileState.WAITING, now, reason="released")
        return FileState.WAITING

    # ------------------------------------------------------------------ plans, manifests

    def find(self, path: str, version: int | None, sha256: str | None) -> int | None:
        """The version that a manifest means: by number if the content agrees, else by content.

        A rebuilt ledger may lack the number. A version with this content that is published already
        is then not taken: the path may have had the same content twice.
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

    def find_or_enter(self, item: PlannedFile, known_from: str, now: datetime) -> int:
        """The id of a version. One that only the disk knows is entered, and looked at again."""
        file = self.find(item.path, item.version, item.sha256)
        if file is not None:
            return file
        file = self._enter(
            path=item.path,
            version=self._free_version(item.path, item.version),
            sha256=item.sha256,
            size_bytes=item.size_bytes,
            stat="",
            state=FileState.WAITING,
            now=now,
        )
        self._store.note(now, "file.waiting", file_id=file, detail=f"known from {known_from}")
        return file

    def _free_version(self, path: str, wanted: int | None) -> int:
        """The number that a manifest gives a version, if that is free, else the next one."""
        row = self._store.row(
            "SELECT max(version), max(version = ?) FROM file WHERE path = ?", (wanted, path)
        )
        newest, is_taken = row or (None, None)
        return wanted if wanted and not is_taken else (newest or 0) + 1


def _is_unread(latest: Row) -> bool:
    _, _, _, state, cause = latest
    return state == FileState.WAITING or (
        state == FileState.QUARANTINED and cause in UNREAD_CAUSES | {Cause.NAME}
    )


def _stat_to_keep(new: Settled) -> str:
    """How a file looked. An empty text makes the next look take it for new."""
    return "" if new.look_again else str(new.sighting.stat)
