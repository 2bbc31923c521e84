"""One file of a dropper stops nobody else's: however large it is, and whatever becomes of it."""

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import cli_project
from clock import MovedClock
from dropper import as_dropper, dropper_at_work, let_in
from ds_flow.core.states import FileState
from ds_flow.inbox import hashing
from ds_flow.inbox.admission import Admission
from ds_flow.inbox.pattern import Pattern
from ds_flow.inbox.progress import being_read
from ds_flow.inbox.watcher import Inbox
from ds_flow.settings.load import load_settings
from ds_flow.system.wake import Wake
from project import Project, ids, table, until
from rights import public_folder

HUGE_BYTES = 900 * 2**30  # to read that takes longer than any test


def sparse(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)


# --------------------------------------------------------------------------- a real daemon


@pytest.fixture
def project() -> Iterator[Project]:
    with public_folder() as root:
        made = Project(
            root / "project",
            paths={"input_pattern": "data/**/student_*.csv"},
            watch={"rescan_seconds": 1},
        )
        let_in(made.inbox)
        yield made
        made.end_everything()


def is_read(project: Project) -> bool:
    return bool(project.status()["reading"])


# Each way to give it up is tried with a moved clock, too.
FURTHER = [
    pytest.param(end, marks=pytest.mark.exhaustive) for end in ("renamed", "shut", "removed")
]


@pytest.mark.parametrize("end", ["moved away", "stop", *FURTHER])
@pytest.mark.exhaustive
def test_beside_a_huge_file_others_are_published_and_it_may_go_at_any_time(
    project: Project, end: str
) -> None:
    (project.inbox / "deep").mkdir()
    (project.inbox / "deep").chmod(0o777)
    huge = project.inbox / "deep" / "student_huge.csv"
    project.start()
    as_dropper(sparse, huge, HUGE_BYTES)
    until("it is being read", lambda: is_read(project))
    for other in "ab":
        project.drop(f"student_{other}.csv", table(other))

    project.wait_processed("student_a.csv", "student_b.csv")

    (row,) = project.status()["reading"]
    assert row["path"] == "data/deep/student_huge.csv"
    assert 0 < row["read_bytes"] < row["size_bytes"] == HUGE_BYTES
    assert "reading    data/deep/student_huge.csv: " in project.ds_flow("status").stdout
    assert project.status()["accounted"]
    if end == "removed":
        as_dropper(huge.unlink)
    elif end == "renamed":
        as_dropper(huge.rename, huge.with_name("x"))
    elif end == "moved away":
        huge.parent.rename(project.root / "away")
    elif end == "shut":
        as_dropper(os.truncate, huge, 0)
    if end != "stop":
        until("it is given up", lambda: not is_read(project))
    assert project.stop() == 0
    assert project.published_ids() == sorted([*ids("a"), *ids("b")])


def grow(path: Path, times: int) -> None:
    for number in range(times):
        with path.open("a") as file:
            file.write(f"{number}\n")
            file.truncate(2**28 + number)


def storm(inbox: Path, times: int) -> None:
    names = [inbox / "student_s.csv", inbox / "student_t.csv"]
    names[0].write_text("id\n1\n")
    for number in range(times):
        names[number % 2].rename(names[1 - number % 2])


def flip(path: Path, times: int) -> None:
    sparse(path, 2**30)
    for number in range(times):
        path.chmod((0, 0o644)[number % 2])
        os.utime(path, (-(2**30), 2**33 * (number % 2)))


@pytest.mark.parametrize(
    "work",
    [
        lambda inbox: grow(inbox / "student_g.csv", 2000),
        lambda inbox: storm(inbox, 20000),
        lambda inbox: flip(inbox / "student_f.csv", 20000),
    ],
    ids=["it grows for ever", "its name changes for ever", "its mode and times change for ever"],
)
@pytest.mark.exhaustive
def test_a_file_that_never_rests_stops_nobody(
    project: Project, work: Callable[[Path], object]
) -> None:
    project.start()
    with dropper_at_work(work, project.inbox):
        for other in "ab":
            project.drop(f"student_{other}.csv", table(other))
        for other in "ab":
            until("it was processed", lambda: is_processed(project, other))  # noqa: B023
    assert project.stop() == 0
    assert {*ids("a"), *ids("b")} <= {*project.published_ids()}


def is_processed(project: Project, name: str) -> bool:
    return project.states(f"student_{name}.csv") == [FileState.PROCESSED]


# --------------------------------------------------------------------------- a moved clock

Make = Callable[..., Admission]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[cli_project.Project]:
    made = cli_project.Project(tmp_path)
    with closing(made.open()):
        yield made


@pytest.fixture
def admission(place: cli_project.Project, clock: MovedClock) -> Admission:
    parsed = Pattern.parse(str(place.root / "data/student_*.csv"), place.root)
    inbox = Inbox(parsed, Wake(), "poll")
    return Admission(place.settings, place.ledger, inbox, clock, lambda: None)


def settle(admission: Admission, clock: MovedClock) -> int:
    """Let what is there settle, and give the first turn."""
    admission.admit()
    clock.elapsed_s += 60
    return admission.admit()


