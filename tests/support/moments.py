"""Let another process be as fast as it likes: change the disk between any two system calls."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import BuiltinFunctionType, FrameType
from typing import Any


@contextmanager
def before_call(number: int, change: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Make a change right before the given call of a function of `os`, counted from 0.

    Gives how many of these calls there have been.
    """
    count = 0

    def see(_frame: FrameType, event: str, called: Any) -> None:
        nonlocal count
        is_call = event == "c_call" and isinstance(called, BuiltinFunctionType)
        if is_call and called.__module__ == "posix":
            if count == number:
                sys.setprofile(None)
                change()
                sys.setprofile(see)
            count += 1

    sys.setprofile(see)
    try:
        yield lambda: count
    finally:
        sys.setprofile(None)


def at_every_moment(
    prepare: Callable[[], object], attempt: Callable[[], object], change: Callable[[], object]
) -> int:
    """Prepare and try again and again, with the change one call later each time; how often."""
    number = 0
    while True:
        prepare()
        with before_call(number, change) as calls:
            attempt()
        if calls() <= number:
            return number
        number += 1


class LinkAndFolder:
    """A link to a file beside it, and a folder that may take the link's place at any moment."""

    CONTENT = b"name\nAnn\n"

    def __init__(self, inbox: Path) -> None:
        self.link = inbox / "student_link.csv"
        self._folder, self._spare = inbox / "folder", inbox / "spare"
        inbox.mkdir(exist_ok=True)
        (inbox / "elsewhere.csv").write_bytes(self.CONTENT)

    def prepare(self) -> None:
        if self.link.is_dir():
            self.link.rmdir()
        for path in (self.link, self._spare):
            path.unlink(missing_ok=True)
        self._folder.mkdir(exist_ok=True)
        self.link.symlink_to("elsewhere.csv")

    def swap(self) -> None:
        self.link.rename(self._spare)
        self._folder.rename(self.link)


def moved_too_deep(folder: Path, deep: Path) -> None:
    """Move a folder to where its path is longer than any that the kernel tells."""
    at = os.open(deep, os.O_RDONLY)
    for _ in range(20):
        name = "d" * 250
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.rename(folder, "moved", dst_dir_fd=at)
    os.close(at)


@contextmanager
def nest(folder: Path, name: str) -> Iterator[str]:
    """Make more folders, each in the one before, than Python's stack is deep; a file in it."""
    paths = [f"{folder}/n" + "/n" * depth for depth in range(sys.getrecursionlimit() + 100)]
    for path in paths:
        Path(path).mkdir()
    file = f"{paths[-1]}/{name}"
    Path(file).touch()
    try:
        yield file
    finally:  # shutil.rmtree calls itself once for each
        Path(file).unlink()
        for path in reversed(paths):
            Path(path).rmdir()


def chain(last: Path) -> None:
    """Make more links, each to the one before, than Python's own stack is deep."""
    last.parent.mkdir(parents=True, exist_ok=True)
    before = last.with_name("end.csv")
    before.write_bytes(LinkAndFolder.CONTENT)
    for number in range(sys.getrecursionlimit() + 100):
        link = last.with_name(f"link{number}")
        link.symlink_to(before.name)
        before = link
    last.symlink_to(before.name)
