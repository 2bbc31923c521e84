"""The checks of a machine, with real files and real interpreters."""

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ds_flow.doctor import backends, programs, storage
from ds_flow.doctor.check import run_checks
from ds_flow.doctor.finding import Finding
from ds_flow.doctor.storage import free_space, inbox_on, ledger_on, watched
from ds_flow.ledger.ledger import Ledger
from ds_flow.settings.load import Settings, load_settings
from ds_flow.system import metaflow_store
from project import DS_FLOW, until
from rights import no_rights, public_folder

PATHS = "paths: {input_pattern: data/student_*.csv, output_dir: out, log_dir: log}\n"

Project = Callable[..., Settings]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("config", "data", "out", "log"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def project(root: Path) -> Project:
    def loaded(text: str = "", **environ: str) -> Settings:
        file = root / "config" / "settings.yaml"
        file.write_text(
            f"project_name: x\n{text}" if "paths:" in text else f"project_name: x\n{PATHS}{text}"
        )
        return load_settings(file, environ)

    return loaded


def about(subject: str, found: Iterable[Finding]) -> Finding:
    (finding,) = (finding for finding in found if finding.subject == subject)
    return finding


def test_a_sound_project_has_no_fault(project: Project) -> None:
    found = run_checks(project("compute: {transform: 'os.path:basename'}"), os.environ)
    assert [one for one in found if one.level == "fault"] == []
    assert {
        *("output_dir", "log_dir", "ledger folder", "Metaflow's folder", "inbox", "read leases"),
        *("ledger", "inotify", "free space", "flow", "transform", "Metaflow user"),
        *("bash", "analyze", "local", "writers"),
    } == {one.subject for one in found}


def test_a_check_leaves_nothing_behind(project: Project, root: Path) -> None:
    settings = project()
    before = sorted(root.rglob("*"))
    run_checks(settings, os.environ)
    assert sorted(root.rglob("*")) == before


def test_a_folder_that_can_be_created_is_no_fault(project: Project, root: Path) -> None:
    (root / "log").rmdir()
    found = about("log_dir", storage.check_folders(project(), {}))
    assert found.level == "ok"
    assert "can be created" in found.text


def test_a_file_in_place_of_a_folder_is_a_fault(project: Project, root: Path) -> None:
    (root / "log").rmdir()
    (root / "log").touch()
    found = about("log_dir", storage.check_folders(project(), {}))
    assert found.level == "fault"
    assert "Not a directory" in found.text


def test_a_folder_that_cannot_be_written_to_is_a_fault(project: Project) -> None:
    text = PATHS.replace("output_dir: out", "output_dir: /proc/self")
    found = about("output_dir", storage.check_folders(project(text), {}))
    assert found.level == "fault"
    assert "is not writable" in found.text


def test_a_datastore_that_another_user_has_locked_away_is_a_fault(project: Project) -> None:
    with public_folder() as root:
        settings = replace(project(), root=root)
        lock = metaflow_store.store_folder(root) / metaflow_store.STORE_LOCK
        lock.parent.mkdir()
        lock.parent.chmod(0o777)
        lock.touch()
        with no_rights(lock):
            found = about("Metaflow's lock", storage.check_folders(settings, {}))
    assert found.level == "fault"
    assert found.text == f"{lock} cannot be held: Permission denied"


def test_a_missing_inbox_is_a_fault(project: Project, root: Path) -> None:
    (root / "data").rmdir()
    found = about("inbox", storage.check_inbox(project(), {}))
    assert found.level == "fault"
    assert "No such file" in found.text


def test_an_inbox_that_is_a_file_is_a_fault(project: Project, root: Path) -> None:
    (root / "data").rmdir()
    (root / "data").touch()
    assert about("inbox", storage.check_inbox(project(), {})).level == "fault"


# --------------------------------------------------------------------------- file systems


def test_a_ledger_on_a_network_file_system_is_a_fault() -> None:
    found = ledger_on("nfs4", Path("/shared"))
    assert found.level == "fault"
    assert "set paths.ledger" in found.text
    assert ledger_on("ext4", Path("/local")).level == "ok"


def torn(path: Path) -> None:
    pages = path.read_bytes()
    path.write_bytes(pages[:8192] + b"x" * (len(pages) - 8192))


def replaced(path: Path) -> None:
    path.write_text("a,b\n1,2\n" * 100)


def from_the_future(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (torn, "the ledger is rebuilt"),
        (replaced, "file is not a database; stop ds-flow"),
        (from_the_future, "install that version again"),
    ],
)
def test_an_unusable_ledger_is_a_fault_and_is_not_changed(
    project: Project, root: Path, damage: Callable[[Path], None], words: str
) -> None:
    settings = project()
    with closing(Ledger(settings.ledger)):
        assert about("ledger", storage.check_ledger(settings, {})).level == "ok"
    damage(settings.ledger)
    before = {path.name: path.read_bytes() for path in (root / "out").iterdir()}

    found = about("ledger", storage.check_ledger(settings, {}))

    assert found.level == "fault"
    assert words in found.text
    assert {path.name: path.read_bytes() for path in (root / "out").iterdir()} == before


