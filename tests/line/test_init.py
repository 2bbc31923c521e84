"""`ds-flow init`: a new project, which works as it is."""

import json
from pathlib import Path

import pytest

from ds_flow.cli.commands import init
from ds_flow.cli.main import main
from ds_flow.core import SettingsError
from ds_flow.settings import load_settings

FILES = {".env.example", ".gitignore", "config/settings.yaml", "flows/transforms.py"}


def made(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_new_project_has_settings_folders_and_a_transform(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "marks of 2026"

    assert main(["init", str(folder)]) == 0

    kept = {f"{name}/.gitkeep" for name in ("data", "out", "log")}
    assert made(folder) == FILES | kept
    settings = load_settings(folder / "config" / "settings.yaml", {})
    assert settings.project_name == "marks_of_2026"
    assert settings.inbox == folder / "data"
    assert f"export DS_FLOW_CONFIG='{folder}/config/settings.yaml'" in capsys.readouterr().out


def test_a_project_may_be_made_in_an_empty_folder_even_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["init", ".", "--json"]) == 0

    answer = json.loads(capsys.readouterr().out)
    assert answer["folder"] == str(tmp_path)
    assert {*answer["made"]} == FILES | {"data/", "out/", "log/"}


@pytest.mark.parametrize("name", ["file", "link", "inside"])
def test_nothing_is_ever_written_over(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "inside").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "else")
    folder = tmp_path / ("other" if name == "inside" else name)

    assert main(["init", str(folder)]) == 1

    assert made(tmp_path) == {"file", "other/inside"}
    assert str(folder) in capsys.readouterr().err


def test_an_odd_name_gives_a_project_a_name_that_settings_take(tmp_path: Path) -> None:
    for name in ("-", "Prüfungen", "x" * 200, "a'b\"c: #"):
        init.make_project(tmp_path / name)
        assert load_settings(tmp_path / name / "config" / "settings.yaml", {}).project_name


@pytest.mark.parametrize("name", ["marks [old]", "a*", "why?", "two\nlines", "latin\udce9"])
def test_a_folder_whose_name_a_pattern_cannot_begin_with_is_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / name

    assert main(["init", str(folder)]) == 1

    assert "rename that folder" in capsys.readouterr().err
    assert not folder.exists()
    (tmp_path / "made").mkdir()
    init.make_project(tmp_path / "made")
    (tmp_path / "made").rename(folder)
    with pytest.raises(SettingsError, match=r"paths.input_pattern: .*rename that folder$"):
        load_settings(folder / "config" / "settings.yaml", {})


def test_its_settings_say_what_the_defaults_are(tmp_path: Path) -> None:
    """But for the nightly rerun, which a new project has not."""
    init.make_project(tmp_path / "made")
    file = tmp_path / "made" / "config" / "settings.yaml"
    bare = tmp_path / "bare" / "config" / "settings.yaml"
    bare.parent.mkdir(parents=True)
    lines = file.read_text().splitlines()
    start, end = lines.index("paths:"), lines.index("csv:")
    bare.write_text("\n".join(["project_name: made", "schedule: []", *lines[start:end]]))

    found, expected = load_settings(file, {}), load_settings(bare, {})

    for name in ("csv", "compute", "run", "schedule", "privacy", "alerts"):
        assert getattr(found, name) == getattr(expected, name), name
