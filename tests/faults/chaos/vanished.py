"""A watch on `out/` that notes every published name that disappears, if only for a moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watchdog.events import (
    DirDeletedEvent,
    DirMovedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

PUBLISHED = ("processed_", "final_combined_", "manifest_", "profile_")


class _Vanished(FileSystemEventHandler):
    def __init__(self) -> None:
        self.names: list[str] = []

    def on_deleted(self, event: DirDeletedEvent | FileDeletedEvent) -> None:
        self._note(event.src_path)

    def on_moved(self, event: DirMovedEvent | FileMovedEvent) -> None:
        self._note(event.src_path)

    def _note(self, path: bytes | str) -> None:
        name = Path(str(path)).name
        if name.startswith(PUBLISHED):
            self.names.append(name)


@contextmanager
def vanished_from(out: Path) -> Iterator[list[str]]:
    """The published names that were removed or renamed so far; all of them at the end."""
    handler, observer = _Vanished(), Observer()
    observer.schedule(handler, str(out))
    observer.start()
    try:
        yield handler.names
    finally:
        # Events come in order: once this one has come, all earlier ones have.
        end = out / f"{PUBLISHED[0]}end-of-watch"
        end.touch()
        end.unlink()
        while end.name not in handler.names and observer.is_alive():
            observer.join(0.05)
        handler.names.remove(end.name)
        observer.stop()
        observer.join()
