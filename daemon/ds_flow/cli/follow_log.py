"""The log of one run, as it stands or as it grows."""

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO

from ds_flow.cli.lookup import find_run, run_log
from ds_flow.core import RequestError, printable
from ds_flow.ledger import Ledger, RunRow
from ds_flow.runs import processes
from ds_flow.settings import Settings
from ds_flow.system import open_regular, read_word
from ds_flow.work import work_root

PIECE_BYTES = 2**16
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Log:
    """A run's log: where it is now, and whether nothing more will be written to it."""

    path: Callable[[], Path]
    is_over: Callable[[], bool]


def find_log(chosen: Settings, ledger: Ledger, name: str | None) -> Log:
    """Find the log of a run, by default the newest one. Raises RequestError if there is no run."""
    by_hand = chosen.log_dir / f"run_{name}.log"
    if name and "/" not in name and ledger.read.run(name) is None and by_hand.exists():
        mark = _mark(chosen, name)  # the ledger learns of a run by hand when it has ended
        return Log(lambda: by_hand, lambda: mark is None or not any(processes(mark)))
    row = find_run(ledger, name) if name else _newest(ledger)
    return Log(
        lambda: run_log(chosen, _again(ledger, row)),
        lambda: _again(ledger, row).ended_at is not None,
    )


def _newest(ledger: Ledger) -> RunRow:
    last = next(ledger.history.newest_runs(None, 1), None)
    if last is None:
        raise RequestError("there is no run yet")
    return last.row


def _again(ledger: Ledger, row: RunRow) -> RunRow:
    return next(now for now in ledger.read.runs_of(row.batch) if now.attempt == row.attempt)


def _mark(chosen: Settings, run_id: str) -> str | None:
    for path in work_root(chosen.output_dir).glob("*/attempts/*/run_id"):
        if read_word(path) == run_id:
            return f"{path.parts[-4]}/{path.parts[-2]}"
    return None


def put_log(log: Log, *, follow: bool) -> None:
    """Print a log, and what is added to it until its run is over. Raises RequestError without one.

    A program gets the very bytes, a terminal no control characters.
    """
    put = _put_text() if sys.stdout.isatty() else sys.stdout.buffer.write
    for piece in _pieces(log, follow=follow):
        put(piece)
        sys.stdout.flush()


def _put_text() -> Callable[[bytes], object]:
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def put(piece: bytes) -> object:
        lines = decoder.decode(piece).split("\n")
        return sys.stdout.write("\n".join(map(printable, lines)))

    return put


def _pieces(log: Log, *, follow: bool) -> Iterator[bytes]:
    pause = Event()
    with _opened(log, pause, follow=follow) as file:  # an open file outlives its renaming
        while True:
            is_over = not follow or log.is_over()
            while piece := file.read(PIECE_BYTES):
                yield piece
            if is_over:
                return
            pause.wait(POLL_SECONDS)


def _opened(log: Log, pause: Event, *, follow: bool) -> BinaryIO:
    while True:
        is_over = not follow or log.is_over()
        for _ in range(2):  # it may be renamed between being found and opened
            with suppress(FileNotFoundError):
                return os.fdopen(open_regular(log.path()), "rb")
        if is_over:
            raise RequestError(f"no log: {log.path()} is not there")
        pause.wait(POLL_SECONDS)
