"""How a person is told: once with a count, without secrets, and the line never waits for it."""

import http.server
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from io import BufferedIOBase
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from cli_project import Project, manifest_of
from clock import NOON
from ds_flow.core.manifest import Drifted
from ds_flow.core.states import Cause
from ds_flow.ledger.events import Alert
from ds_flow.ledger.ledger import Ledger
from ds_flow.settings.load import Settings, load_settings
from ds_flow.upkeep import alerts
from ds_flow.upkeep.alerts import Post, message, ways_of
from ds_flow.upkeep.child import last_words
from ds_flow.upkeep.spool import MESSAGES, MOST_BYTES, Spool
from project import until
from samples import BATCH, settled

HOUR, NOW_TOLD = timedelta(hours=1), timedelta()
ALERT = Alert(kind="batch.dead", count=2, first_at="1", last_at="2", examples=("x: it broke",))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def settings(project: Project, **alerts: str) -> Settings:
    environ = {f"DS_FLOW_ALERTS__{key.upper()}": value for key, value in alerts.items()}
    return load_settings(project.config, environ)


def send(chosen: Settings, text: str) -> None:
    for way in ways_of(chosen):
        alerts.send(way, chosen, text)


def shell(script: str) -> str:
    return json.dumps(["sh", "-c", script])


# --------------------------------------------------------------------------- what is told


def quarantine(ledger: Ledger, start: int, count: int, minutes: float = 0) -> None:
    numbers = range(start, start + count)
    bad = [settled(f"data/{n}.csv", str(n), cause=Cause.UNREADABLE) for n in numbers]
    ledger.admit(bad, NOON + timedelta(minutes=minutes))


def take(ledger: Ledger, minutes: float, gather: timedelta = NOW_TOLD) -> Alert | None:
    now = NOON + timedelta(minutes=minutes)
    return ledger.history.take_alert("file.quarantined", now, every=HOUR, gather=gather)


def test_ten_thousand_quarantined_files_are_one_alert_with_a_count(ledger: Ledger) -> None:
    quarantine(ledger, 0, 10_000)
    found = take(ledger, 1)
    assert found is not None
    assert found.count == 10_000
    assert found.examples[0] == "data/0.csv: cannot be read"
    assert len(found.examples) == 5
    assert take(ledger, 1) is None


def test_one_kind_is_told_once_an_hour_and_then_of_all_that_came_meanwhile(
    ledger: Ledger,
) -> None:
    counts = []
    for minute in range(200):
        quarantine(ledger, minute * 10, 10, minute)
        found = take(ledger, minute)
        counts.append(found.count if found else 0)
    assert [count for count in counts if count] == [10, 600, 600, 600]
    assert take(ledger, 1 + 24 * 60 + 200) is None  # a day later it is no news


def test_what_comes_together_is_told_together(ledger: Ledger) -> None:
    quarantine(ledger, 0, 1, 0)
    assert take(ledger, 0.1, timedelta(minutes=1)) is None
    quarantine(ledger, 1, 1, 0.5)
    found = take(ledger, 1, timedelta(minutes=1))
    assert found is not None
    assert (found.count, found.first_at < found.last_at) == (2, True)


def test_a_clock_that_was_set_back_does_not_silence_alerts(ledger: Ledger) -> None:
    quarantine(ledger, 0, 1, 0)
    assert take(ledger, 0)
    quarantine(ledger, 1, 1, -600)
    assert take(ledger, -600)


