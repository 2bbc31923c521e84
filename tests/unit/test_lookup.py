"""The ways in which a person may name a file."""

from contextlib import closing
from pathlib import Path

import pytest

from cli_project import Project
from ds_flow.core.errors import RequestError
from ds_flow.core.states import Cause
from ds_flow.views.lookup import find_batch, find_place, find_run


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


# --------------------------------------------------------------------------- begun names


def test_a_file_may_be_begun_but_only_if_one_alone_begins_so(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with closing(project.open()) as ledger:
        for name in ("student_a1.csv", "student_a2.csv", "student_b.csv"):
            project.admit(name)
        settings, root = project.settings, str(tmp_path)
        assert find_place(settings, ledger, "student_b", root).path == "data/student_b.csv"
        assert find_place(settings, ledger, "data/student_a2", root).path == "data/student_a2.csv"
        with pytest.raises(RequestError, match=r"'student_a': data/student_a1.csv, data/stud"):
            find_place(settings, ledger, "student_a", root)
        assert find_place(settings, ledger, "student_c", root).path == "student_c"


def test_a_file_that_exists_is_meant_before_one_that_only_begins_so(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with closing(project.open()) as ledger:
        project.admit("student_a.csv.old.csv")
        (tmp_path / "data" / "student_a.csv").touch()
        found = find_place(project.settings, ledger, "student_a.csv", str(tmp_path))
        assert found.path == "data/student_a.csv"


def test_a_run_may_be_begun_or_be_the_last(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with closing(project.open()) as ledger:
        for name in ("", "last", "1", "1111"):
            with pytest.raises(RequestError, match="no run"):
                find_run(ledger, name)
        project.published("one-567890", "11110000", "student_a.csv")
        project.published("two-567890", "11112222", "student_b.csv")
        assert find_run(ledger, "last").run_id == "11112222"
        assert find_run(ledger, "11110").run_id == "11110000"
        assert find_run(ledger, "one-").run_id == "11110000"
        assert find_batch(ledger, "two-") == find_batch(ledger, "last") == "two-567890"
        for find in (find_run, find_batch):
            with pytest.raises(RequestError, match="more than one run or batch begins with '1111'"):
                find(ledger, "1111")
            with pytest.raises(RequestError, match="no "):  # too short to be meant
                find(ledger, "one")
