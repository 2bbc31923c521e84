"""Receipts: what became of each file, in the inbox, for whoever sees nothing else.

The ledger's events are the queue. Beside them there is only how far the receipts have come. A
thread writes them, since the inbox may be on a mount that does not answer.
"""

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Thread

from ds_flow.core import (
    BatchError,
    Document,
    DsFlowError,
    FileState,
    Problems,
    Quota,
    escape,
    for_file,
    is_disk_error,
    unescape,
)
from ds_flow.ledger import FileRow, Ledger, ask_ledger
from ds_flow.settings import Settings
from ds_flow.system import mask, read_json
from ds_flow.upkeep.receipt_files import ReceiptFiles, receipts_folder

log = logging.getLogger(__name__)

FIRST = timedelta(days=1)  # of what moved before there were receipts
AT_ONCE = 500  # events, and files
REST_SECONDS = 60.0  # after a failure
NAMED, DAY_SECONDS = 20, 86_400.0  # files whose receipts cannot be written, in the log
OF_THE_HOST = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE})
STATES = {FileState.PROCESSED: "published"}  # the others are called as in the ledger


@dataclass(frozen=True, slots=True)
class Job:
    """What the thread is to do."""

    settings: Settings
    newest: int  # up to this event
    now: datetime


@dataclass(slots=True)
class Receipts:
    """Starts the thread when files have moved. The daemon waits for nothing."""

    _done: int = -1  # up to this event
    _thread: Thread | None = None
    _failed: list[str] = field(default_factory=list)  # why the thread could not go on
    _rest_until_s: float = 0.0
    _is_pending: bool = False
    _problems: Problems = field(default_factory=Problems)
    _quota: Quota = field(default_factory=lambda: Quota(NAMED, DAY_SECONDS))

    @property
    def is_pending(self) -> bool:
        """Whether something is to be written, or is being written, now."""
        return self._is_pending

    def keep(self, settings: Settings, ledger: Ledger, now: datetime, now_s: float) -> None:
        """Start the thread if something has moved, or see how it went."""
        self._is_pending = self._thread is not None and self._thread.is_alive()
        if self._is_pending or not settings.inbox_rules.receipts:
            return
        self._note(now_s)
        newest = ledger.moves.newest()
        self._is_pending = newest != self._done and now_s >= self._rest_until_s
        if self._is_pending:
            job = Job(settings, newest, now)
            self._thread = Thread(target=self._work, args=(job,), name="receipts", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Let the thread end, for so long at most. The next daemon writes what it has not."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _note(self, now_s: float) -> None:
        if not self._thread:
            return
        self._thread = None
        if not self._failed:
            if self._problems.solve("receipts"):
                log.info("receipts.written")
            return
        why = self._failed.pop()
        self._rest_until_s = now_s + REST_SECONDS
        if self._problems.report("receipts", why):
            log.warning("receipts.wait", extra={"why": why})

    # ------------------------------------------------------------------ on the thread

    def _work(self, job: Job) -> None:
        try:
            with receipts_folder(str(job.settings.inbox)) as files:
                write_receipts(job, files, self._pass_over)
        except (OSError, DsFlowError) as error:
            self._failed.append(getattr(error, "strerror", None) or str(error))
        except Exception as error:  # a bug: the thread ends, and the daemon says so
            log.exception("receipts.bug")
            self._failed.append(repr(error))
        else:
            self._done = job.newest

    def _pass_over(self, path: str, error: OSError) -> None:
        """Say that a file has no receipt, of a few files a day."""
        count, _ = self._quota.count("receipt", time.monotonic())
        if count <= NAMED:
            why = error.strerror or str(error)
            log.warning("receipt.refused", extra={"path": escape(path), "why": why})


PassOver = Callable[[str, OSError], None]


def write_receipts(job: Job, files: ReceiptFiles, pass_over: PassOver) -> None:
    """Write the receipts of all files that have moved since the last call.

    A receipt may be written twice if this is killed in between. Raises OSError, such as for a full
    disk, and DsFlowError. A receipt that alone cannot be written is passed over.
    """
    settings = job.settings
    at = _position(job)
    while at < job.newest:
        paths, last = ask_ledger(settings.ledger, partial(_moved, after=at))
        for start in range(0, len(paths), AT_ONCE):
            some = partial(_documents, job=job, paths=paths[start : start + AT_ONCE])
            for path, document in ask_ledger(settings.ledger, some):
                _put(files, path, document, pass_over)
        at = last or job.newest
        _keep(settings, at)


def _put(files: ReceiptFiles, path: str, document: Document, pass_over: PassOver) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False)
    try:
        files.put(path, f"{text}\n".encode(errors="backslashreplace"))
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise OSError(error.errno, "a receipt: its folder was removed meanwhile") from error
        if is_disk_error(error) or error.errno in OF_THE_HOST:
            raise
        pass_over(path, error)


