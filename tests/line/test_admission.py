"""The front of the line over a moved clock: how often it looks, and what it says how often."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cli_project import Project
from clock import MovedClock
from ds_flow.inbox.admission import Admission
from ds_flow.inbox.scan import Pattern
from ds_flow.inbox.watcher import Inbox
from ds_flow.system.wake import Wake

LEAST_S = 0.01  # between two turns of the engine

Make = Callable[..., Admission]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    with closing(made.open()):
        yield made


@pytest.fixture
def make(project: Project, clock: MovedClock) -> Make:
    def made(pattern: str = "data/student_*.csv") -> Admission:
        parsed = Pattern.parse(str(project.root / pattern), project.root)
        inbox = Inbox(parsed, Wake(), "poll")
        return Admission(project.settings, project.ledger, inbox, clock, lambda: None)

    return made


def test_a_file_that_stays_open_is_looked_at_no_more_often_than_it_could_settle(
    make: Make, project: Project, clock: MovedClock
) -> None:
    admission, turns, end_s = make(), 0, clock.elapsed_s + 60
    with project.drop("student_a.csv").open("a"):
        while clock.elapsed_s < end_s:
            assert admission.admit() == 0
            turns += 1
            clock.elapsed_s += max(LEAST_S, admission.patience_s(clock.elapsed_s))
    assert turns <= 2 * 60 / project.settings.watch.quiet_seconds

    clock.elapsed_s += 60
    assert admission.admit() == 1


@pytest.mark.parametrize("look", range(2))
def test_what_is_no_input_is_said_once_and_again_when_it_has_been_away(
    make: Make, project: Project, clock: MovedClock, caplog: pytest.LogCaptureFixture, look: int
) -> None:
    admission, link = make(), project.root / "data" / "student_a.csv"

    def warnings() -> int:
        for _ in range(5):
            clock.elapsed_s += 600
            admission.admit()
        return sum(record.levelno == logging.WARNING for record in caplog.records)

    link.symlink_to("nowhere")
    assert warnings() == 1
    link.unlink()
    assert warnings() == 1
    link.symlink_to(["nowhere", "/"][look])
    assert warnings() == 2


def test_a_file_that_stays_unreadable_is_said_once_however_often_it_is_tried(
    make: Make, project: Project, clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    mem = f"/proc/{os.getpid()}/mem"  # a regular file whose first read gives EIO
    admission = make(mem)
    for _ in range(10):
        admission.forget(project.ledger.read.unseen())
        admission.admit()
        clock.elapsed_s += 600

    (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert vars(said)["why"] == "cannot be read: Input/output error"
