"""The command line: documents, tables, exit codes, and requests."""

import csv
import hashlib
import io
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cli_project import Project, manifest_of
from clock import NOON, machine_in
from ds_flow.cli import commands
from ds_flow.cli.follow_log import find_log
from ds_flow.cli.main import COMMANDS, main
from ds_flow.cli.process_now import Tally, summarize
from ds_flow.core.program import CHECKOUT
from ds_flow.core.retry_policy import Dead, RetryAt
from ds_flow.core.states import BatchState, Cause, FileState, FireOutcome, RunState, Trigger
from ds_flow.core.wording import local_time, moment
from ds_flow.dispatch import JobSpec, Round, open_round
from ds_flow.ledger.schedules import Fire
from ds_flow.system.instance import single_instance
from samples import BATCH
from samples import OTHER_BATCH as OTHER
from terminal import in_terminal, plain

SCHEMA = CHECKOUT / "daemon" / "ds_flow" / "core" / "manifest.schema.json"
DS_FLOW = [sys.executable, "-c", "import sys; from ds_flow.cli import main; sys.exit(main())"]
RERUN_17 = "run 17: `ds-flow rerun 17` makes its outputs again, under a new name"
FILE_STATES = {"waiting", "batched", "processed", "quarantined", "superseded"}

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