def _moved(ledger: Ledger, after: int) -> tuple[list[str], int]:
    paths, batches, last = ledger.moves.since(after, AT_ONCE)
    of_batches = [path for batch in batches for path in ledger.read.batch_paths(batch)]
    return list(dict.fromkeys([*paths, *of_batches])), last


def _documents(ledger: Ledger, job: Job, paths: Sequence[str]) -> list[tuple[str, Document]]:
    """The receipts of files, each with the file's raw path below the inbox."""
    rows = ledger.read.latest(paths)
    batches = {row.batch for row in rows if row.batch}
    live = {batch for batch in batches if ledger.read.has_live_run(batch)}
    inbox = f"{job.settings.inbox}/"
    found = ((os.path.join(job.settings.root, unescape(row.path)), row) for row in rows)
    return [
        (raw.removeprefix(inbox), receipt(job, row, is_running=row.batch in live))
        for raw, row in found
        if raw.startswith(inbox)
    ]


def receipt(job: Job, row: FileRow, *, is_running: bool) -> Document:
    """What became of a file, for whoever has put it there."""
    states = {**STATES, FileState.BATCHED: "running" if is_running else "waiting"}
    is_aside = row.state in {FileState.QUARANTINED, FileState.SUPERSEDED}
    to_do = for_file(row.cause, row.path).text if row.state == FileState.QUARANTINED else ""
    return {
        "path": row.path.removeprefix(f"{escape(_prefix(job.settings))}"),
        "version": row.version,
        "sha256": row.sha256,
        "bytes": row.size_bytes,
        "state": states.get(row.state, row.state.value),
        "run_id": row.run_id,
        "reason": mask(row.reason, job.settings.secrets) if is_aside else "",
        "to_do": to_do,
        "told_at": job.now.isoformat(timespec="seconds"),
    }


def _prefix(settings: Settings) -> str:
    """What the ledger's paths of files in the inbox begin with."""
    if settings.inbox.is_relative_to(settings.root):
        below = str(settings.inbox.relative_to(settings.root))
        return "" if below == "." else f"{below}/"
    return f"{settings.inbox}/"


# --------------------------------------------------------------------------- how far


def _position(job: Job) -> int:
    """The last event whose files have their receipts. In a rebuilt ledger, the ids begin anew."""
    try:
        found = read_json(_file(job.settings))
    except (BatchError, OSError):  # not there yet, or torn by a power loss
        found = None
    if not isinstance(found, int):
        return ask_ledger(job.settings.ledger, lambda ledger: ledger.moves.before(job.now - FIRST))
    if found > job.newest:
        _keep(job.settings, job.newest)
    return min(found, job.newest)


def _keep(settings: Settings, at: int) -> None:
    """Nobody else writes here, so what a killed daemon has left of it is written over."""
    file = _file(settings)
    file.parent.mkdir(exist_ok=True)
    part = file.with_name("part")
    part.write_text(str(at))
    part.replace(file)


def _file(settings: Settings) -> Path:
    return settings.work_root / "receipts" / "at"
