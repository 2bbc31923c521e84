"""Several services on one host, under a real systemd: upgraded and removed one by one."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from installed import INSTALL, Answer, machine_of_its_own, ran
from project import ids, rows_of, table, until
from systemd_box import Box

pytestmark = pytest.mark.exhaustive

NORTH = "--name=north"
SETTINGS = """\
project_name: {name}
paths: {{input_pattern: data/student_*.csv, output_dir: out, log_dir: log}}
watch: {{quiet_seconds: 0.2}}
batch: {{quiet_seconds: 0.2}}
web: {{listen: /run/{unit}-web/socket}}
"""
TRANSFORM = """\
def transform(frame):
    frame["who"] = "{name}"
    return frame
"""

# All that belongs to a service: files with owners and contents, accounts, units, processes. Its
# daemon waits, and writes only `daemon.json`: how it is.
SNAPSHOT = """
import hashlib, json, os, pwd, grp, subprocess, sys
unit, root = sys.argv[1:]
found = {}
def note(path):
    status = os.lstat(path)
    found[path] = [oct(status.st_mode), status.st_uid, status.st_gid, status.st_ino]
    if os.path.isfile(path):
        with open(path, "rb") as file:
            found[path].append(hashlib.sha256(file.read()).hexdigest())
for folder, folders, names in os.walk(root):
    for name in {*folders, *names} - {"daemon.json"}:
        note(f"{folder}/{name}")
for page in ("", "-web"):
    note(f"/etc/systemd/system/{unit}{page}.service")
note(f"/run/{unit}-web/socket")
shown = ("MainPID", "NRestarts", "ActiveEnterTimestampMonotonic", "UnitFileState", "User", "Group")
for page in ("", "-web"):
    command = ["systemctl", "show", f"--property={','.join(shown)}", f"{unit}{page}"]
    found[f"shown{page}"] = subprocess.run(command, capture_output=True, text=True).stdout
command = ["journalctl", f"--unit={unit}", f"--unit={unit}-web", "--output=cat"]
found["journal"] = subprocess.run(command, capture_output=True, text=True).stdout
found["users"] = [list(one) for one in pwd.getpwall() if one.pw_name == unit]
found["groups"] = [list(one) for one in grp.getgrall() if one.gr_name in (unit, f"{unit}-drop")]
print(json.dumps(found))
"""

OTHER_STATUS = """\
HELP = "as another version says it"
ARGUMENTS = ()

def run(args):
    print("the status of north")
    return 0
