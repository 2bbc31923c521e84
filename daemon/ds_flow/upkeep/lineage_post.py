"""Lineage on its way: to a file and to an address, each from where it was left.

The ledger is the spool. Beside it there is only how far each recipient has come.
"""

import io
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO

from ds_flow.core import Backoff, BatchError, DispatchError, Document, Problems
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.system import mask, open_regular, read_json, sync_file, write_bytes
from ds_flow.upkeep.child import Child, only_one
from ds_flow.upkeep.lineage import lineage_event

log = logging.getLogger(__name__)

FIRST = timedelta(days=1)  # a recipient that is new gets the events since then
READ_AT_ONCE = 100  # events
REFUSED = frozenset({400, 413, 422})  # an address that says this never takes this event
SEND_SECONDS = 600.0  # for one process; the next one goes on
REST_SECONDS = (5.0, 600.0)  # after the first failure, and at most

Deliver = Callable[[str], None]


def send_lineage(settings: Settings, ledger: Ledger, now: datetime) -> None:
    """Give each recipient the events that it has not got yet.

    An event may come twice if this is killed in between, and is then the same to the byte.
    Raises DispatchError if a recipient does not take one now, RequestError while another process
    sends.
    """
    ways: dict[str, Deliver] = {}
    if settings.lineage_file:
        ways["file"] = partial(_add_line, settings.lineage_file)
    if settings.lineage.url:
        ways["url"] = partial(_post, settings.lineage.url, settings.lineage.token)
    with only_one(settings, "lineage", "another process is sending lineage events here"):
        failed = [
            why for name, way in ways.items() if (why := _send(settings, ledger, name, way, now))
        ]
    if failed:
        raise DispatchError("; ".join(failed))


def _send(settings: Settings, ledger: Ledger, name: str, way: Deliver, now: datetime) -> str:
    """Send to one recipient. Returns why it takes no more, or ""."""
    at = _position(settings, ledger, name, now)
    while some := ledger.lineage.run_events(at, READ_AT_ONCE):
        for told in some:
            try:
                way(json.dumps(lineage_event(settings, ledger, told)))
            except (OSError, ValueError) as error:
                why = mask(f"lineage.{name}: {type(error).__name__}: {error}", settings.secrets)
                if getattr(error, "code", None) not in REFUSED:
                    return why
                log.error("lineage.refused", extra={"run_id": told.run_id, "why": why})
            at = told.id
            _keep(settings, name, at)
    return ""


# --------------------------------------------------------------------------- how far


def _position(settings: Settings, ledger: Ledger, name: str, now: datetime) -> int:
    """The last event that a recipient got. In a ledger that was rebuilt, the ids begin anew."""
    found = _kept(settings).get(name)
    newest = ledger.lineage.last_run_event()
    if not isinstance(found, int):
        return ledger.lineage.events_before(now - FIRST)
    if found > newest:
        _keep(settings, name, newest)
    return min(found, newest)


def _kept(settings: Settings) -> Document:
    try:
        found = read_json(_file(settings))
    except (BatchError, OSError):  # not there yet, or torn by a power loss
        return {}
    return found if isinstance(found, dict) else {}


def _keep(settings: Settings, name: str, at: int) -> None:
    content = json.dumps({**_kept(settings), name: at})
    write_bytes(_file(settings), content.encode(), is_durable=False)


def _file(settings: Settings) -> Path:
    return settings.work_root / "lineage.json"


# --------------------------------------------------------------------------- the ways


def _add_line(path: Path, text: str) -> None:
    """Add a line, durably. What a killed writer left of one is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, 0o640)
    with os.fdopen(descriptor, "r+b") as file:
        file.truncate(_end_of_lines(file))
        file.seek(0, os.SEEK_END)
        file.write(f"{text}\n".encode())
    sync_file(path)


def _end_of_lines(file: IO[bytes]) -> int:
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 2**16)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _post(address: str, token: str | None, text: str) -> None:
    """Post one event. Raises OSError if it is not taken: an HTTPError has the server's `code`."""
    from http.client import HTTPException  # not in the daemon: an idle one does without HTTP

    from ds_flow.upkeep.webhook import post

    try:
        post(io.StringIO(f"{address}\n{text}"), token)
    except HTTPException as error:
        raise OSError(f"no answer of HTTP: {error!r}") from error


# --------------------------------------------------------------------------- in the daemon


@dataclass(slots=True)
class LineageSender:
    """Starts a process of its own when there is something to send. The daemon waits for nothing."""

    _child: Child = field(default_factory=Child)
    _sending: int = 0  # up to this event
    _sent: int = -1
    _kill_at_s: float = 0.0
    _backoff: Backoff = field(default_factory=lambda: Backoff(*REST_SECONDS))
    _problems: Problems = field(default_factory=Problems)

    def keep(self, settings: Settings, ledger: Ledger, now_s: float) -> None:
        """Start a process if it is time, or see how the last one ended."""
        if not (settings.lineage.file or settings.lineage.url):
            return
        if self._child.is_there:
            if now_s >= self._kill_at_s:
                self._child.kill()
            ended = self._child.ended()
            if ended is None:
                return
            self._end(*ended, now_s)
        if now_s < self._backoff.retry_at_s:
            return
        if (newest := ledger.lineage.last_run_event()) != self._sent:
            self._child.start(settings, "lineage", "--send")
            self._sending, self._kill_at_s = newest, now_s + SEND_SECONDS

    def close(self) -> None:
        """End the process. What it has not sent, the next daemon does."""
        self._child.close()

    def _end(self, code: int, said: str, now_s: float) -> None:
        if code == 0:
            self._sent = self._sending
            self._backoff.reset()
            if said:
                log.warning("lineage.said", extra={"why": said})
            if self._problems.solve("lineage"):
                log.info("lineage.sent")
            return
        self._backoff.fail(now_s)
        why = said or f"exit code {code}"
        if self._problems.report("lineage", why):
            log.warning("lineage.waits", extra={"why": why})
