"""A dropper's links: whatever they lead to, they concern their own path alone."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dropper import as_dropper, dropper_at_work, let_in
from hung_mount import hung_mount
from project import Project, ids, table, until
from rights import public_folder

RENAME_EXCHANGE = 2
AT_FDCWD = -100


def exchange(inbox: Path, targets: list[Path], times: int) -> None:
    """Let a file's name be a folder and links in turns, and a folder's name a link."""
    libc = ctypes.CDLL(None)
    name, folder = inbox / "student_x.csv", inbox / "deep"
    for made in (name, folder):
        made.mkdir()
    (folder / "student_y.csv").write_text("id\n0\n")
    links = [inbox / f"spare{number}" for number, _ in enumerate(targets)]
    for link, target in zip(links, targets, strict=True):
        link.symlink_to(target)
    pairs = [(one, link) for link in links for one in (name, folder)]
    for _ in range(times):
        for one, other in pairs:
            paths = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other))
            libc.renameat2(*paths, RENAME_EXCHANGE)


@pytest.fixture
def project() -> Iterator[Project]:
    with public_folder() as root:
        made = Project(root / "project", watch={"rescan_seconds": 1})
        let_in(made.inbox)
        yield made
        made.end_everything()


@pytest.fixture
def dead(project: Project) -> Iterator[Path]:
    """A folder in which everything waits for ever."""
    point = project.root / "dead"
    point.mkdir()
    with hung_mount(point):
        yield point


@pytest.mark.parametrize("way", ["a file", "by a second link", "below", "by ..", "a folder"])
@pytest.mark.exhaustive
def test_a_link_into_a_mount_that_never_answers_is_named_and_never_touched(
    project: Project, dead: Path, way: str
) -> None:
    project.configure(paths={"input_pattern": "data/**/student_*.csv"})
    name, target = "student_dead.csv", str(dead / "x.csv")
    if way == "by a second link":
        as_dropper(os.symlink, dead, project.inbox / "middle")
        target = "middle/x.csv"
    elif way == "below":
        as_dropper(os.mkdir, project.inbox / "deep")
        name = "deep/student_dead.csv"
    elif way == "by ..":
        target = "../dead/x.csv"
    elif way == "a folder":
        name, target = "folder", str(dead)
    project.start()
    as_dropper(os.symlink, target, project.inbox / name)
    for other in "ab":
        project.drop(f"student_{other}.csv", table(other))

    project.wait_processed("student_a.csv", "student_b.csv")
    until("the link was named", lambda: "file.ignored" in project.said())

    assert project.status()["accounted"]
    assert "leaves the inbox" in project.ds_flow("explain", f"data/{name}").stdout or way == (
        "a folder"
    )
    assert project.stop() == 0
    assert "a symbolic link that leaves the inbox" in project.said()
    assert project.published_ids() == sorted([*ids("a"), *ids("b")])


@pytest.mark.exhaustive
def test_links_and_folders_that_change_places_stop_nobody(project: Project, dead: Path) -> None:
    project.configure(paths={"input_pattern": "data/**/student_*.csv"})
    secret = project.root.parent / "secret.csv"
    secret.write_text(table("secret"))
    secret.chmod(0o600)
    project.start()
    targets = [dead / "x.csv", dead, secret, project.inbox]
    with dropper_at_work(exchange, project.inbox, targets, 2000):
        for other in "ab":
            project.drop(f"student_{other}.csv", table(other))
        project.wait_processed("student_a.csv", "student_b.csv")

    assert project.status()["accounted"]
    assert project.stop() == 0
    assert not {*ids("secret")} & {*project.published_ids()}
    assert {*ids("a"), *ids("b")} <= {*project.published_ids()}


@pytest.mark.exhaustive
def test_a_mount_in_the_inbox_that_never_answers_stops_its_own_files_alone(
    project: Project,
) -> None:
    project.configure(paths={"input_pattern": "data/**/student_*.csv"}, watch={"rescan_seconds": 1})
    (project.inbox / "site").mkdir()
    with hung_mount(project.inbox / "site"):
        project.start()
        as_dropper(os.symlink, "site/x.csv", project.inbox / "student_link.csv")
        for other in "ab":
            project.drop(f"student_{other}.csv", table(other))

        project.wait_processed("student_a.csv", "student_b.csv")

        assert project.status()["accounted"]
        explained = project.ds_flow("explain", "data/student_link.csv").stdout
        assert "its file system does not answer" in explained
        until("it was named", lambda: "its file system does not answer" in project.said())
        assert project.stop() == 0


@pytest.mark.exhaustive
def test_an_inbox_that_no_longer_answers_is_said_and_the_daemon_stops_when_told(
    project: Project,
) -> None:
    project.configure(watch={"rescan_seconds": 1, "poll_seconds": 1})
    project.start()
    with hung_mount(project.inbox):
        until("it was said", lambda: "does not answer" in project.said())
        assert project.stop() == 0
