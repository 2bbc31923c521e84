"""Process life: one instance, its lock, and the signals that end or wake it."""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ds_flow.core.errors import RequestError, SettingsError
from ds_flow.ledger.ledger import Ledger
from ds_flow.service.process import ENDING_SECONDS, service
from ds_flow.service.systemd import notify
from ds_flow.settings.load import Settings, load_settings
from ds_flow.system.instance import lock_files, running_pid, single_instance, wake_daemon
from rights import no_rights, public_folder

SETTINGS = """\
project_name: sample
paths: {input_pattern: "data/*.csv", output_dir: out, log_dir: log, ledger: db/ledger.db}
run: {stop_grace_seconds: 1}
"""

HOLD = """
import sys
from pathlib import Path
from ds_flow.settings import load_settings
from ds_flow.system import single_instance
with single_instance(load_settings(Path(sys.argv[1]), {})):
    print("held", flush=True)
    sys.stdin.read()
"""
SERVE = """
import os, sys
from pathlib import Path
from ds_flow.service import service
from ds_flow.settings import load_settings
with service(load_settings(Path(sys.argv[1]), {})) as made:
    made.serve()
"""
ONCE = SERVE.replace("serve", "once")
EAGER = """
import signal
from ds_flow.service import process as module
def somebody():  # has read the pid in the lock, and is quick
    for number in (signal.SIGUSR1, signal.SIGHUP):
        os.kill(os.getpid(), number)
module.keep_rights = somebody
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def chosen(tmp_path: Path) -> Settings:
    return project_in(tmp_path)


def project_in(root: Path) -> Settings:
    for folder in ("config", "data"):
        (root / folder).mkdir()
    file = root / "config" / "settings.yaml"
    file.write_text(SETTINGS)
    return load_settings(file, {})


@pytest.fixture
def start(chosen: Settings) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(chosen.file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def notices() -> Iterator[socket.socket]:
    """systemd's end of sd_notify(3)."""
    with (
        tempfile.TemporaryDirectory() as folder,  # the path of a socket must be short
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(f"{folder}/notify")
        yield receiver


def wait_for(notices: socket.socket, line: str) -> None:
    while line not in notices.recv(4096).decode().splitlines():
        pass


def holding(start: Start) -> subprocess.Popen[str]:
    process = start(HOLD)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def serving(start: Start, notices: socket.socket) -> subprocess.Popen[str]:
    process = start(SERVE, NOTIFY_SOCKET=notices.getsockname())
    wait_for(notices, "READY=1")
    return process


@pytest.mark.parametrize(("is_changing", "why"), [(False, "open for writing"), (True, "changing")])
@pytest.mark.exhaustive
def test_once_says_for_which_file_it_waits(
    start: Start, chosen: Settings, *, is_changing: bool, why: str
) -> None:
    with (chosen.root / "data" / "a.csv").open("w") as held:
        process = start(ONCE)
        assert process.stderr
        said = ""
        while "once.waits" not in said:
            if not is_changing or select.select([process.stderr], [], [], 0.1)[0]:
                said += os.read(process.stderr.fileno(), 2**16).decode()
            else:
                held.write("x")
                held.flush()
        assert "path=data/a.csv" in said
        assert why in said
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


# --------------------------------------------------------------------------- one instance


def test_a_second_instance_is_refused_with_the_pid_of_the_first(
    start: Start, chosen: Settings
) -> None:
    first = holding(start)

    with pytest.raises(RequestError, match=f"as pid {first.pid} "), single_instance(chosen):
        pass
    assert running_pid(chosen) == first.pid


def test_the_lock_goes_with_its_holder_even_by_kill_9(start: Start, chosen: Settings) -> None:
    first = holding(start)
    first.send_signal(signal.SIGKILL)
    first.wait()

    assert running_pid(chosen) is None
    with single_instance(chosen):
        assert running_pid(chosen) == os.getpid()
    assert running_pid(chosen) is None


def test_nobody_runs_where_nobody_ever_ran(chosen: Settings) -> None:
    assert running_pid(chosen) is None
    assert not wake_daemon(chosen)


def test_who_may_not_see_whether_a_daemon_runs_is_told_so() -> None:
    with public_folder() as root:
        made = project_in(root)
        own, _ = lock_files(made)
        own.parent.mkdir(parents=True)
        own.touch()
        with no_rights(own), pytest.raises(RequestError, match=r"Permission denied: whether"):
            running_pid(made)


@pytest.mark.parametrize("own", [("out,", "out2,"), ("ledger.db", "ledger2.db")])
def test_two_projects_that_share_the_outputs_or_the_ledger_exclude_each_other(
    start: Start, chosen: Settings, own: tuple[str, str]
) -> None:
    holding(start)
    chosen.file.write_text(SETTINGS.replace(*own))
    other = load_settings(chosen.file, {})

    with pytest.raises(RequestError, match="running here already"), single_instance(other):
        pass


def test_a_refused_instance_leaves_no_lock_behind(start: Start, chosen: Settings) -> None:
    first = holding(start)
    with pytest.raises(RequestError), single_instance(chosen):
        pass
    first.kill()
    first.wait()

    with single_instance(chosen):
        pass


# --------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_daemon_ends_in_order(
    serving: subprocess.Popen[str], notices: socket.socket, chosen: Settings, number: signal.Signals
) -> None:
    serving.send_signal(number)
    wait_for(notices, "STOPPING=1")

    assert serving.wait() == 0
    assert running_pid(chosen) is None
    log = (chosen.log_dir / "ds-flow.log").read_text()
    assert "daemon.ready" in log
    assert "daemon.stopped" in log


