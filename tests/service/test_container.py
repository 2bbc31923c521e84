"""The daemon itself in a container: a real engine, a user that is not root, no network."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ds_flow.cli.commands import init
from ds_flow.core.program import CHECKOUT
from engine import daemon_image, docker, engine
from project import ids, table, until

pytestmark = pytest.mark.exhaustive

USER = "10001:10001"
NAME = "ds-flow-test-daemon"
COMPOSE = yaml.safe_load((CHECKOUT / "container" / "compose.yaml").read_text())["services"][
    "ds-flow"
]


@pytest.fixture(scope="module", autouse=True)
def running() -> Iterator[None]:
    with engine():
        yield


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = tmp_path / "marks"
    init.make_project(made)
    for folder in (made, *made.parents[:3]):
        folder.chmod(0o755)
    (made / ".env").write_text("PROCESS_TAG=spring\n")
    for name in ("out", "log", ".metaflow"):
        os.chown(made / name, 10001, 10001)
    return made


def options(project: Path) -> list[str]:
    """The options of `docker run` that say what the compose file says."""
    volumes = [volume.replace("${PROJECT:-..}", str(project)) for volume in COMPOSE["volumes"]]
    return [
        *(f"--volume={volume}" for volume in volumes),
        f"--network={COMPOSE['network_mode']}",
        *(["--read-only"] if COMPOSE["read_only"] else []),
        *(f"--tmpfs={place}" for place in COMPOSE["tmpfs"]),
        *(f"--cap-drop={right}" for right in COMPOSE["cap_drop"]),
        *(f"--security-opt={option}" for option in COMPOSE["security_opt"]),
        *(["--init"] if COMPOSE["init"] else []),
        f"--stop-timeout={COMPOSE['stop_grace_period'].removesuffix('s')}",
        "--health-interval=1s",
    ]


@pytest.fixture
def daemon(project: Path) -> Iterator[str]:
    docker("run", "--detach", f"--name={NAME}", *options(project), daemon_image())
    yield NAME
    docker("rm", "--force", NAME)


def health(name: str) -> str:
    return docker("inspect", "--format={{.State.Health.Status}}", name)


def log(name: str) -> str:
    return docker("logs", name)


def test_it_publishes_what_is_dropped_is_healthy_and_stops_in_order(
    project: Path, daemon: str
) -> None:
    (project / "data" / "student_a.csv").write_text(table("a"))
    (project / "data" / "student_b.csv").write_text("id\n1,2\n")

    until("the good file is published", lambda: [*project.glob("out/final_combined_*.csv")])
    until("the bad one is set aside", lambda: "b.csv" in answer(daemon, "files"))
    until("it is healthy", lambda: health(daemon) == "healthy")

    (combined,) = project.glob("out/final_combined_*.csv")
    assert [row.partition(",")[0] for row in combined.read_text().splitlines()[1:]] == ids("a")
    assert combined.stat().st_uid == 10001
    assert combined.read_text().splitlines()[1].endswith(",spring")
    assert json.loads(answer(daemon, "status", "--json"))["accounted"]
    docker("stop", daemon)
    assert docker("inspect", "--format={{.State.ExitCode}}", daemon) == "0"
    assert "daemon.stopped" in (project / "log" / "ds-flow.log").read_text()


def answer(name: str, *words: str) -> str:
    """What a command in the container says, whatever its exit code is."""
    return docker("exec", name, "sh", "-c", f"ds-flow {' '.join(words)} || true")


def test_a_new_container_goes_on_with_the_project(project: Path, daemon: str) -> None:
    (project / "data" / "student_a.csv").write_text(table("a"))
    until("it is published", lambda: [*project.glob("out/final_combined_*.csv")])
    docker("rm", "--force", daemon)  # as a crash of the host
    (project / "data" / "student_c.csv").write_text(table("c"))

    docker("run", "--detach", f"--name={NAME}", *options(project), daemon_image())

    until("the new one is published", lambda: len([*project.glob("out/manifest_*.json")]) == 2)
    published = [json.loads(path.read_text()) for path in project.glob("out/manifest_*.json")]
    inputs = [one["path"] for manifest in published for one in manifest["inputs"]]
    assert sorted(inputs) == ["data/student_a.csv", "data/student_c.csv"]


def test_it_runs_as_no_root_and_a_fault_in_the_settings_ends_it(project: Path) -> None:
    shape = json.loads(docker("inspect", daemon_image()))[0]["Config"]
    assert (shape["User"], shape["StopSignal"]) == (USER, "SIGTERM")
    (project / "config" / "settings.yaml").write_text("project_name: 3\n")

    docker("run", "--detach", f"--name={NAME}", *options(project), daemon_image())
    try:
        assert docker("wait", NAME) == "78"
    finally:
        docker("rm", "--force", NAME)


def test_the_default_user_is_that_of_the_image() -> None:
    told = (CHECKOUT / "container" / "Dockerfile").read_text()
    assert re.search(r"^USER (\S+)$", told, re.MULTILINE)[1] == USER  # type: ignore[index]
    assert USER in COMPOSE["user"]
