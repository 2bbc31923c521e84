"""Alerts to people: by a command, a webhook and mail, sent on a thread that nobody waits for."""

import json
import logging
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ds_flow.core import PYTHON, Backoff, Document
from ds_flow.ledger import Alert
from ds_flow.settings import Settings
from ds_flow.system import mask
from ds_flow.upkeep.alert_text import SAID, subject_of, text_of
from ds_flow.upkeep.child import last_words
from ds_flow.upkeep.daily import WRITTEN
from ds_flow.upkeep.spool import MESSAGES, Spool

__all__ = ["SAID", "Post", "message", "send", "shaped", "ways_of"]

log = logging.getLogger(__name__)

LAST_WORDS = 200  # characters of what a failed command said
EXAMPLE_CHARACTERS = 2000  # so a message has a limit
WAIT_SECONDS = (10.0, 600.0)  # after the first failure, and at most

COMMAND, WEBHOOK, EMAIL, HEARTBEAT = "command", "webhook", "email", "heartbeat"
KEPT = (COMMAND, WEBHOOK, EMAIL)  # by these a message is tried until it is sent
TEAMS = (".logic.azure.com", ".powerplatform.com", ".powerautomate.com")
"""Where Microsoft's Workflows take messages for Teams. They want a card, and no text."""


def message(settings: Settings, alert: Alert) -> str:
    """Write an alert as one JSON object without secrets."""
    document = {
        "project": settings.project_name,
        "host": socket.gethostname(),
        "kind": alert.kind,
        "text": text_of(settings, alert),
        "subject": subject_of(settings, alert),
        "count": alert.count,
        "first_at": alert.first_at,
        "last_at": alert.last_at,
        "examples": [_cut(mask(example, settings.secrets)) for example in alert.examples],
    }
    return json.dumps(document)


def _cut(example: str) -> str:
    return f"{example[:EXAMPLE_CHARACTERS]}…" if len(example) > EXAMPLE_CHARACTERS else example


def ways_of(settings: Settings) -> list[str]:
    """How people are told, by the settings."""
    alerts = settings.alerts
    chosen = {COMMAND: alerts.command, WEBHOOK: alerts.webhook, EMAIL: alerts.email.to}
    return [way for way, value in chosen.items() if value]


@dataclass(slots=True)
class Way:
    """One way of telling people, and how it goes."""

    waiting: deque[tuple[str, Path | None]] = field(default_factory=deque)
    backoff: Backoff = field(default_factory=lambda: Backoff(*WAIT_SECONDS))

    def is_due(self) -> bool:
        return time.monotonic() >= self.backoff.retry_at_s


class Post:
    """Sends messages one after the other while the line goes on.

    What cannot be sent is kept on disk and tried again, also by the next daemon.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spool = Spool(settings.work_root)
        self._ways = {way: Way() for way in (*KEPT, HEARTBEAT)}
        self._news = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def take_up(self) -> None:
        """Go on with what an earlier daemon could not send."""
        for way, text, path in self._spool.left():
            if way in KEPT and len(self._ways[way].waiting) < MESSAGES:
                self._ways[way].waiting.append((text, path))
        if any(one.waiting for one in self._ways.values()):
            self._wake()

    def put(self, settings: Settings, text: str) -> None:
        """Queue a message to be sent as the settings say. Without a recipient nothing happens."""
        self._settings = settings
        for way in ways_of(settings):
            self._queue(way, text)

    def beat(self, settings: Settings) -> None:
        """Call the heartbeat's address once, unless the last call has not ended."""
        self._settings = settings
        one = self._ways[HEARTBEAT]
        if settings.alerts.heartbeat and not one.waiting:
            one.waiting.append(("", None))
            one.backoff.retry_at_s = 0.0
            self._wake()

    def close(self, timeout_s: float) -> None:
        """Send what is queued, for `timeout_s` seconds at most. The rest is left to the next."""
        self._is_closing = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _queue(self, way: str, text: str) -> None:
        waiting = self._ways[way].waiting
        if len(waiting) >= MESSAGES:
            log.error("alert.dropped", extra={"why": f"{MESSAGES} alerts wait to be sent"})
            return
        waiting.append((text, self._spool.put(way, text)))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        if self._thread is None:  # an idle daemon has none
            self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """Send what is due, then wait for news or for the next try."""
        while True:
            self._news.clear()
            for name, way in self._ways.items():
                while way.waiting and (self._is_closing or way.is_due()):
                    if not self._send_first(name, way):
                        break
            if self._is_closing:
                return
            due_s = [way.backoff.retry_at_s for way in self._ways.values() if way.waiting]
            self._news.wait(max(0.0, min(due_s) - time.monotonic()) if due_s else None)

    def _send_first(self, name: str, way: Way) -> bool:
        """Send the first message of a way. If that fails, the next try is later, with the next one.

        So a message that its receiver never takes holds up no other.
        """
        text, path = way.waiting[0]
        is_sent = send(name, self._settings, text)
        if is_sent or name == HEARTBEAT or self._spool.is_outdated(path):
            way.waiting.popleft()
            self._spool.remove(path)
        else:
            way.waiting.rotate(-1)
        if is_sent:
            way.backoff.reset()
        else:
            way.backoff.fail(time.monotonic())
        return is_sent


