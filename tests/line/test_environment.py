"""What of its caller's environment a run goes by: what it needs, and nothing that commands it."""

import json
import subprocess
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT
from ds_flow.settings.load import load_settings
from ds_flow.work import directory
from project import Project, flow, table

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


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One file, and a caller whose environment and home are another program's."""
    made = Project(tmp_path / "project")
    made.drop("student_a.csv", table("a"))
    defaults = tmp_path / "home" / ".metaflowconfig" / "config.json"
    defaults.parent.mkdir(parents=True)
    defaults.write_text(json.dumps(DEFAULTS), encoding="ascii")
    made.environment |= {**HOSTILE, "HOME": str(tmp_path / "home")}
    return made


def head() -> str:
    """The checkout's commit."""
    asked = ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", [*HOSTILE, "PYTHONINSPECT", "NOTIFY_SOCKET", "METAFLOW_HOME"])
def test_a_run_inherits_nothing_that_commands_it(project: Project, name: str) -> None:
    found = load_settings(project.config, {}).run_environment({name: "x", "PATH": "/bin"})

    assert found.get(name) != "x"
    assert found["PATH"] == "/bin"


@pytest.mark.parametrize("name", ["METAFLOW_USER", "PYTHONPATH", "LANG", "LSF_ENVDIR"])
def test_a_run_inherits_everything_else(project: Project, name: str) -> None:
    assert load_settings(project.config, {}).run_environment({name: "x"})[name] == "x"


def test_what_a_project_gives_its_runs_reaches_them_whatever_its_name(project: Project) -> None:
    (project.root / ".env").write_text("GIT_SSH_COMMAND=ssh -v\n", encoding="ascii")

    chosen = load_settings(project.config, {})

    assert chosen.run_environment({})["GIT_SSH_COMMAND"] == "ssh -v"


def test_a_run_of_the_daemon_works_in_any_callers_environment(project: Project) -> None:
    done = project.once()

    assert done.returncode == 0, done.stderr
    (manifest,) = project.manifests()
    assert (manifest.attempt, manifest.git_commit) == (1, head())


def test_a_run_by_hand_works_in_any_callers_environment(project: Project) -> None:
    done = flow(project, "run")

    assert done.returncode == 0, done.stderr
    (manifest,) = project.manifests()
    assert (manifest.attempt, manifest.git_commit) == (1, head())


def test_the_commit_is_the_checkouts_whatever_repository_the_caller_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = head()
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))

    assert directory.git_commit() == own


SCRATCH = """
import tempfile
def transform(frame):
    return frame.assign(scratch=tempfile.gettempdir())
"""


def scratch_of(project: Project) -> Path:
    """The only batch's folder for scratch files."""
    (batch,) = {manifest.batch for manifest in project.manifests()}
    return project.out / ".work" / batch / "tmp"


@pytest.mark.parametrize("by_hand", [False, True])
def test_scratch_files_lie_in_the_work_directory_and_go_with_it(
    project: Project, tmp_path: Path, *, by_hand: bool
) -> None:
    (project.root / "scratch.py").write_text(SCRATCH)
    project.configure(compute={"transform": "scratch:transform"})
    project.environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tmp_path / "missing"))

    done = flow(project, "run") if by_hand else project.once()

    assert done.returncode == 0, done.stderr
    assert {row["scratch"] for row in project.combined()} == {str(scratch_of(project))}
    project.ds_flow("status")  # takes in what was run by hand
    assert project.leftovers() == []
