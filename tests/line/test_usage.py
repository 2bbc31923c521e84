"""Every command, as people meet it: its help, wrong use, an error as JSON, a pipe, a terminal."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from cli_project import Project
from ds_flow.cli.main import COMMANDS, PLAIN, main
from ds_flow.cli.schemas import DOCUMENTS, MANIFESTS, schema_of
from samples import BATCH
from terminal import in_terminal, plain

DS_FLOW = [sys.executable, "-c", "import sys; from ds_flow.cli import main; sys.exit(main())"]
EVERY = pytest.mark.parametrize("name", COMMANDS)
CLOSED = 141

SHOWN = {
    "status": (),
    "runs": (),
    "show": (),
    "files": (),
    "explain": ("student_a.csv",),
    "manifest": (),
    "lineage": ("student_a.csv",),
    "schedule": (),
    "gc": ("--dry-run",),
    "help": (),
}
"""The commands that show something to a person, with arguments to show it by."""

JSON = {
    "show": ["nope"],
    "runs": ["--state", "nope"],
    "files": ["--state", "nope"],
    "explain": [],
    "lineage": ["nope"],
    "manifest": ["--run", "nope"],
    "verify": ["nope"],
    "report": ["nope"],
    "schedule": ["run"],
    "status": ["--every", "x"],
    "check": ["--schema", "x"],
    "gc": ["nope"],
    "services": ["nope"],
    "try": [],
    "init": [],
    "once": ["--timeout", "x"],
    "retry": ["nope", "--no-wat"],
    "rerun": ["nope"],
    "release": [],
    "cancel": [],
    "pause": ["--until", "never"],
    "resume": ["nope"],
    "deliver": [],
    "metaflow": ["nope"],
    "backup": [],
    "detach": ["nope"],
}
"""The commands that can print JSON, each with arguments that are wrong."""

ANSWERS = {
    "status": [],
    "runs": [],
    "show": ["last"],
    "files": [],
    "explain": ["student_a.csv"],
    "schedule": [],
    "manifest": [],
    "verify": [],
    "lineage": ["student_a.csv"],
    "report": [],
    "gc": [],
    "check": [],
    "services": [],
    "try": ["student_b.csv"],
    "init": ["new"],
}
"""The commands that answer with a document of their own."""


NEEDS_ONE = {"explain", "retry", "cancel", "backup", "completion", "deliver", "try", "init"}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        made.published(BATCH, "1795379747138327", "student_a.csv", "student_b.csv")
        yield made


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as ended:  # --help
        code = int(ended.code or 0)
    return (code, *capsys.readouterr())


def ds_flow(project: Project, *argv: str) -> list[str]:
    return [*DS_FLOW, *argv, "--config", str(project.config)]


@EVERY
def test_every_command_explains_itself_in_80_columns(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = told(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert told(capsys, "help", name) == (0, out, "")
    assert out.startswith(f"usage: ds-flow {name} ")
    described = out.split("\n\n")[1]
    assert described.endswith(".")
    assert max(map(len, out.splitlines())) <= 80


def test_the_whole_help_names_every_command_in_80_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = told(capsys, "--help")
    assert max(map(len, out.splitlines())) <= 80
    assert [name for name in COMMANDS if f"\n  {name} " not in out] == []
    assert told(capsys, "-V")[1] == told(capsys, "--version")[1]


@EVERY
def test_every_command_refuses_an_unknown_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = ["bash"] if name in NEEDS_ONE else []
    code, out, err = told(capsys, name, *needed, "--configg=x")
    assert (code, out) == (2, "")
    assert "--config" in err
    assert f"`ds-flow help {name}` explains it" in err


@pytest.mark.parametrize(
    ("typed", "meant"), [("shwo", "show"), ("stauts", "status"), ("run", "runs")]
)
def test_a_mistyped_command_is_guessed(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in ((typed,), ("help", typed)):
        code, out, err = told(capsys, *argv)
        assert (code, out) == (2, "")
        assert f"did you mean {meant}?" in err


def test_what_resembles_nothing_is_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean" not in told(capsys, "xyzzy")[2]


@pytest.mark.parametrize("name", JSON)
def test_with_json_an_error_is_a_document_too(
    project: Project, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(capsys, name, *JSON[name], "--json", "--config", str(project.config))
    document = json.loads(out)
    assert code in {1, 2}
    assert document["exit_code"] == code
    assert document["error"] in err
    Draft202012Validator(schema_of("error")).validate(document)
    assert document["document"] == name


def test_every_command_but_those_of_plain_text_is_among_these() -> None:
    assert {*JSON} == {*COMMANDS} - PLAIN
    assert {*ANSWERS} == {*DOCUMENTS}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_answer_is_as_its_schema_says(
    project: Project,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project.root / "data")
    monkeypatch.setenv("DS_FLOW_CONFIG", str(project.config))
    document = json.loads(told(capsys, name, *ANSWERS[name], "--json")[1])
    schema = json.loads(
        told(capsys, "check", "--schema", MANIFESTS if name == "manifest" else name)[1]
    )
    Draft202012Validator(schema).validate(document)
    assert (document["document"], document["schema"]) == (name, 1)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["pause", "--why", "a move"], "a move"),
        (["resume"], "nothing"),
        (["release", "--all"], "no quarantined file can be released"),
        (["once"], "nothing new"),
        (["schedule", "run", "nightly"], "schedule nightly: "),
        (["schedule", "pause", "nightly"], "nightly"),
        (["backup", "copy.db"], "is copied to"),
        (["retry", "nope"], None),
    ],
)
def test_what_a_command_does_is_a_document_too(
    project: Project,
    argv: list[str],
    said: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project.root)
    code, out, _ = told(capsys, *argv, "--json", "--config", str(project.config))
    document = json.loads(out)
    Draft202012Validator(schema_of("action")).validate(document)
    assert (document["document"], document["exit_code"]) == (argv[0], code)
    assert said is None or said in "\n".join(document["lines"])


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.exhaustive
def test_a_pipe_that_closes_early_is_no_error(project: Project, name: str) -> None:
    with subprocess.Popen(
        ds_flow(project, name, *SHOWN[name]), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == CLOSED


@pytest.mark.parametrize("environ", [("NO_COLOR", "1"), ("TERM", "dumb")])
@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.exhaustive
def test_a_terminal_without_colours_gets_none(
    project: Project, name: str, environ: tuple[str, str]
) -> None:
    shown = in_terminal(ds_flow(project, name, *SHOWN[name]), environ)
    assert shown.strip()
    assert b"\x1b" not in shown


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", ["runs", "files", "manifest", "schedule", "show"])
@pytest.mark.exhaustive
def test_a_table_is_no_wider_than_its_terminal(project: Project, name: str, columns: int) -> None:
    project.admit(f"student_{'x' * 200}.csv")
    shown = in_terminal(ds_flow(project, name), ("COLUMNS", str(columns))).decode()
    rows = [line for line in plain(shown).splitlines() if "fingerprint" not in line]
    assert max(map(len, rows)) <= columns


def test_a_large_run_is_summarised_unless_all_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"student_{number:03}.csv" for number in range(300)]
    with Project(tmp_path) as project:
        project.published(BATCH, "17", *names)
        argv = ("show", "17", "--config", str(project.config))
        _, some, _ = told(capsys, *argv)
        _, every, _ = told(capsys, *argv, "--all")
    assert "inputs: 300 in all, 900 rows, " in some
    assert "... and 280 more: --all lists them" in some
    assert [name for name in names if name not in every] == []
    assert len(some.splitlines()) < 80


@pytest.mark.exhaustive
def test_once_can_be_told_how_long_to_wait_for_a_file_that_is_held_open(project: Project) -> None:
    project.drop("student_done.csv")
    held = project.drop("student_held.csv")
    argv = ds_flow(project, "once", "--timeout", "4")
    with held.open("a"):
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        assert "still arriving: data/student_held.csv: " in done.stdout
        assert "run " in done.stdout
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
