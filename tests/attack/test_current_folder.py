"""Commands typed in the inbox: what a dropper has put there is neither run nor obeyed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds_flow.cli.main import COMMANDS
from ds_flow.core.environment import FORK
from ds_flow.core.program import CHECKOUT, FLOW
from project import Project, ids, table
from samples import BATCH

MODULES = (
    *sorted(sys.stdlib_module_names),
    *("ds_flow", "metaflow", "metaflow_extensions", "pandas", "numpy", "pyarrow", "yaml"),
    *("pydantic", "pydantic_core", "dotenv", "watchdog", "steps", "csv_io", "transforms", "gated"),
    *("student_flow", "sitecustomize", "usercustomize"),
)
PROGRAMS = (
    "bash",
    "sh",
    "env",
    "git",
    "tee",
    "python",
    "python3",
    "uv",
    "mv",
    "awk",
    "sort",
    "cat",
)

# What each command is given; a new command needs a row.
GIVEN: dict[str, list[list[str]]] = {
    "serve": [],  # run beside this, to its end
    "once": [[]],
    "status": [[], ["--json"]],
    "files": [[]],
    "runs": [[]],
    "show": [["RUN"]],
    "explain": [["student_a.csv"]],
    "logs": [["RUN"]],
    "retry": [[BATCH]],
    "rerun": [["--all"], ["--analyze", "RUN"]],
    "schedule": [[]],
    "release": [["student_a.csv"]],
    "cancel": [[BATCH]],
    "manifest": [[], ["--csv"], ["--datapackage", "RUN"]],
    "lineage": [["student_a.csv"]],
    "metaflow": [[]],
    "metrics": [[]],
    "report": [["RUN", "--output", "../run.html"], ["--since", "24h", "--output", "../day.html"]],
    "web": [[]],  # ends at once: it cannot listen there
    "verify": [[]],
    "gc": [[]],
    "backup": [["../copy.db"]],
    "detach": [[]],
    "check": [[], ["--schema"]],
    "services": [[], ["--json"]],
    "pause": [["--until", "1m"]],
    "resume": [[]],
    "deliver": [["RUN"]],
    "try": [["student_a.csv"]],
    "help": [[]],
    "init": [["../made"]],
    "completion": [["bash"], ["zsh"]],
}
BY_HAND = ["show", "check", "run", "logs RUN/start", "dump RUN/start"]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project with one file, whose inbox is full of traps, and where every command is typed."""
    made = Project(tmp_path / "project")
    made.environment[FORK] = "false"  # each task starts Python anew
    made.environment["DS_FLOW_WEB__LISTEN"] = "/nowhere/page.sock"
    set_traps(made.inbox, tmp_path / "pwned")
    shutil.copytree(made.inbox / ".metaflow", tmp_path / ".metaflow")  # all above count, too
    made.drop("student_a.csv", table("a"))
    made.prefix = ("env", f"--chdir={made.inbox}")
    yield made
    made.end_everything()


def set_traps(folder: Path, pwned: Path) -> None:
    """Put there whatever a program may look for in the folder that it is started in."""
    code = f"open({str(pwned)!r}, 'a').write(__file__ + chr(10))\n"
    script = f"#!/bin/sh\necho $0 >>{pwned}\n"
    command = f'["sh", "-c", "echo settings >>{pwned}"]'
    variables = json.dumps({"PYTHONPATH": str(folder)}, separators=(",", ":"))
    metaflow = json.dumps({"METAFLOW_DEFAULT_DECOSPECS": f"environment:vars={variables}"})
    texts = {
        **{f"{name}.py": code for name in MODULES},
        **{f"{name}/__init__.py": code for name in ("ds_flow", "metaflow", "metaflow_extensions")},
        **dict.fromkeys(PROGRAMS, script),
        ".env": f"DS_FLOW_COMPUTE__STAGES__ANALYZE__COMMAND={command}\n",
        "config/settings.yaml": f"project_name: no\nalerts: {{command: {command}}}\n",
        "settings.yaml": f"project_name: no\nalerts: {{command: {command}}}\n",
        "pyproject.toml": (
            '[project]\nname = "trap"\nversion = "1"\n[build-system]\nrequires = []\n'
            'build-backend = "gated"\nbackend-path = ["."]\n'
        ),
        "uv.toml": "no toml\n",
        ".python-version": "2.7\n",
        "pyvenv.cfg": "home = .\n",
        "flows/student_flow.py": code,
        ".metaflow/config.json": metaflow,
        ".metaflowconfig/config.json": metaflow,
        ".git/config": f"[core]\n\tfsmonitor = {script}\n\tpager = echo git >>{pwned}\n",
        ".git/HEAD": "ref: refs/heads/main\n",
        ".git/objects/.keep": "",
        ".git/refs/heads/.keep": "",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)


def listing(project: Project) -> list[Path]:
    return sorted(project.inbox.rglob("*"))


def sprung(project: Project) -> str:
    pwned = project.root.parent / "pwned"
    return pwned.read_text() if pwned.exists() else ""


def test_the_traps_work(project: Project) -> None:
    """Else the other tests would prove nothing."""
    for words in ([sys.executable, "-c", "import json"], ["./bash"], ["sh", "./git"]):
        subprocess.run(words, cwd=project.inbox, check=False, capture_output=True)

    assert [Path(line).name for line in sprung(project).splitlines()] == ["json.py", "bash", "git"]


@pytest.mark.exhaustive
def test_no_command_obeys_what_lies_in_the_current_folder(project: Project) -> None:
    before = listing(project)
    assert set(GIVEN) == set(COMMANDS)
    assert project.once().returncode == 0
    run = str(project.runs()[0].run_id)

    for name, given in GIVEN.items():
        for words in given:
            done = project.ds_flow(name, *(run if word == "RUN" else word for word in words))
            assert "Traceback" not in done.stderr, name

    assert sprung(project) == ""
    assert listing(project) == before
    assert set(project.published_ids()) == set(ids("a"))


@pytest.mark.exhaustive
def test_the_daemon_obeys_nothing_in_the_folder_that_it_is_started_in(project: Project) -> None:
    before = listing(project)

    project.start()
    project.wait_processed("student_a.csv")
    project.ds_flow("rerun", "--all")
    project.stop()

    assert sprung(project) == ""
    assert listing(project) == before


@pytest.mark.exhaustive
def test_no_command_of_the_flow_obeys_what_lies_in_the_current_folder(project: Project) -> None:
    before = listing(project)
    assert project.once().returncode == 0
    run = str(project.runs()[0].run_id)

    for words in (*BY_HAND, f"resume --origin-run-id {run}"):
        subprocess.run(
            [sys.executable, str(FLOW), *words.replace("RUN", run).split()],
            cwd=project.inbox,
            env=project.environ(),
            check=True,
        )

    assert sprung(project) == ""
    assert listing(project) == before


def test_no_document_recommends_what_obeys_the_current_folder() -> None:
    documents = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md"), CHECKOUT / "Makefile"]
    found = [path.name for path in documents if "\n    uv run " in path.read_text()]

    assert found == []
