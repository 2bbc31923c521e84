"""What a power loss would leave: only what was synced, the strictest reading of POSIX."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Inode = tuple[int, int]  # with its device
CHANGES = ("link", "rename", "replace", "unlink")


def _inode(found: os.stat_result) -> Inode:
    return found.st_dev, found.st_ino


class Power:
    """Notes each fsync of this process. Each is made, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bytes: set[Inode] = set()
        self._names: dict[Inode, dict[str, Inode]] = {}  # of each folder
        self._looks: list[Callable[[Path], None]] = []
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self._note)
        for name in CHANGES:
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))

    def keeps(self, *paths: Path) -> bool:
        """Whether a loss now would leave all of them: their names, and the bytes of files."""
        return all(self._keeps(path) for path in paths)

    def names(self, folder: Path) -> set[str]:
        """What a loss now would leave in a folder."""
        return set(self._names.get(_inode(folder.stat()), ()))

    def before_each_name(self, look: Callable[[Path], None]) -> None:
        """Look right before a name is made or removed."""
        self._looks.append(look)

    def _keeps(self, path: Path) -> bool:
        found = path.stat()
        names = self._names.get(_inode(path.parent.stat()), {})
        is_whole = stat.S_ISDIR(found.st_mode) or _inode(found) in self._bytes
        return is_whole and names.get(path.name) == _inode(found)

    def _note(self, descriptor: int) -> None:
        self._sync(descriptor)
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self._names[_inode(found)] = dict(_entries(descriptor, found.st_dev))
        else:
            self._bytes.add(_inode(found))

    def _watched(self, change: Callable[..., None]) -> Callable[..., None]:
        def watched(*paths: Path, **options: object) -> None:
            for look in self._looks:
                look(Path(paths[-1]))
            change(*paths, **options)

        return watched


def _entries(folder: int, device: int) -> Iterator[tuple[str, Inode]]:
    with os.scandir(folder) as found:
        for entry in found:
            yield entry.name, (device, entry.inode())