def test_drift_is_told_with_the_family_the_column_and_the_command(project: Project) -> None:
    text = "student_north: column `score` is missing; it was there in 41 of 41 files"
    with project:
        rows = project.admit("student_north_2026-11-28.csv")
        project.start(project.form(BATCH, rows), "17")
        mark = Drifted(
            path=rows[0].path,
            version=1,
            family="student_north_#",
            kind="missing",
            column="score",
            text=text,
        )
        project.ledger.record(replace(manifest_of(BATCH, "17", rows), drift=(mark,)), NOON)
        found = project.ledger.history.take_alert(
            "batch.drifted", NOON + timedelta(minutes=1), every=HOUR, gather=NOW_TOLD
        )
    assert found is not None
    said = json.loads(message(project.settings, found))["text"]
    assert "student_north: column 'score' is missing; it was there in 41 of 41 files" in said
    assert "To do: ask their sender whether this is meant." in said
    assert "Type: `ds-flow show 17`" in said


# --------------------------------------------------------------------------- how


def answer_for_ever(answer: BufferedIOBase) -> None:
    """Answer a byte at a time, without end, until nobody listens."""
    with suppress(OSError):
        answer.write(b"HTTP/1.0 200 OK\r\nX: ")
        while True:
            answer.write(b"x")
            threading.Event().wait(0.05)


class Hook(http.server.BaseHTTPRequestHandler):
    got: Queue[tuple[str, dict[str, Any]]] = Queue()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.put((self.headers["Content-Type"], json.loads(body)))
        if self.path == "/slow":
            answer_for_ever(self.wfile)
            return
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("Location", "/secret-token")
        self.end_headers()

    def do_GET(self) -> None:
        self.got.put(("a redirect was followed", {}))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on the loopback that `Hook` answers for."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(Hook, "got", Queue())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/secret-token"
        server.shutdown()
        thread.join()


def test_a_webhook_gets_the_alert_as_json(project: Project, hook: str) -> None:
    chosen = settings(project, webhook=hook)
    send(chosen, message(chosen, ALERT))
    kind, got = Hook.got.get()
    assert kind == "application/json"
    assert (got["project"], got["kind"], got["count"]) == ("x", "batch.dead", 2)
    assert got["examples"] == ["x: it broke"]


