"""What SECURITY.md claims, claim by claim; what other tests hold is named there."""

import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from cli_project import Project as CliProject
from clock import MovedClock
from ds_flow.cli.status_text import status_lines
from ds_flow.doctor import check
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.store import fault_of
from ds_flow.runs import outcome
from ds_flow.runs.launch import Runs
from ds_flow.system import metaflow_store
from ds_flow.system.logging_setup import MASK
from ds_flow.system.terminal import put
from ds_flow.upkeep.daily import COLLECT_EVERY, collection
from ds_flow.upkeep.retention import DONE
from ds_flow.work.batch import Batch
from ds_flow.work.logs import attempt_log
from ds_flow.work.upgrade import old_lock
from project import Project, table, until
from rights import NOBODY
from samples import BATCH

SECRET = "s3cr3t-of-the-team"  # noqa: S105 - looked for everywhere
FORMULA = "=HYPERLINK(1)"
DECEIVING = "\u202e"  # what follows is shown from right to left
PRIVATE = {
    *("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock", "ledger.db.opening"),
    *("ds-flow.lock", ".ds-flow.lock"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One run, with umask 077, of hostile names by a transform that prints all that it can see."""
    made = Project(tmp_path_factory.mktemp("security") / "project")
    made.configure(compute={"transform": "telling:transform", "lsf_queue": "short"})
    (made.root / ".env").write_text(f"TEAM_TOKEN={SECRET}\nPROCESS_TAG=spring\n")
    (made.root / "telling.py").write_text(TELLING)
    made.drop("student_a.csv", table("a", note=FORMULA))
    made.drop("student_-rf $(touch pwned) `touch pwned`;touch pwned.csv", table("b"))
    made.drop(f"student_{DECEIVING}bad.csv", f"a\n{SECRET},1\n")
    made.prefix = ("bash", "-c", 'umask 077; exec "$@"', "bash")
    done = made.once()
    assert done.returncode == 1  # one file was set aside
    (made.root / "once").write_text(done.stdout + done.stderr)
    made.prefix = ()
    yield made
    made.end_everything()


TELLING = """
import os
from pathlib import Path

def transform(frame):
    print("environment:", os.environ)
    # what every user of this host can see of processes
    with Path(__file__).with_name("ps").open("ab") as ps:
        ps.writelines(map(command_line, Path("/proc").glob("[0-9]*")))
    return frame

def command_line(process):
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
"""


def everything_below(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.is_file())


def test_a_secret_is_in_no_log_no_manifest_no_ledger_and_no_command_line(project: Project) -> None:
    assert b"student_flow.py" in (project.root / "ps").read_bytes()
    assert "environment:" in "".join(path.read_text() for path in project.log.glob("run_*.log"))
    tell = [*everything_below(project.out), *everything_below(project.log), project.root / "ps"]

    found = [path for path in tell if SECRET.encode() in path.read_bytes()]

    assert not found


BLABS = """
import os
def transform(frame):
    print("process:", os.environ["TEAM_KEY"].splitlines()[-1], flush=True)
    os._exit(78)
"""


@pytest.mark.parametrize(
    ("compute", "said_of_it"),
    [
        ({"transform": "blabs:transform"}, f"process-1of1-2[1]: {MASK}"),
        (
            {"stages": {"analyze": {"command": ["sh", "-c", 'echo "$TEAM_KEY"; exit 3']}}},
            f"exit code 3: {MASK}",
        ),
    ],
)
@pytest.mark.exhaustive
def test_a_secret_that_a_failed_job_printed_last_is_in_no_log(
    tmp_path: Path, compute: dict[str, Any], said_of_it: str
) -> None:
    made = Project(tmp_path / "project", compute=compute, run={"attempts": 1})
    (made.root / "blabs.py").write_text(BLABS)
    (made.root / ".env").write_text(f"TEAM_KEY='-----KEY-----\n{SECRET} \"\\\\'\n")
    made.drop("student_a.csv", table("a"))

    said = made.once()

    assert said.returncode == 1
    assert said_of_it in said.stdout
    read_by_people = [*made.log.iterdir(), *everything_below(made.root / ".metaflow")]
    tell = [*read_by_people, *made.out.glob("ledger.db*"), *made.out.glob("manifest_*")]
    assert [path for path in tell if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in said.stdout + said.stderr
    assert [path for path in made.log.glob("run_*.log") if path.stat().st_mode & 0o007] == []


def test_a_hostile_name_runs_nothing(project: Project) -> None:
    assert not list(project.root.rglob("pwned"))
    assert len(project.published_ids()) == 6


@pytest.mark.exhaustive
def test_what_lies_in_the_current_folder_is_no_code(
    tmp_path: Path, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = CliProject(tmp_path)
    made.drop("pwning.py", "open(__file__ + '.pwned', 'w')")
    for name in ("ds_flow", "metaflow", "pandas", "json"):
        (tmp_path / "data" / f"{name}.py").symlink_to("pwning.py")
    monkeypatch.chdir(tmp_path / "data")
    log = tmp_path / "log" / "cancelling"

    with closing(made.open()) as ledger:
        ledger.history.note(DONE, "", clock.now() - COLLECT_EVERY)
        daily = collection()
        daily.keep(made.settings, ledger, clock.now(), 0)
        until("it has ended", lambda: daily.child.ended() == (0, ""))
    found = check.run_checks(made.settings, os.environ)
    assert [one for one in found if one.level == "fault"] == []
    runs, nobodys = Runs(), Batch.at(made.settings.output_dir, "none")
    until("it is over", lambda: runs.cancel_jobs(made.settings, nobodys, log) is not None)

    assert "no such batch" in log.read_text()
    assert not list(tmp_path.rglob("*.pwned"))


def test_no_answer_holds_what_deceives_a_terminal(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = f"data/student_{DECEIVING}bad.csv"
    (run,) = project.runs()
    questions = (("files",), ("explain", bad), ("show", str(run.run_id)))
    done = [project.ds_flow(*question) for question in questions]
    for line in status_lines({**project.status(), "unaccounted": [bad]}):
        put(line)

    answers = [(project.root / "once").read_text(), *(one.stdout + one.stderr for one in done)]
    answers.append(capsys.readouterr().out)
    assert ["\\u202e" in answer for answer in answers] == [True] * 5
    assert [DECEIVING in answer for answer in answers] == [False] * 5


def test_a_formula_is_passed_on_as_it_is(project: Project) -> None:
    assert {row["note"] for row in project.combined()} == {FORMULA, ""}


def test_others_may_neither_read_the_ledger_nor_hold_a_lock(tmp_path: Path) -> None:
    made = Project(tmp_path / "project")
    old = made.root / ".metaflow" / ".ds-flow.lock"
    old.parent.mkdir()
    old.touch(0o644)
    made.prefix = ("bash", "-c", 'umask 000; exec "$@"', "bash")
    made.start()
    with metaflow_store.alone_in_store(made.root):
        private = [*made.out.glob("ledger.db*"), *made.root.rglob("*.lock")]
        modes = {path.name: stat.filemode(path.stat().st_mode) for path in private}
    made.stop()

    assert modes == dict.fromkeys(PRIVATE, "-rw-------")


@pytest.mark.exhaustive
def test_who_holds_a_lock_on_a_folder_holds_nobody_up(tmp_path: Path) -> None:
    made = Project(tmp_path / "project")
    made.start()
    with ExitStack() as stack:
        for folder in (made.root, made.out, made.out / ".work"):
            held = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX)
        assert made.status()["accounted"]
        made.stop()
        made.start()
    made.stop()


@pytest.mark.exhaustive
def test_the_work_directory_is_this_users_alone_whatever_the_umask_and_its_folder_are(
    tmp_path: Path,
) -> None:
    made = Project(tmp_path / "project")
    made.out.mkdir()
    made.out.chmod(0o2775)
    made.prefix = ("bash", "-c", 'umask 002; exec "$@"', "bash")
    made.drop("student_a.csv", table("a"))

    assert made.once().returncode == 0

    assert stat.S_IMODE((made.out / ".work").stat().st_mode) & 0o777 == 0o700


def test_a_work_directory_that_others_could_write_to_is_closed_and_that_is_said(
    tmp_path: Path,
) -> None:
    made = Project(tmp_path / "project")
    work = made.out / ".work" / BATCH
    work.mkdir(parents=True)
    work.parent.chmod(0o2775)

    done = made.once()

    assert done.returncode == 0
    assert "work.closed" in done.stderr
    assert "its mode was 2775" in done.stderr
    assert stat.S_IMODE(work.parent.stat().st_mode) & 0o777 == 0o700
    assert work.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize("place", [".work", ".work/batch/jobs/combine/1/round.json"])
def test_what_another_user_has_put_into_the_work_directory_is_refused(
    tmp_path: Path, place: str
) -> None:
    made = Project(tmp_path / "project")
    folder = made.out / ".work" / "batch" / "jobs" / "combine" / "1"
    folder.mkdir(parents=True)
    (folder / "round.json").touch()
    (made.out / ".work").chmod(0o2775)
    os.chown(made.out / place, NOBODY, -1)

    for _ in range(2):
        done = made.once()
        assert done.returncode == 78
        assert f"{made.out / place}: belongs to the user {NOBODY}" in done.stderr


PLANTED = {
    **{f"out/ledger.db{end}": "status" for end in ("", "-wal", "-shm", "-journal", ".opening")},
    **dict.fromkeys(["out/ledger.db.lock", "out/.work/ds-flow.lock", "log/ds-flow.log"], "once"),
    "out/.work/gc.lock": "gc",
    ".metaflow/.ds-flow.lock": "check",
}


@pytest.fixture
def planted(tmp_path: Path) -> Project:
    """A project with a ledger, in whose folders somebody has put something of his own."""
    made = Project(tmp_path / "project")
    Ledger(made.ledger).close()
    for name in ("log", ".metaflow", "out/.work"):
        (made.root / name).mkdir(mode=0o700)
    return made


@pytest.mark.parametrize(
    "is_there", [True, pytest.param(False, marks=pytest.mark.exhaustive)], ids=["victim", "nothing"]
)
@pytest.mark.parametrize(("place", "command"), PLANTED.items())
def test_a_link_in_place_of_a_file_of_ours_is_refused_and_leads_to_no_change(
    planted: Project, tmp_path: Path, place: str, command: str, *, is_there: bool
) -> None:
    target, path = tmp_path / "target", planted.root / place
    if is_there:
        target.write_bytes(b"precious" * 1000)
        target.chmod(0o644)
    path.unlink(missing_ok=True)
    path.symlink_to(target)

    done = planted.ds_flow(command)

    assert f"{path}" in done.stdout + done.stderr
    assert "is a symbolic link" in done.stdout + done.stderr
    assert target.exists() == is_there
    if is_there:
        assert target.read_bytes() == b"precious" * 1000
        assert stat.S_IMODE(target.stat().st_mode) == 0o644


@pytest.mark.parametrize(("place", "command"), PLANTED.items())
@pytest.mark.exhaustive
def test_a_fifo_in_place_of_a_file_of_ours_blocks_nobody(
    planted: Project, place: str, command: str
) -> None:
    (planted.root / place).unlink(missing_ok=True)
    os.mkfifo(planted.root / place)

    planted.ds_flow(command)


def test_no_link_is_followed_to_the_earlier_version_s_lock_of_publishing(
    planted: Project, tmp_path: Path
) -> None:
    (planted.out / ".work" / "publish.lock").symlink_to(tmp_path / "absent")

    with pytest.raises(OSError, match="is a symbolic link"), old_lock(planted.out):
        pass

    assert not (tmp_path / "absent").exists()


def test_a_planted_log_of_a_run_is_neither_written_nor_repeated(tmp_path: Path) -> None:
    made = CliProject(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text(f"{SECRET}\n")
    with closing(made.open()) as ledger:
        batch = made.form(BATCH, made.admit("student_a.csv"))
        made.start(batch)
        (run,) = ledger.read.live_runs()
    attempt_log(made.settings.log_dir, batch, 1).symlink_to(victim)
    work = Batch.at(made.settings.output_dir, batch)
    folder = work.attempt_dir(1)
    folder.mkdir(parents=True)
    (folder / "exit_code").write_text("3\n")

    with pytest.raises(PermissionError, match="is a symbolic link"):
        Runs().prepare(made.settings, batch, 1)
    _, said = outcome.outcome_of(run, work, made.settings.log_dir)

    assert said == "it never began: exit code 3: and its log cannot be read"
    assert victim.read_text() == f"{SECRET}\n"


def test_a_ledger_in_a_linked_folder_is_fine(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")

    Ledger(tmp_path / "link" / "ledger.db").close()

    assert fault_of(tmp_path / "link" / "ledger.db") == ""
    assert (tmp_path / "disk" / "ledger.db").exists()


def test_what_is_published_obeys_the_umask(project: Project) -> None:
    files = [*everything_below(project.out), *everything_below(project.log)]
    assert [path for path in files if path.stat().st_mode & 0o077] == []
    assert len(project.names()) == 5


def test_nothing_listens(project: Project) -> None:
    pid = project.start()
    inodes = {
        os.readlink(entry.path)
        for entry in os.scandir(f"/proc/{pid}/fd")
        if os.path.lexists(entry.path)
    }
    project.stop()

    assert not [name for name in inodes if name.startswith("socket:")]


def test_settings_are_read_as_plain_values(tmp_path: Path) -> None:
    made = Project(tmp_path / "project")
    made.config.write_text("project_name: !!python/object/apply:os.mkdir [pwned]\n")

    done = subprocess.run(
        made.command("status"), env=made.environ(), capture_output=True, cwd=tmp_path, check=False
    )

    assert done.returncode == 78
    assert not (tmp_path / "pwned").exists()