def test_signals_that_come_before_the_daemon_is_ready_are_kept_for_it(
    start: Start, notices: socket.socket
) -> None:
    before, serving = SERVE.split("with ")
    process = start(f"{before}{EAGER}\nwith {serving}", NOTIFY_SOCKET=notices.getsockname())
    wait_for(notices, "RELOADING=1")
    wait_for(notices, "READY=1")

    assert process.poll() is None


def test_a_writer_that_opens_a_leased_file_does_not_kill_the_daemon(
    serving: subprocess.Popen[str],
) -> None:
    serving.send_signal(signal.SIGIO)
    serving.send_signal(signal.SIGTERM)

    assert serving.wait() == 0


def test_a_wish_wakes_the_daemon_and_does_not_end_it(
    serving: subprocess.Popen[str], notices: socket.socket, chosen: Settings
) -> None:
    assert wake_daemon(chosen)
    wait_for(notices, "WATCHDOG=1")

    assert serving.poll() is None


def test_settings_are_read_again_and_bad_ones_leave_the_old_in_force(
    serving: subprocess.Popen[str], notices: socket.socket, chosen: Settings
) -> None:
    bad = (
        "nonsense: 1\n",
        SETTINGS.replace("out,", "out2,"),
        SETTINGS.replace("log,", "config/settings.yaml,"),  # no folder
        SETTINGS + "watch: {observer: poll}\n",
    )
    for text in (*bad, SETTINGS.replace("1}", "2}")):
        chosen.file.write_text(text)
        serving.send_signal(signal.SIGHUP)
        wait_for(notices, "READY=1")

    log = (chosen.log_dir / "ds-flow.log").read_text()
    assert [word for word in log.split() if word.startswith("settings.")] == [
        *["settings.refused"] * len(bad),
        "settings.reloaded",
    ]
    assert log.count("restart for that") == 2
    assert serving.poll() is None


def test_a_daemon_admits_a_dropped_file_at_its_event(
    serving: subprocess.Popen[str], notices: socket.socket, chosen: Settings
) -> None:
    (chosen.root / "data" / "a\n.csv").touch()  # set aside by its name, so that no run starts

    ledger = Ledger(chosen.ledger)
    try:
        while not ledger.read.total():
            notices.recv(4096)
    finally:
        ledger.close()
    assert serving.poll() is None


