"""What of its caller's environment a run goes by: what it needs, and nothing that commands it."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT
from ds_flow.core.states import FileState
from ds_flow.ledger.rows import FileRow
from ds_flow.settings.load import load_settings
from ds_flow.work import fingerprint
from project import Project, flow, table
from samples import OTHER_BATCH

HOSTILE = {
    "METAFLOW_DATASTORE": "s3",
    "METAFLOW_DECOSPECS": "kubernetes",
    "METAFLOW_DEFAULT_ENVIRONMENT": "conda",
    "METAFLOW_ENVIRONMENT": "conda",
    "METAFLOW_METADATA": "service",
    "METAFLOW_PROFILE": "nobody",
    "METAFLOW_RUN_MAX_WORKERS": "none",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "error",
    "SHELLOPTS": "errexit:nounset",
    "BASHOPTS": "failglob:nullglob",
    "POSIXLY_CORRECT": "1",
    "GIT_DIR": "/nowhere",
    "GIT_WORK_TREE": "/nowhere",
    "DS_FLOW_ATTEMPT": "another/1",
    "DS_FLOW_JOB": "dsf-another-process-1",
}
"""Each of them kills every run, or lets the manifest say what is not so."""

DEFAULTS = {"METAFLOW_DEFAULT_DATASTORE": "s3", "METAFLOW_DEFAULT_ENVIRONMENT": "conda"}


def made_in(folder: Path) -> Project:
    """One file, and a caller whose environment and home are another program's."""
    made = Project(folder / "project")
    made.drop("student_a.csv", table("a"))
    defaults = folder / "home" / ".metaflowconfig" / "config.json"
    defaults.parent.mkdir(parents=True)
    defaults.write_text(json.dumps(DEFAULTS), encoding="ascii")
    made.environment |= {**HOSTILE, "HOME": str(folder / "home")}
    return made


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return made_in(tmp_path)


def head() -> str:
    """The checkout's commit."""
    asked = ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


UNKNOWN = ("BASH_ENV", "BASH_FUNC_mv%%", "LANG", "LC_ALL", "LD_PRELOAD", "LSB_JOBID", "PYTHONPATH")
NEEDED = ("METAFLOW_USER", "HOME", "LSF_ENVDIR", "DOCKER_HOST", "https_proxy", "PROCESS_TAG")


@pytest.mark.parametrize("name", [*HOSTILE, *UNKNOWN, "METAFLOW_HOME", "TZ", "NOTIFY_SOCKET"])
def test_a_run_inherits_nothing_that_it_does_not_need(project: Project, name: str) -> None:
    project.configure(run={"inherit": []})

    found = load_settings(project.config, {}).run_environment({name: "x", "PATH": "/bin"})

    assert found.get(name) != "x"
    assert found["PATH"] == "/bin"


@pytest.mark.parametrize("name", NEEDED)
def test_a_run_inherits_what_it_and_the_backends_need(project: Project, name: str) -> None:
    assert load_settings(project.config, {}).run_environment({name: "x"})[name] == "x"


def test_a_run_inherits_what_the_settings_name(project: Project) -> None:
    project.configure(run={"inherit": ["LM_LICENSE_FILE", "MODULE*", "*_JOB"]})
    caller = dict.fromkeys(("LM_LICENSE_FILE", "MODULEPATH", "MODULE", "OTHER", "DS_FLOW_JOB"), "x")

    found = load_settings(project.config, {}).run_environment(caller)

    assert {name for name in caller if name in found} == {"LM_LICENSE_FILE", "MODULEPATH", "MODULE"}


def test_a_run_of_a_caller_without_variables_finds_programs_and_speaks_utf8(
    project: Project,
) -> None:
    found = load_settings(project.config, {}).run_environment({})

    assert "/usr/bin" in found["PATH"].split(":")
    assert (found["LANG"], found["PYTHONUTF8"]) == ("C.UTF-8", "1")


