"""Looking through and removing a folder in which a job could leave anything."""

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def paths_below(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder, and in those in it, as far as a path reaches and may be listed.

    `os.walk` and `rglob` call themselves for each level, so a job could leave folders too deep for
    them. A link is not followed.
    """
    left = [os.fspath(folder)]
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                yield Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)


def remove_tree(folder: Path) -> None:
    """Remove a folder and what is in it, as far as that can be done, however deep it is.

    `shutil.rmtree` calls itself and opens a file for each level, so a job could leave folders too
    deep for it. Here every folder is moved to the top before it is emptied.
    """
    with suppress(OSError):
        top = os.open(folder, FOLDER)
        try:
            left = _move_up(top, top)
            while left:
                left += _emptied(top, left.pop())
        finally:
            os.close(top)
        folder.rmdir()


def _emptied(top: int, name: str) -> list[str]:
    """Remove a folder at the top; the names of those that were in it, and are at the top now."""
    moved: list[str] = []
    with suppress(OSError):
        folder = os.open(name, FOLDER, dir_fd=top)
        try:
            moved = _move_up(folder, top)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=top)
    return moved


def _move_up(folder: int, top: int) -> list[str]:
    """Unlink the files of a folder and move its folders to the top, under new names."""
    moved = []
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        with suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                _open_up(entry.name, folder)
                name = secrets.token_hex(16)
                os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=top)
                moved.append(name)
            else:
                os.unlink(entry.name, dir_fd=folder)
    return moved


def _open_up(name: str, folder: int) -> None:
    """Let this user work in a folder that a job may have closed."""
    closed = os.open(name, FOLDER | os.O_PATH, dir_fd=folder)
    try:
        with suppress(OSError):  # it is another user's
            Path(f"/proc/self/fd/{closed}").chmod(0o700)
    finally:
        os.close(closed)