def test_a_webhook_that_moves_is_a_failure_and_nobody_else_gets_the_alert(
    project: Project, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(project, webhook=hook.replace("/secret-token", "/moved"))
    with caplog.at_level(logging.ERROR, "ds_flow"):
        send(chosen, message(chosen, ALERT))
    (record,) = caplog.records
    assert "302" in record.__dict__["why"]
    assert Hook.got.get()[0] == "application/json"
    assert Hook.got.empty()


@pytest.mark.exhaustive
def test_a_webhook_that_answers_without_end_is_given_up(
    project: Project, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    slow, limit_seconds = hook.replace("/secret-token", "/slow"), 1
    while Hook.got.empty():  # on a busy machine, the limit may end before the answer begins
        limit_seconds *= 2
        caplog.clear()
        with caplog.at_level(logging.ERROR, "ds_flow"):
            send(settings(project, webhook=slow, limit_seconds=str(limit_seconds)), "{}")
        (record,) = caplog.records
        assert "timed out after" in record.__dict__["why"]
    assert Hook.got.get()[0] == "application/json"


def test_a_command_gets_the_alert_on_its_standard_input_and_env_in_its_environment(
    project: Project,
) -> None:
    (project.root / ".env").write_text("MAIL_TOKEN=sesame-open\n")
    chosen = settings(project, command=shell("cat > told; echo $MAIL_TOKEN > token"))
    send(chosen, message(chosen, ALERT))
    assert (
        json.loads((project.root / "told").read_text())["text"].splitlines()[1] == "• x: it broke"
    )
    assert (project.root / "token").read_text() == "sesame-open\n"


def test_an_alert_holds_no_secret(project: Project) -> None:
    (project.root / ".env").write_text("MAIL_TOKEN=sesame-open\n")
    told = Alert(
        kind="batch.dead", count=1, first_at="", last_at="", examples=("password sesame-open",)
    )
    assert "sesame" not in message(settings(project), told)


@pytest.mark.parametrize(
    ("way", "value", "why"),
    [
        ("command", shell("echo it is down >&2; exit 3"), "exit code 3: it is down"),
        ("command", '["no-such-program"]', "No such file"),
        ("webhook", "http://127.0.0.1:1/secret-token", "refused"),
    ],
)
def test_a_failure_is_logged_without_secrets_and_stops_nothing(
    project: Project, caplog: pytest.LogCaptureFixture, way: str, value: str, why: str
) -> None:
    chosen = settings(project, **{way: value})
    with caplog.at_level(logging.ERROR, "ds_flow"):
        send(chosen, "{}")
    (record,) = caplog.records
    assert (record.message, record.__dict__["way"]) == ("alert.failed", way)
    assert why in record.__dict__["why"]
    assert "secret-token" not in record.__dict__["why"]


def test_a_command_that_hangs_is_killed_with_its_children(project: Project) -> None:
    script = "sleep 600 & echo $! > pid; wait"
    chosen = settings(project, command=shell(script), limit_seconds="1")
    send(chosen, "{}")
    child = Path("/proc", (project.root / "pid").read_text().strip(), "cmdline")
    until("it is gone", lambda: not child.exists() or not child.read_bytes())


def test_what_a_command_leaves_in_the_background_is_no_failure(project: Project) -> None:
    script = "sleep 600 & echo $! > pid"
    chosen = settings(project, command=shell(script), limit_seconds="5")
    assert alerts.send("command", chosen, "{}")
    os.kill(int((project.root / "pid").read_text()), signal.SIGKILL)


def test_of_what_a_command_says_only_the_end_is_read(tmp_path: Path) -> None:
    with (tmp_path / "said").open("w+b") as said:
        said.seek(2**36)  # a file with a hole of 64 GB
        said.write("\u00e9 the end\n".encode())
        assert last_words(said, 9) == "\u00e9 the end"


def test_the_line_never_waits_for_an_alert(project: Project) -> None:
    gate = project.root / "gate"
    gate.touch()
    script = "while [ -e gate ]; do sleep 0.05; done; cat >> told; echo >> told"
    chosen = settings(project, command=json.dumps(["bash", "-c", script]))
    post = Post(chosen)
    for number in range(3 * MESSAGES):  # all but the first are queued, the last are dropped
        post.put(chosen, str(number))
    gate.unlink()
    post.close(60)
    told = (project.root / "told").read_text().split()
    assert told[:MESSAGES] == [str(number) for number in range(MESSAGES)]
    assert len(told) <= MESSAGES + 1


def test_nobody_to_tell_costs_no_thread(project: Project) -> None:
    post = Post(settings(project))
    post.put(settings(project), "{}")
    assert post._thread is None
    post.close(0)


# --------------------------------------------------------------------------- again


def waits(project: Project) -> list[str]:
    return sorted(path.name for path in (project.settings.work_root / "alerts").glob("*"))


def test_what_could_not_be_sent_is_kept_and_sent_by_the_next_daemon(project: Project) -> None:
    chosen = settings(project, command=shell("test -e up && cat >> told"))
    post = Post(chosen)
    post.put(chosen, "one ")
    post.put(chosen, "two ")
    post.close(60)
    assert [name.rpartition(".")[2] for name in waits(project)] == ["command", "command"]
    assert not (project.root / "told").exists()

    (project.root / "up").touch()
    second = Post(chosen)
    second.take_up()
    second.close(60)
    assert (project.root / "told").read_text() == "one two "
    assert waits(project) == []


def test_what_could_not_be_sent_is_tried_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "WAIT_SECONDS", (0.05, 600.0))
    chosen = settings(
        project, command=shell("test -e up && cat >> told; echo >> tried; test -e up")
    )
    post = Post(chosen)
    post.put(chosen, "one")
    until("it was tried", (project.root / "tried").exists)
    (project.root / "up").touch()
    until("it is sent", lambda: (project.root / "told").exists() and waits(project) == [])
    post.close(60)


def test_one_way_that_fails_holds_no_other_up(project: Project) -> None:
    chosen = settings(project, command=shell("cat > told"), webhook="http://127.0.0.1:1/x")
    post = Post(chosen)
    post.put(chosen, "{}")
    post.close(60)
    assert (project.root / "told").read_text() == "{}"
    (left,) = waits(project)
    assert left.endswith(".webhook")


def test_a_message_that_is_never_taken_holds_no_other_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "WAIT_SECONDS", (0.05, 0.1))
    command = shell('read -r it; echo "$it" >> tried; test "$it" != bad && echo "$it" >> told')
    chosen = settings(project, command=command)
    post, told = Post(chosen), project.root / "told"
    for text in ("bad\n", "one\n", "two\n"):
        post.put(chosen, text)
    until("the others are sent", lambda: told.exists() and told.read_text() == "one\ntwo\n")
    tried = project.root / "tried"
    until("it is tried again", lambda: tried.read_text().count("bad") > 1)
    post.close(60)
    assert len(waits(project)) == 1


