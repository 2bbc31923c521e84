"""What the daemon asks, records and calls beside the line: backends, its word, the heartbeat."""

import http.server
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from queue import Queue

import pytest

from cli_project import SETTINGS, Project
from clock import MovedClock
from ds_flow.core.errors import DispatchError
from ds_flow.core.states import Cause, FireOutcome
from ds_flow.inbox.misnamed import Misnamed
from ds_flow.inbox.pattern import Pattern
from ds_flow.inbox.watcher import Inbox
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.schedules import Fire
from ds_flow.runs.launch import Runs
from ds_flow.service.engine import Engine
from ds_flow.service.health import ASK_SECONDS, NAMED, Health
from ds_flow.service.process import service
from ds_flow.settings.load import Settings, load_settings
from ds_flow.system.wake import Wake
from ds_flow.upkeep.alerts import Post
from ds_flow.upkeep.record import Record, read_record
from ds_flow.views.health import problems
from project import until

BEAT = "alerts: {heartbeat: 'http://127.0.0.1:1/x', heartbeat_minutes: 5}\n"
DOCKER = "compute: {executor: docker, docker_image: x, docker_command: true}\n"


class World:
    """A daemon's health over a real ledger. Its clock and its backend's answers are the test's."""

    def __init__(self, project: Project, more: str) -> None:
        project.config.write_text(SETTINGS + more)
        self.project, self.clock, self.why = project, MovedClock(), ""
        self.settings = load_settings(project.config, {}, to_work=False)
        self.settings.work_root.mkdir(parents=True, exist_ok=True)
        self.ledger, self.wake = Ledger(self.settings.ledger), Wake()
        pattern = Pattern.parse(self.settings.pattern, self.settings.root)
        inbox = Inbox(pattern, self.wake, "poll")
        self.engine = Engine(self.settings, self.ledger, inbox, Runs(), self.clock)
        self.beats = 0
        self.health = Health(self.settings, self.engine, self.beat, self.ask)

    def beat(self, _settings: Settings) -> None:
        self.beats += 1

    def ask(self, _settings: Settings) -> dict[str, str]:
        return {"docker": self.why}

    def wait(self, minutes: float) -> int:
        """Let time go by; how many beats came."""
        before, end_s = self.beats, self.clock.elapsed_s + minutes * 60
        while self.clock.elapsed_s < end_s:
            self.clock.elapsed_s += 10
            self.health.keep()
        return self.beats - before

    def asked(self) -> None:
        """Let the next question be asked and answered."""
        self.clock.elapsed_s += ASK_SECONDS
        self.health.keep()
        until("it is answered", lambda: bool(self.health._answers))
        self.health.keep()

    def reopen(self) -> None:
        """Have a ledger again after `ledger.close`."""
        self.ledger = self.engine.ledger = Ledger(self.settings.ledger)

    def record(self) -> Record:
        found = read_record(self.settings.work_root, os.getpid())
        assert found is not None
        return found

    def close(self) -> None:
        self.ledger.close()
        self.wake.close()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


@pytest.fixture
def world(project: Project) -> Iterator[World]:
    made = World(project, BEAT)
    yield made
    made.close()


@pytest.fixture
def on_docker(project: Project) -> Iterator[World]:
    made = World(project, DOCKER)
    yield made
    made.close()


# --------------------------------------------------------------------------- heartbeat


def test_the_heart_beats_at_its_interval_while_all_is_well(world: World) -> None:
    assert world.wait(10) == 2
    assert world.wait(60) == 12


def test_it_does_not_beat_while_something_needs_a_person(world: World) -> None:
    assert world.wait(6) == 2
    world.project.admit("student_a.csv", cause=Cause.REJECTED, reason="no table")
    assert world.wait(60) == 0
    (world.project.root / "data" / "student_a.csv").unlink()
    assert world.wait(1) == 1