def send(way: str, settings: Settings, text: str) -> bool:
    """Send one message by one way, if the settings still name it; whether that went well."""
    try:
        SENDING[way](settings, text)
    except Exception as error:  # noqa: BLE001 - whatever it is, the thread and the others go on
        why = mask(f"{type(error).__name__}: {error}", settings.secrets)
        log.error("alert.failed", extra={"way": way, "why": why})
        return False
    return True


def _run(settings: Settings, text: str) -> None:
    if settings.alerts.command:
        _pipe(settings, COMMAND, settings.alerts.command, text)


def _post(settings: Settings, text: str) -> None:
    if address := settings.alerts.webhook:
        _pipe(settings, WEBHOOK, _program("webhook"), f"{address}\n{shaped(address, text)}")


def _mail(settings: Settings, text: str) -> None:
    if settings.alerts.email.to:
        chosen = {**settings.alerts.email.model_dump(), "attached": _report(settings, text)}
        _pipe(settings, EMAIL, _program("email"), f"{json.dumps(chosen)}\n{text}")


def _report(settings: Settings, text: str) -> str | None:
    """The file of a daily report, which goes with the mail that tells of it."""
    alert = json.loads(text)
    if alert["kind"] != WRITTEN or not alert["examples"]:
        return None
    return str(settings.output_dir / "reports" / Path(alert["examples"][-1]).name)


def _beat(settings: Settings, _text: str) -> None:
    if settings.alerts.heartbeat:
        _pipe(settings, HEARTBEAT, _program("webhook"), f"{settings.alerts.heartbeat}\n")


SENDING = {COMMAND: _run, WEBHOOK: _post, EMAIL: _mail, HEARTBEAT: _beat}


def _program(name: str) -> tuple[str, ...]:
    """A program beside this file. Started by its path, it imports little, and starts at once."""
    return (*PYTHON, str(Path(__file__).with_name(f"{name}.py")))


def shaped(address: str, text: str) -> str:
    """Give a message the shape that its receiver takes."""
    host = urlsplit(address).hostname or ""
    if not host.endswith(TEAMS):
        return text
    document: Document = json.loads(text)
    lines = document["text"].split("\n")
    body = [{"type": "TextBlock", "text": line, "wrap": True} for line in lines]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    kind = "application/vnd.microsoft.card.adaptive"
    attachments = [{"contentType": kind, "content": card}]
    return json.dumps({**document, "type": "message", "attachments": attachments})


def _pipe(settings: Settings, way: str, command: Sequence[str], text: str) -> None:
    """Give a text to a command. Raises SubprocessError or OSError if it fails or takes too long.

    What it says goes to a file: a pipe would be waited for as long as anything that it has left in
    the background holds it open.
    """
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd=settings.root,
            env={**settings.dotenv, **settings.inherited(os.environ)},
            process_group=0,
        )
        try:
            child.communicate(text.encode(), timeout=settings.alerts.limit_seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        if child.returncode:
            words = last_words(said, LAST_WORDS)
            raise subprocess.SubprocessError(f"exit code {child.returncode}: {words}")
    level = logging.DEBUG if way == HEARTBEAT else logging.INFO
    log.log(level, "alert.sent", extra={"way": way})
