"""What is told of a step that failed."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ds_flow import durable, workdir
from ds_flow.errors import DispatchError, DsFlowError
from ds_flow.logs import masked


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
        attempt = workdir.marked_attempt(work)
        if attempt is not None:
            durable.write_word(workdir.attempt_dir(work, attempt) / "error", reason)
        trace = "".join(traceback.format_exception(error))
        if masked(trace, os.environ) != trace:
            raise DispatchError(reason) from None
        raise
