"""The profile of a run: made, published with it, shown, and removed with it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ds_flow.settings.load import load_settings
from ds_flow.views import profile_document
from project import Project

VALUES = ("Quentin", "Zacharias")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project", privacy={"hide_columns": ["name"]})
    yield made
    made.end_everything()


def shown(project: Project) -> dict[str, Any]:
    (run,) = project.runs()
    found: dict[str, Any] = json.loads(project.ds_flow("show", "--json", str(run.run_id)).stdout)
    return found


@pytest.mark.exhaustive
def test_a_run_describes_its_inputs_and_its_combined_file_and_shows_no_hidden_value(
    project: Project,
) -> None:
    project.drop("student_a.csv", f"id,Name\n1,{VALUES[0]}\n2,\n")
    project.drop("student_b.csv", f"id,Name,raise\n1,{VALUES[0]},{VALUES[1]}\n")
    project.drop("student_c.csv", "id,score\n10,2026-11-28\n")
    project.once()

    profile = shown(project)["profile"]
    assert [one["path"] for one in profile["inputs"]] == [
        "data/student_a.csv",
        "data/student_c.csv",
    ]
    first, combined = profile["inputs"][0], profile["combined"]
    assert (first["rows"], first["version"], combined["rows"]) == (2, 1, 3)
    assert [one["looks_like"] for one in first["columns"]] == ["whole number", "text"]
    assert [one["empty"] for one in first["columns"]] == [0, 0.5]
    assert first["first_rows"] == [["1", None], ["2", None]]
    columns = {one["name"]: one for one in combined["columns"]}
    assert [*columns] == ["id", "Name", "score", "processed_at", "source_file", "tag"]
    assert (columns["id"]["smallest"], columns["id"]["largest"]) == ("1", "10")
    assert columns["score"]["empty"] == pytest.approx(2 / 3, abs=1e-4)
    assert columns["tag"] | {"distinct": 1, "approximate": False} == columns["tag"]
    told = project.ds_flow("show", str(profile["run_id"])).stdout
    assert "looks_like" in told
    assert (project.strays(), project.leftovers()) == (set(), [])
    outputs = set(project.out.glob("*.csv"))
    for path in project.root.rglob("*"):
        if path.is_file() and path not in outputs and path.parent != project.inbox:
            held = [value for value in VALUES if value.encode() in path.read_bytes()]
            assert not held, path


@pytest.mark.exhaustive
def test_a_profile_is_removed_with_its_run(project: Project) -> None:
    project.configure(retention={"output_count": 1})
    name = project.drop("student_a.csv", "id\n1\n").name
    project.once()
    (first,) = project.out.glob("profile_*.json")
    project.drop(name, "id\n2\n")
    project.once()
    assert project.ds_flow("gc").returncode == 0
    (second,) = project.out.glob("profile_*.json")
    assert second != first
    assert project.strays() == set()
    assert not [*(project.out / "removed").glob("profile_*")]
    assert second.stat().st_mode == next(project.out.glob("final_*")).stat().st_mode


@pytest.mark.exhaustive
def test_profile_false_makes_none(project: Project) -> None:
    project.configure(profile=False)
    project.drop("student_a.csv", "id\n1\n")
    project.once()
    assert not [*project.out.glob("profile_*")]
    assert shown(project)["profile"] is None


def profile_file(project: Project, text: str) -> None:
    project.out.mkdir(exist_ok=True)
    (project.out / "profile_17.json").write_text(text)


def test_a_column_that_was_hidden_since_is_not_shown(project: Project) -> None:
    column = {"name": "NAME", "hidden": False, "smallest": "Ann", "largest": "Bob"}
    table = {"columns": [column], "first_rows": [["Ann"]]}
    profile_file(project, json.dumps({"combined": table, "inputs": [table]}))
    found = profile_document(load_settings(project.config, {}), "17")
    assert found is not None
    assert "Ann" not in json.dumps(found)
    assert found["inputs"][0]["columns"][0]["hidden"] is True


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"combined": 1, "inputs": []}'])
def test_a_broken_profile_is_none(project: Project, text: str) -> None:
    profile_file(project, text)
    settings = load_settings(project.config, {})
    assert profile_document(settings, "17") is None
    assert profile_document(settings, "18") is None
    assert profile_document(settings, "../profile_17") is None
