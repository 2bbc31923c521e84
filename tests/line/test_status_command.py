"""`ds-flow status` as a person, a monitor and a terminal see it."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli_project import SETTINGS, Project
from clock import NOON
from ds_flow.cli.main import main, parser
from ds_flow.cli.status_text import status_lines
from ds_flow.core.retry_policy import Dead
from ds_flow.core.states import Cause, RunState
from ds_flow.service.process import leave_in_force
from ds_flow.settings.in_force import in_force_text
from ds_flow.settings.load import load_settings
from ds_flow.system.instance import single_instance
from ds_flow.upkeep.record import Heard, Record, leave_record
from ds_flow.views.status import status_document
from rights import NOBODY

BATCH, OTHER = "0123456789", "9876543210"
DS_FLOW = [sys.executable, "-c", "import sys; from ds_flow.cli import main; sys.exit(main())"]
NOW = NOON + timedelta(minutes=1)
COLUMNS = 80

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


@pytest.fixture
def cli(project: Project, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*argv: str) -> tuple[int, str, str]:
        code = main(["--config", str(project.config), *argv])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def daemon(project: Project) -> Iterator[None]:
    with single_instance(project.settings):
        yield


def kill(project: Project, batch: str = BATCH) -> None:
    project.start(project.form(batch, project.admit("student_a.csv")), "17")
    end = Dead("every file failed")
    project.ledger.end_run(batch, 1, RunState.FAILED, error="x", results=0, then=end, now=NOON)


# --------------------------------------------------------------------------- for a monitor


@pytest.mark.usefixtures("daemon")
def test_check_is_one_line_and_0_while_all_is_well(cli: Cli) -> None:
    assert cli("status", "--check") == (0, "ok: all is well\n", "")


@pytest.mark.usefixtures("daemon")
def test_check_is_3_while_something_needs_a_person(project: Project, cli: Cli) -> None:
    kill(project)
    code, out, _ = cli("status", "--check")
    assert code == 3
    assert out == f"attention: batch {BATCH} has used up its attempts: every file failed; last: x\n"


def test_check_is_4_while_no_daemon_runs_whatever_else_is_wrong(project: Project, cli: Cli) -> None:
    kill(project)
    code, out, _ = cli("status", "--check")
    assert (code, out.count("\n")) == (4, 1)
    assert out.startswith("down: the daemon is not running; batch")


@pytest.mark.usefixtures("daemon")
def test_check_stays_one_line_whatever_a_file_is_called(project: Project, cli: Cli) -> None:
    project.admit("student_\n\x1b[2J.csv", cause=Cause.REJECTED, reason="line 2:\nodd")
    code, out, _ = cli("status", "--check")
    assert (code, out.count("\n"), "\x1b" in out) == (3, 1, False)


def test_check_and_watch_do_not_go_together(cli: Cli) -> None:
    assert cli("status", "--check", "--watch")[0] == 2


# --------------------------------------------------------------------------- for a person


@pytest.mark.usefixtures("daemon")
def test_what_was_repaired_since_is_not_counted_as_broken(project: Project, cli: Cli) -> None:
    kill(project)
    assert "batches    1: 1 dead\n" in cli("status")[1]
    project.ledger.retry(BATCH, OTHER, NOON)
    project.start(OTHER, "18")
    rows = project.ledger.read.latest(["data/student_a.csv"])
    project.publish(OTHER, "18", rows)
    out = cli("status")[1]
    assert "batches    2: 1 succeeded, 1 repaired\n" in out
    assert "status     all is well\n" in out
    document = json.loads(cli("status", "--json")[1])
    assert (document["batches"], document["batches_repaired"]) == ({"succeeded": 1, "dead": 1}, 1)


def test_what_is_to_be_typed_is_for_the_project_that_was_asked_about(
    project: Project, cli: Cli
) -> None:
    out = cli("status")[1]
    assert f"   type    ds-flow --config {shlex.quote(str(project.config))} serve\n" in out


def test_what_is_to_be_typed_for_the_usual_project_is_short(
    project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del cli  # it gives the log and the signals back
    monkeypatch.setenv("DS_FLOW_CONFIG", str(project.config))
    assert main(["status"]) == 0
    assert "   type    ds-flow serve\n" in capsys.readouterr().out


@pytest.mark.parametrize("pause", ["nan", "x", ""])
def test_a_pause_that_is_no_number_is_a_usage_error(cli: Cli, pause: str) -> None:
    code, _, err = cli("status", "--watch", "--every", pause)
    assert code == 2
    assert f"{pause!r} is not a number of seconds" in err


@pytest.mark.parametrize(
    ("pause", "seconds"), [("inf", 86_400), ("1e300", 86_400), ("-1", 0.1), ("2", 2)]
)
def test_a_pause_is_one_that_a_clock_can_count(pause: str, seconds: float) -> None:
    assert parser().parse_args(["status", "--every", pause]).every == seconds


def test_the_last_day_says_which_failures_were_repaired(project: Project) -> None:
    kill(project)
    project.ledger.retry(BATCH, OTHER, NOON)
    project.start(OTHER, "18")
    project.publish(OTHER, "18", project.ledger.read.latest(["data/student_a.csv"]))
    lines = [*status_lines(status_document(project.settings, project.ledger, 1, NOW))]
    (night,) = [line for line in lines if line.startswith("last 24 h")]
    assert "2 runs; 1 file and 3 rows published; 1 failure, 1 of them repaired" in night


def test_it_fits_into_80_columns_except_for_what_is_to_be_copied(project: Project) -> None:
    kill(project)
    reason = "line 3: " + "a cell, not two, " * 20
    project.admit("student_b.csv", cause=Cause.REJECTED, reason=reason)
    project.drop("Student_X.CSV")
    document = status_document(project.settings, project.ledger, None, NOW)
    lines = [*status_lines(document, COLUMNS)]
    assert [line for line in lines if len(line) > COLUMNS and "   type" not in line] == []
    whole = " ".join(" ".join(lines).split())
    assert " ".join(reason.split()) in whole
    assert "Student_X.CSV" in whole


def test_a_silent_engine_is_said_by_the_daemon_s_word(project: Project, cli: Cli) -> None:
    project.config.write_text(SETTINGS + "compute: {executor: docker, docker_image: x}\n")
    project.settings = load_settings(project.config, {}, to_work=False)
    heard = Heard(backend="docker", why="cannot connect", since=NOON.isoformat(), asked_at="")
    at = datetime.now(UTC).isoformat()
    with single_instance(project.settings):
        record = Record(pid=os.getpid(), at=at, started_at=at, heard=(heard,))
        leave_record(project.settings.work_root, record)
        assert (project.settings.work_root / "daemon.json").stat().st_mode & 0o77 == 0
        out = cli("status")[1]
        (one,) = json.loads(cli("status", "--json")[1])["engine"]["backends"]
    assert "engine     docker (process, combine, analyze) DOES NOT ANSWER since" in out
    assert "docker does not answer: cannot connect" in out
    assert (one["state"], one["why"], one["since"]) == (
        "silent",
        "cannot connect",
        NOON.isoformat(),
    )


def test_without_a_daemon_the_engine_is_asked_and_named(project: Project, cli: Cli) -> None:
    project.config.write_text(
        SETTINGS + "compute: {executor: docker, docker_image: x, docker_command: no-such-docker}\n"
    )
    out = cli("status")[1]
    assert "no-such-docker" in out
    assert "docker does not answer" in out


def test_an_engine_that_hangs_holds_the_answer_up_for_a_moment_only(
    project: Project, cli: Cli
) -> None:
    program = project.root / "docker"
    program.write_text("#!/bin/sh\nexec sleep infinity\n")
    program.chmod(0o755)
    docker = f"executor: docker, docker_image: x, docker_command: {program}"
    project.config.write_text(f"{SETTINGS}compute: {{{docker}}}\n")
    assert "no answer in 2 s" in cli("status")[1]


# --------------------------------------------------------------------------- while settings are bad


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    "bad",
    [
        SETTINGS + "run: {attempts: none}\n",
        SETTINGS + "runs: {}\n",
        "project_name: x\npaths: [\n",
        "",
    ],
    ids=["a bad value", "an unknown key", "no YAML", "empty"],
)
def test_status_works_while_settings_are_bad_and_the_daemon_goes_on(
    project: Project, cli: Cli, bad: str
) -> None:
    project.published(BATCH, "17", "student_a.csv")
    leave_in_force(project.settings)
    project.config.write_text(bad)
    code, out, err = cli("status")
    assert code == 0, err
    assert "files      1: 1 processed\n" in out
    assert "the settings on disk are bad, and the daemon goes on with the old ones:" in out
    assert cli("status", "--check")[0] == 3
    assert cli("explain", "data/student_a.csv")[0] == 0


def test_bad_settings_without_a_daemon_stay_an_error(project: Project, cli: Cli) -> None:
    (project.root / "out" / ".work").mkdir(exist_ok=True)
    leave_in_force(project.settings)
    project.config.write_text(SETTINGS + "runs: {}\n")
    code, _, err = cli("status", "--check")
    assert (code, "runs: unknown setting" in err) == (78, True)


@pytest.mark.parametrize(("owner", "mode"), [(NOBODY, 0o600), (None, 0o620), (None, 0o602)])
def test_settings_that_somebody_else_may_have_written_start_no_program(
    project: Project, cli: Cli, owner: int | None, mode: int
) -> None:
    if owner is not None and os.geteuid() != 0:
        pytest.skip("only root can give files to others")
    marker, program = project.root / "ran", project.root / "data" / "docker"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    project.config.write_text(
        SETTINGS.replace("output_dir: out", "output_dir: results")
        + f"compute: {{executor: docker, docker_image: x, docker_command: {program}}}\n"
    )
    forged = load_settings(project.config, {}, to_work=False)
    with single_instance(forged):
        planted = project.root / "data" / ".work" / "in_force.json"
        planted.parent.mkdir()
        planted.write_text(in_force_text(forged))
        planted.chmod(mode)
        if owner is not None:
            os.chown(planted, owner, -1)
        project.config.write_text(SETTINGS + "runs: {}\n")
        code, _, err = cli("status")
    assert (code, marker.exists()) == (78, False), err


def test_what_a_daemon_leaves_of_its_settings_holds_no_secret(tmp_path: Path) -> None:
    made = Project(tmp_path)
    (made.root / ".env").write_text("MAIL_TOKEN=sesame-open\n")
    secret = {"DS_FLOW_ALERTS__WEBHOOK": "https://host/sesame-token"}
    made.settings = load_settings(made.config, secret)
    with single_instance(made.settings):
        leave_in_force(made.settings)
    path = made.settings.work_root / "in_force.json"
    assert "sesame" not in path.read_text()
    assert path.stat().st_mode & 0o77 == 0


# --------------------------------------------------------------------------- live


def watch(project: Project, stdout: int) -> subprocess.Popen[bytes]:
    command = [*DS_FLOW, "status", "--watch", "--every", "0.1", "--config", str(project.config)]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": str(COLUMNS)}
    return subprocess.Popen(command, stdout=stdout, env=environ)


def test_watch_in_a_pipe_prints_one_block_after_the_other_and_ends_on_ctrl_c(
    project: Project,
) -> None:
    child = watch(project, subprocess.PIPE)
    assert child.stdout is not None
    seen = b""
    while seen.count(b"status     ") < 2:
        seen += child.stdout.readline()
    project.admit("student_a.csv")
    while b"files      1: 1 waiting" not in seen:
        seen += child.stdout.readline()
    child.send_signal(signal.SIGINT)
    child.stdout.read()
    assert child.wait() == 130
    assert b"\x1b" not in seen


def test_watch_on_a_terminal_redraws_in_place(project: Project) -> None:
    mine, its = pty.openpty()
    child = watch(project, its)
    os.close(its)
    seen = b""
    while seen.count(b"\x1b[H") < 3:
        seen += os.read(mine, 4096)
    child.send_signal(signal.SIGINT)
    assert child.wait() == 130
    os.close(mine)


def test_watch_goes_on_while_settings_are_being_edited(project: Project) -> None:
    child = watch(project, subprocess.PIPE)
    assert child.stdout is not None
    seen = child.stdout.readline()
    project.config.write_text("paths: [")
    while b"unknown: " not in seen:
        seen = child.stdout.readline()
    project.config.write_text(SETTINGS)
    while b"daemon     not running" not in seen:
        seen = child.stdout.readline()
    child.send_signal(signal.SIGINT)
    child.stdout.read()
    assert child.wait() == 130
