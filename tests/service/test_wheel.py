"""A wheel without its checkout: it installs, makes a project, and runs it."""

import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT
from project import ids, table

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel of this checkout, and with what it needs, but not with ours.

    Nothing comes from a network: the build's needs and the wheel's are those of this environment.
    """
    folder = tmp_path_factory.mktemp("wheel")
    uv = str(CHECKOUT / ".ci" / "uv")
    build = [
        uv,
        "build",
        "--quiet",
        "--offline",
        "--no-build-isolation",
        "--python",
        sys.executable,
    ]
    subprocess.run([*build, "--out-dir", str(folder), str(CHECKOUT)], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python)]
    subprocess.run([*install, str(wheel)], check=True)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    # What a path file names becomes a place for imports, and no path file there is obeyed.
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "env"


def ds_flow(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [installed / "bin" / "ds-flow", *words],
        env={"PATH": "/usr/bin:/bin", "HOME": str(installed)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_tells_its_version(installed: Path) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert ds_flow(installed, "--version").stdout == f"ds-flow {project['version']}\n"


def test_it_makes_a_project_and_runs_it(installed: Path, tmp_path: Path) -> None:
    project = tmp_path / "marks"
    settings = str(project / "config" / "settings.yaml")

    made = ds_flow(installed, "init", str(project))
    assert made.returncode == 0, made.stderr
    assert f"{installed}/bin/ds-flow once" in made.stdout
    for name in ("a", "b"):
        (project / "data" / f"student_{name}.csv").write_text(table(name))
    tried = ds_flow(installed, "try", str(project / "data" / "student_a.csv"), "--config", settings)
    done = ds_flow(installed, "once", "--config", settings)

    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    (combined,) = (project / "out").glob("final_combined_*.csv")
    rows = combined.read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ids("a") + ids("b")


def test_its_check_finds_no_fault(installed: Path, tmp_path: Path) -> None:
    settings = str(tmp_path / "marks" / "config" / "settings.yaml")
    ds_flow(installed, "init", str(tmp_path / "marks"))

    done = ds_flow(installed, "check", "--config", settings)

    assert done.returncode == 0, done.stdout
    assert "ds_flow_home/flows/student_flow.py starts" in done.stdout


def test_it_has_no_project_of_its_own(installed: Path) -> None:
    done = ds_flow(installed, "status")

    assert done.returncode == 78
    assert "`ds-flow init DIR` makes a new project" in done.stderr


def test_it_holds_nothing_but_what_runs(installed: Path) -> None:
    (home,) = (installed / "lib").glob("python*/site-packages/ds_flow_home")
    assert {path.name for path in home.iterdir()} == {"bash", "daemon", "flows", "systemd"}
    assert {path.name for path in (home / "flows").iterdir()} >= {"student_flow.py", "Dockerfile"}
    names = {path.name for path in (home / "daemon").iterdir()}
    assert names == {"ds_flow"}
