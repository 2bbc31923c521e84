"""A progress bar on standard error, if that is a terminal."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from ds_flow.core import DsFlowError, FileState
from ds_flow.ledger import Ledger, Reading
from ds_flow.settings import Settings
from ds_flow.work import Batch

REFRESH_SECONDS = 0.5

Update = Callable[[str, int, int], object]
"""Takes a description, the number of files done, and the number of all files."""


@contextmanager
def progress_bar(settings: Settings) -> Iterator[None]:
    """Show a progress bar and print log lines above it. Without a terminal, do nothing."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    screen = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=screen, transient=True) as bars:
        bar = bars.add_task("scanning", total=None)

        def update(text: str, done: int, total: int) -> None:
            bars.update(bar, description=text, completed=done, total=total or None)

        with _logs_above(), _updated(settings, update):
            yield


@contextmanager
def _logs_above() -> Iterator[None]:
    """Log to the stream that rich has put in front of standard error; it keeps the bar below.

    Of single files only what is wrong is logged there: the bar and the summary tell of the rest.
    """
    handlers = [
        (handler, handler.setStream(sys.stderr))
        for handler in logging.getLogger("ds_flow").handlers
        if isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, logging.FileHandler)
    ]
    for handler, _ in handlers:
        handler.addFilter(_is_no_single_file)
    try:
        yield
    finally:
        for handler, stream in handlers:
            handler.removeFilter(_is_no_single_file)
            if stream is not None:
                handler.setStream(stream)


def _is_no_single_file(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not record.getMessage().startswith("file.")


@contextmanager
def _updated(settings: Settings, update: Update) -> Iterator[None]:
    over = Event()
    thread = Thread(
        target=_update_until, args=(settings, update, over), name="progress", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _update_until(settings: Settings, update: Update, over: Event) -> None:
    with suppress(DsFlowError):  # such as a full disk: the work itself reports it
        ledger = Ledger(settings.ledger)  # a connection belongs to one thread
        try:
            first = _done(ledger.read)
            while not over.wait(REFRESH_SECONDS):
                live = ledger.read.live_runs()
                runs = [run.run_id or run.batch for run in live]
                text = f"run {', '.join(runs)}" if runs else "scanning"
                finished = sum(
                    Batch.at(settings.output_dir, run.batch).count_results() for run in live
                )
                update(text, _done(ledger.read) + finished - first, ledger.read.total() - first)
        finally:
            ledger.close()


def _done(read: Reading) -> int:
    counts = read.counts("file")
    return sum(counts.values()) - counts[FileState.WAITING] - counts[FileState.BATCHED]
