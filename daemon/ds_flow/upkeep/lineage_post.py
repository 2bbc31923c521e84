"""Lineage on its way: to a file and to an address, each from where it was left.

The ledger is the spool. Beside it there is only how far each recipient has come.
"""

import io
import json
import logging
import os
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO

from ds_flow.core import DispatchError
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.system import mask, open_regular, sync_file
from ds_flow.upkeep.child import only_one
from ds_flow.upkeep.lineage import lineage_event
from ds_flow.upkeep.positions import Positions
from ds_flow.upkeep.sender import Sender

log = logging.getLogger(__name__)

READ_AT_ONCE = 100  # events
REFUSED = frozenset({400, 413, 422})  # an address that says this never takes this event

Deliver = Callable[[str], None]


def send_lineage(settings: Settings, ledger: Ledger, now: datetime) -> None:
    """Give each recipient the events that it has not got yet.

    An event may come twice if this is killed in between, and is then the same to the byte.
    Raises DispatchError if a recipient does not take one now, RequestError while another process
    sends.
    """
    ways: dict[str, tuple[str, Deliver]] = {}
    if settings.lineage_file:
        ways["file"] = str(settings.lineage_file), partial(_add_line, settings.lineage_file)
    if url := settings.lineage.url:
        ways["url"] = url, partial(_post, url, settings.lineage.token)
    with only_one(settings, "lineage", "another process is sending lineage events here"):
        failed = [
            why
            for name, (address, way) in ways.items()
            if (why := _send(settings, ledger, name, address, way, now))
        ]
    if failed:
        raise DispatchError("; ".join(failed))


def _send(
    settings: Settings, ledger: Ledger, name: str, address: str, way: Deliver, now: datetime
) -> str:
    """Send to one recipient. Returns why it takes no more, or ""."""
    positions = Positions(settings.work_root / "lineage.json")
    at = positions.last(ledger, name, address, now)
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
            positions.keep(name, at)
    return ""


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


def lineage_sender() -> Sender:
    """Send from the daemon, which waits for nothing."""
    return Sender(
        "lineage", ("lineage", "--send"), lambda keys: bool(keys.lineage.file or keys.lineage.url)
    )
