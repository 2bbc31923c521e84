"""Events of the folders of the inbox: hints that something changed, and under which name.

The scan says which folders there are. watchdog's own walk would follow links into mounts that do
not answer, and an event that it does not expect ends its thread.
"""

import logging
import os
import warnings
from collections import deque

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from ds_flow.system import Wake

log = logging.getLogger(__name__)

NAMED_AT_ONCE = 4096  # names that events gave; the oldest are forgotten, since a scan follows

OURS = CallbackId(1)

# Opening and reading are not changes: our own fingerprinting would wake us for ever.
CHANGES = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_ONLYDIR
)
GOINGS = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_ONLYDIR
)


class Watches:
    """The watched folders, and one thread that reads their events."""

    def __init__(self, wake: Wake) -> None:
        """Raises OSError if the user has no inotify instance left."""
        self._wake = wake
        self._named: deque[str] = deque(maxlen=NAMED_AT_ONCE)
        self._folders: dict[WatchDescriptor, str] = {}
        self._inotify = InotifyFD()
        self._inotify.start()

    @property
    def is_alive(self) -> bool:
        """Whether events still come: an unexpected one ends their thread."""
        return self._inotify.is_alive()

    def add(self, descriptor: int, folder: str) -> None:
        """Watch an open folder, or take note of its name. Raises OSError at the user's limit."""
        path = f"/proc/self/fd/{descriptor}".encode()
        with warnings.catch_warnings():  # a folder is added again at each scan
            warnings.simplefilter("ignore")
            watch = self._inotify.add_callback(path, CHANGES, self, OURS)
        self._folders[watch] = folder

    def add_above(self, folder: str) -> None:
        """Watch for the going of a folder itself: its own watch hears nothing then."""
        above, name = os.path.split(folder)
        whereabouts = _Whereabouts(self._wake, os.fsencode(name))
        self._inotify.add_callback(os.fsencode(above), GOINGS, whereabouts, OURS)

    def take_named(self) -> set[str]:
        """Return the paths that events have named since the last call."""
        return {self._named.popleft() for _ in range(len(self._named))}

    def close(self) -> None:
        """Stop watching."""
        self._inotify.stop()
        self._inotify.join()

    # ------------------------------------------------------------------ called by its thread

    def on_event(self, event: InotifyEvent) -> None:
        """Note which name changed, and wake the daemon. Many are lost when the queue overflows."""
        folder = self._folders.get(event.wd)
        if folder is not None and event.name:
            self._named.append(os.path.join(folder, os.fsdecode(event.name)))
        self._wake.set()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Forget a folder that was removed. A new one may have the same inode number."""
        self._folders.pop(wd, None)

    def on_queue_overflow(self) -> None:
        """Look at everything: nobody knows what changed."""
        log.info("inbox.overflow", extra={"why": "more events than the kernel keeps: scanning"})
        self._wake.set()


class _Whereabouts:
    """Wakes the daemon when the inbox itself is moved, removed or made."""

    def __init__(self, wake: Wake, name: bytes) -> None:
        self._wake = wake
        self._name = name

    def on_event(self, event: InotifyEvent) -> None:
        if event.name == self._name:
            self._wake.set()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The scan notices that."""

    def on_queue_overflow(self) -> None:
        """The watches below hear of it, too."""