def test_each_turn_reads_a_piece_and_large_files_take_turns(
    admission: Admission, place: cli_project.Project, clock: MovedClock
) -> None:
    for name in "ab":
        sparse(place.root / f"data/student_{name}.csv", HUGE_BYTES)
    for number in range(10):
        place.drop(f"student_{number}.csv")

    assert settle(admission, clock) == 10
    for _ in range(5):
        assert admission.admit() == 0
        assert admission.patience_s(clock.elapsed_s) == 0

    read = {far.path: far.read_bytes for far in admission.turns.progress()}
    assert read == {f"data/student_{name}.csv": 3 * hashing.PIECE_BYTES for name in "ab"}
    assert admission.is_busy
    place.drop("student_late.csv")
    clock.elapsed_s += 60
    assert settle(admission, clock) == 1


def test_a_file_that_is_no_longer_read_is_not_said_to_be(
    admission: Admission, place: cli_project.Project, clock: MovedClock
) -> None:
    huge = place.root / "data/student_a.csv"
    place.settings.work_root.mkdir()
    sparse(huge, HUGE_BYTES)
    settle(admission, clock)
    assert [far.path for far in being_read(place.settings.work_root)] == ["data/student_a.csv"]

    with huge.open("a") as file:
        file.write("more")
    clock.elapsed_s += 60
    admission.admit()
    assert being_read(place.settings.work_root) == []


@pytest.mark.parametrize(
    "go",
    [
        lambda huge: huge.unlink(),
        lambda huge: huge.rename(huge.with_name("x")),
        lambda huge: huge.parent.rename(huge.parents[2] / "away"),
        lambda huge: os.truncate(huge, 0),
    ],
    ids=["removed", "renamed", "moved away", "shut"],
)
def test_a_huge_file_is_given_up_however_it_goes(
    place: cli_project.Project, clock: MovedClock, go: Callable[[Path], object]
) -> None:
    parsed = Pattern.parse(str(place.root / "data/**/student_*.csv"), place.root)
    inbox = Inbox(parsed, Wake(), "poll")
    admission = Admission(place.settings, place.ledger, inbox, clock, lambda: None)
    huge = place.root / "data" / "deep" / "student_huge.csv"
    huge.parent.mkdir()
    sparse(huge, HUGE_BYTES)
    settle(admission, clock)
    assert len(admission.turns) == 1

    go(huge)
    clock.elapsed_s += 60
    settle(admission, clock)

    assert len(admission.turns) == 0
    assert admission.turns.progress() == []


def test_a_killed_daemon_s_reading_is_forgotten_though_the_next_one_reads_nothing(
    admission: Admission, place: cli_project.Project
) -> None:
    place.settings.work_root.mkdir()
    (place.settings.work_root / "reading.json").write_text(
        '[{"path": "data/student_a.csv", "read_bytes": 1, "size_bytes": 2}]'
    )
    assert being_read(place.settings.work_root)
    admission.admit()
    assert being_read(place.settings.work_root) == []


def test_while_nothing_large_is_read_no_turn_touches_the_file_that_tells_of_it(
    admission: Admission, place: cli_project.Project
) -> None:
    place.settings.work_root.mkdir()
    admission.admit()
    told = place.settings.work_root / "reading.json"
    told.write_text("[]")

    admission.admit()

    assert told.exists()


def test_a_flood_of_files_of_middle_size_holds_no_small_one_up(
    admission: Admission, place: cli_project.Project, clock: MovedClock
) -> None:
    for number in range(500):
        sparse(place.root / f"data/student_{number}.csv", 60 * 2**20)
    place.drop("student_small.csv")

    assert settle(admission, clock) <= 3
    (row,) = place.ledger.read.versions("data/student_small.csv")
    assert row.state == FileState.WAITING


@pytest.mark.parametrize(("more", "is_admitted"), [(0, True), (1, False)])
def test_a_file_over_the_limit_is_set_aside_unread_until_the_limit_is_raised(
    place: cli_project.Project, clock: MovedClock, more: int, *, is_admitted: bool
) -> None:
    parsed = Pattern.parse(str(place.root / "data/student_*.csv"), place.root)
    place.config.write_text(f"{place.config.read_text()}watch: {{max_mb: 1}}\n")
    settings = load_settings(place.config, {})
    admission = Admission(settings, place.ledger, Inbox(parsed, Wake(), "poll"), clock, print)
    sparse(place.root / "data/student_a.csv", 2**20 + more)

    assert settle(admission, clock) == 1

    (row,) = place.ledger.read.versions("data/student_a.csv")
    assert (row.state == FileState.WAITING) == is_admitted
    if is_admitted:
        return
    why = "too large: 2 MiB, and watch.max_mb is 1: raise it and reload, or split the file"
    assert (row.state, row.reason) == (FileState.QUARANTINED, why)

    admission.settings = place.settings
    admission.known.forget(place.ledger.read.unseen())
    clock.elapsed_s += 60
    assert settle(admission, clock) == 1
    assert place.ledger.read.versions("data/student_a.csv")[-1].state == FileState.WAITING


def test_a_file_under_a_dropper_s_lease_is_waited_for(
    admission: Admission, place: cli_project.Project, clock: MovedClock
) -> None:
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # asks the holder for it, or ends it
    path = place.drop("student_a.csv")
    place.drop("student_b.csv")
    holder = os.open(path, os.O_RDWR)
    fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    assert settle(admission, clock) == 1
    assert admission.unfinished() == {"data/student_a.csv": "another process holds a lease on it"}
    assert admission.form(room=1) == 1  # others do not wait for it

    os.close(holder)
    clock.elapsed_s += 60
    assert admission.admit() == 1