"""


@dataclass(frozen=True, slots=True)
class Service:
    """One installed service, as its administrator has it."""

    box: Box
    unit: str
    root: str

    def path(self, name: str) -> Path:
        return self.box.path(f"{self.root}/{name}")

    def show(self, name: str) -> str:
        return self.box.run("systemctl", "show", "--property", name, "--value", self.unit)

    def ds_flow(self, *words: str, of: str = "") -> Answer:
        """Run a command as the service's user, in a folder of nobody."""
        user = ("setpriv", f"--reuid={self.unit}", f"--regid={self.unit}", "--init-groups", "--")
        command = f"{of or self.root}/.venv/bin/ds-flow"
        return ran(self.box, *user, "env", "--chdir=/tmp", command, *words)

    def prepare(self, name: str) -> None:
        """Give it settings and a transform of its own, and start it with its page."""
        settings = SETTINGS.format(name=name, unit=self.unit)
        self.path("config/settings.yaml").write_text(settings)
        self.path("flows/transforms.py").write_text(TRANSFORM.format(name=name))
        self.box.run("systemctl", "enable", "--now", self.unit, f"{self.unit}-web")
        socket = f"/run/{self.unit}-web/socket"
        until(f"{socket} was there", self.box.path(socket).is_socket)

    def drop(self, name: str) -> None:
        self.path(f"data/.{name}").write_text(table(name), encoding="utf-8")
        self.path(f"data/.{name}").rename(self.path(f"data/student_{name}.csv"))

    def outputs(self, name: str) -> list[Path]:
        return sorted(self.path("out").glob(f"processed_student_{name}_*.csv"))

    def wait_processed(self, name: str) -> None:
        until(f"{name} was published", partial(self.outputs, name))
        until("it was recorded", lambda: "runs live: 0" in self.show("StatusText"))

    def snapshot(self) -> dict[str, Any]:
        self.box.run("journalctl", "--sync")
        found = self.box.run("python3", "-c", SNAPSHOT, self.unit, self.root)
        return dict(json.loads(found))


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with two services."""

    box: Box
    first: Service
    north: Service


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with machine_of_its_own() as box:
        box.run(INSTALL, "install")
        first = Service(box, "ds-flow", "/opt/ds-flow")
        first.prepare("first")
        said = box.run(INSTALL, "install", NORTH, "/srv/north")  # once: later, the unit says it
        assert "Installed ds-flow-north in /srv/north" in said
        yield Host(box, first, Service(box, "ds-flow-north", "/srv/north"))


# The tests are one life, in this order.


def test_a_new_service_says_in_its_settings_who_it_is_and_where_its_page_listens(
    host: Host,
) -> None:
    settings = host.north.path("config/settings.yaml").read_text()
    assert re.search("(?m)^project_name: north( |$)", settings)
    assert re.search("(?m)^  listen: /run/ds-flow-north-web/socket( |$)", settings)
    drop_in = host.north.path("systemd/drop-ins/web/actions.conf").read_text()
    assert "ReadWritePaths=/srv/north/out" in drop_in


def test_two_services_side_by_side_have_their_own_inbox_transform_user_and_sockets(
    host: Host,
) -> None:
    host.north.prepare("north")
    services = {"first": host.first, "north": host.north}
    for name, service in services.items():
        service.drop(f"of_{name}")
    for name, service in services.items():
        service.wait_processed(f"of_{name}")
        (output,) = service.outputs(f"of_{name}")
        assert [(row["id"], row["who"]) for row in rows_of(output)] == [
            (one, name) for one in ids(f"of_{name}")
        ]
        owner = host.box.run("stat", "--format=%U", f"{service.root}/out/ledger.db")
        socket = host.box.run("stat", "--format=%a %U %G", f"/run/{service.unit}-web/socket")
        assert (owner, socket) == (service.unit, f"660 {service.unit} {service.unit}")
    assert host.first.ds_flow("runs", "--config", "/srv/north/config/settings.yaml").code


def test_a_command_names_its_service_from_any_folder_and_runs_that_ones_own_version(
    host: Host,
) -> None:
    found = host.north.ds_flow("--project", "north", "files", "--json", of=host.first.root)
    told = json.loads(found.text)
    assert [one["path"] for one in told["files"]] == ["data/student_of_north.csv"]
    host.north.path("daemon/ds_flow/cli/commands/status.py").write_text(OTHER_STATUS)
    for words in (("--project", "ds-flow-north", "status"), ("status", "--project=north")):
        assert host.north.ds_flow(*words, of=host.first.root).text == "the status of north\n"
    for words in (("--project", "ds-flow", "status"), ("status", "--project=default")):
        assert "processed" in host.first.ds_flow(*words, of=host.north.root).text

    wrong = host.first.ds_flow("--project", "south", "status")
    assert wrong.code == 1
    assert "'south'" in wrong.text
    assert "default (/opt/ds-flow), north (/srv/north)" in wrong.text
    both = host.first.ds_flow("status", "--config", "x.yaml", "--project", "north")
    assert both.code == 2


def test_the_services_are_listed_with_folder_user_version_and_state(host: Host) -> None:
    services = (f"{host.first.root}/.venv/bin/ds-flow", "services")  # as root: systemd answers
    told = json.loads(host.box.run(*services, "--json"))["services"]
    assert [(one["name"], one["unit"], one["root"], one["user"]) for one in told] == [
        ("default", "ds-flow", "/opt/ds-flow", "ds-flow"),
        ("north", "ds-flow-north", "/srv/north", "ds-flow-north"),
    ]
    assert {(one["state"], one["page"]) for one in told} == {("active", "active")}
    assert f"ds-flow {told[0]['version']}" == host.first.ds_flow("--version").text.strip()
    _, _, last = host.box.run(*services).splitlines()
    assert last.split()[:4] == ["north", "ds-flow-north", "/srv/north", "ds-flow-north"]


REFUSED = {
    "the prefix of the other": (("install", "--name=south", "/opt/ds-flow"), "belongs to ds-flow"),
    "a folder in the prefix of the other": (
        ("install", "--name=south", "/opt/ds-flow/south"),
        "/opt/ds-flow belongs to ds-flow",
    ),
    "a folder around the prefix of the other": (("install", "--name=south", "/opt"), "belongs to"),
    "the unit of the other": (("install", "/opt/south"), "ds-flow is installed in /opt/ds-flow"),
    "to remove the other's prefix": (("uninstall", NORTH, "/opt/ds-flow"), "is installed in"),
    "to remove what is not there": (
        ("uninstall", "--name=south"),
        "no service ds-flow-south; installed: ds-flow, ds-flow-north",
    ),
    "a name with a hyphen": (("install", "--name=north-web"), "NAME should be"),
    "the name of the page": (("install", "--name=web"), "NAME should be"),
    "the name of the droppers": (("install", "--name=drop"), "NAME should be"),
    "a name with a path": (("install", "--name=../north"), "NAME should be"),
    "a name in capitals": (("install", "--name=North"), "NAME should be"),
}


@pytest.fixture(scope="module")
def untouched(host: Host) -> list[dict[str, Any]]:
    """Both services before anything of REFUSED is tried."""
    return [host.first.snapshot(), host.north.snapshot()]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("words", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_would_touch_another_service_is_refused_with_a_reason(
    host: Host, words: tuple[str, ...], reason: str
) -> None:
    answer = ran(host.box, INSTALL, *words)

    assert (answer.code, reason in answer.text) == (1, True), answer.text
    assert not host.box.path("/opt/south").exists()


def test_what_was_refused_has_touched_nothing(host: Host, untouched: list[dict[str, Any]]) -> None:
    assert [host.first.snapshot(), host.north.snapshot()] == untouched


def test_one_is_upgraded_and_the_other_is_not_touched(host: Host) -> None:
    before, pid = host.first.snapshot(), host.north.show("MainPID")

    said = host.box.run(INSTALL, "install", NORTH)

    assert "Upgraded ds-flow-north and started it again: /srv/north" in said
    assert host.first.snapshot() == before
    assert (host.north.show("ActiveState"), host.north.show("MainPID") != pid) == ("active", True)
    assert "north" in host.north.path("flows/transforms.py").read_text()
    host.north.drop("later")
    host.north.wait_processed("later")
    assert host.first.snapshot() == before


def test_one_is_removed_and_the_other_is_not_touched(host: Host) -> None:
    before, published = host.first.snapshot(), host.north.outputs("*")

    said = host.box.run(INSTALL, "uninstall", NORTH)

    assert "Removed ds-flow-north from /srv/north; kept: " in said
    assert host.first.snapshot() == before
    assert host.north.outputs("*") == published
    assert host.north.path("out/ledger.db").exists()
    assert host.north.show("LoadState") == "not-found"
    assert not host.box.path("/run/ds-flow-north-web").exists()
    told = json.loads(host.first.ds_flow("services", "--json").text)["services"]
    assert [one["name"] for one in told] == ["default"]


def test_the_kept_folders_of_a_removed_service_are_no_place_for_another_one(host: Host) -> None:
    answer = ran(host.box, INSTALL, "install", "--name=south", host.north.root)
    assert answer.code == 1
    assert "belongs to the user ds-flow-north" in answer.text

    assert "Installed ds-flow-north" in host.box.run(INSTALL, "install", NORTH, host.north.root)
    host.box.run("systemctl", "start", "ds-flow-north")
    until("it knew them all", lambda: "2 processed" in host.north.show("StatusText"))


def test_whoever_asks_for_it_is_left_with_nothing_of_that_service(host: Host) -> None:
    before = host.first.snapshot()

    said = host.box.run(INSTALL, "uninstall", NORTH, "--purge")

    assert "Removed ds-flow-north from /srv/north with its inputs, outputs" in said
    assert not host.box.path(host.north.root).exists()
    assert host.first.snapshot() == before
