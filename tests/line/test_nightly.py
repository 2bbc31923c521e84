"""The nightly rerun with a real daemon and real runs."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ds_flow.core.manifest import Manifest
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.schedules import FireRow
from ds_flow.work.published import read_manifest
from project import Project, table, until

SCHEDULES = [
    {"name": "blind", "cron": "0 2 * * *"},
    {"name": "nightly", "cron": "0 2 * * *", "skip_unchanged": True},
]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project", schedule=SCHEDULES)
    yield made
    made.end_everything()


def last(project: Project, name: str) -> FireRow | None:
    with closing(Ledger(project.out / "ledger.db")) as ledger:
        return ledger.schedules.last(name)


def fire(project: Project, name: str) -> dict[str, Any]:
    """Let the daemon fire a schedule, and wait for what it does."""
    before = last(project, name)
    assert project.ds_flow("schedule", "run", name).returncode == 0
    is_fired = f"schedule {name} was fired"
    until(is_fired, lambda: last(project, name) != before and project.is_quiet())
    found = json.loads(project.ds_flow("schedule", "--json").stdout)["schedules"]
    return next(one for one in found if one["name"] == name)


def manifest(project: Project, fired: dict[str, Any]) -> Manifest:
    return read_manifest(project.out / f"manifest_{fired['run_id']}.json")


def test_a_rerun_says_what_has_changed_and_is_spared_where_nothing_has(
    project: Project,
) -> None:
    for name in ("a", "b"):
        project.drop(f"student_{name}.csv", table(name))
    project.start()
    project.wait_processed("student_a.csv", "student_b.csv")

    first = manifest(project, fire(project, "blind"))
    assert ([item.path for item in first.inputs], first.trigger, first.selection) == (
        ["data/student_a.csv", "data/student_b.csv"],
        "schedule",
        "all",
    )
    assert {out.compared for out in first.outputs} == {""}

    second = manifest(project, fire(project, "blind"))
    assert second.compared_with == first.run_id
    assert {out.compared for out in second.outputs} == {"identical"}
    assert {out.sha256 for out in second.outputs}.isdisjoint(out.sha256 for out in first.outputs)

    spared = fire(project, "nightly")
    assert (spared["outcome"], spared["run_id"]) == ("verified", second.run_id)
    assert project.ds_flow("verify").returncode == 0
    assert project.stop() == 0
    assert (project.strays(), project.leftovers()) == (set(), [])