@pytest.mark.parametrize("error", [DispatchError("locked"), OSError("full"), KeyError("a bug")])
def test_a_failure_stops_nothing_and_is_tried_again(world: World, error: Exception) -> None:
    def fail(_settings: Settings) -> None:
        raise error

    world.health.beat = fail
    world.wait(3)
    world.health.beat = world.beat
    assert world.wait(10) >= 1


def test_it_does_not_beat_while_the_inbox_is_lost(world: World) -> None:
    (world.project.root / "data").rmdir()
    world.engine.tick()
    assert world.wait(30) == 0


def test_it_beats_at_once_after_a_good_night(world: World) -> None:
    world.wait(1)
    fire = Fire(schedule="nightly", due_at=world.clock.now(), outcome=FireOutcome.VERIFIED)
    world.ledger.schedules.record(fire, world.clock.now())
    assert world.wait(1) == 1
    assert world.wait(1) == 0


def test_without_an_address_nothing_is_looked_at(project: Project) -> None:
    made = World(project, "")
    assert made.wait(60) == 0
    made.close()


class Door(http.server.BaseHTTPRequestHandler):
    called: Queue[tuple[str, str]] = Queue()

    def do_GET(self) -> None:
        self.called.put((self.command, self.path))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_beat_is_one_call_of_the_address(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/ping/token"
        chosen = load_settings(project.config, {"DS_FLOW_ALERTS__HEARTBEAT": address})
        post = Post(chosen)
        post.beat(chosen)
        post.close(60)
        server.shutdown()
        thread.join()
    assert Door.called.get() == ("GET", "/ping/token")
    assert Door.called.empty()
    assert address in chosen.secrets


def test_a_beat_that_fails_is_not_kept(project: Project) -> None:
    chosen = load_settings(project.config, {"DS_FLOW_ALERTS__HEARTBEAT": "http://127.0.0.1:1/"})
    post = Post(chosen)
    post.beat(chosen)
    post.close(60)
    assert not (chosen.work_root / "alerts").exists()


# --------------------------------------------------------------------------- backends


def test_a_silent_backend_is_recorded_at_once_and_told_once_it_lasts(on_docker: World) -> None:
    on_docker.why = "cannot connect"
    on_docker.asked()
    assert on_docker.record().heard[0].why == "cannot connect"
    assert on_docker.ledger.history.last("backend.silent") is None
    on_docker.asked()
    on_docker.asked()
    now, every = on_docker.clock.now(), timedelta(hours=1)
    told = on_docker.ledger.history.take_alert(
        "backend.silent", now, every=every, gather=timedelta()
    )
    assert told is not None
    assert (told.count, told.examples) == (1, ("docker: cannot connect",))


def test_the_silence_has_its_beginning_and_its_end(on_docker: World) -> None:
    on_docker.asked()
    assert on_docker.record().heard[0].why == ""
    on_docker.why = "cannot connect"
    on_docker.asked()
    since = on_docker.record().heard[0].since
    on_docker.asked()
    assert on_docker.record().heard[0].since == since
    on_docker.why = ""
    on_docker.asked()
    assert on_docker.record().heard[0].why == ""
    assert on_docker.ledger.history.last("backend.answers") is not None


def test_a_silence_that_the_ledger_did_not_take_is_told_later(on_docker: World) -> None:
    on_docker.why = "cannot connect"
    on_docker.asked()
    on_docker.ledger.close()
    on_docker.asked()
    assert on_docker.record().heard[0].why == "cannot connect"
    on_docker.reopen()
    on_docker.asked()
    on_docker.wait(3)
    on_docker.asked()
    assert on_docker.ledger.history.last("backend.silent") is not None


def test_a_question_that_ends_in_a_bug_is_asked_again(
    on_docker: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bugs: Queue[object] = Queue()
    monkeypatch.setattr(threading, "excepthook", bugs.put)

    def ask(_settings: Settings) -> dict[str, str]:
        raise KeyError("a bug")

    on_docker.health.ask = ask
    on_docker.wait(1.1)
    bugs.get()
    thread = on_docker.health._thread
    assert thread is not None
    thread.join()
    on_docker.health.ask = on_docker.ask
    on_docker.asked()
    assert on_docker.record().heard[0].why == ""


def test_a_question_that_is_not_answered_holds_nothing_up(on_docker: World) -> None:
    gate = threading.Event()

    def ask(_settings: Settings) -> dict[str, str]:
        gate.wait()
        return {}

    on_docker.health.ask = ask
    assert on_docker.wait(10) == 0
    assert len(on_docker.record().heard) == 0
    gate.set()


# --------------------------------------------------------------------------- its word


def test_a_daemon_that_does_not_turn_is_told_by_the_age_of_its_word(world: World) -> None:
    world.wait(1)
    now = world.clock.now()
    settings, pid = world.settings, os.getpid()
    assert problems(settings, world.ledger, pid, now) == []
    (one,) = problems(settings, world.ledger, pid, now + timedelta(minutes=11))
    assert "has done nothing since" in one.text
    assert one.command == f"kill {pid}"


def test_a_daemon_that_waits_for_its_last_run_leaves_its_word_too(project: Project) -> None:
    with service(project.settings) as made:
        made.health = Health(made.settings, made.engine, made.upkeep.post.beat)
        project.start(project.form("0123456789", project.admit("student_a.csv")), "17")
        made._drain()
        assert read_record(made.settings.work_root, os.getpid()) is not None


def test_misnamed_files_are_in_the_daemon_s_word(world: World) -> None:
    world.project.drop("Student_X.CSV")
    world.engine.tick()
    world.wait(1)
    assert world.record().misnamed[0][0] == "data/Student_X.CSV"


def test_many_long_problems_and_names_leave_a_word_that_can_be_read(world: World) -> None:
    name = "/".join(["\u00e9" * 120] * 17)
    for number in range(3000):
        world.engine.unreadable.report(str(number), f"batch {number}: {name}: it is gone")
    world.engine.admission.misnamed = [
        Misnamed(f"{name}/{number}", name, name, is_alike=False) for number in range(20)
    ]
    world.health.refuse("bad settings")
    world.wait(1)
    found = world.record()
    assert found.refused == "bad settings"
    assert found.problems[0].startswith("batch 0: ")
    assert found.problems[-1] == "2980 more problems: see the log"


def test_a_misnamed_delivery_is_told_once(world: World) -> None:
    world.project.drop("Student_X.CSV")
    world.project.drop("marks.xlsx")
    world.engine.tick()
    world.wait(1)
    world.wait(1)
    world.health._named.clear()  # as after a restart
    world.wait(1)
    now, every = world.clock.now(), timedelta(hours=1)
    told = world.ledger.history.take_alert("file.misnamed", now, every=every, gather=timedelta())
    assert told is not None
    (example,) = told.examples
    assert example.startswith("data/Student_X.CSV: its name differs from student_*.csv in capital")
    assert example.endswith("; student_X.csv would be read")


def test_a_misnamed_delivery_that_the_ledger_did_not_take_is_told_later(world: World) -> None:
    world.project.drop("Student_X.CSV")
    world.engine.tick()
    world.ledger.close()
    world.wait(1)
    assert world.record().misnamed[0][0] == "data/Student_X.CSV"
    world.reopen()
    world.wait(2)
    assert world.ledger.history.last("file.misnamed") is not None


def test_who_makes_many_names_does_not_fill_the_history(world: World) -> None:
    world.engine.admission.misnamed = [
        Misnamed(f"data/Student_{number}.CSV", "x", "", is_alike=True)
        for number in range(2 * NAMED)
    ]
    world.wait(1)
    now, every = world.clock.now(), timedelta(hours=1)
    told = world.ledger.history.take_alert("file.misnamed", now, every=every, gather=timedelta())
    assert told is not None
    assert told.count == NAMED


def test_the_word_of_another_process_is_not_taken(world: World) -> None:
    world.wait(1)
    assert read_record(world.settings.work_root, os.getpid() + 1) is None
    (world.settings.work_root / "daemon.json").write_text("[")
    assert read_record(world.settings.work_root, os.getpid()) is None
