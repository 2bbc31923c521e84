"""Which version of a path a content is, and what becomes of the one before."""

from datetime import datetime

from ds_flow.core import UNREAD, Cause, FileState, RequestError, Settled
from ds_flow.ledger.moves import Recording
from ds_flow.ledger.store import Row, Store, text


class Versions:
    """Moves of single versions, within the caller's transaction."""

    def __init__(self, store: Store, moves: Recording) -> None:
        self._store = store
        self._moves = moves

    def admit(self, new: Settled, now: datetime) -> FileState:
        """Enter one settled file; the state of its path's latest version."""
        path, stat = new.sighting.path, _to_see_again(new)
        versions = self._store.rows(
            "SELECT id, version, sha256, state, cause FROM file WHERE path = ?"
            " ORDER BY version DESC LIMIT 2",
            (path,),
        )
        for file, _, sha256, state, cause in versions:
            if sha256 is None and new.sha256 is not None:
                continue  # never read: the one before it says whether this content is known
            if sha256 != new.sha256:
                break
            # With another mtime, it came again; with another ctime alone, only its mode may differ.
            mtime_ns = new.sighting.stat.mtime_ns
            self._store.change(
                "UPDATE file SET seen_at = iif(stat = '' OR instr(stat, ?), seen_at, ?), stat = ?"
                " WHERE path = ? AND version = ?",
                (f" {mtime_ns} ", text(now), stat, path, versions[0][1]),
            )
            if file != versions[0][0] and versions[0][3] != FileState.SUPERSEDED:
                self._supersede(versions[0], f"version {versions[1][1]} has its content", now)
            if new.cause is None and cause in UNREAD | {Cause.REPLACED}:
                self._moves.move_file(file, FileState.WAITING, now, reason="seen again, unread")
                return FileState.WAITING
            return FileState(state)
        return self._enter_version(new, versions[0] if versions else None, now)

    def _enter_version(self, new: Settled, latest: Row | None, now: datetime) -> FileState:
        if latest is not None and self._is_unread(latest):
            self._supersede(latest, "a newer version came before it was read", now)
        state = FileState.WAITING if new.cause is None else FileState.QUARANTINED
        version = latest[1] + 1 if latest else 1
        file = self._moves.enter_file(
            path=new.sighting.path,
            version=version,
            sha256=new.sha256,
            size_bytes=new.sighting.stat.size_bytes,
            stat=_to_see_again(new),
            state=state,
            cause=new.cause,
            reason=new.reason,
            now=now,
        )
        self._moves.note(
            now, f"file.{state}", file_id=file, detail=new.reason or f"version {version}"
        )
        return state

    def _supersede(self, version: Row, why: str, now: datetime) -> None:
        self._moves.move_file(version[0], FileState.SUPERSEDED, now, Cause.REPLACED, why)

    @staticmethod
    def _is_unread(latest: Row) -> bool:
        _, _, _, state, cause = latest
        return state == FileState.WAITING or (
            state == FileState.QUARANTINED and cause in UNREAD | {Cause.NAME}
        )

    def release(self, file: int, now: datetime) -> FileState:
        """Let a quarantined version wait again, or be looked at again; its state then."""
        path, version, state, cause, latest = self._store.rows(
            "SELECT path, version, state, cause,"
            " (SELECT max(version) FROM file AS other WHERE other.path = file.path)"
            " FROM file WHERE id = ?",
            (file,),
        )[0]
        if state != FileState.QUARANTINED:
            raise RequestError(f"{path} version {version} is {state}, not quarantined")
        if cause == Cause.NAME:
            raise RequestError(f"{path}: rename it; such a name is never processed")
        if version != latest:
            self._moves.move_file(
                file, FileState.SUPERSEDED, now, Cause.REPLACED, f"version {latest} came"
            )
            return FileState.SUPERSEDED
        if cause in UNREAD:
            self._moves.look_again(file)
            self._moves.note(now, "file.released", file_id=file, detail="to be looked at again")
            return FileState.QUARANTINED
        self._moves.move_file(file, FileState.WAITING, now, reason="released")
        return FileState.WAITING


def _to_see_again(new: Settled) -> str:
    """How a file looked; nothing at all makes the next look take it for new."""
    return "" if new.look_again else str(new.sighting.stat)
