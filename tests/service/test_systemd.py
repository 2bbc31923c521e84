"""The service under a real systemd: installed once, and through everything that happens to it."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from installed import INSTALL, machine_of_its_own
from project import Gate, ids, rows_of, table, until
from systemd_box import CHECKOUT, Box

ROOT = "/opt/ds-flow"
DROP_INS = CHECKOUT / "systemd" / "drop-ins"
LARGE_FILES, LARGE_ROWS = 10, 200_000
STARVING_MB, HOG_MB = 400, 500

# Nothing here waits for long, and a start counts for nothing.
QUICK = """\
[Unit]
StartLimitIntervalSec=0
[Service]
RestartSec=100ms
TimeoutStopSec=1s
"""
TRANSFORM = f"""
import errno
import fcntl
import os
import re
import socket
import subprocess
import sys

def transform(frame):
    if "gate" in frame.iloc[0].values:
        with open("{ROOT}/gate") as gate:
            fcntl.flock(gate, fcntl.LOCK_SH)
    if "probe" in frame:
        frame["said"] = [attempt(place) for place in frame["probe"]]
        frame["rights"] = re.search(r"CapEff:\\s*(\\w+)", read("status"))[1]
        frame["killable"] = read("oom_score_adj").strip()
    if "hog" in frame:
        bytearray(os.urandom(2**20)) * {HOG_MB}
    return frame

def attempt(place):
    try:
        if place.isdecimal():
            socket.create_connection(("127.0.0.1", int(place))).close()
            return "connected"
        if place.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(place)
            return "connected"
        if place.endswith("/id"):
            return subprocess.run([place, "-u"], capture_output=True, text=True).stdout.strip()
        with open(f"{{place}}/ds-flow-probe", "w"):
            return "written"
    except OSError as error:
        return errno.errorcode[error.errno]

def read(name):
    with open(f"/proc/self/{{name}}") as file:
        return file.read()

if __name__ == "__main__":
    print("probed", *map(attempt, sys.argv[1:]))
"""


@dataclass(frozen=True, slots=True)
class Service:
    """The installed service, as its administrator has it."""

    box: Box

    def path(self, name: str) -> Path:
        return self.box.path(f"{ROOT}/{name}")

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.box.run("systemctl", *words, "ds-flow", check=check)

    def show(self, name: str) -> str:
        return self.systemctl("show", "--property", name, "--value")

    @property
    def pid(self) -> str:
        return self.show("MainPID")

    def ds_flow(self, *words: str) -> str:
        user = ("setpriv", "--reuid=ds-flow", "--regid=ds-flow", "--init-groups", "--")
        return self.box.run(*user, f"{ROOT}/.venv/bin/ds-flow", *words)

    def journal(self, *words: str) -> list[str]:
        self.box.run("journalctl", "--sync")
        return self.box.run("journalctl", "--unit=ds-flow", "--output=cat", *words).splitlines()

    def moves(self) -> list[str]:
        """The word of each log line."""
        word = re.compile("(?:INFO|WARNING|ERROR) +([a-z]+[.][a-z_]+)")
        found = (word.match(line) for line in self.journal())
        return [match[1] for match in found if match]

    def configure(self, **given: dict[str, Any]) -> None:
        sections: dict[str, Any] = {
            "project_name": "boxed",
            "paths": {"input_pattern": "data/student_*.csv", "output_dir": "out", "log_dir": "log"},
            "watch": {"quiet_seconds": 0.2},
            "batch": {"quiet_seconds": 0.5},
            "run": {"attempts": 1, "stop_grace_seconds": 0.5},
            "compute": {"lsf_queue": "short", "transform": "boxed:transform"},
            **given,
        }
        self.path("config/settings.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")

    def put_drop_in(self, text: str, name: str = "test") -> None:
        folder = self.box.path("/etc/systemd/system/ds-flow.service.d")
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text(text, encoding="utf-8")
        self.box.run("systemctl", "daemon-reload")

    def drop(self, **files: str) -> None:
        """Put whole files into the inbox, all at one moment."""
        for name, text in files.items():
            self.path(f"data/.{name}").write_text(text, encoding="utf-8")
        for name in files:
            self.path(f"data/.{name}").rename(self.path(f"data/student_{name}.csv"))

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ds_flow("status", "--json"))
        return found

    def wait_for(self, pattern: str) -> Path:
        """Wait for a file under the root."""
        until(f"{pattern} was there", partial(self.find, pattern))
        return self.find(pattern)[-1]

    def find(self, pattern: str) -> list[Path]:
        return sorted(self.path("").glob(pattern))

    def wait_processed(self, *names: str) -> None:
        published = {name: f"out/processed_student_{name}_*.csv" for name in names}
        for pattern in published.values():
            self.wait_for(pattern)
        until("it was recorded", lambda: "runs live: 0" in self.show("StatusText"))

    def published(self) -> list[str]:
        """The id of every row of every final file."""
        return [
            line.partition(",")[0]
            for path in self.find("out/final_combined_*.csv")
            for line in path.read_text(encoding="utf-8").splitlines()[1:]
        ]


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with machine_of_its_own() as made:
        yield made


@pytest.fixture
def port() -> Iterator[int]:
    """A server of this machine, whose network the box shares."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def service(box: Box) -> Service:
    """Installed and started."""
    box.run(INSTALL, "install", ROOT)
    made = Service(box)
    made.configure()
    made.path("boxed.py").write_text(TRANSFORM)
    made.put_drop_in(QUICK)
    made.systemctl("start")
    return made