def test_a_folder_that_may_not_be_written_to_is_a_fault_of_the_settings() -> None:
    with public_folder() as root:
        made = project_in(root)
        made.log_dir.mkdir()
        made.work_root.mkdir(parents=True)
        with (
            no_rights(made.work_root),
            pytest.raises(SettingsError, match=r"\.work.*: (Permission denied|belongs to)"),
            service(made),
        ):
            pass


# --------------------------------------------------------------------------- systemd


def test_ready_comes_after_the_first_look_and_before_any_sign_of_life(
    start: Start, notices: socket.socket, chosen: Settings
) -> None:
    (chosen.root / "data").rmdir()
    start(SERVE, NOTIFY_SOCKET=notices.getsockname())

    assert notices.recv(4096) == b"READY=1"
    words = (chosen.log_dir / "ds-flow.log").read_text().split()
    assert [word for word in words if word in {"inbox.lost", "daemon.ready"}] == [
        "inbox.lost",
        "daemon.ready",
    ]


def test_systemd_is_told_how_much_is_where_and_what_is_in_the_way(
    serving: subprocess.Popen[str], notices: socket.socket, chosen: Settings
) -> None:
    quiet = "STATUS=files: 0 waiting, 0 batched, 0 processed, {} quarantined; runs live: 0"
    wait_for(notices, quiet.format(0))
    (chosen.root / "data" / "a\n.csv").touch()
    wait_for(notices, quiet.format(1))
    chosen.file.write_text("nonsense: 1\n")
    serving.send_signal(signal.SIGHUP)
    wait_for(notices, "READY=1")
    while "settings refused" not in notices.recv(4096).decode():
        pass


def test_an_idle_engine_turns_often_enough_for_the_watchdog(
    start: Start, notices: socket.socket
) -> None:
    start(SERVE, NOTIFY_SOCKET=notices.getsockname(), WATCHDOG_USEC="300000")

    for _ in range(3):  # nothing else would wake it within the limit: it rescans every minute
        wait_for(notices, "WATCHDOG=1")


def test_a_stop_asks_systemd_for_the_grace_time_of_runs(
    serving: subprocess.Popen[str], notices: socket.socket
) -> None:
    serving.send_signal(signal.SIGTERM)

    wait_for(notices, f"EXTEND_TIMEOUT_USEC={(1 + 2 * ENDING_SECONDS) * 1e6:.0f}")


def test_without_systemd_a_notice_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/no/such/socket")
    notify("READY=1")


def test_a_supervisor_that_reads_nothing_stops_nothing_and_misses_only_signs_of_life(
    monkeypatch: pytest.MonkeyPatch, notices: socket.socket
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", notices.getsockname())
    for _ in range(1000):  # more than a socket holds
        notify("WATCHDOG=1")
    notify("READY=1")
    notify("WATCHDOG=1")
    notify("STATUS=here")
    wait_for(notices, "WATCHDOG=1")
    notices.settimeout(0)
    with suppress(BlockingIOError):
        while notices.recv(4096):
            pass

    notify("WATCHDOG=1")

    assert [notices.recv(100) for _ in range(3)] == [b"READY=1", b"STATUS=here", b"WATCHDOG=1"]


def test_a_notice_reaches_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"ds-flow-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")

        notify("READY=1", "STATUS=here")

        assert receiver.recv(100) == b"READY=1\nSTATUS=here"


def test_a_child_s_end_wakes_the_daemon_and_is_no_reason_to_scan_the_inbox(
    chosen: Settings,
) -> None:
    with service(chosen) as made:
        made.engine.tick()
        assert not made.engine.admission.hinted
        os.kill(os.getpid(), signal.SIGCHLD)
        made._wait(3600)
        assert not made.engine.admission.hinted

        os.kill(os.getpid(), signal.SIGUSR1)
        made._wait(3600)
        assert made.engine.admission.hinted