def test_what_a_daemon_has_not_left_there_is_not_sent(project: Project) -> None:
    folder = project.settings.work_root / "alerts"
    folder.mkdir(parents=True)
    now = f"{time.time_ns():020}"
    (folder / f"{now}-1.heartbeat").write_text("")
    (folder / f"{now}-2.command").write_text("x" * (MOST_BYTES + 1))
    (folder / f"{now}-3.command").write_text("others may write to it")
    (folder / f"{now}-3.command").chmod(0o622)
    os.mkfifo(folder / f"{now}-4.command")
    (folder / f"{now}-5.command").symlink_to(project.config)
    chosen = settings(project, command=shell("echo >> told"), heartbeat="http://127.0.0.1:1/x")
    post = Post(chosen)
    post.take_up()
    assert post._thread is None
    post.close(60)
    assert not (project.root / "told").exists()


def test_no_more_messages_are_taken_up_than_may_wait(project: Project) -> None:
    chosen = settings(project, command=shell("false"))
    folder = project.settings.work_root / "alerts"
    folder.mkdir(parents=True)
    for number in range(2 * MESSAGES):
        (folder / f"{time.time_ns():020}-{number}.command").write_text("x")
    post = Post(chosen)
    post.take_up()
    assert len(post._ways["command"].waiting) == MESSAGES
    post.close(60)


def test_the_longest_message_can_be_kept(project: Project) -> None:
    example = "\u202e" * 100_000
    long = replace(ALERT, examples=(example,) * 5)
    assert len(message(settings(project), long).encode()) < MOST_BYTES


def test_a_message_that_no_disk_keeps_becomes_old_too(project: Project) -> None:
    project.settings.work_root.parent.mkdir(exist_ok=True)
    project.settings.work_root.write_text("a file where the folder should be")
    spool = Spool(project.settings.work_root)
    path = spool.put("command", "x")
    assert not spool.is_outdated(path)
    number, rest = path.name.split("-")
    assert spool.is_outdated(path.with_name(f"{int(number) - 2 * 10**9 * 86_400:020}-{rest}"))


def test_a_message_of_yesterday_is_no_news(project: Project) -> None:
    folder = project.settings.work_root / "alerts"
    folder.mkdir(parents=True)
    (folder / f"{1:020}-1.command").write_text("old")
    chosen = settings(project, command=shell("cat > told"))
    post = Post(chosen)
    post.take_up()
    post.close(60)
    assert waits(project) == []
    assert not (project.root / "told").exists()


def test_a_message_is_sent_although_the_disk_takes_nothing(project: Project) -> None:
    project.settings.work_root.parent.mkdir(exist_ok=True)
    project.settings.work_root.write_text("a file where the folder should be")
    chosen = settings(project, command=shell("cat > told"))
    post = Post(chosen)
    post.put(chosen, "{}")
    post.close(60)
    assert (project.root / "told").read_text() == "{}"
