"""The package's log handlers of one test: what it sets up ends with it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_logs() -> Iterator[None]:
    """Close what the block has set up, so that the next test's log is its own."""
    raises = logging.raiseExceptions
    yield
    package = logging.getLogger("ds_flow")
    for target in package.handlers[:]:
        package.removeHandler(target)
        target.close()
    package.propagate = True
    package.setLevel(logging.NOTSET)
    logging.raiseExceptions = raises
