"""Make the leftovers beside this script, with the code of commit a353b43.

That is the last version that published by intents. In a checkout of it, after `make setup`:

    PYTHONPATH=tests .venv/bin/python THIS_SCRIPT

Every path in the leftovers begins with ROOT; `test_leftovers.py` writes its own root instead.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from chaos.crashpoints import work
from project import Project, until

HERE = Path(__file__).parent
ROOT = Path("/tmp/ds-flow-leftovers/project")  # noqa: S108 - it is written into the leftovers
KEPT = ("data", "out", "log")


def dies_at(step: str) -> Callable[[Project], None]:
    """Everything is killed before one durable step."""

    def make(project: Project) -> None:
        project.drop("student_a.csv", "id,x\n1,a\n2,b\n")
        project.drop("student_b.csv", "id,y\n3,c\n")
        work(project, project.root / "steps", step, everyone=True)
        assert (project.root / "steps.died").exists(), (project.root / "steps").read_text()

    return make


def fails(attempts: int, state: str) -> Callable[[Project], None]:
    """Every attempt fails, and the daemon is killed once the batch is in a state."""

    def make(project: Project) -> None:
        project.configure(run={"attempts": attempts, "retry_first_seconds": 600})
        project.drop("student_a.csv", "id,raise\n1,a\n2,b\n")
        project.start()
        until(f"the batch is {state}", lambda: project.status()["batches"].get(state))
        project.end_everything()

    return make


CASES = {
    "mid_run": dies_at("metaflow spawn python #3"),
    "mid_publication": dies_at("end link /out/processed_student_b_RUN.csv #1"),
    "committed": dies_at("end link /out/manifest_RUN.json #1"),
    "dead": fails(1, "dead"),
    "retrying": fails(3, "retrying"),
}


def main(names: list[str]) -> None:
    for name in names or list(CASES):
        shutil.rmtree(ROOT.parent, ignore_errors=True)
        ROOT.parent.mkdir()
        project = Project(ROOT)
        try:
            CASES[name](project)
        finally:
            project.end_everything()
        command = ["tar", "--create", "--gzip", f"--file={HERE / name}.tar.gz"]
        subprocess.run([*command, f"--directory={ROOT}", *KEPT], check=True)
    shutil.rmtree(ROOT.parent)


if __name__ == "__main__":
    main(sys.argv[1:])
