"""Somebody who may put files into an inbox, and nothing more."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

DROPPER = 1235  # a user without a name


def let_in(inbox: Path) -> None:
    """Let the dropper write to an inbox in a folder that every user can reach."""
    if os.geteuid():
        pytest.skip("only root can be two users")
    os.chown(inbox, 0, DROPPER)
    inbox.chmod(0o2775)


@contextmanager
def dropper_at_work(work: Callable[..., object], *words: object) -> Iterator[BaseProcess]:
    """Call a function as the dropper, at the same time; it must end by itself."""
    process = multiprocessing.get_context("fork").Process(target=_drop, args=(work, words))
    process.start()
    try:
        yield process
        process.join()
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()


def as_dropper(work: Callable[..., object], *words: object) -> None:
    """Call a function as the dropper."""
    with dropper_at_work(work, *words):
        pass


def _drop(work: Callable[..., object], words: tuple[object, ...]) -> None:
    os.setgroups([])
    os.setgid(DROPPER)
    os.setuid(DROPPER)
    work(*words)
