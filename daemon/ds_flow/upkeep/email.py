"""Mail standard input over an SMTP server. The settings are on line one, as JSON.

A program of its own, as for the webhook, started by its path: whoever starts it ends it when it
takes too long. The password is a secret, so it is no argument.
"""

import json
import os
import smtplib
import ssl
import stat
import sys
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import IO, Any

TIMEOUT_SECONDS = 30.0  # of one answer; the whole has the limit of whoever starts this
MOST_BYTES = 5 * 2**20  # of a report; many servers take no more than 10 MB, encoded


def compose(chosen: dict[str, Any], alert: dict[str, Any]) -> EmailMessage:
    """Write the mail. A header never holds more than the one line that it should."""
    mail = EmailMessage()
    mail["From"] = chosen["sender"]
    mail["To"] = ", ".join(chosen["to"])
    mail["Subject"] = " ".join(f"[ds-flow] {alert['subject']}".split())
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = make_msgid(domain=chosen["sender"].rpartition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(alert["text"])
    if page := _read(chosen.get("attached")):
        name = Path(chosen["attached"]).name
        mail.add_attachment(page, maintype="text", subtype="html", filename=name)
    return mail


def _read(path: str | None) -> bytes:
    """Read a report. One that is gone, too large or another user's is left out: the text names it.

    The folder may be a link, such as to another disk; what lies there is this user's all the same.
    """
    if not path:
        return b""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            page = file.read(MOST_BYTES + 1) if is_ours else b""
            return page if len(page) <= MOST_BYTES else b""
    return b""


def send(text: IO[str]) -> None:
    """Send everything after the first line as the settings in it say.

    Raises OSError, ValueError or SMTPException if the server does not accept it.
    """
    chosen = json.loads(text.readline())
    mail = compose(chosen, json.loads(text.read()))
    with _connected(chosen) as server:
        if chosen["user"]:
            server.login(chosen["user"], chosen["password"] or "")
        server.send_message(mail)


def _connected(chosen: dict[str, Any]) -> smtplib.SMTP:
    """Connect. With STARTTLS, a server that does not offer it, or proves nothing, is refused."""
    place = (chosen["host"], chosen["port"])
    if chosen["tls"] == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(*place, timeout=TIMEOUT_SECONDS, context=context)
    server = smtplib.SMTP(*place, timeout=TIMEOUT_SECONDS)
    if chosen["tls"] == "starttls":
        server.starttls(context=ssl.create_default_context())
    return server


if __name__ == "__main__":
    try:
        send(sys.stdin)
    except (OSError, ValueError, smtplib.SMTPException) as error:
        sys.exit(f"{type(error).__name__}: {error}")
