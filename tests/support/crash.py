"""Processes that die in the middle of what they do."""

import os
import sys
from collections.abc import Callable
from itertools import count

CRASHED = 77

# What Python tells an audit hook (docs.python.org/3/library/audit_events.html) of changes to files;
# a file or folder is opened for each fsync, too.
CHANGES = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "fcntl.flock"}


def lives_through(act: Callable[[], object], step: int) -> bool:
    """Act in a process that dies before its step-th change to a file; whether it lived on."""
    child = os.fork()
    if child == 0:
        _die_before_change(step)
        try:
            act()
        except BaseException:  # noqa: BLE001 - a forked test must not go on
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in {0, CRASHED}
    return os.waitstatus_to_exitcode(status) == 0


def _die_before_change(step: int) -> None:
    steps = count()

    def watch(event: str, _args: tuple[object, ...]) -> None:
        if event in CHANGES and next(steps) == step:
            os._exit(CRASHED)

    sys.addaudithook(watch)
