"""`ds-flow try`: what a run would make of one file, by the code of a run, and nothing is left."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from ds_flow.core.paths import escape
from project import Project, table, until

RAISES = """import pandas as pd


def transform(frame):
    return frame.assign(score=frame["score"].astype(int))
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    (tmp_path / "scratch").mkdir()
    made.environment["TMPDIR"] = str(tmp_path / "scratch")
    yield made
    made.end_everything()


def everything(project: Project) -> dict[str, tuple[int, int]]:
    """What is in the project, and when it was changed."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in (project.root, *project.root.rglob("*"))
    }


def left(project: Project) -> list[Path]:
    return list(Path(project.environment["TMPDIR"]).iterdir())


def tried(project: Project, path: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = project.ds_flow("try", str(path), "--json", *words)
    return done.returncode, json.loads(done.stdout)


def code(project: Project, text: str) -> None:
    (project.root / "gated.py").write_text(text)


def test_a_good_file_is_shown_before_and_after_and_nothing_is_written(project: Project) -> None:
    code(project, "def transform(frame):\n    return frame.assign(twice=frame.id * 2)[::-1]\n")
    file = project.drop("student_a.csv", "id;name\na;Ann\nb;Bob\nc;Cy\n")
    before = everything(project)

    done = project.ds_flow("try", str(file), "--rows", "2")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "data/student_a.csv would be published",
        "  delimiter  ;",
        "  encoding   utf-8",
        "  columns    2",
        "  rows       3 read, 3 to publish",
        "  transform  gated:transform in gated.py",
        "",
        "as read: the first 2 rows",
        "id  name",
        "a   Ann",
        "b   Bob",
        "",
        "to publish: the first 2 rows",
        "id  name  twice",
        "c   Cy    cc",
        "b   Bob   bb",
    ]
    assert everything(project) == before
    assert left(project) == []


def test_a_file_on_which_the_transform_fails_is_told_with_its_line_and_its_traceback(
    project: Project,
) -> None:
    code(project, RAISES)
    file = project.drop("student_a.csv", "id,score\n1,A+\n")

    done = project.ds_flow("try", str(file))

    line = 'gated.py:5: return frame.assign(score=frame["score"].astype(int)): ValueError: '
    assert done.returncode == 1
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"data/student_a.csv would be set aside: {line}")
    assert "  | Traceback (most recent call last):" in rest
    assert f'  |   File "{project.root}/gated.py", line 5, in transform' in rest
    assert "site-packages" not in done.stdout
    assert "as read: the first 1 row" in rest


@pytest.mark.parametrize(
    ("content", "given", "reason"),
    [
        ("id,score\n1,2,3\n", {}, "line 2: "),
        ("", {}, "empty"),
        ("id\n1\n", {"csv": {"required_columns": ["score"]}}, "column 'score' is missing"),
        ("tag\n1\n", {}, "the name is taken"),
        ("id\n" + "1\n" * 2**20, {"watch": {"max_mb": 1}}, "too large: 3 MiB, and watch.max_mb"),
    ],
)
@pytest.mark.exhaustive
def test_a_file_that_would_be_set_aside_is_told_with_the_reason_of_a_run(
    project: Project, content: str, given: dict[str, Any], reason: str
) -> None:
    project.configure(**given)
    file = project.drop("student_a.csv", content)

    code_of_it, answer = tried(project, file)

    assert (code_of_it, answer["published"]) == (1, False)
    assert reason in answer["reason"]
    assert project.once().returncode == 1
    assert answer["reason"] in project.reason("student_a.csv")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import os; os.abort()", "crashed by SIGABRT"),
        ("import os; os._exit(0)", "it ended without a result"),
        ("while True: pass", "run limit of 0.05 minutes reached"),
    ],
)
@pytest.mark.exhaustive
def test_what_ends_its_process_or_never_ends_is_told(
    project: Project, body: str, reason: str
) -> None:
    code(project, f"def transform(frame):\n    {body}\n")

    code_of_it, answer = tried(
        project, project.drop("student_a.csv", table("a")), "--minutes", "0.05"
    )

    assert code_of_it == 1
    assert reason in answer["reason"]
    assert left(project) == []


@pytest.mark.exhaustive
def test_a_transform_that_cannot_be_imported_is_told_with_its_line(project: Project) -> None:
    code(project, "import nowhere\n")

    code_of_it, answer = tried(project, project.drop("student_a.csv", table("a")))

    assert code_of_it == 1
    assert "gated.py:1: import nowhere: ModuleNotFoundError" in answer["reason"]
    said = project.ds_flow("try", "data/student_a.csv").stdout
    assert said.startswith("data/student_a.csv would not be published: ")  # nor set aside


@pytest.mark.parametrize("name", [b"student_\xff.csv", b"student_\n.csv"])
def test_a_file_that_its_name_keeps_out_is_told_with_the_reason_of_a_run(
    project: Project, name: bytes
) -> None:
    file = project.drop(os.fsdecode(name), table("a"))

    code_of_it, answer = tried(project, file)

    assert (code_of_it, answer["published"], answer["cause"]) == (1, False, "name")
    assert answer["reason"].endswith("in the name: rename the file")
    assert project.once().returncode == 1
    assert answer["reason"] in project.reason(escape(os.fsdecode(name)))


def test_any_number_of_rows_can_be_asked_for(project: Project) -> None:
    file = project.drop("student_a.csv", table("a"))

    code_of_it, answer = tried(project, file, "--rows", "9" * 30)

    assert (code_of_it, len(answer["after"]["rows"])) == (0, 3)


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
@pytest.mark.exhaustive
def test_an_interrupted_try_leaves_no_process_and_no_file(
    project: Project, number: signal.Signals, exit_code: int
) -> None:
    gate = project.gate("held")
    file = project.drop("student_a.csv", "id,gate\n1,held\n")
    trying = subprocess.Popen(project.command("try", str(file)), env=project.environ())
    until("the transform waits", lambda: gate.is_reached, while_lives=trying)

    trying.send_signal(number)

    assert trying.wait() == exit_code
    assert project.marked() == []
    assert left(project) == []


@pytest.mark.exhaustive
def test_hidden_columns_are_not_shown(project: Project) -> None:
    project.configure(privacy={"hide_columns": ["name"]})
    file = project.drop("student_a.csv", "id,Name,score\n1,Quentin,2\n")

    done = project.ds_flow("try", str(file))
    as_json = project.ds_flow("try", str(file), "--json")

    assert "Quentin" not in done.stdout + as_json.stdout
    assert "1   (hidden)  2" in done.stdout
    assert json.loads(as_json.stdout)["after"]["rows"] == [["1", None, "2"]]


@pytest.mark.exhaustive
def test_a_file_is_found_by_the_name_that_other_commands_print(project: Project) -> None:
    project.drop("student_a.csv", "id,score\n1,2,3\n")
    assert project.once().returncode == 1
    told = project.ds_flow("explain", "data/student_a.csv").stdout
    assert "`ds-flow try -- data/student_a.csv` shows what comes of it" in told

    odd = project.drop("student_\n.csv", "id,score\n1,2,3\n")
    assert odd.exists()
    done = project.ds_flow("try", "--", "data/student_a.csv")  # from another folder
    assert "data/student_\\x0a.csv would" in project.ds_flow("try", "data/student_\\x0a.csv").stdout

    assert done.returncode == 1
    assert done.stdout.startswith("data/student_a.csv would be set aside: line 2: ")


@pytest.mark.exhaustive
def test_a_file_elsewhere_is_tried_too_and_it_is_said_that_it_would_not_be_taken(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "marks.csv").write_text("id\n1\n")

    code_of_it, answer = tried(project, tmp_path / "marks.csv")

    assert code_of_it == 0
    assert "it does not match data/student_*.csv" in answer["remarks"][0]


@pytest.mark.exhaustive
def test_what_is_not_there_or_no_file_is_refused(project: Project) -> None:
    for name, said in (("none.csv", "it is not there"), (".", "no file")):
        done = project.ds_flow("try", str(project.inbox / name))
        assert done.returncode == 1
        assert said in done.stderr


def test_a_workbook_is_shown_by_its_rows_and_has_no_delimiter(project: Project) -> None:
    project.configure(paths={"input_pattern": "data/student_*"})
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (["id", "name"], [1, "Ann"]):
        sheet.append(row)
    book.save(project.inbox / "student_a.xlsx")

    done = project.ds_flow("try", str(project.inbox / "student_a.xlsx"))

    assert done.returncode == 0, done.stderr
    assert "delimiter" not in done.stdout
    assert done.stdout.count("1   Ann") == 2


def test_a_wide_table_fits_the_terminal(project: Project) -> None:
    names = [f"column_{number}" for number in range(200)]
    cells = ["x" * 1000, *(str(number) for number in range(199))]
    file = project.drop("student_a.csv", f"{','.join(names)}\n{','.join(cells)}\n")
    project.environment["COLUMNS"] = "60"

    done = project.ds_flow("try", str(file))

    assert max(map(len, done.stdout.splitlines())) <= 60
    assert "+19" in done.stdout


@pytest.mark.exhaustive
def test_columns_that_differ_from_what_was_published_are_told(project: Project) -> None:
    project.configure(csv={"columns": "strict"})
    project.drop("student_a.csv", "id,score\n1,2\n")
    assert project.once().returncode == 0

    code_of_it, answer = tried(project, project.drop("student_b.csv", "id,mark\n1,2\n"))

    assert code_of_it == 1
    assert "csv.columns is strict, and columns mark, score differ" in answer["reason"]


def test_a_stage_that_runs_elsewhere_is_tried_here_and_that_is_said(project: Project) -> None:
    project.configure(compute={"executor": "lsf"})

    code_of_it, answer = tried(project, project.drop("student_a.csv", table("a")))

    assert code_of_it == 0
    assert "runs process files on lsf; this was tried here" in answer["remarks"]
    assert os.listdir(project.root / "data") == ["student_a.csv"]  # noqa: PTH208