@pytest.fixture
def ds_flow_here(project: Project, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process: its exit code, standard output and standard error."""

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(["--config", str(project.config), *argv])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def command(project: Project, *argv: str) -> list[str]:
    return [*DS_FLOW, argv[0], "--config", str(project.config), *argv[1:]]


@pytest.fixture
def daemon(project: Project) -> Iterator[list[int]]:
    """Be the daemon: hold its lock, and collect the signals that wake it."""
    woken: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: woken.append(number))
    with single_instance(project.settings):
        yield woken
    signal.signal(signal.SIGUSR1, before)


# --------------------------------------------------------------------------- documents


def test_status_has_the_promised_shape(project: Project, ds_flow_here: Cli) -> None:
    project.published(BATCH, "17", "student_a.csv")
    project.admit("student_b.csv")
    code, out, err = ds_flow_here("status", "--json")
    found = json.loads(out)
    assert code == 0, err
    assert found["daemon"] == {"running": False, "pid": None}
    assert found["files"] == {**dict.fromkeys(FILE_STATES, 0), "processed": 1, "waiting": 1}
    assert (found["batches"], found["runs"]) == ({"succeeded": 1}, {"succeeded": 1})
    assert (found["discovered"], found["accounted"]) == (2, True)


def test_status_names_the_running_daemon(ds_flow_here: Cli, daemon: list[int]) -> None:
    _, out, _ = ds_flow_here("status", "--json")
    assert json.loads(out)["daemon"] == {"running": True, "pid": os.getpid()}
    assert daemon == []


def test_reading_a_new_project_creates_nothing(project: Project, ds_flow_here: Cli) -> None:
    project.ledger.close()
    for path in (project.root / "out").iterdir():
        path.unlink()
    (project.root / "out").rmdir()
    for argv in (["status"], ["files"], ["runs"], ["manifest"]):
        assert ds_flow_here(*argv)[0] == 0
    assert ds_flow_here("explain", "data/x")[0] == 1
    assert not (project.root / "out").exists()


def test_files_have_the_promised_shape(project: Project, ds_flow_here: Cli) -> None:
    (row,) = project.published(BATCH, "17", "student_a.csv")
    project.admit("student_b.csv", cause=Cause.NAME, reason="odd")
    found = json.loads(ds_flow_here("files", "--json")[1])["files"]
    assert (
        found[0].items()
        >= {
            "path": "data/student_a.csv",
            "version": 1,
            "sha256": row.sha256,
            "size_bytes": 8,
            "state": "processed",
            "reason": "",
            "run_id": "17",
            "seen_at": "2026-01-01T12:00:00.000+00:00",
        }.items()
    )
    assert [file["state"] for file in found] == ["processed", "quarantined"]
    only = json.loads(ds_flow_here("files", "--json", "--state", "quarantined")[1])["files"]
    assert [(file["path"], file["reason"]) for file in only] == [("data/student_b.csv", "odd")]


def test_files_can_be_named_and_an_unknown_one_is_an_error(
    project: Project, ds_flow_here: Cli
) -> None:
    project.admit("student_a.csv", "student_b.csv")
    code, out, err = ds_flow_here("files", "--json", "data/student_b.csv", "data/student_c.csv")
    assert [file["path"] for file in json.loads(out)["files"]] == ["data/student_b.csv"]
    assert code == 1
    assert "data/student_c.csv is not in the ledger" in err


def test_no_files_are_an_empty_document(ds_flow_here: Cli) -> None:
    assert json.loads(ds_flow_here("files", "--json")[1]) == {
        "document": "files",
        "schema": 1,
        "files": [],
    }


def test_runs_have_the_promised_shape(project: Project, ds_flow_here: Cli) -> None:
    project.published(BATCH, "17", "student_a.csv")
    project.start(project.form(OTHER, project.admit("student_b.csv")))
    found = json.loads(ds_flow_here("runs", "--json")[1])["runs"]
    assert found[0] == {
        "run_id": "17",
        "batch": BATCH,
        "attempt": 1,
        "state": "succeeded",
        "trigger": "arrival",
        "started_at": "2026-01-01T12:00:00.000+00:00",
        "ended_at": "2026-01-01T12:00:00.000+00:00",
        "inputs": ["data/student_a.csv"],
        "outputs": ["out/final_combined_17.csv", "out/processed_student_a_17.csv"],
        "error": "",
        "analysis_error": "",
        "removed_at": None,
        "deliveries": [],
        "jobs": [],
    }
    assert (found[1]["run_id"], found[1]["ended_at"]) == (None, None)
    newest = json.loads(ds_flow_here("runs", "--json", "--limit", "1")[1])["runs"]
    live = json.loads(ds_flow_here("runs", "--json", "--state", "starting")[1])["runs"]
    assert newest == live == found[1:]


def test_show_has_the_run_and_its_manifest(project: Project, ds_flow_here: Cli) -> None:
    rows = project.admit("student_a.csv")
    project.start(project.form(BATCH, rows), "17")
    assert json.loads(ds_flow_here("show", "17", "--json")[1])["manifest"] is None
    manifest = project.publish(BATCH, "17", rows)
    for name in ("17", BATCH, f"{BATCH}/1", "StudentDataFlow/17"):
        found = json.loads(ds_flow_here("show", name, "--json")[1])
        assert (found["run_id"], found["manifest"]) == ("17", manifest)
    code, out, _ = ds_flow_here("show", "17")
    assert code == 0
    for text in ("spring", "processed_student_a_17.csv", "4 final.csv"):
        assert text in out


def waiting_jobs(project: Project, attempt: int = 1) -> Round:
    """A round on LSF whose first job has begun, and whose other ones wait."""
    jobs = [JobSpec(key=key, command=("true",)) for key in ("a", "b", "c")]
    stage = project.root / "out" / ".work" / BATCH / "jobs" / "process-1of1"
    opened = open_round(
        stage, BATCH, f"{BATCH}/{attempt}", "lsf", jobs, [job.command for job in jobs]
    )
    (opened.folder / "1.claim").write_text("node7 123[1] 1800000000\n")
    chunk = {"name": "x", "first": 1, "count": 3, "asked_at": 1.8e9, "job_ids": ["123"]}
    (opened.folder / "lsf").mkdir()
    handover = {"chunks": [chunk], "pending": ["No host has enough memory"]}
    (opened.folder / "lsf" / "handover.json").write_text(json.dumps(handover))
    return opened


SINCE = moment("2027-01-15T08:00:00+00:00")
TOLD = (
    f"process on lsf: 2 pending since {SINCE} (No host has enough memory),"
    f" 1 running since {SINCE}; ids 123"
)


def test_the_jobs_of_a_live_run_are_told_of_by_every_command(
    project: Project, ds_flow_here: Cli
) -> None:
    project.start(project.form(BATCH, project.admit("student_a.csv")), "17")
    waiting_jobs(project)

    assert f"jobs       {BATCH}: {TOLD}\n" in ds_flow_here("status")[1]
    assert TOLD in ds_flow_here("runs")[1]
    assert TOLD in ds_flow_here("explain", "data/student_a.csv")[1]
    (of_status,) = json.loads(ds_flow_here("status", "--json")[1])["jobs"]
    (run,) = json.loads(ds_flow_here("runs", "--json")[1])["runs"]
    explained = json.loads(ds_flow_here("explain", "--json", "data/student_a.csv")[1])
    assert explained["jobs"] == run["jobs"]
    assert of_status == {"batch": BATCH, "run_id": "17", **run["jobs"][0]}
    assert run["jobs"][0] == {
        "stage": "process",
        "backend": "lsf",
        "pending": 2,
        "running": 1,
        "done": 0,
        "failed": 0,
        "native_ids": ["123"],
        "pending_since": "2027-01-15T08:00:00+00:00",
        "running_since": "2027-01-15T08:00:00+00:00",
        "pending_reasons": ["No host has enough memory"],
        "silent": [],
        "done_again": [],
    }


def test_jobs_that_go_on_elsewhere_between_two_runs_are_told_of(
    project: Project, ds_flow_here: Cli
) -> None:
    attempt = project.start(project.form(BATCH, project.admit("student_a.csv")), "17")
    opened = waiting_jobs(project)
    retry = RetryAt(NOON)
    project.ledger.end_run(
        BATCH, attempt, RunState.STOPPED, error="", results=0, then=retry, now=NOON
    )

    assert f"jobs       {BATCH}: {TOLD}\n" in ds_flow_here("status")[1]
    for index in opened.indices:
        (opened.folder / f"{index}.exit").write_text("0 1800000060\n")
    assert "\njobs " not in ds_flow_here("status")[1]


def test_show_lists_the_jobs_of_running_and_of_failed_runs(
    project: Project, ds_flow_here: Cli
) -> None:
    rows = project.admit("student_a.csv")
    attempt = project.start(project.form(BATCH, rows), "17")
    opened = waiting_jobs(project)

    def jobs_of(name: str) -> list[tuple[str, str, str]]:
        jobs = json.loads(ds_flow_here("show", name, "--json")[1])["jobs"]
        return [(job["state"], job["native_id"], job["reason"]) for job in jobs]

    running = jobs_of("17")
    page = ds_flow_here("show", "17")[1]
    (opened.folder / "2.exit").write_text("3 1800000060\n")
    retry = RetryAt(NOON)
    project.ledger.end_run(
        BATCH, attempt, RunState.FAILED, error="no", results=0, then=retry, now=NOON
    )
    failed = jobs_of("17")
    project.start(BATCH, "18")
    waiting_jobs(project, attempt=2)

    why = "No host has enough memory"
    assert running == [
        ("running", "123[1]", ""),
        ("pending", "123[2]", why),
        ("pending", "123[3]", why),
    ]
    assert "123[2]" in page
    assert why in page
    assert failed[1] == ("failed", "123[2]", "exit code 3")
    assert len(jobs_of("17")) == 3
    assert len(jobs_of("18")) == 6


def test_the_jobs_of_a_failed_run_are_known_from_the_manifest_of_a_later_one(
    project: Project, ds_flow_here: Cli
) -> None:
    rows = project.admit("student_a.csv")
    attempt = project.start(project.form(BATCH, rows), "17")
    retry = RetryAt(NOON)
    project.ledger.end_run(
        BATCH, attempt, RunState.FAILED, error="no", results=0, then=retry, now=NOON
    )
    project.start(BATCH, "18")
    job = {"stage": "process", "backend": "lsf", "key": "a", "index": 1, "reason": "killed"}
    jobs = (
        {**job, "round": "r1", "opened_by": f"{BATCH}/1", "failure": "killed"},
        {**job, "round": "r2", "opened_by": f"{BATCH}/2", "failure": None},
    )
    made = replace(manifest_of(BATCH, "18", rows), attempt=2, jobs=jobs)
    project.ledger.record(made, NOON)
    (project.root / "out" / "manifest_18.json").write_text(json.dumps(made.to_json()))

    found = {
        name: [
            (job["round"], job["state"])
            for job in json.loads(ds_flow_here("show", name, "--json")[1])["jobs"]
        ]
        for name in ("17", "18")
    }

    assert found == {"17": [("r1", "failed")], "18": [("r1", "failed"), ("r2", "done")]}


def test_explain_has_the_promised_shape(project: Project, ds_flow_here: Cli) -> None:
    project.published(BATCH, "17", "student_a.csv")
    path = str(project.root / "data" / "student_a.csv")
    found = json.loads(ds_flow_here("explain", "--json", path)[1])
    assert found["path"] == "data/student_a.csv"
    assert found["verdict"] == "Version 1 was processed by run 17."
    assert found["events"][0]["kind"] == "file.waiting"
    assert all(event.keys() == {"at", "kind", "detail"} for event in found["events"])


def test_explaining_a_file_that_is_neither_known_nor_there_fails(
    project: Project, ds_flow_here: Cli
) -> None:
    (row,) = project.published(BATCH, "17", "student_gone.csv")
    (project.root / row.path).unlink()
    project.drop("other.txt")
    for name, code in (("student_x.csv", 1), ("student_gone.csv", 0), ("other.txt", 0)):
        path = str(project.root / "data" / name)
        assert ds_flow_here("explain", path)[0] == code
        assert ds_flow_here("explain", "--json", path)[0] == code


TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?([-+]\d\d:\d\d|)")


@pytest.mark.parametrize(
    "argv",
    [["runs"], ["manifest"], ["schedule"], ["show", "17"], ["explain", "data/student_a.csv"]],
)
def test_people_are_shown_local_times_with_their_offset_and_programs_utc(
    project: Project, ds_flow_here: Cli, argv: list[str]
) -> None:
    project.published(BATCH, "17", "student_a.csv")
    with machine_in("Asia/Kathmandu"):
        other = project.form(OTHER, project.admit("student_b.csv"))
        attempt, then = project.start(other), RetryAt(NOON)
        project.ledger.end_run(
            other, attempt, RunState.FAILED, error="", results=0, then=then, now=NOON
        )
        _, shown, _ = ds_flow_here(*argv)
        _, document, _ = ds_flow_here(argv[0], "--json", *argv[1:])
    assert {found[1] for found in TIME.finditer(shown)} == {"+05:45"}
    assert "2026-01-01T17:45:00" in shown or argv == ["schedule"]
    assert {found[1] for found in TIME.finditer(re.sub('due [^"]*', "", document))} == {"+00:00"}


def test_manifests_come_whole_as_a_table_and_as_csv(project: Project, ds_flow_here: Cli) -> None:
    second, first = project.admit("student_,b.csv", "student_a.csv")
    project.start(project.form(BATCH, [first, second]), "17")
    manifest = project.publish(BATCH, "17", [second], rejected=[first])
    project.published(OTHER, "18", "student_c.csv")
    found = json.loads(ds_flow_here("manifest", "--json")[1])["manifests"]
    assert [one["run_id"] for one in found] == ["17", "18"]
    assert found[0] == manifest
    table = ds_flow_here("manifest", "--run", "17")[1].splitlines()
    assert table[1].split() == ["17", local_time(NOON), "arrival", "1", "3", "2", "1"]
    rows = list(csv.DictReader(io.StringIO(ds_flow_here("manifest", "--csv", "--run", "17")[1])))
    assert [(row["output"], row["source"], row["version"]) for row in rows] == [
        ("processed_student_,b_17.csv", "data/student_,b.csv", "1"),
        ("final_combined_17.csv", "", ""),
    ]
    assert list(rows[0]) == [
        *("run_id", "published_at", "output", "source", "version", "rows", "bytes", "sha256")
    ]


def test_a_lost_or_broken_manifest_is_named(project: Project, ds_flow_here: Cli) -> None:
    project.published(BATCH, "17", "student_a.csv")
    (project.root / "out" / "manifest_17.json").unlink()
    (project.root / "out" / "manifest_18.json").write_text("{}")
    code, out, err = ds_flow_here("manifest", "--json")
    assert (code, json.loads(out)) == (
        1,
        {"document": "manifest", "schema": 1, "manifests": []},
    )
    assert "run 17: its manifest is gone" in err
    assert "manifest_18.json: not a manifest" in err


def test_the_manifest_schema_describes_manifests(project: Project, ds_flow_here: Cli) -> None:
    rows = project.admit("student_a.csv", "student_b.csv")
    project.start(project.form(BATCH, rows), "17")
    manifest = project.publish(BATCH, "17", rows[:1], rejected=rows[1:])
    schema = json.loads(ds_flow_here("check", "--schema", "manifest")[1])
    judge = Draft202012Validator(schema)
    judge.validate({**manifest, "later": 1})
    # Older manifests lack these, and stay valid.
    added = {"selection", "compared_with", "columns", "transform", "shapes", "drift", "profile"}
    judge.validate({name: manifest[name] for name in manifest if name not in added})
    for key in manifest.keys() - added:
        assert not judge.is_valid({name: manifest[name] for name in manifest if name != key})
    assert not judge.is_valid({**manifest, "schema": 2})


# --------------------------------------------------------------------------- for people


def test_status_says_what_to_do_next(project: Project, ds_flow_here: Cli) -> None:
    batch = project.form(BATCH, project.admit("student_a.csv"))
    kill(project, batch)
    project.admit("student_b.csv")
    out = ds_flow_here("status")[1]
    assert f"type    ds-flow --config {project.config} retry {BATCH}\n" in out
    assert "`ds-flow once`" in out
    assert "files      2: 1 waiting, 1 quarantined" in out


def test_a_table_in_a_pipe_is_never_folded(project: Project, ds_flow_here: Cli) -> None:
    name = f"student_{'x' * 200}.csv"
    project.admit(name, "student_[red]\x1b[31m.csv")
    heading, *lines = ds_flow_here("files")[1].splitlines()
    assert heading.split()[:4] == ["path", "version", "state", "size_bytes"]
    assert {len(line.split()) for line in lines} == {6}
    assert [line.split()[0] for line in lines] == [
        "data/student_[red]\\x1b[31m.csv",
        f"data/{name}",
    ]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_colours_unless_told_otherwise(project: Project, no_color: str) -> None:
    project.published(BATCH, "17", "student_[red].csv")
    shown = in_terminal(command(project, "files"), ("NO_COLOR", no_color))
    assert b"student_[red].csv" in shown
    assert (b"\x1b[32m" in shown) is not no_color.startswith("1")


def test_a_narrow_terminal_gets_a_run_id_whole_and_how_long_ago_it_was(project: Project) -> None:
    project.published(BATCH, "1795379747138327", "student_a.csv")
    shown = in_terminal(command(project, "runs"), ("COLUMNS", "60")).decode()
    assert "1795379747138327" in shown
    assert "st…ed" in shown  # a heading gives way before a Run ID
    assert max(map(len, plain(shown).splitlines())) <= 60


# --------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    "argv",
    [
        ["bogus"],
        ["files", "--state", "lost"],
        ["runs", "--limit", "0"],
        ["rerun"],
        ["rerun", "17", "--all"],
        ["release"],
        ["release", "--all", "x"],
        ["manifest", "--datapackage", "17", "--csv"],
    ],
)
def test_a_usage_error_is_2(ds_flow_here: Cli, argv: list[str]) -> None:
    code, out, err = ds_flow_here(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("ds-flow: ")


def test_without_a_command_all_are_listed_and_it_is_2(ds_flow_here: Cli) -> None:
    listed = ds_flow_here("help")[1]
    assert ds_flow_here() == (2, listed, "")
    assert {line.split()[0] for line in listed.splitlines() if line.startswith("  ")} >= {*COMMANDS}


@pytest.mark.parametrize(("name", "states"), [("files", FileState), ("runs", RunState)])
def test_the_error_for_an_unknown_state_lists_the_known_ones(
    ds_flow_here: Cli, name: str, states: type[FileState | RunState]
) -> None:
    _, _, err = ds_flow_here(name, "--state", "nonsense")
    known = ", ".join(state.value for state in states)
    assert f"--state: 'nonsense' is not one of {known}\n" in err


def test_faulty_settings_are_78_and_all_named(project: Project, ds_flow_here: Cli) -> None:
    project.config.write_text("project_name: x\nbogus: 1\nrun: {attempts: 0}\n")
    code, _, err = ds_flow_here("status")
    assert code == 78
    assert err.count("settings.yaml") >= 3


def test_only_commands_that_work_need_the_programs_of_the_backends(
    project: Project, ds_flow_here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    lsf = f"compute: {{executor: lsf}}\npaths: {{ledger: {project.root}/ledger.db, "
    project.config.write_text(project.config.read_text().replace("paths: {", lsf))
    monkeypatch.setenv("PATH", str(project.root))
    assert ds_flow_here("status")[0] == 0
    code, _, err = ds_flow_here("retry", BATCH)
    assert code == 78
    assert "no program 'bsub' on PATH" in err


def test_a_broken_ledger_is_70_and_says_what_to_do(project: Project, ds_flow_here: Cli) -> None:
    project.ledger.close()
    project.settings.ledger.write_bytes(b"x" * 5000)
    code, _, err = ds_flow_here("status")
    assert code == 70
    assert "rebuilt from out/manifest_*.json" in err


def test_an_unknown_run_batch_or_file_is_1(ds_flow_here: Cli) -> None:
    of_one = ["manifest", "--run", "17"]
    for argv in (["show", "17"], ["logs", "17"], ["logs"], of_one, [*of_one, "--json"]):
        code, out, err = ds_flow_here(*argv)
        assert (code, out.startswith("{")) == (1, "--json" in argv)
        assert err.startswith(("ds-flow: no ", "ds-flow: there is no run"))
    for argv in (["retry", "x"], ["cancel", "x"], ["rerun", "x"], ["rerun", "--all"]):
        assert ds_flow_here(*argv)[0] == 1
    assert ds_flow_here("release", "x")[0] == 1


def test_an_error_of_the_system_is_1_with_its_message(project: Project, ds_flow_here: Cli) -> None:
    project.published(BATCH, "17", "student_a.csv")
    (project.root / "log" / "run_17.log").mkdir()
    code, _, err = ds_flow_here("logs", "17")
    assert code == 1
    assert err.startswith("ds-flow: [Errno 1] is not a regular file; ")


def test_a_bug_is_70_with_its_traceback(ds_flow_here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = SimpleNamespace(HELP="a bug", ARGUMENTS=(), run=lambda args: args.no_such)
    monkeypatch.setitem(COMMANDS, "runs", broken)
    code, _, err = ds_flow_here("runs")
    assert code == 70
    assert "AttributeError" in err


def test_an_interrupt_is_130(project: Project) -> None:
    project.start(project.form(BATCH, project.admit("student_a.csv")), "17")
    (project.root / "log" / "run_17.log").write_text("first\n")
    with subprocess.Popen(
        command(project, "logs", "-f"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (130, b"")


def test_a_reader_that_goes_away_is_no_error(project: Project) -> None:
    project.admit(*(f"student_{n}.csv" for n in range(1000)))
    with subprocess.Popen(
        command(project, "files", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_the_settings_file_is_chosen_in_three_ways(project: Project, tmp_path: Path) -> None:
    project.admit("student_a.csv")
    config = os.path.relpath(project.config, tmp_path)
    for argv, environ in (
        (["--config", config, "files"], {}),
        (["files", "--config", config], {}),
        (["files"], {"DS_FLOW_CONFIG": config}),
        (["--config", config, "files"], {"DS_FLOW_CONFIG": "/nowhere"}),
    ):
        done = subprocess.run(
            [*DS_FLOW, *argv],
            cwd=tmp_path,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "data/student_a.csv" in done.stdout


# --------------------------------------------------------------------------- requests


def kill(project: Project, batch: str) -> None:
    """Let a batch die."""
    attempt = project.start(batch)
    project.ledger.end_run(
        batch,
        attempt,
        RunState.FAILED,
        error="no disk",
        results=0,
        then=Dead("3 attempts used up"),
        now=NOON,
    )


def test_a_dead_batch_is_retried_as_a_new_one(
    project: Project, ds_flow_here: Cli, daemon: list[int]
) -> None:
    kill(project, project.form(BATCH, project.admit("student_a.csv")))
    code, out, _ = ds_flow_here("retry", BATCH)
    (queued,) = project.ledger.read.batches_in(BatchState.QUEUED)
    assert code == 0
    assert f"as batch {queued.id}" in out
    assert project.ledger.read.batch_paths(queued.id) == ["data/student_a.csv"]
    assert daemon == [signal.SIGUSR1]


def test_a_retrying_batch_is_due_at_once(
    project: Project, ds_flow_here: Cli, daemon: list[int]
) -> None:
    attempt = project.start(project.form(BATCH, project.admit("student_a.csv")))
    project.ledger.end_run(
        *(BATCH, attempt, RunState.FAILED),
        error="",
        results=0,
        then=RetryAt(NOON.replace(year=2100)),
        now=NOON,
    )
    assert ds_flow_here("retry", BATCH)[0] == 0
    batch = project.ledger.read.batch(BATCH)
    assert batch is not None
    assert batch.due_at < "2100"
    assert daemon


def test_a_refused_request_does_not_stop_the_others(
    project: Project, ds_flow_here: Cli, daemon: list[int]
) -> None:
    project.form(BATCH, project.admit("student_a.csv"))
    code, out, err = ds_flow_here("cancel", "nothing", BATCH)
    assert code == 1
    assert f"batch {BATCH}: cancelled" in out
    assert "no batch 'nothing'" in err
    assert daemon


def test_a_running_batch_is_told_to_stop(
    project: Project, ds_flow_here: Cli, daemon: list[int]
) -> None:
    project.start(project.form(BATCH, project.admit("student_a.csv")), "17")
    assert ds_flow_here("cancel", "17")[0] == 0
    (run,) = project.ledger.read.live_runs()
    assert run.ending == RunState.CANCELLED
    assert daemon


def test_a_running_batch_is_cancelled_without_a_daemon(project: Project) -> None:
    project.config.write_text(f"{project.config.read_text()}run: {{max_parallel: 2}}\n")
    batch = project.form(BATCH, project.admit("student_a.csv"))
    attempt = project.start(batch)
    folder = project.root / "out" / ".work" / batch / "attempts" / str(attempt)
    folder.mkdir(parents=True)
    (folder.parents[1] / "jobs").mkdir()
    environ = {**os.environ, "DS_FLOW_ATTEMPT": f"{batch}/{attempt}"}
    project.form(OTHER, project.admit("student_b.csv"))
    with subprocess.Popen(["sleep", "60"], env=environ, process_group=0) as run:
        done = subprocess.run(command(project, "cancel", batch), check=False, capture_output=True)
    assert (done.returncode, run.returncode) == (0, -signal.SIGINT)
    assert f"batch {batch}: cancelled".encode() in done.stdout
    (row,) = project.ledger.read.runs_of(batch)
    assert row.state == RunState.CANCELLED
    assert project.ledger.read.runs_of(OTHER) == []


def test_a_request_may_wait_for_the_next_daemon(project: Project, ds_flow_here: Cli) -> None:
    project.published(BATCH, "17", "student_a.csv")
    code, out, err = ds_flow_here("rerun", "--all", "--no-wait")
    (queued,) = project.ledger.read.batches_in(BatchState.QUEUED)
    assert (code, out) == (0, f"batch {queued.id}: 1 file\n")
    assert queued.trigger == "rerun"
    assert "no daemon is running" in err


def rerun_paths(project: Project) -> list[str]:
    (queued,) = project.ledger.read.batches_in(BatchState.QUEUED)
    return project.ledger.read.batch_paths(queued.id)


def test_a_rerun_takes_what_is_published_there_and_unclaimed(
    project: Project, ds_flow_here: Cli
) -> None:
    names = [f"student_{letter}.csv" for letter in "abc"]
    rows = project.published(BATCH, "17", *names)
    project.form(OTHER, rows[:1], Trigger.RERUN)
    project.ledger.start_run(OTHER, NOON)
    (project.root / "data" / names[1]).unlink()
    code, _, err = ds_flow_here("rerun", "--all", "--no-wait")
    assert code == 0
    assert rerun_paths(project) == ["data/student_c.csv"]
    assert f"left out: data/student_a.csv is in batch {OTHER}" in err
    assert "left out: data/student_b.csv is no longer there" in err


def test_a_rerun_of_a_run_takes_its_files_alone(project: Project, ds_flow_here: Cli) -> None:
    project.published(BATCH, "17", "student_a.csv")
    project.published(OTHER, "18", "student_b.csv")
    assert ds_flow_here("rerun", "17", "--no-wait")[0] == 0
    assert rerun_paths(project) == ["data/student_a.csv"]


def test_a_rerun_of_single_files_names_the_unknown(project: Project, ds_flow_here: Cli) -> None:
    project.published(BATCH, "17", "student_a.csv", "student_b.csv")
    path = str(project.root / "data" / "student_b.csv")
    code, _, err = ds_flow_here("rerun", "--no-wait", "--file", path, "data/student_x.csv")
    assert code == 0
    assert rerun_paths(project) == ["data/student_b.csv"]
    assert "data/student_x.csv is not in the ledger" in err


def test_a_rerun_of_failed_files_takes_rejected_and_dead_ones(
    project: Project, ds_flow_here: Cli
) -> None:
    project.published("aaaaaaaaaa", "17", "student_good.csv")
    kill(project, project.form(BATCH, project.admit("student_dead.csv")))
    project.admit("student_bad.csv", cause=Cause.REJECTED, reason="ragged")
    project.admit("student_gone.csv", cause=Cause.GONE, reason="gone")
    project.admit("student_cancelled.csv", cause=Cause.CANCELLED, reason="cancelled")
    assert ds_flow_here("rerun", "--failed", "--no-wait")[0] == 0
    assert rerun_paths(project) == ["data/student_dead.csv", "data/student_bad.csv"]


def test_a_large_rerun_is_still_one_batch(project: Project, ds_flow_here: Cli) -> None:
    project.published(BATCH, "17", *(f"student_{n}.csv" for n in range(5)))
    project.config.write_text(f"{project.config.read_text()}batch: {{max_files: 2}}\n")
    assert ds_flow_here("rerun", "--all", "--no-wait")[0] == 0
    (queued,) = project.ledger.read.batches_in(BatchState.QUEUED)
    assert len(project.ledger.read.batch_paths(queued.id)) == 5
    assert queued.selection == "all"


def test_release_lets_files_wait_again(
    project: Project, ds_flow_here: Cli, daemon: list[int]
) -> None:
    project.admit("student_a.csv", cause=Cause.REJECTED, reason="ragged")
    project.admit("student_b.csv", cause=Cause.NAME, reason="odd")
    project.admit("student_c.csv")
    code, out, err = ds_flow_here("release", "--all")
    assert (code, out) == (0, "data/student_a.csv version 1: waiting\n")
    assert "1 file must be renamed first" in err
    assert project.ledger.read.versions("data/student_a.csv")[0].state == FileState.WAITING
    code, _, err = ds_flow_here("release", "data/student_b.csv", "data/student_c.csv")
    assert code == 1
    assert "rename it" in err
    assert "student_c.csv version 1 is waiting, not quarantined" in err
    assert len(daemon) == 1


# --------------------------------------------------------------------------- logs


def test_a_log_is_found_by_any_name_of_its_run_and_commands_no_terminal(
    project: Project, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    project.start(project.form(BATCH, project.admit("student_a.csv")))
    log = project.root / "log" / f"attempt_{BATCH}_1.log"
    log.write_bytes(b"one\xff\x1b[31m\n" + "\u202e two\n".encode())
    for argv in ([], [BATCH], [f"{BATCH}/1"]):
        done = subprocess.run(command(project, "logs", *argv), check=True)
        assert done.returncode == 0
        assert capfdbinary.readouterr().out == b"one\\xff\\x1b[31m\n\\u202e two\n"


def test_an_earlier_attempt_keeps_its_log(project: Project, ds_flow_here: Cli) -> None:
    batch = project.form(BATCH, project.admit("student_a.csv"))
    for number in (1, 2):
        attempt = project.start(batch)
        (project.root / "log" / f"attempt_{batch}_{number}.log").write_text(f"try {number}\n")
        retry = RetryAt(NOON)
        project.ledger.end_run(
            batch, attempt, RunState.FAILED, error="", results=0, then=retry, now=NOON
        )
    found = [json.loads(ds_flow_here("show", "--json", f"{batch}/{n}")[1]) for n in (1, 2)]
    assert [run["attempt"] for run in found] == [1, 2]
    assert json.loads(ds_flow_here("show", "--json", batch)[1]) == found[1]
    assert ds_flow_here("show", f"{batch}/3")[0] == 1


def test_the_log_of_a_run_by_hand_is_over_when_its_processes_are(project: Project) -> None:
    batch = secrets.token_hex(5)  # other tests' processes may carry a mark of BATCH
    folder = project.root / "out" / ".work" / batch / "attempts" / "1"
    folder.mkdir(parents=True)
    (folder / "run_id").write_text("99\n")
    path = project.root / "log" / "run_99.log"
    path.touch()
    environ = {**os.environ, "DS_FLOW_ATTEMPT": f"{batch}/1"}
    with subprocess.Popen(["sleep", "60"], env=environ) as run:
        log = find_log(project.settings, project.ledger, "99")
        assert log.path() == path
        assert not log.is_over()
        run.terminate()
    assert log.is_over()


def test_following_a_log_outlives_its_renaming_and_ends_with_the_run(project: Project) -> None:
    batch = project.form(BATCH, project.admit("student_a.csv"))
    attempt = project.start(batch)
    log = project.root / "log" / f"attempt_{batch}_{attempt}.log"
    with log.open("wb", buffering=0) as writer:
        writer.write(b"before\n")
        with subprocess.Popen(command(project, "logs", "-f"), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"before\n"
            log.rename(log.with_name("run_17.log"))
            project.ledger.name_run(batch, attempt, "17", NOON)
            writer.write(b"after\n")
            assert process.stdout.readline() == b"after\n"
            writer.write(b"last")
            then = RetryAt(NOON)
            state = RunState.FAILED
            project.ledger.end_run(batch, attempt, state, error="", results=0, then=then, now=NOON)
            assert process.stdout.read() == b"last"
    assert process.returncode == 0


def test_a_log_cannot_control_the_terminal(project: Project) -> None:
    project.published(BATCH, "17", "student_a.csv")
    (project.root / "log" / "run_17.log").write_bytes("ö \x1b]0;x\x07\n".encode())
    assert "ö \\x1b]0;x\\x07\r\n".encode() in in_terminal(command(project, "logs", "17"))


# --------------------------------------------------------------------------- check, completion


def test_check_prints_the_schema_of_the_settings(ds_flow_here: Cli) -> None:
    assert json.loads(ds_flow_here("check", "--schema")[1])["title"] == "ds-flow settings"


def test_check_is_78_at_a_fault_and_0_without(project: Project, ds_flow_here: Cli) -> None:
    code, out, _ = ds_flow_here("check")
    assert code == 0
    assert "input_pattern" in out
    (project.root / "data").rmdir()
    code, out, _ = ds_flow_here("check", "--json")
    assert code == 78
    assert {"level": "fault", "subject": "inbox"}.items() <= fault(json.loads(out)).items()


def fault(found: dict[str, Any]) -> dict[str, str]:
    (one,) = (one for one in found["findings"] if one["level"] == "fault")
    return dict(one)


def test_bash_completes_commands_and_flags(ds_flow_here: Cli) -> None:
    script = ds_flow_here("completion", "bash")[1]
    for words, wanted in (
        ("ds-flow st", ["status"]),
        ("ds-flow --config x rerun --f", ["--file", "--failed"]),
        ("ds-flow logs --fo", ["--follow"]),
    ):
        assert bash_completes(script, words) == wanted


def test_bash_completes_the_names_that_a_project_knows(project: Project, ds_flow_here: Cli) -> None:
    project.published(BATCH, "1795379747138327", "student_a.csv", "student_b.csv")
    script = ds_flow_here("completion", "bash")[1]
    folder = project.root / "bin"
    folder.mkdir()
    (folder / "ds-flow").write_text(f'#!/bin/bash\nexec {shlex.join(DS_FLOW)} "$@"\n')
    (folder / "ds-flow").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    for words, wanted in (
        ("show 179", ["1795379747138327"]),
        (f"cancel {BATCH[:4]}", [BATCH]),
        ("explain data/student_", ["data/student_a.csv", "data/student_b.csv"]),
        ("schedule run nig", ["nightly"]),
        ("show --al", ["--all"]),
    ):
        typed = f"ds-flow --config {project.config} {words}"
        assert bash_completes(script, typed, PATH=path) == wanted


def bash_completes(script: str, words: str, **environ: str) -> list[str]:
    shell = f"{script}\nCOMP_WORDS=({words})\nCOMP_CWORD={len(words.split()) - 1}\n_ds_flow\n"
    show = 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", shell + show],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
    )
    return done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_in_every_completion_script(ds_flow_here: Cli, shell: str) -> None:
    script = ds_flow_here("completion", shell)[1]
    assert [name for name in COMMANDS if name not in script] == []


def test_every_command_file_is_in_the_table() -> None:
    files = {name.removeprefix("command_").rstrip("_") for name in commands.__all__}
    assert sorted(COMMANDS) == sorted(files)


def test_start_up_imports_nothing_that_only_some_commands_need() -> None:
    slow = ("metaflow", "pydantic", "rich", "sqlite3", "watchdog", "yaml")
    code = f"import sys, ds_flow.cli; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_the_version_is_the_packages(ds_flow_here: Cli) -> None:
    code, out, _ = ds_flow_here("--version")
    assert (code, out.split()[0]) == (0, "ds-flow")
    assert SCHEMA.is_file()


# --------------------------------------------------------------------------- the real thing


def test_once_ends_with_1_while_the_inbox_is_lost(project: Project) -> None:
    project.admit("student_a.csv")
    (project.root / "data" / "student_a.csv").unlink()
    (project.root / "data").rmdir()
    done = subprocess.run(command(project, "once"), check=False, capture_output=True)
    assert done.returncode == 1
    assert b"ds-flow: inbox " in done.stderr


@pytest.mark.exhaustive
def test_once_says_what_came_of_it(project: Project) -> None:
    def once(*argv: str) -> tuple[int, str]:
        done = subprocess.run(command(project, *argv), check=False, capture_output=True, text=True)
        return done.returncode, done.stdout

    project.drop("student_a.csv")
    code, out = once("once")
    (manifest,) = (project.root / "out").glob("manifest_*.json")
    run_id = manifest.stem.partition("_")[2]
    assert (code, out) == (
        0,
        (
            f"run {run_id}: 1 file, 2 outputs\n"
            f"  out/final_combined_{run_id}.csv\n"
            f"  out/processed_student_a_{run_id}.csv\n"
        ),
    )
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator(schema).validate(json.loads(manifest.read_text()))
    assert once("once") == (0, "nothing new\n")  # at once: it waits for no further look
    project.drop("student_b.csv", "a,b\n1\n")
    code, out = once("rerun", "--all")
    assert code == 1
    assert "quarantined: data/student_b.csv: " in out
    assert len(list((project.root / "out").glob("final_combined_*.csv"))) == 2


def test_a_released_file_that_is_rejected_again_is_named(
    project: Project, ds_flow_here: Cli
) -> None:
    project.config.write_text(f"{project.config.read_text()}csv: {{encoding: utf-16}}\n")
    project.admit("student_a.csv", cause=Cause.CHANGED, reason="it changed")
    code, out, _ = ds_flow_here("release", "--all")
    assert code == 1
    assert "data/student_a.csv version 1: the next scan reads it again\n" in out
    assert "quarantined: data/student_a.csv: " in out


def test_files_that_a_rerun_left_out_are_named_and_make_it_fail(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = project.published(BATCH, "17", "student_a.csv")
    before = Tally.of(project.ledger.read)
    project.ledger.form(OTHER, [rows[0].id], Trigger.RERUN, NOON)
    project.start(OTHER, "18")
    project.publish(OTHER, "18", [], rejected=rows)
    assert summarize(project.settings, project.ledger, before) == 1
    assert "left out: data/student_a.csv: run 18: line 2: " in capsys.readouterr().out


# --------------------------------------------------------------------------- schedules, verifying


def test_schedules_are_listed_with_their_next_fire_and_what_the_last_one_did(
    project: Project, ds_flow_here: Cli
) -> None:
    project.published(BATCH, "17", "student_a.csv")
    (listed,) = json.loads(ds_flow_here("schedule", "--json")[1])["schedules"]
    assert (listed["name"], listed["cron"], listed["skip_unchanged"]) == (
        "nightly",
        "0 2 * * *",
        True,
    )
    assert datetime.fromisoformat(listed["next_at"]) > datetime.now(UTC)
    assert {listed[key] for key in ("last_at", "outcome", "batch", "run_id")} == {None}

    fire = Fire(
        schedule="nightly", due_at=NOON, outcome=FireOutcome.VERIFIED, batch=BATCH, detail="same"
    )
    project.ledger.schedules.record(fire, NOON)
    (listed,) = json.loads(ds_flow_here("schedule", "--json")[1])["schedules"]
    assert (listed["last_due_at"], listed["outcome"]) == (NOON.isoformat(), "verified")
    assert (listed["batch"], listed["run_id"], listed["detail"]) == (BATCH, "17", "same")
    assert "verified  17      same" in ds_flow_here("schedule")[1]


def test_firing_a_schedule_asks_the_daemon(
    project: Project, ds_flow_here: Cli, daemon: list[int]
) -> None:
    assert ds_flow_here("schedule", "run", "nightly") == (0, "schedule nightly: fires now\n", "")
    assert daemon == [signal.SIGUSR1]
    assert project.ledger.schedules.rows()["nightly"].asked_at
    (listed,) = json.loads(ds_flow_here("schedule", "--json")[1])["schedules"]
    assert listed["asked_at"]


def test_the_error_for_an_unknown_schedule_lists_the_known_ones(
    ds_flow_here: Cli,
) -> None:
    code, _, err = ds_flow_here("schedule", "run", "weekly")
    assert code == 1
    assert "no schedule 'weekly'" in err
    assert err.endswith(": nightly\n")
    assert ds_flow_here("schedule", "run")[0] == 2


def test_firing_without_a_daemon_runs_here_and_prints_the_outcome(ds_flow_here: Cli) -> None:
    code, out, err = ds_flow_here("schedule", "run", "nightly")
    assert code == 0, err
    assert out.endswith("schedule nightly: nothing: this file does not exist\n")


def test_verify_names_outputs_that_have_changed(project: Project, ds_flow_here: Cli) -> None:
    rows = project.published(BATCH, "17", "student_a.csv")
    project.form(OTHER, project.admit("student_b.csv"))
    out_dir = project.root / "out"
    (out_dir / "processed_student_a_17.csv").write_text("a,b\n1,2\n\n")  # nine bytes, as said
    code, out, _ = ds_flow_here("verify")
    assert (code, out.splitlines()) == (
        1,
        [
            "run 17: processed_student_a_17.csv: has other content than was published",
            "run 17: final_combined_17.csv: is gone",
            RERUN_17,
        ],
    )
    code, out, _ = ds_flow_here("verify", "17", "--json")
    assert code == 1
    (answer,) = json.loads(out)["runs"]
    assert (answer["run_id"], len(answer["faults"])) == ("17", 2)

    made = manifest_of(BATCH, "17", rows).to_json()
    made["outputs"] = []
    (out_dir / "manifest_17.json").write_text(json.dumps(made))
    assert "does not name what the ledger knows" in ds_flow_here("verify")[1]
    (out_dir / "manifest_17.json").write_text("{")
    assert "manifest_17.json: cannot be read" in ds_flow_here("verify")[1]
    (out_dir / "manifest_17.json").unlink()
    assert ds_flow_here("verify")[1] == f"run 17: manifest_17.json: is gone\n{RERUN_17}\n"


def test_a_changed_run_whose_files_were_published_again_fails_verify_no_more(
    project: Project, ds_flow_here: Cli
) -> None:
    rows = project.published(BATCH, "17", "student_a.csv")
    (project.root / "out" / "final_combined_17.csv").write_text("changed")
    out_dir = project.root / "out"
    assert ds_flow_here("verify")[0] == 1
    project.start(project.form(OTHER, rows, Trigger.RERUN), "18")
    project.publish(OTHER, "18", rows)
    for name in ("processed_student_a", "final_combined"):
        (out_dir / f"{name}_18.csv").write_text("123456789")
    sha256 = hashlib.sha256(b"123456789").hexdigest()
    made = json.loads((out_dir / "manifest_18.json").read_text())
    for output in made["outputs"]:
        output["sha256"] = sha256
    (out_dir / "manifest_18.json").write_text(json.dumps(made))
    project.ledger._store.change("UPDATE output SET sha256 = ? WHERE run = 2", (sha256,))
    code, out, _ = ds_flow_here("verify")
    assert (code, out.splitlines()[-1]) == (
        0,
        "run 17: newer runs have published all its files again",
    )
    assert ds_flow_here("verify", "17")[0] == 1
    (out_dir / "final_combined_18.csv").unlink()
    assert ds_flow_here("verify")[0] == 1


def test_verify_finds_no_fault_where_nothing_was_published(
    project: Project, ds_flow_here: Cli
) -> None:
    assert ds_flow_here("verify")[:2] == (0, "0 runs: all outputs match their manifests\n")
    project.start(project.form(BATCH, project.admit("student_a.csv")), "17")
    code, _, err = ds_flow_here("verify", "17")
    assert (code, err) == (1, "ds-flow: run 17 has no outputs: none published, or removed\n")
