"""The input directory: watch it, look at it, fingerprint its files."""

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ds_flow.core import (
    HOSTILE_NAME,
    Arrival,
    Cause,
    DispatchError,
    Settled,
    Sighting,
    is_hostile,
    unescape,
)
from ds_flow.inbox import scan
from ds_flow.inbox.hashing import Hash, StillArriving
from ds_flow.inbox.markers import Held, Waiting, marker_path
from ds_flow.inbox.pattern import Look, Pattern
from ds_flow.inbox.scan import UNLEASED_QUIET_SECONDS, opened_folder, stat_of
from ds_flow.inbox.watches import Watches
from ds_flow.system import OutsideError, Wake, fs_type, is_network_fs

log = logging.getLogger(__name__)

OWN_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Inbox:
    """One input pattern that is watched."""

    def __init__(self, pattern: Pattern, wake: Wake, observer: str = "auto") -> None:
        """`observer` is auto, inotify or poll, as in the settings."""
        self.pattern = pattern
        self.waiting = Waiting()  # files without their markers
        self._wake = wake
        self._mode = observer
        self._watches: Watches | None = None
        self._watched: tuple[int, int] | None = None  # device and inode of the base
        self.alive: Callable[[], None] = lambda: None  # called at each step of a look

    def change(self, pattern: Pattern) -> None:
        """Go by other markers from now on. The next scan finds what has waited for the old ones."""
        if pattern != self.pattern:
            self.pattern = pattern
            self.waiting = Waiting()

    @property
    def is_polling(self) -> bool:
        """Whether no events come, so that only a scan finds a file."""
        return self._watches is None

    # ------------------------------------------------------------------ watching

    def watch(self) -> None:
        """Start watching. Start again if another folder stands in the place of the watched one."""
        try:
            status = self.pattern.base.stat()
        except OSError:
            self.close()
            return  # the scan that follows reports it
        base = (status.st_dev, status.st_ino)
        if base == self._watched and not self._is_deaf():
            return
        if self._watched is not None and base[0] != self._watched[0]:
            log.error("inbox.moved", extra={"inbox": self.pattern.base, "why": "other device"})
        self.close()
        self._watched = base
        if self._wants_events():
            self._start_watches()

    def _is_deaf(self) -> bool:
        """Whether the thread that reads events has died. That is told, and mended."""
        if self._watches is None or self._watches.is_alive:
            return False
        log.error("inbox.deaf", extra={"inbox": self.pattern.base, "why": "restarting its watches"})
        return True

    def _wants_events(self) -> bool:
        kind = fs_type(self.pattern.base)
        if self._mode == "poll":
            return False
        if self._mode == "auto" and is_network_fs(kind):
            log.info("inbox.polled", extra={"inbox": self.pattern.base, "why": f"on {kind}"})
            return False
        return True

    def _start_watches(self) -> None:
        base = str(self.pattern.base)
        try:  # the constructor takes an inotify instance, `add` takes its watches
            self._watches = Watches(self._wake)
            with suppress(OSError):  # if that fails, a scan notices a move
                self._watches.add_above(_itself(self.pattern.base))
            with opened_folder(base) as descriptor:
                self._watches.add(descriptor, base)
        except OSError as error:
            self._poll(error)

    def _watch_folder(self, descriptor: int, folder: str) -> None:
        """Watch a folder before it is listed: so nothing that comes to it is missed."""
        if self._watches is not None:
            try:
                self._watches.add(descriptor, folder)
            except OSError as error:
                self._poll(error)

    def _poll(self, error: OSError) -> None:
        """Do without events. ENOSPC, EMFILE: the user's inotify limits are used up."""
        why = f"no inotify watch: {error.strerror}; see fs.inotify limits"
        log.warning("inbox.polled", extra={"inbox": self.pattern.base, "why": why})
        self._close_watches()

    def close(self) -> None:
        """Stop watching."""
        self._close_watches()
        self._watched = None

    def _close_watches(self) -> None:
        if self._watches is not None:
            self._watches.close()
            self._watches = None

    # ------------------------------------------------------------------ looking

    def look(self, is_known: Callable[[Sighting], bool] = lambda _: False) -> Iterator[Look]:
        """Find every file that matches now, except known ones, in steps as `scan_in_steps` does.

        Raises DispatchError if the folder is missing.
        It also raises once when the folder is on another device than before: a file system was
        mounted or lost. The next look believes what it sees.
        """
        scan.require_answer(self.pattern)
        before = self._watched
        self.watch()
        for found in scan.scan_in_steps(self.pattern, self._watch_folder, is_known):
            self.alive()
            yield found
        if before is not None and found.device != before[0]:
            raise DispatchError(f"inbox {self.pattern.base}: it is on another device now")

    def named(self) -> set[str]:
        """Return the matching paths that events have named since the last call.

        An event of a marker names the files that wait for it.
        """
        raw = self._watches.take_named() if self._watches is not None else ()
        paths = {path for path in map(self.pattern.name_of, raw) if path is not None}
        markers = (self.pattern.written(one) for one in raw if self.pattern.is_marker(one))
        return paths.union(*map(self.waiting.files_of, markers))

    def look_at(self, paths: Iterable[str]) -> list[Sighting]:
        """Look at single files again. What is no longer a file is left out."""
        found = []
        for path in paths:
            try:
                seen = scan.sight_file(self._raw(path), str(self.pattern.base))
            except OSError:
                continue
            if not isinstance(seen, str):
                found.append(Sighting(path, seen))
        return found

    def ready(self, new: list[Sighting]) -> list[Sighting]:
        """Return those of these files that have their marker. The others wait for it."""
        if (marker := self.pattern.marker) is None:
            return new
        ready = []
        for seen in new:
            self.waiting.drop(seen.path)
            if why := scan.why_unready(self.pattern, seen):
                self.waiting.put(Held(seen, marker_path(marker, seen.path), why))
            else:
                ready.append(seen)
        return ready

    def _raw(self, path: str) -> str:
        return os.path.join(self.pattern.root, unescape(path))

    # ------------------------------------------------------------------ fingerprinting

    def fingerprint(
        self, arrival: Arrival, now_s: float, so_far: Hash, at_most: int
    ) -> Settled | StillArriving | None:
        """Check a settled file's name and type, and hash it, or say why it is still arriving.

        None if it was read in part: at most so many bytes at once.
        """
        seen = arrival.sighting
        raw = self._raw(seen.path)
        if is_hostile(raw):
            return Settled(sighting=seen, cause=Cause.NAME, reason=HOSTILE_NAME)
        try:
            descriptor = scan.open_file(raw, str(self.pattern.base))
        except (FileNotFoundError, OutsideError):
            return StillArriving("gone")
        except BlockingIOError:
            return StillArriving("another process holds a lease on it", is_settling=False)
        except OSError as error:
            return _unreadable(seen, error)
        try:
            return self._read(descriptor, arrival, now_s, so_far, at_most)
        except OSError as error:
            return _unreadable(seen, error)
        finally:
            os.close(descriptor)

    def _read(
        self, descriptor: int, arrival: Arrival, now_s: float, so_far: Hash, at_most: int
    ) -> Settled | StillArriving | None:
        seen = arrival.sighting
        if stat_of(os.fstat(descriptor)) != seen.stat:
            return StillArriving("changed since it was looked at")
        age_s = now_s - arrival.unchanged_since_s
        is_marked = self.pattern.marker is not None
        match scan.is_open_for_writing(descriptor):
            case True:
                return StillArriving("open for writing", is_settling=False)
            case None if age_s < UNLEASED_QUIET_SECONDS and not is_marked:
                return StillArriving(f"no lease: it must be quiet for {UNLEASED_QUIET_SECONDS:g} s")
        is_whole = so_far.go_on(descriptor, at_most)
        if stat_of(os.fstat(descriptor)) != seen.stat:
            return StillArriving("changed while it was fingerprinted")
        return Settled(sighting=seen, sha256=so_far.hex) if is_whole else None


def _itself(folder: Path) -> str:
    """Return the folder to watch. For a link that is its target, since links give no events."""
    return os.path.realpath(folder) if folder.is_symlink() else str(folder)


def too_large(seen: Sighting, limit_mb: int) -> Settled:
    """Set a file aside that is larger than the settings allow."""
    size_mb = -(-seen.stat.size_bytes // 2**20)
    why = f"too large: {size_mb} MiB, and watch.max_mb is {limit_mb}"
    todo = "raise it and reload, or split the file"
    # The limit may be raised without changing the file.
    return Settled(sighting=seen, cause=Cause.UNREADABLE, reason=f"{why}: {todo}", look_again=True)


def _unreadable(seen: Sighting, error: OSError) -> Settled:
    """Set a file aside. Raises DispatchError if this process is at fault and not the file."""
    if error.errno in OWN_ERRORS:
        raise DispatchError(f"inbox: {seen.path}: {error.strerror}") from error
    why = f"cannot be read: {error.strerror}"
    # When the disk or the rights are mended, the file itself has not changed: so look again.
    return Settled(sighting=seen, cause=Cause.UNREADABLE, reason=why, look_again=True)