@pytest.mark.parametrize(("observer", "level"), [("auto", "ok"), ("inotify", "warning")])
def test_an_inbox_on_a_network_file_system_is_polled_or_a_warning(
    observer: str, level: str
) -> None:
    found = list(inbox_on("cifs", Path("/shared"), observer))
    assert about("inbox events", found).level == level
    assert "10 s" in about("read leases", found).text


def test_little_space_is_a_warning() -> None:
    assert free_space(10**9 - 1, Path("/out")).level == "warning"
    assert free_space(10**9, Path("/out")).level == "ok"


# --------------------------------------------------------------------------- events


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    """Let no file be opened. inotify then fails as it does at its own limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_failed_watch_is_a_warning_and_polling_is_used(tmp_path: Path) -> None:
    found = watched(tmp_path)
    assert found.level == "warning"
    assert "polled instead" in found.text


def test_a_folder_can_be_watched(tmp_path: Path) -> None:
    assert watched(tmp_path).level == "ok"


def test_no_watch_is_tried_where_polling_is_set(project: Project) -> None:
    polled = storage.check_inotify(project("watch: {observer: poll}"), {})
    assert "every 5 s" in about("inotify", polled).text


# --------------------------------------------------------------------------- programs


def transform_of(settings: Settings) -> Finding:
    environ = settings.run_environment(os.environ)
    return about("transform", programs.check_transform(settings, environ))


def test_a_transform_is_found_in_the_project_root(project: Project, root: Path) -> None:
    (root / "science.py").write_text("def best(frame): return frame\n")
    assert transform_of(project("compute: {transform: 'science:best'}")).level == "ok"


def test_the_projects_own_transform_is_the_one_that_is_named(project: Project, root: Path) -> None:
    own = root / "flows" / "transforms.py"
    own.parent.mkdir()
    own.write_text("def transform(frame): return frame\n")
    found = transform_of(project())
    assert (found.level, found.text) == ("ok", f"transforms:transform is in {own}")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "No module named 'science'"),
        ("best = 1", "science:best: not a function"),
        ("", "has no attribute 'best'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def best(:", "SyntaxError"),
        ("import os; os._exit(3)", "exit code 3: no message"),
    ],
)
def test_a_transform_that_cannot_be_used_is_a_fault(
    project: Project, root: Path, code: str | None, said: str
) -> None:
    if code is not None:
        (root / "science.py").write_text(code)
    found = transform_of(project("compute: {transform: 'science:best'}"))
    assert found.level == "fault"
    assert said in found.text


HANGS = "import os, signal\nopen('pid', 'w').write(str(os.getpid()))\nsignal.pause()\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.exhaustive
def test_a_check_that_is_ended_ends_what_it_has_started(
    project: Project, root: Path, number: signal.Signals
) -> None:
    (root / "science.py").write_text(HANGS)
    settings = project("compute: {transform: 'science:best'}")
    before = sorted(root.rglob("*"))
    environ = {**os.environ, "DS_FLOW_CONFIG": str(settings.file)}
    checking = subprocess.Popen([DS_FLOW, "check"], env=environ, stdout=subprocess.DEVNULL)
    pid = root / "pid"
    until("it hangs", lambda: pid.exists() and pid.read_text(), while_lives=checking)

    checking.send_signal(number)

    assert checking.wait() == 128 + number
    hangs = Path("/proc", pid.read_text())
    until("it was ended", lambda: not hangs.exists())
    pid.unlink()
    assert [one for one in root.rglob("*") if one not in before and "pycache" not in str(one)] == []


def test_a_transform_sees_what_dotenv_gives_a_run(project: Project, root: Path) -> None:
    (root / "science.py").write_text("import os\nbest = os.environ['MODEL'].upper\n")
    (root / ".env").write_text("MODEL=x\n")
    assert transform_of(project("compute: {transform: 'science:best'}")).level == "ok"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"USER": "root", "METAFLOW_USER": "anna"}, "anna"),
        ({"USER": "ben", "SUDO_USER": "root"}, "ben"),
        ({"USER": "root"}, "the flow sets its own"),
    ],
)
def test_metaflow_takes_the_first_user_that_is_not_root(
    project: Project, environ: dict[str, str], said: str
) -> None:
    assert said in about("Metaflow user", programs.check_user(project(), environ)).text


def test_a_missing_bash_is_a_fault(project: Project, tmp_path: Path) -> None:
    found = about("bash", programs.check_bash(project(), {"PATH": str(tmp_path)}))
    assert found.level == "fault"


def flow_of(settings: Settings) -> Finding:
    return about("flow", programs.check_flow(settings, settings.run_environment(os.environ)))


BROKEN = {
    "METAFLOW_PROFILE=nobody": "METAFLOW_PROFILE",
    "METAFLOW_DECOSPECS=nowhere": "Unknown step decorator",
    "METAFLOW_DECOSPECS=kubernetes": "decorator requires --datastore",
    "PYTHONHOME=/nowhere": "exit code 1",
    "PYTHONWARNINGS=error": "Warning",
    "PATH=/nowhere": "No such file or directory: 'bash'",
}
"""Lines of `.env` that no run survives, each with a word of what is said of it."""


@pytest.mark.parametrize("has_store", [False, True])
@pytest.mark.parametrize("line", BROKEN)
def test_an_environment_in_which_no_run_begins_is_a_fault(
    project: Project, root: Path, line: str, *, has_store: bool
) -> None:
    if has_store:
        metaflow_store.store_folder(root).mkdir()
    (root / ".env").write_text(f"{line}\n")
    settings = project()

    found = about("flow", programs.check_flow(settings, settings.run_environment({})))

    assert found.level == "fault"
    assert BROKEN[line] in found.text


def test_a_metaflow_that_cannot_be_imported_is_a_fault(project: Project, root: Path) -> None:
    (root / "metaflow.py").write_text("raise ImportError('half an upgrade')\n")
    (root / ".env").write_text(f"PYTHONPATH={root}\n")

    found = flow_of(project())

    assert (found.level, found.text) == ("fault", "exit code 1: ImportError: half an upgrade")


def test_a_datastore_that_metaflow_cannot_read_is_a_fault(project: Project, root: Path) -> None:
    metaflow_store.store_folder(root).mkdir()
    (metaflow_store.store_folder(root) / "config.json").write_text("{")

    assert flow_of(project()).level == "fault"


def test_a_secret_of_a_project_is_not_shown_by_what_it_breaks(project: Project, root: Path) -> None:
    (root / ".env").write_text("METAFLOW_DECOSPECS=sesame-open\n")

    found = flow_of(project())

    assert "Unknown step decorator ***" in found.text


def test_a_flow_that_does_not_start_is_not_waited_for(
    project: Project, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "LIMIT_SECONDS", 0.5)
    (root / "metaflow.py").write_text("import time\ntime.sleep(1e6)\n")
    (root / ".env").write_text(f"PYTHONPATH={root}\n")

    found = flow_of(project())

    assert (found.level, found.text) == ("fault", "no answer in 0.5 s")


def test_a_folder_of_a_batch_that_refuses_this_user_is_a_fault(project: Project) -> None:
    with public_folder() as root:
        settings = replace(project(), root=root)
        work = root / "out" / ".work" / "0123456789" / "results"
        work.mkdir(parents=True)
        for folder in (root / "out", *work.parents[:2]):
            folder.chmod(0o777)
        with no_rights(work):
            found = about("rights", storage.check_folders(settings, {}))
    assert found.level == "fault"
    assert str(work) in found.text


def test_a_missing_analysis_program_is_a_fault(project: Project) -> None:
    made = project("compute: {stages: {analyze: {command: [no-such-program]}}}")
    assert Finding("fault", "analyze", "no program 'no-such-program' on PATH") in run_checks(
        made, os.environ
    )


@pytest.mark.parametrize("name", ["python", "python3"])
def test_the_python_of_an_analysis_is_named(project: Project, name: str) -> None:
    made = project(f"compute: {{stages: {{analyze: {{command: [{name}, mine.py]}}}}}}")
    named = Finding("ok", "analyze", f"runs {sys.executable}, this environment's Python")
    missing = Finding("fault", "analyze", f"{made.root}/mine.py does not exist")
    assert list(programs.check_analyze(made, {"PATH": "/nothing"})) == [named, missing]

    (made.root / "mine.py").touch()
    assert list(programs.check_analyze(made, {"PATH": "/nothing"})) == [named]


def test_an_analysis_program_of_the_project_is_found_from_any_folder(
    project: Project, tmp_path: Path
) -> None:
    made = project("compute: {stages: {analyze: {command: [./mine.sh]}}}")
    script = made.root / "mine.sh"
    for act, why in ((script.touch, "does not exist"), (str, "is not executable")):
        (found,) = programs.check_analyze(made, os.environ)
        assert (found.level, found.text) == ("fault", f"{script} {why}")
        act()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    with contextlib.chdir(tmp_path):
        (found,) = programs.check_analyze(made, os.environ)
    assert (found.level, found.text) == ("ok", f"runs {made.root / 'mine.sh'}")


def test_a_missing_alert_program_is_a_warning(project: Project) -> None:
    for program, level in (("sh", "ok"), ("no-such-program", "warning")):
        settings = project(f"alerts: {{command: [{program}]}}")
        assert about("alerts", programs.check_alerts(settings, os.environ)).level == level
    assert list(programs.check_alerts(project(), os.environ)) == []


def docker_says(project: Project, program: Path, script: str) -> Finding:
    """Check an engine whose command is this script."""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return about(
        "docker",
        backends.unreachable_backends(
            project(
                f"compute: {{executor: docker, docker_image: own, docker_command: {program}}}\n"
            ),
            os.environ,
        ),
    )


INSPECTED = '[{"Id": "sha256:1", "RepoDigests": []}]'


def test_an_engine_that_has_the_image_is_ok(project: Project, tmp_path: Path) -> None:
    found = docker_says(project, tmp_path / "engine", f"echo '{INSPECTED}'")
    assert (found.level, found.text) == ("ok", f"{tmp_path}/engine answers; images: own")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 'Cannot connect to the Docker daemon' >&2; exit 1",
            "Cannot connect to the Docker daemon; start it, or give this user access to it",
        ),
        (
            "echo 'permission denied while trying to connect' >&2; exit 1",
            "permission denied while trying to connect; start it, or give this user access to it",
        ),
        (
            "[ $1 = image ] && echo No such image: own >&2 || echo no host >&2; exit 1",
            "the image own is missing and cannot be pulled: no host; load it, or set another image",
        ),
        ("true", "its answer is not that of an engine: ''; start it"),
        ("echo 'Welcome!'", "its answer is not that of an engine: 'Welcome!'; start it"),
        ("echo '[]'", "its answer is not that of an engine: '[]'; start it"),
    ],
)
def test_an_unusable_engine_is_a_fault(
    project: Project, tmp_path: Path, script: str, said: str
) -> None:
    found = docker_says(project, tmp_path / "engine", script)
    assert found.level == "fault"
    assert said in found.text


def test_an_engine_that_does_not_answer_is_not_waited_for(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "ANSWER_SECONDS", 0.1)
    found = docker_says(project, tmp_path / "engine", "exec sleep 60")
    assert found.level == "fault"
    assert "image: no answer in 0.1 s" in found.text