# The tests are one life, in this order.


def test_dropped_files_are_published_and_each_move_is_a_line_in_the_journal(
    service: Service,
) -> None:
    assert "files: 0 waiting, 0 batched, 0 processed" in service.systemctl("status")
    places = ["/etc", ROOT, f"{ROOT}/config", f"{ROOT}/data", f"{ROOT}/out"]
    probe = "\n".join(["id,probe", *(f"{place},{place}" for place in places), ""])
    service.drop(first=table("first"), probe=probe)
    service.wait_processed("first", "probe")

    said = "files: 0 waiting, 0 batched, 2 processed, 0 quarantined; runs live: 0"
    until("systemd knew", lambda: service.show("StatusText") == said)
    assert service.moves() == [
        "daemon.ready",
        *["file.waiting"] * 2,
        *("batch.queued", "run.starting", "run.running", "run.succeeded"),
    ]
    assert sorted(service.published()) == sorted([*ids("first"), *places])


ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as page:
    page.connect("/run/ds-flow-web/socket")
    page.sendall(f"GET {sys.argv[1]} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n".encode())
    with page.makefile() as answer:
        print(answer.read())
"""


@pytest.mark.exhaustive
def test_the_page_is_off_and_once_started_reads_beside_the_daemon_and_without_it(
    service: Service,
) -> None:
    run, place = service.box.run, "/run/ds-flow-web/socket"
    assert run("systemctl", "is-enabled", "ds-flow-web", check=False).strip() == "disabled"
    service.configure(web={"listen": place})
    run("systemctl", "start", "ds-flow-web")
    until("the page listened", lambda: place in run("find", "/run/ds-flow-web", "-type", "s"))
    assert run("stat", "--format=%a %U %G", place).strip() == "660 ds-flow ds-flow"
    for is_running in (True, False):
        if not is_running:
            service.systemctl("stop")
        for address in ("/", "/runs", "/files", "/quarantine", "/schedules", "/metrics"):
            assert run("python3", "-c", ASK, address).startswith("HTTP/1.1 200"), address
        head, _, body = run("python3", "-c", ASK, "/api/status").partition("\n\n")
        found = json.loads(body)
        assert (found["daemon"]["running"], found["held_back"]) == (is_running, []), head
        assert found["files"] == service.status()["files"]
    run("systemctl", "stop", "ds-flow-web")
    service.configure()
    service.systemctl("start")


def test_a_run_can_write_nothing_but_outputs(service: Service) -> None:
    rows = rows_of(service.find("out/processed_student_probe_*.csv")[0])

    assert [row["said"] for row in rows] == [*["EROFS"] * 4, "written"]


def test_only_the_daemon_may_take_leases_and_runs_are_killed_before_it(service: Service) -> None:
    row = rows_of(service.find("out/processed_student_probe_*.csv")[0])[0]
    daemon = service.box.path(f"/proc/{service.pid}")

    assert "CapEff:\t0000000010000000\n" in (daemon / "status").read_text()
    assert (daemon / "oom_score_adj").read_text() == "0\n"
    assert (int(row["rights"], 16), row["killable"]) == (0, "500")


def test_a_reload_takes_good_settings_and_refuses_bad_ones_in_words(service: Service) -> None:
    pid = service.pid
    service.configure(run={"attempts": "many"})
    service.systemctl("reload")
    until("they were refused", lambda: "settings refused" in service.show("StatusText"))
    service.configure()
    service.systemctl("reload")
    until("they were taken", lambda: "refused" not in service.show("StatusText"))

    assert service.moves()[-2:] == ["settings.refused", "settings.reloaded"]
    (refusal,) = service.journal("--priority=err")
    assert "run.attempts" in refusal
    assert (service.pid, service.show("ActiveState")) == (pid, "active")


@pytest.mark.exhaustive
def test_every_row_comes_out_once_though_the_work_is_stopped_killed_and_swept_away(
    service: Service,
) -> None:
    before = len(service.published())
    gate = Gate(service.path("gate"))  # within the sixth file
    service.drop(**{f"large{number}": large(number) for number in range(LARGE_FILES)})

    gate.wait()
    service.systemctl("stop")  # its grace is over before the run is, and so is TimeoutStopSec
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")
    assert not service.find("out/processed_student_large*")
    service.systemctl("start")
    for attempt, whom in ((2, "main"), (3, "all")):
        service.wait_for(f"out/.work/*/attempts/{attempt}/run_id")
        gate.wait()
        kill(service, signal.SIGKILL, whom)
    gate.open()
    service.wait_processed(*(f"large{number}" for number in range(LARGE_FILES)))

    published = service.published()
    assert len(published) == len(set(published)) == before + LARGE_FILES * LARGE_ROWS
    status = service.status()
    assert status["accounted"]
    assert status["runs"] == {"succeeded": 2, "stopped": 1, "lost": 2}


def large(number: int) -> str:
    word = "gate" if number == LARGE_FILES // 2 else "some"
    return "id,a,b\n" + "".join(f"large-{number}-{n},{word},text\n" for n in range(LARGE_ROWS))


def kill(service: Service, number: signal.Signals, whom: str) -> None:
    """Send a signal to the service's processes, and wait until systemd has restarted it."""
    restarts = int(service.show("NRestarts"))
    service.systemctl("kill", f"--signal={number.name}", f"--kill-who={whom}")
    until("it was restarted", lambda: int(service.show("NRestarts")) > restarts)
    until("it was ready", lambda: service.show("ActiveState") == "active")


