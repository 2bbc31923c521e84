"""Print the log of one run, and follow it while the run writes to it."""

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO

from ds_flow.core import RequestError, printable
from ds_flow.ledger import Ledger, RunRow
from ds_flow.runs import processes
from ds_flow.settings import Settings
from ds_flow.system import open_regular, read_word
from ds_flow.views import find_run, log_of
from ds_flow.work import run_log, work_root

CHUNK_BYTES = 2**16
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Log:
    """A run's log: where it is now, and whether the run has stopped writing to it."""

    path: Callable[[], Path]
    is_over: Callable[[], bool]


def find_log(settings: Settings, ledger: Ledger, name: str) -> Log:
    """Find the log of a run. Raises RequestError without one."""
    by_hand = run_log(settings.log_dir, name)
    if "/" not in name and ledger.read.run(name) is None and by_hand.exists():
        mark = _mark(settings, name)  # a run by hand enters the ledger only when it has ended
        return Log(lambda: by_hand, lambda: mark is None or not any(processes(mark)))
    row = find_run(ledger, name)
    return Log(
        lambda: log_of(settings, _reread(ledger, row)),
        lambda: _reread(ledger, row).ended_at is not None,
    )


def _reread(ledger: Ledger, row: RunRow) -> RunRow:
    return next(now for now in ledger.read.runs_of(row.batch) if now.attempt == row.attempt)


def _mark(settings: Settings, run_id: str) -> str | None:
    for path in work_root(settings.output_dir).glob("*/attempts/*/run_id"):
        if read_word(path) == run_id:
            return f"{path.parts[-4]}/{path.parts[-2]}"
    return None


def put_log(log: Log, *, follow: bool) -> None:
    """Print a log; with `follow`, until its run is over. Raises RequestError if there is no log.

    Control characters are escaped, in a pipe, too: most pipes end at a terminal. The file that the
    log is in has the exact bytes.
    """
    put = _put_text()
    for chunk in _chunks(log, follow=follow):
        put(chunk)
        sys.stdout.flush()


def _put_text() -> Callable[[bytes], object]:
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def put(chunk: bytes) -> object:
        lines = decoder.decode(chunk).split("\n")
        return sys.stdout.write("\n".join(map(printable, lines)))

    return put


def _chunks(log: Log, *, follow: bool) -> Iterator[bytes]:
    pause = Event()
    with _opened(log, pause, follow=follow) as file:  # renaming does not close it
        while True:
            is_over = not follow or log.is_over()
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
            if is_over:
                return
            pause.wait(POLL_SECONDS)


def _opened(log: Log, pause: Event, *, follow: bool) -> BinaryIO:
    while True:
        is_over = not follow or log.is_over()
        for _ in range(2):  # it may be renamed between the lookup and the opening
            with suppress(FileNotFoundError):
                return os.fdopen(open_regular(log.path()), "rb")
        if is_over:
            raise RequestError(f"no log: {log.path()} does not exist")
        pause.wait(POLL_SECONDS)
