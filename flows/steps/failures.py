"""A failed step leaves its reason for the daemon."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ds_flow.core import DispatchError, DsFlowError, is_no_room
from ds_flow.system import masked, write_word
from ds_flow.work import NO_ROOM, attempt_dir, marked_attempt


@contextmanager
def recorded(work: Path) -> Iterator[None]:
    """Write the reason of a failure to the attempt's `error` file, where the daemon reads it.

    Metaflow logs the traceback of what is raised here. A traceback that holds a secret is dropped.
    """
    try:
        yield
    except Exception as error:
        text = str(error) if isinstance(error, DsFlowError) else f"{type(error).__name__}: {error}"
        reason = masked(text, os.environ)
        attempt = marked_attempt(work)
        if attempt is not None:
            _leave(attempt_dir(work, attempt), error, reason)
        trace = "".join(traceback.format_exception(error))
        if masked(trace, os.environ) != trace:
            raise DispatchError(reason) from None
        raise


def _leave(folder: Path, error: Exception, reason: str) -> None:
    """Write the reason, and a mark if a disk is full. On a full disk neither may succeed."""
    with suppress(OSError):
        if is_no_room(error):
            (folder / NO_ROOM).touch()
        write_word(folder / "error", reason)