@pytest.mark.exhaustive
def test_a_run_that_hits_the_memory_limit_fails_with_its_cause_and_the_daemon_lives(
    service: Service,
) -> None:
    pid = service.pid
    limit_memory(service, f"{STARVING_MB}M")
    service.drop(hog=table("hog", hog="yes"))
    until("it was set aside", lambda: service.status()["files"]["quarantined"])

    run = json.loads(service.ds_flow("runs", "--json"))["runs"][-1]
    assert (run["state"], "out of memory: killed by the kernel" in run["error"]) == ("failed", True)
    assert service.pid == pid
    limit_memory(service, "infinity")
    service.ds_flow("retry", run["batch"])
    service.wait_processed("hog")
    assert [row for row in service.published() if "hog" in row] == ids("hog")


def limit_memory(service: Service, limit: str) -> None:
    service.box.run("systemctl", "set-property", "--runtime", "ds-flow", f"MemoryMax={limit}")


@pytest.mark.exhaustive
def test_what_is_published_is_handed_over_and_droppers_read_receipts_and_change_none(
    service: Service,
) -> None:
    run, share, receipts = service.box.run, f"{ROOT}/log/share", f"{ROOT}/data/receipts"
    own = ("setpriv", "--reuid=ds-flow", "--regid=ds-flow", "--init-groups", "--")
    run(*own, "mkdir", receipts, share)
    copy = ["bash", "bash/deliver/copy_to_folder.sh", share]
    service.configure(inbox={"receipts": True}, publish={"then": [copy]})
    service.systemctl("restart")
    service.drop(handed=table("handed"))
    service.wait_processed("handed")

    service.wait_for("log/share/manifest_*.json")
    assert service.find("log/share/processed_student_handed_*.csv")
    receipt = f"{receipts}/student_handed.csv.json"
    until("it had its receipt", lambda: '"published"' in run("cat", receipt, check=False))
    assert run("stat", "--format=%a %U %G", receipt) == "640 ds-flow ds-flow-drop"
    dropper = ("setpriv", "--reuid=65534", "--regid=ds-flow-drop", "--clear-groups", "--")
    other = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    assert '"published"' in run(*dropper, "cat", receipt)
    for command in (("rm", receipt), ("touch", receipt), ("touch", f"{receipts}/mine.json")):
        assert not run(*dropper, *command, check=False)
    assert not run(*other, "cat", receipt, check=False)
    assert not service.find("data/receipts/mine.json")
    assert "receipts.wait" not in service.moves()
    service.configure()
    service.systemctl("restart")


