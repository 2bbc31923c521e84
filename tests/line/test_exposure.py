"""Who else can change what ds-flow runs: `check` and the start of the daemon name it."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from ds_flow.doctor import exposure
from ds_flow.doctor.exposure import check_exposure, exposed
from ds_flow.settings.load import Settings, load_settings
from project import Project, until

SETTINGS = """
project_name: x
paths: {input_pattern: data/student_*.csv, output_dir: out, log_dir: log}
compute: {stages: {analyze: {command: [python3, mine.py]}}, transform: "ours:transform"}
"""
DROPPERS = 4242
WIDE = (
    *(".", ".env", "config", "config/settings.yaml", "mine.py", "flows", "flows/transforms.py"),
    *("flows/steps", "flows/steps/start.py", "bash", "bash/a.sh", "daemon", "daemon/ds_flow/a.py"),
    *(".venv", ".venv/bin", "ours.py", "../above"),
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that is its own project, closed to others but for its inbox."""
    made = tmp_path / "above" / "project"
    for name in ("config", "data", "flows/steps", "bash", "daemon/ds_flow", ".venv/bin"):
        (made / name).mkdir(parents=True)
    (made / "config" / "settings.yaml").write_text(SETTINGS)
    files = (".env", "mine.py", "ours.py", "flows/transforms.py", "flows/steps/start.py")
    for name in (*files, "bash/a.sh", "daemon/ds_flow/a.py"):
        (made / name).touch()
    monkeypatch.setattr(exposure, "CHECKOUT", made)
    monkeypatch.setattr("sys.prefix", str(made / ".venv"))
    if os.geteuid() == 0:
        os.chown(made / "data", -1, DROPPERS)
    (made / "data").chmod(0o777)
    return made


def loaded(root: Path) -> Settings:
    return load_settings(root / "config" / "settings.yaml", {})


def named(root: Path, name: str) -> Path:
    return root.parent if name == "../above" else root / name


def mend(said: str) -> None:
    """Type the command that it names."""
    command = shlex.split(said.rpartition(": ")[2])
    assert command[0] == "chmod"
    subprocess.run(command, check=True)


def is_named_and_mended(root: Path, words: str) -> None:
    """See that one sentence says so, and that its command leaves nothing to name."""
    (said,) = exposed(loaded(root))
    assert words in said
    mend(said)
    assert list(exposed(loaded(root))) == []


def test_a_project_that_nobody_else_can_change_is_sound(root: Path) -> None:
    assert [one.level for one in check_exposure(loaded(root), {})] == ["ok"]


@pytest.mark.parametrize("name", WIDE)
def test_what_everyone_can_change_is_named_with_the_command_that_mends_it(
    root: Path, name: str
) -> None:
    path = named(root, name)
    path.chmod(path.stat().st_mode | 0o002)

    is_named_and_mended(root, f"{path.resolve()} can be changed by everyone")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to groups")
@pytest.mark.parametrize("name", WIDE)
def test_what_droppers_can_change_is_named_with_the_command_that_mends_it(
    root: Path, name: str
) -> None:
    path = named(root, name)
    os.chown(path, -1, DROPPERS)
    path.chmod(path.stat().st_mode | 0o020)

    who = f"the group #{DROPPERS}, which may"
    is_named_and_mended(root, f"{path.resolve()} can be changed by {who}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to groups")
def test_a_group_that_drops_no_files_and_a_users_own_group_are_not_named(root: Path) -> None:
    os.chown(root / ".env", -1, DROPPERS + 1)
    (root / ".env").chmod(0o660)
    os.chown(root / "data", -1, os.getegid())
    for path in (root / "flows", root / "config"):
        path.chmod(0o775)

    assert list(exposed(loaded(root))) == []


def test_many_places_in_one_folder_are_one_sentence_and_one_command(root: Path) -> None:
    for name in ("flows", "flows/transforms.py", "flows/steps/start.py"):
        (root / name).chmod(0o777)

    is_named_and_mended(root, f"and 2 more in {root.resolve()}/flows can be changed by everyone")


def test_a_sticky_folder_above_is_safe_and_one_that_holds_code_is_not(root: Path) -> None:
    root.parent.chmod(0o1777)
    assert list(exposed(loaded(root))) == []

    (root / "flows").chmod(0o1777)
    (said,) = exposed(loaded(root))
    assert "flows can be changed by everyone" in said


def test_the_daemon_says_so_when_it_starts(tmp_path: Path) -> None:
    made = Project(tmp_path / "project")
    (made.root / ".env").touch()
    (made.root / ".env").chmod(0o666)

    made.start()
    until("it was said", lambda: "code.exposed" in made.said())
    made.stop()

    assert f"chmod o-w {made.root}/.env" in made.said()
