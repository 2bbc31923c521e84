"""A standby: a run's process that the daemon has started while the files of its batch settle."""

import os
import select
import sys
import tempfile
from pathlib import Path

from ds_flow.core import STANDBY
from steps import metaflow_env

WAIT_SECONDS = 60.0


def wait_for_batch() -> None:
    """If this is a standby, wait until its batch is there; end quietly if none comes.

    The daemon holds the other end of the standard input, so this ends when the daemon does.
    """
    log = os.environ.pop(STANDBY, "")
    if not log:
        return
    if not _is_told():
        Path(log).unlink(missing_ok=True)
        sys.exit()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    tempfile.tempdir = None  # the batch's folder for that is there by now
    metaflow_env.hold()


def _is_told() -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], WAIT_SECONDS)
    return bool(ready) and bool(os.read(sys.stdin.fileno(), 64))
