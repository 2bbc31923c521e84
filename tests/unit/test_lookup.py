"""The ways in which a person may name a file."""

from contextlib import closing
from pathlib import Path

from cli_project import Project
from ds_flow.core.states import Cause
from ds_flow.views.lookup import find_place


def test_a_path_may_be_typed_in_many_ways(tmp_path: Path) -> None:
    project, name = Project(tmp_path), "student_ö\n\\x41.csv"
    stored = "data/student_ö\\x0a\\\\x41.csv"
    root = str(tmp_path)
    (tmp_path / "alias").symlink_to("data")
    with closing(project.open()) as ledger:
        project.admit(name, cause=Cause.NAME, reason="odd")
        for typed, cwd in (
            (f"data/{name}", root),
            (f"data/{name}", "/"),
            (name, f"{root}/data"),
            (name, "/"),
            (stored, "/"),
            (f"{root}/data/{name}", "/"),
            (f"./data/../data/{name}", root),
            (f"alias/{name}", root),
        ):
            assert find_place(project.settings, ledger, typed, cwd).path == stored