def test_the_drop_ins_open_what_they_say_and_no_more(service: Service, port: int) -> None:
    user = service.box.run("id", "-u", "ds-flow")
    rootless = f"/run/user/{user}/docker.sock"
    service.box.run("install", "--mode=4755", "/usr/bin/id", "/usr/local/bin/id")
    service.box.run("groupadd", "--force", "docker")
    listen(service, "/run/docker.sock", "root:docker")
    listen(service, rootless, "ds-flow")

    def probe(*drop_ins: str) -> list[str]:
        asked = ("/etc", str(port), "/usr/local/bin/id", "/run/docker.sock", rootless)
        texts = [(DROP_INS / f"{name}.conf").read_text() for name in drop_ins]
        return probed(service, [text.replace("999", user) for text in texts], *asked)

    no_network = "EAFNOSUPPORT"
    assert probe() == ["EROFS", no_network, user, "EACCES", "EACCES"]
    assert probe("network") == ["EROFS", "connected", user, "EACCES", "EACCES"]
    assert probe("lsf") == ["EROFS", "connected", user, "EACCES", "EACCES"]
    assert probe("lsf", "lsf.setuid") == ["EROFS", "connected", "0", "EACCES", "EACCES"]
    assert probe("docker") == ["EROFS", no_network, user, "connected", "EACCES"]
    assert probe("docker-rootless") == ["EROFS", no_network, user, "EACCES", "connected"]


def probed(service: Service, drop_ins: list[str], *places: str) -> list[str]:
    """What the unit lets a program do: write to a place, connect to it, become its owner."""
    system = service.box.path("/etc/systemd/system")
    unit = (system / "ds-flow.service").read_text()
    unit = re.sub("(?m)^(Type|Exec|Watchdog|Restart).*", "", unit)
    run = f"Type=oneshot\nExecStart={ROOT}/.venv/bin/python boxed.py {' '.join(places)}\n"
    (system / "probe.service").write_text("\n".join([unit, *drop_ins, "[Service]", run]))
    service.box.run("systemctl", "daemon-reload")
    service.box.run("systemctl", "start", "probe")
    service.box.run("journalctl", "--sync")
    lines = service.box.run("journalctl", "--unit=probe", "--output=cat").splitlines()
    return [line for line in lines if line.startswith("probed ")][-1].split()[1:]


def listen(service: Service, path: str, owner: str) -> None:
    """Start a server on a socket, with nothing behind it."""
    service.box.path(path).parent.mkdir(parents=True, exist_ok=True)
    activate = ("systemd-socket-activate", "--listen", path, "--accept", "cat")
    service.box.run("systemd-run", "--quiet", *activate)
    until(f"{path} was there", service.box.path(path).exists)
    service.box.run("chown", owner, path)
    service.box.run("chmod", "660", path)


@pytest.mark.exhaustive
def test_the_watchdog_restarts_a_stuck_engine(service: Service) -> None:
    service.put_drop_in("[Service]\nWatchdogSec=2s\n", "watchdog")
    service.systemctl("restart")
    kill(service, signal.SIGSTOP, "main")

    assert any("Watchdog timeout" in line for line in service.journal())
    service.put_drop_in("", "watchdog")
    service.systemctl("restart")


def test_bad_settings_end_the_service_with_78_and_no_restart(service: Service) -> None:
    service.configure(run={"attempts": "many"})
    service.systemctl("restart", check=False)

    assert service.show("ExecMainStatus") == "78"
    assert service.show("ActiveState") == "failed"
    assert service.show("NRestarts") == "0"
    assert any("run.attempts" in line for line in service.journal())
    service.configure()
    service.systemctl("start")


