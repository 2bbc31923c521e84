"""Alerts to people: by a command and a webhook, sent on a thread that nobody waits for."""

import json
import logging
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress

from ds_flow.core import PYTHON
from ds_flow.ledger import Alert
from ds_flow.settings import Settings
from ds_flow.system import mask

log = logging.getLogger(__name__)

QUEUED = 100  # messages; more are dropped, and logged
LAST_WORDS = 200  # characters of what a failed command said

SAID = {
    "analysis.failed": "an analysis failed; the data is published",
    "batch.drifted": "files differ from those before them; they are published all the same",
    "batch.dead": "a batch has used up its attempts",
    "batch.held_back": "a batch cannot start; it goes on by itself once the cause is removed",
    "file.left_out": "a rerun left files out that were published before",
    "file.quarantined": "files were set aside",
    "files.missing": "expected files did not come",
    "schedule.missed": "a schedule was missed",
    "settings.refused": "changed settings were refused; the old ones are in force",
    "space.low": "space is low; no new batch starts",
}
"""The kinds of events that people are alerted to, each with a sentence."""


def message(settings: Settings, alert: Alert) -> str:
    """Write an alert as one JSON object without secrets."""
    document = {
        "project": settings.project_name,
        "host": socket.gethostname(),
        "kind": alert.kind,
        "text": SAID[alert.kind],
        "count": alert.count,
        "first_at": alert.first_at,
        "last_at": alert.last_at,
        "examples": [mask(example, settings.secrets) for example in alert.examples],
    }
    return json.dumps(document)


class Post:
    """Sends messages one after the other while the line goes on."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Settings, str] | None] = queue.Queue(QUEUED)
        self._thread: threading.Thread | None = None

    def put(self, settings: Settings, text: str) -> None:
        """Queue a message to be sent as the settings say. Without a recipient nothing happens."""
        if not (settings.alerts.command or settings.alerts.webhook):
            return
        if self._thread is None:  # an idle daemon has none
            self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait((settings, text))
        except queue.Full:
            log.error("alert.dropped", extra={"why": f"{QUEUED} alerts wait to be sent"})

    def close(self, timeout_s: float) -> None:
        """Send what is queued, for `timeout_s` seconds at most."""
        if self._thread is not None:
            with suppress(queue.Full):
                self._waiting.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while item := self._waiting.get():
            send(*item)


def send(settings: Settings, text: str) -> None:
    """Send one message by every way that the settings name. A failure is logged."""
    for name, way in (("command", _run), ("webhook", _post)):
        try:
            way(settings, text)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread and the others go on
            why = mask(f"{type(error).__name__}: {error}", settings.secrets)
            log.error("alert.failed", extra={"way": name, "why": why})


def _run(settings: Settings, text: str) -> None:
    if settings.alerts.command:
        _pipe(settings, "command", settings.alerts.command, text)


def _post(settings: Settings, text: str) -> None:
    if settings.alerts.webhook:
        program = (*PYTHON, "-m", "ds_flow.upkeep.webhook")
        _pipe(settings, "webhook", program, f"{settings.alerts.webhook}\n{text}")


def _pipe(settings: Settings, way: str, command: Sequence[str], text: str) -> None:
    """Give a text to a command. Raises SubprocessError or OSError if it fails or takes too long."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=settings.root,
        env={**settings.dotenv, **settings.inherited(os.environ)},
        process_group=0,
    )
    try:
        _, said = child.communicate(text.encode(), timeout=settings.alerts.limit_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    if child.returncode:
        words = said.decode(errors="replace").strip()[-LAST_WORDS:]
        raise subprocess.SubprocessError(f"exit code {child.returncode}: {words}")
    log.info("alert.sent", extra={"way": way})
