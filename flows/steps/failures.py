"""What is told of a step that failed."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ds_flow.core import DispatchError, DsFlowError, is_of_the_disk
from ds_flow.system import masked, write_word
from ds_flow.work import NO_ROOM, attempt_dir, marked_attempt


@contextmanager
def told(work: Path) -> Iterator[None]:
    """Leave a failure's reason where the daemon finds it: in the attempt's `error` file.

    Metaflow logs the traceback of what is raised here: one that holds a secret is not.
    """
    try:
        yield
    except Exception as error:
        said = str(error) if isinstance(error, DsFlowError) else f"{type(error).__name__}: {error}"
        reason = masked(said, os.environ)
        attempt = marked_attempt(work)
        if attempt is not None:
            _leave(attempt_dir(work, attempt), error, reason)
        trace = "".join(traceback.format_exception(error))
        if masked(trace, os.environ) != trace:
            raise DispatchError(reason) from None
        raise


def _leave(folder: Path, error: Exception, reason: str) -> None:
    """Leave the reason, and a mark if it is a disk; on a full one perhaps neither."""
    with suppress(OSError):
        if is_of_the_disk(error):
            (folder / NO_ROOM).touch()
        write_word(folder / "error", reason)
