"""How far the work is, on standard error while that is a terminal."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from ds_flow.core import DsFlowError, FileState
from ds_flow.ledger import Ledger, Reading
from ds_flow.settings import Settings

REFRESH_SECONDS = 0.5

Update = Callable[[str, int, int], object]
"""Shows what is going on, how many files are done, and of how many."""


@contextmanager
def shown(chosen: Settings) -> Iterator[None]:
    """Show a progress bar meanwhile; log lines go above it. Without a terminal do nothing."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    screen = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=screen, transient=True) as bars:
        bar = bars.add_task("looking", total=None)

        def update(text: str, done: int, total: int) -> None:
            bars.update(bar, description=text, completed=done, total=total or None)

        with _logs_above(), _kept_up(chosen, update):
            yield


@contextmanager
def _logs_above() -> Iterator[None]:
    """Log to what rich has put in front of standard error, which keeps the bar below the text."""
    handlers = [
        (handler, handler.setStream(sys.stderr))
        for handler in logging.getLogger("ds_flow").handlers
        if isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, logging.FileHandler)
    ]
    try:
        yield
    finally:
        for handler, stream in handlers:
            if stream is not None:
                handler.setStream(stream)


@contextmanager
def _kept_up(chosen: Settings, update: Update) -> Iterator[None]:
    over = Event()
    thread = Thread(target=_keep_up, args=(chosen, update, over), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _keep_up(chosen: Settings, update: Update, over: Event) -> None:
    with suppress(DsFlowError):  # a busy or full disk: the work itself says so
        ledger = Ledger(chosen.ledger)  # its own: a connection belongs to one thread
        try:
            first = _done(ledger.read)
            while not over.wait(REFRESH_SECONDS):
                runs = [run.run_id or run.batch for run in ledger.read.live_runs()]
                text = f"run {', '.join(runs)}" if runs else "looking"
                update(text, _done(ledger.read) - first, ledger.read.total() - first)
        finally:
            ledger.close()


def _done(read: Reading) -> int:
    counts = read.counts("file")
    return sum(counts.values()) - counts[FileState.WAITING] - counts[FileState.BATCHED]