def test_what_a_project_gives_its_runs_reaches_them_whatever_its_name(project: Project) -> None:
    (project.root / ".env").write_text("GIT_SSH_COMMAND=ssh -v\n", encoding="ascii")

    chosen = load_settings(project.config, {})

    assert chosen.run_environment({})["GIT_SSH_COMMAND"] == "ssh -v"


DOTENV = """\
METAFLOW_DATASTORE=s3
METAFLOW_METADATA=service
METAFLOW_ENVIRONMENT=conda
MY_TERM=spring
"""
SEES = """
import os
import tempfile
def transform(frame):
    return frame.assign(term=os.environ["MY_TERM"], scratch=tempfile.gettempdir())
"""


@pytest.fixture(scope="module", params=["by the daemon", "by hand"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One run for a caller, and with a .env, that would lead it astray."""
    made = made_in(tmp_path_factory.mktemp("ran"))
    (made.root / ".env").write_text(DOTENV, encoding="ascii")
    (made.root / "sees.py").write_text(SEES)
    made.configure(compute={"transform": "sees:transform"})
    made.environment["MY_TERM"] = "autumn"
    made.environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(made.root / "missing"))

    done = flow(made, "run") if request.param == "by hand" else made.once()

    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.exhaustive
def test_a_run_works_in_any_callers_environment(ran: Project) -> None:
    (manifest,) = ran.manifests()
    assert (manifest.attempt, manifest.git_commit) == (1, head())


def test_metaflow_keeps_its_records_here_whatever_a_project_gives_its_runs(ran: Project) -> None:
    (manifest,) = ran.manifests()
    assert (ran.root / ".metaflow" / manifest.pathspec).is_dir()


def test_the_environment_overrides_a_variable_of_a_project_in_every_run(ran: Project) -> None:
    assert {row["term"] for row in ran.combined()} == {"autumn"}


def test_scratch_files_lie_in_the_work_directory_and_go_with_it(ran: Project) -> None:
    assert {row["scratch"] for row in ran.combined()} == {str(scratch_of(ran))}
    ran.ds_flow("status")  # takes in what was run by hand
    assert ran.leftovers() == []


def test_the_commit_is_the_checkouts_whatever_repository_the_caller_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = head()
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))

    assert fingerprint.git_commit() == own


@pytest.mark.parametrize("state", ["a branch", "detached", "packed", "no commit"])
def test_the_commit_is_read_without_git_where_it_is_one_file_away(
    tmp_path: Path, state: str
) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", *who, "-C", str(tmp_path), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    if state != "no commit":
        git("commit", "--quiet", "--allow-empty", "--message", "one")
    if state == "detached":
        git("checkout", "--quiet", "--detach")
    if state == "packed":
        git("pack-refs", "--all")

    is_near = state in {"a branch", "detached"}
    assert fingerprint._named_commit(tmp_path / ".git") == (
        git("rev-parse", "HEAD") if is_near else ""
    )


@pytest.mark.parametrize("is_own", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_the_manifest_and_show_name_the_file_of_the_transform(
    project: Project, *, is_own: bool
) -> None:
    project.configure(compute={"transform": "transforms:transform"})
    shipped = Path("flows", "transforms.py")
    if is_own:
        (project.root / "flows").mkdir()
        (project.root / shipped).write_text("def transform(frame): return frame\n")

    done = project.once()

    assert done.returncode == 0, done.stderr
    (manifest,) = project.manifests()
    used = str(shipped if is_own else CHECKOUT / shipped)
    assert manifest.transform == used
    assert f"transform             {used}\n" in project.ds_flow("show", manifest.run_id).stdout


def scratch_of(project: Project) -> Path:
    """The only batch's folder for scratch files."""
    (batch,) = {manifest.batch for manifest in project.manifests()}
    return project.out / ".work" / batch / "tmp"


# --------------------------------------------------------------------------- one batch, any caller

CURIOUS = """
import locale, os, sys, time
from ds_flow.core.environment import INHERITED
def transform(frame):
    return frame.assign(
        names=sys.getfilesystemencoding(),
        text=locale.getpreferredencoding(),
        zone=time.strftime("%Z"),
        language=os.environ.get("LC_ALL", os.environ.get("LANG")),
        flags=str(sys.flags),
        known=",".join(sorted(name for name in os.environ if not INHERITED.fullmatch(name))),
    )
"""
"""Puts into the outputs what most transforms ask for without a word: locale, time zone, flags."""

ANALYSIS = 'cut -d , -f 2 "$1" | sort | cksum; wc -m <"$1"; date +%Z; locale charmap; echo $-'

ASCII = ("LC_ALL=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0")
EMPTY = ("-i", f"PATH={os.environ['PATH']}")
CALLERS: dict[str, tuple[str, ...]] = {
    "nothing special": (),
    "env -i": ("-i",),
    "env -i with PATH": EMPTY,
    "cron": ("-i", "PATH=/usr/bin:/bin", "HOME=/root", "SHELL=/bin/sh", "LOGNAME=root"),
    "ascii only": ASCII,
    "C": (*EMPTY, "LC_ALL=C"),
    "C.UTF-8": ("LC_ALL=C.UTF-8",),
    "an unknown locale": ("LC_ALL=xx_YY.KOI8-R", "LANGUAGE=xx"),
    "ascii output": ("PYTHONIOENCODING=ascii:strict",),
    "TZ=UTC0": ("TZ=UTC0",),
    "TZ in Kathmandu": ("TZ=Asia/Kathmandu",),
    "TZ nowhere": ("TZ=:nowhere",),
    "metaflow on a cluster": tuple(
        f"METAFLOW_{name}={value}"
        for name, value in {
            "DATASTORE": "s3",
            "METADATA": "service",
            "ENVIRONMENT": "conda",
            "DEFAULT_DATASTORE": "s3",
            "PROFILE": "nobody",
            "DECOSPECS": "kubernetes",
        }.items()
    ),
    "PYTHONSAFEPATH": ("PYTHONSAFEPATH=1", "PYTHONDONTWRITEBYTECODE=1"),
    "PYTHONWARNINGS": ("PYTHONWARNINGS=error",),
    "PYTHONOPTIMIZE": ("PYTHONOPTIMIZE=2", "PYTHONHASHSEED=7", "PYTHONDEVMODE=1"),
    "bash options": ("SHELLOPTS=errexit:nounset:xtrace", "BASHOPTS=failglob", "POSIXLY_CORRECT=1"),
    "bash functions": ("BASH_FUNC_mv%%=() { false; }", "BASH_FUNC_sort%%=() { echo no; }"),
    "a start-up file of bash": (
        "BASH_ENV=/nowhere/exit",
        "ENV=/nowhere",
        "CDPATH=/",
    ),
    "another repository": ("GIT_DIR=/nowhere", "GIT_WORK_TREE=/nowhere", "GIT_CONFIG=/nowhere"),
    "a job of another project": (
        *(f"DS_FLOW_ATTEMPT={OTHER_BATCH}/1", f"DS_FLOW_JOB=dsf-{OTHER_BATCH}-process-1"),
        *("DS_FLOW_GIVEN=PATH,HOME", "DS_FLOW_MASK=PATH", "LSB_JOBID=7", "LSB_JOBINDEX=3"),
    ),
    "no place for scratch": ("TMPDIR=/nowhere", "TEMP=/nowhere", "TMP=/nowhere"),
    "no home": ("HOME=/nowhere", "XDG_CONFIG_HOME=/nowhere", "XDG_CACHE_HOME=/nowhere"),
    "odd tools": ("GREP_OPTIONS=-v", "BLOCKSIZE=1", "TIME_STYLE=x", "LS_COLORS=x", "COLUMNS=3"),
    "threads": ("OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MALLOC_ARENA_MAX=1"),
}
ALL_AT_ONCE = tuple(setting for given in CALLERS.values() if "-i" not in given for setting in given)
LOGIN = ("bash", "--login", "-c", 'exec "$@"', "bash")


def world(root: Path) -> Project:
    """The batch that all callers have processed."""
    made = Project(root)
    made.environment = {}
    (root / ".env").write_text("PROCESS_TAG=spring\n", encoding="ascii")
    (root / "curious.py").write_text(CURIOUS)
    analyze = {"command": ["bash", "-c", ANALYSIS, "bash"]}
    made.configure(compute={"transform": "curious:transform", "stages": {"analyze": analyze}})
    for name in ("student_a.csv", "student_Zoë 学.csv", "student_\udceb.csv"):
        made.drop(name, table(str(len(name)), town="Zürich"))
    return made


def published(project: Project, prefix: tuple[str, ...]) -> dict[str, str]:
    """What `once` publishes for a caller: each file, without time and Run ID."""
    project.prefix = prefix
    done = project.once()
    assert done.returncode == 1, done.stderr  # one name is not UTF-8
    assert project.leftovers() == []
    (manifest,) = project.manifests()
    own = {manifest.run_id: "RUN", manifest.batch: "BATCH", str(project.root): "ROOT"}
    found = {}
    for name in sorted(project.names()):
        text = f"{name}\n{(project.out / name).read_text(encoding='utf-8')}"
        for mine, common in own.items():
            text = text.replace(mine, common)
        first, _, rest = VARYING.sub("", text).partition("\n")
        found[first] = "\n".join(sorted(rest.splitlines()))
    found["ledger"] = repr(sorted((row.path, row.state) for row in known(project)))
    return found


VARYING = re.compile(
    r'"(sha256|user|key|native_id|git_commit)": "[^"]*"|[-0-9]{10}T[0-9:.]{8,}(\+00:00|Z)'
    r'|"name": "processed_at"[^}]*'  # in a profile: one or two distinct times
)


def known(project: Project) -> list[FileRow]:
    with project.reading() as read:
        return [row for state in FileState for row in read.files_in(state)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return world(tmp_path_factory.mktemp("plain") / "project")


@pytest.fixture(scope="module")
def expected(plain: Project) -> dict[str, str]:
    """What is published for a caller with a plain environment."""
    caller = ("env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/", "LANG=C.UTF-8")
    return published(plain, (*caller, f"DS_FLOW_CONFIG={plain.config}"))


@pytest.mark.parametrize(
    "caller",
    [
        *(
            pytest.param(given, id=name, marks=pytest.mark.exhaustive)
            for name, given in CALLERS.items()
        ),
        pytest.param(ALL_AT_ONCE, id="all at once"),
        pytest.param((*EMPTY, *ASCII), id="none, in ascii"),
    ],
)
def test_the_same_is_published_whoever_calls(
    expected: dict[str, str], tmp_path: Path, caller: tuple[str, ...]
) -> None:
    made = world(tmp_path / "project")

    assert published(made, ("env", *caller, f"DS_FLOW_CONFIG={made.config}")) == expected


@pytest.mark.exhaustive
def test_the_same_is_published_from_a_login_shell_of_another_user(
    expected: dict[str, str], tmp_path: Path
) -> None:
    other = ("unshare", "--user", "--map-user=1234", "--map-group=1234")
    if subprocess.run([*other, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no user namespace")
    made = world(tmp_path / "project")
    own = ("env", "-i", "HOME=/nonexistent", "USER=student", f"DS_FLOW_CONFIG={made.config}")

    assert published(made, (*other, *own, *LOGIN)) == expected


@pytest.mark.usefixtures("expected")
def test_a_file_is_the_same_one_in_every_locale(plain: Project) -> None:
    plain.prefix = ("env", *ASCII)
    again = plain.once()

    assert (again.returncode, again.stdout) == (0, "nothing new\n")
    assert "data/student_Zoë 学.csv" in plain.ds_flow("files").stdout


ONE_CLOSED = [pytest.param(one, marks=pytest.mark.exhaustive) for one in ("<&-", ">&-", "2>&-")]


@pytest.mark.parametrize("closed", [*ONE_CLOSED, "<&- >&- 2>&-"])
@pytest.mark.exhaustive
def test_a_closed_standard_stream_stops_no_command(project: Project, closed: str) -> None:
    project.prefix = ("bash", "-c", f'exec "$@" {closed}', "bash")

    done = project.once()

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(project.manifests()) == 1
