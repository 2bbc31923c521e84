"""Installed services are what units of root's say, and nothing that others could have written."""

import os
import sys
from pathlib import Path

import pytest

from ds_flow.cli.arguments import UsageError
from ds_flow.cli.service import go_to_service
from ds_flow.core import RequestError
from ds_flow.system import installed_services, service_in, services

UNIT = """\
[Service]
ExecStart={root}/.venv/bin/ds-flow serve --config {root}/config/settings.yaml
User={user}
"""


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "units"
    folder.mkdir()
    monkeypatch.setattr(services, "UNITS", folder)
    return folder


def put(units: Path, name: str, root: Path | str) -> Path:
    unit = units / f"{name}.service"
    unit.write_text(UNIT.format(root=root, user=name))
    return unit


def test_every_unit_of_a_service_is_found_and_the_one_without_a_name_is_the_first(
    units: Path,
) -> None:
    for name in ("ds-flow-north", "ds-flow-a1", "ds-flow"):
        put(units, name, f"/opt/{name}")
    assert [(one.name, one.unit, str(one.root), one.user) for one in installed_services()] == [
        ("default", "ds-flow", "/opt/ds-flow", "ds-flow"),
        ("a1", "ds-flow-a1", "/opt/ds-flow-a1", "ds-flow-a1"),
        ("north", "ds-flow-north", "/opt/ds-flow-north", "ds-flow-north"),
    ]
    found = service_in(Path("/opt/ds-flow-north"))
    assert found is not None
    assert found.name == "north"
    assert service_in(Path("/opt/ds-flow-nor")) is None


def test_what_is_no_unit_of_a_service_is_passed_over(units: Path) -> None:
    for name in ("ds-flow-web", "ds-flow-north-web", "ds-flow-North", "ds-flow-", "sshd"):
        put(units, name, "/opt/ds-flow")
    put(units, "ds-flow-x", "/opt/x").rename(units / "ds-flow-x.service.part")
    (units / "ds-flow-backup.service").write_text("[Service]\nExecStart=/bin/true\nUser=root\n")
    assert installed_services() == []


def test_a_host_without_systemd_has_no_services(units: Path) -> None:
    units.rmdir()
    assert installed_services() == []


def test_a_unit_that_others_could_have_written_is_not_trusted(units: Path, tmp_path: Path) -> None:
    put(units, "ds-flow", "/opt/ds-flow").chmod(0o666)
    put(units, "ds-flow-group", "/opt/ds-flow").chmod(0o664)
    put(tmp_path, "elsewhere", "/opt/ds-flow")
    (units / "ds-flow-link.service").symlink_to(tmp_path / "elsewhere.service")
    os.mkfifo(units / "ds-flow-fifo.service")
    (units / "ds-flow-folder.service").mkdir()
    if os.geteuid() == 0:
        os.chown(put(units, "ds-flow-foreign", "/opt/ds-flow"), 12345, 12345)
    assert installed_services() == []


def test_a_version_that_nobody_can_read_is_empty(units: Path, tmp_path: Path) -> None:
    put(units, "ds-flow", tmp_path)
    (one,) = installed_services()
    assert one.version() == ""
    (tmp_path / "pyproject.toml").write_text("[project]\nversion = '3.2.1'\n")
    assert one.version() == "3.2.1"
    (tmp_path / "pyproject.toml").write_text("project = 1\n")
    assert one.version() == ""


def test_the_named_services_own_command_gets_everything_else(units: Path, tmp_path: Path) -> None:
    command = tmp_path / ".venv" / "bin" / "ds-flow"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >"${0%/*}/told"\n')
    command.chmod(0o755)
    put(units, "ds-flow-north", tmp_path)
    child = os.fork()
    if not child:  # it becomes the command
        try:
            go_to_service(["files", "--project", "north", "--json", "--", "--project", "x"])
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    settings = str(tmp_path / "config" / "settings.yaml")
    told = (command.parent / "told").read_text().splitlines()
    assert told == ["--config", settings, "files", "--json", "--", "--project", "x"]


WRONG = (
    ["--project"],
    ["--project", "a", "status", "--project", "a"],
    ["--project", "a", "--config", "x.yaml", "status"],
    ["--project=a", "status", "--config=x.yaml"],
)


@pytest.mark.parametrize("words", WRONG)
def test_words_that_contradict_each_other_are_refused(units: Path, words: list[str]) -> None:
    put(units, "ds-flow-a", sys.prefix)
    with pytest.raises(UsageError, match="name"):
        go_to_service(words)


def test_a_wrong_name_is_answered_with_the_known_ones(units: Path) -> None:
    with pytest.raises(RequestError, match=r"no service 'north' is installed .* installed: none"):
        go_to_service(["--project", "north", "status"])
    put(units, "ds-flow", "/opt/ds-flow")
    put(units, "ds-flow-south", "/srv/south")
    known = r"default \(/opt/ds-flow\), south \(/srv/south\)"
    with pytest.raises(RequestError, match=known):
        go_to_service(["--project", "north", "status"])
    with pytest.raises(RequestError, match=known):
        go_to_service(["status", "--project=../south"])


def test_without_the_option_nothing_is_looked_for(units: Path) -> None:
    units.rmdir()
    go_to_service(["files", "--", "--project", "north"])