@pytest.mark.exhaustive
def test_to_install_again_is_to_upgrade(service: Service) -> None:
    pid, settings = service.pid, service.path("config/settings.yaml").read_bytes()
    with service.path(".installed").open("a") as installed:
        installed.write(f"{'0' * 64}  flows/of_an_old_version.py\n")
    service.path("flows/of_an_old_version.py").touch()
    service.path("flows/of_the_team.py").touch()
    service.path("flows/transforms.py").write_text("# the team's own\n")
    service.path("flows/steps/start.py").write_text("# of an old version\n")
    secrets = "TOKEN=of-the-team\nPROCESS_TAG=spring\n"
    service.path(".env").write_text(secrets)

    assert "Upgraded" in service.box.run(INSTALL, "install", ROOT)

    assert service.path("config/settings.yaml").read_bytes() == settings
    assert not service.path("flows/of_an_old_version.py").exists()
    assert service.path("flows/of_the_team.py").exists()
    assert service.path("flows/transforms.py").read_text() == "# the team's own\n"
    assert (
        service.path("flows/steps/start.py").read_bytes()
        == (CHECKOUT / "flows/steps/start.py").read_bytes()
    )
    assert (service.pid != pid, service.show("ActiveState")) == (True, "active")
    assert service.path(".env").read_text() == secrets


# What the layout of older versions was, and what it is to be: mode, user and group.
RIGHTS = {
    ".env": ("640 root ds-flow", "400 ds-flow ds-flow"),
    "config": ("755 root root", "750 root ds-flow"),
    "data": ("2775 ds-flow ds-flow", "3770 ds-flow ds-flow-drop"),
    "out": ("755 ds-flow ds-flow", "750 ds-flow ds-flow"),
    "log": ("755 ds-flow ds-flow", "750 ds-flow ds-flow"),
    ".metaflow": ("755 ds-flow ds-flow", "750 ds-flow ds-flow"),
}


@pytest.mark.exhaustive
def test_an_upgrade_closes_what_older_versions_left_open_to_droppers(service: Service) -> None:
    for name, (old, _) in RIGHTS.items():
        mode, user, group = old.split()
        service.box.run("chown", f"{user}:{group}", f"{ROOT}/{name}")
        service.box.run("chmod", mode, f"{ROOT}/{name}")
    service.box.run("groupdel", "--force", "ds-flow-drop")
    service.box.run("useradd", "--no-create-home", "--groups=ds-flow", "dropper")

    said = service.box.run(INSTALL, "install", ROOT)

    assert rights(service) == {name: now for name, (_, now) in RIGHTS.items()}
    assert service.box.run("id", "--groups", "--name", "dropper") == "dropper ds-flow-drop"
    assert "ds-flow-drop" in service.box.run("id", "--groups", "--name", "ds-flow").split()
    assert "Moved dropper from the group ds-flow to ds-flow-drop" in said


def rights(service: Service) -> dict[str, str]:
    """The modes and owners of what is not the same for everyone."""
    return {name: service.box.run("stat", "--format=%a %U %G", f"{ROOT}/{name}") for name in RIGHTS}


@pytest.mark.exhaustive
def test_what_was_opened_on_purpose_stays_so_at_the_next_upgrade(service: Service) -> None:
    service.box.run("gpasswd", "--add", "dropper", "ds-flow")  # an operator, too
    service.box.run("chmod", "755", f"{ROOT}/out")
    service.box.run("chgrp", "users", f"{ROOT}/data")

    service.box.run(INSTALL, "install", ROOT)

    assert "ds-flow" in service.box.run("id", "--groups", "--name", "dropper").split()
    assert rights(service)["out"] == "755 ds-flow ds-flow"
    assert rights(service)["data"] == "3770 ds-flow users"


@pytest.mark.exhaustive
def test_to_uninstall_keeps_what_is_the_teams(service: Service) -> None:
    published = service.find("out/*.[cj]s*")

    service.box.run(INSTALL, "uninstall", ROOT)

    assert service.find("out/*.[cj]s*") == published
    assert service.find("data/student_first.csv")
    left = {path.name for path in service.path("").iterdir()}
    assert left == {
        "config",
        ".env",
        "data",
        "out",
        "log",
        ".metaflow",
        "flows",
        "boxed.py",
        "gate",
    }
    assert {path.name for path in service.find("flows/*")} == {"transforms.py", "of_the_team.py"}
    assert service.show("LoadState") == "not-found"
    assert not service.box.path("/etc/systemd/system/ds-flow-web.service").exists()
