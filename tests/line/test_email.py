"""Alerts by mail, received by a real SMTP server on the loopback."""

import json
import logging
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage  # noqa: TC003 - as everywhere in tests
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from conftest import require

from cli_project import SETTINGS, Project
from ds_flow.core.errors import SettingsError
from ds_flow.ledger.events import Alert
from ds_flow.settings.load import Settings, load_settings
from ds_flow.settings.resolved import effective
from ds_flow.upkeep import alerts
from ds_flow.upkeep.alerts import message
from ds_flow.upkeep.email import MOST_BYTES, compose
from rights import NOBODY

ALERT = Alert(kind="batch.dead", count=1, first_at="", last_at="", examples=("x: it broke",))
USER, PASSWORD = b"flow", b"sesame-open"


class Inbox:
    """What the server has received."""

    def __init__(self) -> None:
        self.got: Queue[tuple[str, list[str], EmailMessage, bool]] = Queue()

    async def handle_DATA(  # noqa: N802 - aiosmtpd's word
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        is_encrypted = session.ssl is not None
        self.got.put((str(envelope.mail_from), envelope.rcpt_tos, mail, is_encrypted))
        return "250 taken"


class OnAnyPort(Controller):
    """A server on a port that nobody else has."""

    def _create_server(self) -> Any:
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        return self.loop.create_server(self._factory_invoker, sock=listening, ssl=self.ssl_context)


def check(_server: Any, _session: Any, _envelope: Any, _how: Any, given: Any) -> AuthResult:
    is_known = isinstance(given, LoginPassword) and given == LoginPassword(USER, PASSWORD)
    return AuthResult(success=is_known, handled=False)


@contextmanager
def server(**options: Any) -> Iterator[tuple[Inbox, int]]:
    inbox = Inbox()
    made = OnAnyPort(inbox, hostname="127.0.0.1", **options)
    made.start()
    try:
        yield inbox, made.port
    finally:
        made.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *(require("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(cert), "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def settings(project: Project, port: int, dotenv: str = "", **email: str) -> Settings:
    (project.root / ".env").write_text(dotenv)
    chosen = {"host": "127.0.0.1", "sender": "ds-flow@lab.example", "tls": "none", **email}
    rows = "".join(f", {key}: '{value}'" for key, value in chosen.items())
    to = "to: [a@lab.example, b@lab.example]"
    project.config.write_text(f"{SETTINGS}alerts: {{email: {{{to}, port: {port}{rows}}}}}\n")
    return load_settings(project.config, {})


def sent(chosen: Settings) -> bool:
    return alerts.send("email", chosen, message(chosen, ALERT))


def test_an_alert_is_mailed_to_all_recipients(project: Project) -> None:
    with server() as (inbox, port):
        assert sent(settings(project, port))
        sender, to, mail, _ = inbox.got.get()
    assert (sender, to) == ("ds-flow@lab.example", ["a@lab.example", "b@lab.example"])
    assert mail["Subject"] == "[ds-flow] x: a batch has used up its attempts: x: it broke"
    assert "it broke" in mail.get_content()
    assert "Type: `ds-flow status`" in mail.get_content()
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"]
    assert mail["Message-ID"].endswith("@lab.example>")


def test_a_daily_report_goes_with_the_mail_that_tells_of_it(project: Project) -> None:
    name = "report_2026-01-02.html"
    reports = project.root / "out" / "reports"
    reports.mkdir(parents=True)
    (reports / name).write_text("<h1>Last night</h1>")
    alert = replace(ALERT, kind="report.written", examples=(f"out/reports/{name}",))
    with server() as (inbox, port):
        chosen = settings(project, port)
        assert alerts.send("email", chosen, message(chosen, alert))
        (page,) = inbox.got.get()[2].iter_attachments()
        (reports / name).unlink()
        (reports / name).symlink_to(project.config)
        assert alerts.send("email", chosen, message(chosen, alert))
        assert not [*inbox.got.get()[2].iter_attachments()]
    assert (page.get_filename(), page.get_content_type()) == (name, "text/html")
    assert "Last night" in page.get_content()


def attached(project: Project, page: Path) -> list[Any]:
    chosen = settings(project, 25).alerts.email.model_dump() | {"attached": str(page)}
    mail = compose(chosen, json.loads(message(project.settings, ALERT)))
    return [one.get_content() for one in mail.iter_attachments()]


def test_what_is_no_report_of_ours_is_not_mailed(project: Project) -> None:
    page = project.root / "report.html"
    page.write_text("x")
    assert attached(project, page) == ["x"]
    os.truncate(page, MOST_BYTES + 1)
    assert attached(project, page) == []
    page.unlink()
    os.mkfifo(page)
    reader = os.open(page, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(page, os.O_WRONLY)
    assert attached(project, page) == []  # while a writer has it open and says nothing
    os.write(writer, b"a stranger's words")
    assert attached(project, page) == []
    os.close(writer)
    os.close(reader)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_report_that_another_user_wrote_is_not_mailed(project: Project) -> None:
    page = project.root / "report.html"
    page.write_text("x")
    os.chown(page, NOBODY, -1)
    assert attached(project, page) == []


def test_starttls_and_a_login_keep_the_password_from_the_wire(
    project: Project, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    cert, context = certificate
    dotenv = f"DS_FLOW_ALERTS__EMAIL__PASSWORD={PASSWORD.decode()}\nSSL_CERT_FILE={cert}\n"
    options = {"tls_context": context, "require_starttls": True}
    options |= {"authenticator": check, "auth_required": True}
    with server(**options) as (inbox, port):
        assert sent(settings(project, port, dotenv, tls="starttls", user="flow"))
        assert inbox.got.get()[3]


def test_tls_from_the_start_works_too(
    project: Project, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    cert, context = certificate
    with server(ssl_context=context) as (inbox, port):
        assert sent(settings(project, port, f"SSL_CERT_FILE={cert}\n", tls="tls"))
        assert "it broke" in inbox.got.get()[2].get_content()


def test_a_server_without_starttls_gets_no_mail_in_plain_text(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    with server() as (inbox, port), caplog.at_level(logging.ERROR, "ds_flow"):
        assert not sent(settings(project, port, tls="starttls"))
        assert inbox.got.empty()
    assert "STARTTLS" in caplog.records[0].__dict__["why"]


def test_a_server_that_cannot_prove_who_it_is_gets_no_mail(
    project: Project, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    with server(tls_context=certificate[1]) as (inbox, port):
        assert not sent(settings(project, port, tls="starttls"))
        assert inbox.got.empty()


def test_a_wrong_password_is_a_failure_that_shows_no_password(
    project: Project,
    certificate: tuple[Path, ssl.SSLContext],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cert, context = certificate
    dotenv = f"DS_FLOW_ALERTS__EMAIL__PASSWORD=wrong-word\nSSL_CERT_FILE={cert}\n"
    options = {"tls_context": context, "authenticator": check, "auth_required": True}
    with server(**options) as (_, port), caplog.at_level(logging.ERROR, "ds_flow"):
        assert not sent(settings(project, port, dotenv, tls="starttls", user="flow"))
    why = caplog.records[0].__dict__["why"]
    assert "Authentication" in why
    assert "wrong-word" not in why


def test_no_file_name_adds_a_header_or_a_recipient(project: Project) -> None:
    evil = "x\r\nBcc: evil@evil.example\r\n\r\nbody\x00\u2028Cc: e@evil.example: it broke"
    alert = Alert(kind="file.quarantined", count=1, first_at="", last_at="", examples=(evil,))
    chosen = settings(project, 25)
    mail = compose(chosen.alerts.email.model_dump(), json.loads(message(chosen, alert)))
    assert "Bcc" not in mail
    assert "Cc" not in mail
    text = mail.as_bytes().decode()
    assert not [line for line in text.splitlines() if line.lower().startswith(("bcc:", "cc:"))]
    assert len(str(mail["Subject"])) < 300


@pytest.mark.parametrize(
    ("email", "why"),
    [
        ("{to: [a@b.example]}", "needs host and sender"),
        ("{to: ['Team <a@b.example>']}", "should be an address"),
        ('{to: ["a@b.example\\nBcc: c@d.example"]}', "control character"),
        ("{host: h, tls: none, user: u, password: p}", "would send the password in plain text"),
    ],
)
def test_settings_that_cannot_work_or_would_leak_are_refused(
    project: Project, email: str, why: str
) -> None:
    project.config.write_text(f"{SETTINGS}alerts: {{email: {email}}}\n")
    with pytest.raises(SettingsError, match=why):
        load_settings(project.config, {})


def test_the_password_is_a_secret_that_nothing_shows(project: Project) -> None:
    chosen = settings(
        project, 25, "DS_FLOW_ALERTS__EMAIL__PASSWORD=sesame-open\n", tls="starttls", user="u"
    )
    assert "sesame-open" in chosen.secrets
    assert "sesame" not in effective(chosen)
    assert "sesame" not in repr(chosen.dotenv.keys() - {"DS_FLOW_ALERTS__EMAIL__PASSWORD"})
