"""A dropper's names: however many there are, they hide nothing of what others did."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_project import Project
from clock import MovedClock
from ds_flow.inbox.admission import Admission
from ds_flow.inbox.pattern import Pattern
from ds_flow.inbox.watcher import Inbox
from ds_flow.system import set_up_logging
from ds_flow.system.wake import Wake

MANY = 3000
log = logging.getLogger("ds_flow.sample")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


@pytest.fixture
def logged(project: Project) -> Path:
    """A log that three hundred kilobytes rotate away."""
    file = project.root / "log" / "ds-flow.log"
    set_up_logging(level="INFO", json_lines=False, secrets=(), file=file, max_bytes=100_000, keep=2)
    return file


@pytest.fixture
def admission(project: Project, clock: MovedClock) -> Admission:
    parsed = Pattern.parse(str(project.root / "data/**/student_*.csv"), project.root)
    inbox = Inbox(parsed, Wake(), "poll")
    return Admission(project.settings, project.ledger, inbox, clock, lambda: None)


def work_off(admission: Admission, clock: MovedClock) -> None:
    for _ in range(3):
        clock.elapsed_s += 600
        admission.admit()
        while admission.turns:
            admission.admit()


def link(folder: Path, number: int) -> None:
    (folder / f"student_{number:0100}.csv").symlink_to(f"/elsewhere/{number}")


def odd(folder: Path, number: int) -> None:
    (folder / f"student_{number:0100}\n.csv").touch()


def small(folder: Path, number: int) -> None:
    (folder / f"student_{number:0100}.csv").write_text(f"id\n{number}\n")


def unlike(folder: Path, number: int) -> None:
    """A name that differs from the others in case alone, or in its form in Unicode."""
    letters = "".join("aA"[number >> bit & 1] for bit in range(12))
    (folder / f"student_{'x' * 100}{letters}{('é', 'é')[number % 2]}.csv").write_text("id\n1\n")


def pipe(folder: Path, number: int) -> None:
    os.mkfifo(folder / f"student_{number:0100}.csv")


@pytest.mark.parametrize("drop", [link, odd, small, unlike, pipe], ids=lambda drop: drop.__name__)
@pytest.mark.exhaustive
def test_very_many_names_rotate_nothing_away_and_are_counted(
    admission: Admission, project: Project, clock: MovedClock, logged: Path, drop: object
) -> None:
    assert callable(drop)
    log.info("run.succeeded", extra={"batch": "of somebody else"})
    for number in range(MANY):
        drop(project.root / "data", number)

    work_off(admission, clock)

    said = "".join(path.read_text() for path in logged.parent.iterdir())
    assert "of somebody else" in said
    assert 150 < said.count("student_") < 500
    assert "200 files are named: further ones are counted for an hour" in said
    known = project.ledger.read.total()
    assert known == (0 if drop in {link, pipe} else MANY)
