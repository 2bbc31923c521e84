"""steps/report_card: a run's Metaflow card shows its report, and no card ever harms a run."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from project import Project, flow, table

HOSTILE = "student_<script>alert(1)<b>.csv"
CARD_OF = """
import json, sys
from metaflow import Run, namespace
from metaflow.cards import get_cards
namespace(None)
task = Run(f"StudentDataFlow/{sys.argv[1]}")["end"].task
print(json.dumps([{"type": one.type, "html": one.get()} for one in get_cards(task)]))
"""


def project_of(root: Path, *, fork: bool = True, card: bool = True) -> Project:
    return Project(root, report={"card": card}, run={"fork": fork})


def cards(project: Project, run_id: str) -> list[dict[str, Any]]:
    """The cards of the step `end`, as Metaflow's client reads them in the project's folder."""
    root = {"METAFLOW_DATASTORE_SYSROOT_LOCAL": str(project.root), "METAFLOW_USER": "someone"}
    done = subprocess.run(
        [sys.executable, "-c", CARD_OF, run_id],
        cwd=project.root,
        env={**project.environ(), **root},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


NOT_THE_SAME = r"<style>.*?</style>|>Made by.*?</p>|<dt>(started|took)</dt><dd>.*?</dd>"
"""The ledger's times are the daemon's."""


def words_of(html: str) -> str:
    body = re.sub(NOT_THE_SAME, "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module", params=[True, False], ids=["forks", "programs"])
def carded(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Project]:
    """A run of a good file, a hostile name, a hostile cell and a bad file."""
    made = project_of(tmp_path_factory.mktemp("carded") / "project", fork=request.param)
    made.drop("student_a.csv", table("a"))
    made.drop(HOSTILE, "id,note\n1,<img src=x onerror=alert(2)>\n")
    made.drop("student_bad.csv", "id,score\n1,2\n3\n")
    made.once()
    yield made
    made.end_everything()


@pytest.fixture
def html(carded: Project) -> str:
    (manifest,) = carded.manifests()
    (card,) = cards(carded, manifest.run_id)
    assert card["type"] == "ds_flow_report"
    return str(card["html"])


@pytest.mark.exhaustive
def test_the_card_of_a_run_names_its_files_and_what_was_set_aside(html: str) -> None:
    words = words_of(html)
    for one in (
        "data/student_a.csv",
        f"data/{HOSTILE}",
        "data/student_bad.csv",
        "1 file set aside",
    ):
        assert one in words


def test_nothing_of_a_stranger_runs_in_a_card_and_nothing_of_ours(html: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;b&gt;" in html
    assert "&lt;img src=x onerror=alert(2)&gt;" in html
    assert not re.search(r"<(script|img|link|iframe|object|a)\b", html)
    assert "Content-Security-Policy" in html


def test_the_card_shows_what_the_command_shows(carded: Project, html: str) -> None:
    (manifest,) = carded.manifests()
    assert words_of(html) == words_of(carded.ds_flow("report", manifest.run_id).stdout)


def test_only_the_last_step_has_a_card(carded: Project) -> None:
    (card,) = carded.root.glob(".metaflow/mf.cards/**/*.html")
    assert card.parent.parent.parent.parent.name == "end"


def test_a_run_has_no_card_unless_the_settings_say_so(tmp_path: Path) -> None:
    made = project_of(tmp_path / "project", card=False)
    made.drop("student_a.csv", table("a"))
    assert made.once().returncode == 0
    assert not (made.root / ".metaflow" / "mf.cards").exists()


def test_a_run_that_publishes_no_file_has_a_card_that_says_why(tmp_path: Path) -> None:
    made = Project(tmp_path / "project", report={"card": True}, profile=False)
    made.drop("student_bad.csv", "id,score\n1,2\n3\n")
    made.once()
    (manifest,) = made.manifests()
    (card,) = cards(made, manifest.run_id)
    assert "line 3: " in words_of(card["html"])


@pytest.mark.parametrize("fork", [True, False], ids=["forks", "programs"])
@pytest.mark.exhaustive
def test_a_card_that_cannot_be_written_fails_no_run(tmp_path: Path, *, fork: bool) -> None:
    made = project_of(tmp_path / "project", fork=fork)
    (made.root / ".metaflow").mkdir()
    (made.root / ".metaflow" / "mf.cards").write_text("in the way")
    made.drop("student_a.csv", table("a"))
    assert made.once().returncode == 0
    (run,) = made.runs()
    assert run.state == "succeeded"
    assert "Card render failed" in made.ds_flow("logs", str(run.run_id)).stdout


@pytest.mark.exhaustive
def test_a_run_by_hand_has_a_card_too(tmp_path: Path) -> None:
    made = project_of(tmp_path / "project")
    made.drop("student_a.csv", table("a"))
    done = flow(made, "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (manifest,) = made.manifests()
    assert "data/student_a.csv" in cards(made, manifest.run_id)[0]["html"]
