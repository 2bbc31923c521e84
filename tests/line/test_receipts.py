"""Receipts in the inbox: what became of each file, and nothing outside is ever written."""

import errno
import json
import os
import runpy
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import project as real
from cli_project import Project
from clock import NOON
from crash import lives_through
from ds_flow.core.program import CHECKOUT
from ds_flow.core.states import Cause, Trigger
from ds_flow.inbox.pattern import Pattern
from ds_flow.inbox.scan import scan_files
from ds_flow.settings.load import Settings, load_settings
from ds_flow.upkeep.receipt_files import ReceiptFiles, RefusedError, receipt_name, receipts_folder
from ds_flow.upkeep.receipts import Job, Receipts, write_receipts
from ds_flow.upkeep.retention import Retention
from ds_flow.work.root import make_root
from project import until
from samples import BATCH, OTHER_BATCH

Found = dict[str, Any]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


@pytest.fixture
def chosen(project: Project) -> Settings:
    make_root(project.settings.output_dir)
    return load_settings(project.config, {"DS_FLOW_INBOX__RECEIPTS": "true"})


def written(project: Project, chosen: Settings) -> list[str]:
    """Write what is due, as the thread does; the files whose receipts were passed over."""
    refused: list[str] = []
    job = Job(chosen, project.ledger.moves.newest(), NOON)
    with receipts_folder(str(chosen.inbox)) as files:
        write_receipts(job, files, lambda path, _: refused.append(path))
    return refused


def receipt(project: Project, name: str = "student_a.csv") -> Found:
    found: Found = json.loads((project.root / "data" / "receipts" / f"{name}.json").read_text())
    return found


# --------------------------------------------------------------------------- what they say


def test_a_receipt_follows_its_file_along_the_line(project: Project, chosen: Settings) -> None:
    rows = project.admit("student_a.csv")
    written(project, chosen)
    assert receipt(project) == {
        "path": "student_a.csv",
        "version": 1,
        "sha256": rows[0].sha256,
        "bytes": 8,
        "state": "waiting",
        "run_id": None,
        "reason": "",
        "to_do": "",
        "told_at": "2026-01-01T12:00:00+00:00",
    }
    states = []
    for step in (
        lambda: project.form(BATCH, rows),
        lambda: project.start(BATCH, "1001"),
        lambda: project.publish(BATCH, "1001", rows),
    ):
        step()
        written(project, chosen)
        states.append((receipt(project)["state"], receipt(project)["run_id"]))
    assert states == [("waiting", None), ("running", None), ("published", "1001")]


def test_a_receipt_says_why_a_file_was_set_aside_and_what_to_do(
    project: Project, chosen: Settings
) -> None:
    project.admit("student_a.csv", cause=Cause.REJECTED, reason="line 2: no table")
    written(project, chosen)
    found = receipt(project)
    assert (found["state"], found["reason"]) == ("quarantined", "line 2: no table")
    assert found["to_do"] == "correct the file and put it into the inbox again, or remove it"


def test_a_rerun_is_in_the_receipt_too(project: Project, chosen: Settings) -> None:
    rows = project.published(BATCH, "1001", "student_a.csv")
    written(project, chosen)
    project.start(project.form(OTHER_BATCH, rows, Trigger.RERUN), "1002")
    project.publish(OTHER_BATCH, "1002", rows)
    written(project, chosen)
    assert receipt(project)["run_id"] == "1002"


def test_a_secret_in_a_reason_is_masked(project: Project) -> None:
    (project.root / ".env").write_text("KEY=correct-horse\n")
    make_root(project.settings.output_dir)
    chosen = load_settings(project.config, {"DS_FLOW_INBOX__RECEIPTS": "true"})
    project.admit("student_a.csv", cause=Cause.REJECTED, reason="cell correct-horse")
    written(project, chosen)
    assert receipt(project)["reason"] == "cell ***"


def test_nothing_is_written_for_a_file_that_has_not_moved(
    project: Project, chosen: Settings
) -> None:
    project.admit("student_a.csv", "student_b.csv")
    written(project, chosen)
    path = project.root / "data" / "receipts" / "student_b.csv.json"
    before = path.stat().st_ctime_ns
    project.admit("student_a.csv", cause=Cause.REJECTED, reason="bad")
    project.drop("student_c.csv")
    written(project, chosen)
    assert path.stat().st_ctime_ns == before


def test_any_name_has_a_receipt_and_keeps_its_folders(project: Project, chosen: Settings) -> None:
    long = f"student_{'x' * 240}.csv"
    names = ["student_é ü.csv", "student_\udcff.csv", long, "a/b/student_c.csv", "a.csv.json"]
    (project.root / "data" / "a" / "b").mkdir(parents=True)
    project.admit(*names)
    assert written(project, chosen) == []
    folder = project.root / "data" / "receipts"
    for name in names:
        above, _, last = name.rpartition("/")
        found = json.loads((folder / above / receipt_name(last)).read_text())
        assert found["state"] == "waiting"


# --------------------------------------------------------------------------- no input


@pytest.mark.parametrize("pattern", ["*", "**/*", "*/*", "*.json", "**/*.json", "receipts/*"])
def test_no_pattern_takes_a_receipt_for_an_input(
    project: Project, chosen: Settings, pattern: str
) -> None:
    project.admit("student_a.csv")
    written(project, chosen)
    parsed = Pattern.parse(f"{chosen.inbox}/{pattern}", chosen.root)
    if pattern == "receipts/*":  # then the folder is itself the inbox, which holds others
        assert not Pattern.parse(f"{chosen.inbox}/*/*", chosen.root).name_of(
            f"{chosen.inbox}/receipts/student_a.csv.json"
        )
        return
    look = scan_files(parsed)
    assert [one.path for one in look.sightings if "receipts" in one.path] == []
    assert [path for path in look.ignored if "receipts" in path] == []
    assert parsed.name_of(f"{chosen.inbox}/receipts/student_a.csv.json") is None
    assert parsed.name_of(f"{chosen.inbox}/receipts") is None


def test_a_folder_of_inputs_that_has_this_name_stays_one(
    project: Project, chosen: Settings
) -> None:
    folder = project.root / "data" / "receipts"
    folder.mkdir()
    (folder / "student_z.csv").write_text("a\n1\n")
    parsed = Pattern.parse(f"{chosen.inbox}/**/*.csv", chosen.root)
    assert [one.path for one in scan_files(parsed).sightings] == ["data/receipts/student_z.csv"]
    project.admit("student_a.csv")
    with pytest.raises(RefusedError, match="holds other files; move them elsewhere"):
        written(project, chosen)
    assert [path.name for path in folder.iterdir()] == ["student_z.csv"]


# --------------------------------------------------------------------------- what others plant


def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "student_a.csv.json").write_text("mine")
    return folder


def test_a_link_or_a_file_in_place_of_the_folder_is_not_followed(
    project: Project, chosen: Settings, tmp_path: Path
) -> None:
    project.admit("student_a.csv")
    folder, elsewhere = project.root / "data" / "receipts", outside(tmp_path)
    for plant in (lambda: folder.symlink_to(elsewhere), lambda: folder.write_text("x")):
        plant()
        with pytest.raises(RefusedError, match="receipts in the inbox is a link, or no folder"):
            written(project, chosen)
        folder.unlink()
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == {
        "student_a.csv.json": "mine"
    }


def test_links_and_folders_within_are_replaced_or_passed_over_and_the_others_go_on(
    project: Project, chosen: Settings, tmp_path: Path
) -> None:
    (project.root / "data" / "sub").mkdir()
    project.admit("student_a.csv", "student_b.csv", "student_c.csv", "sub/student_d.csv")
    elsewhere = outside(tmp_path)
    folder = project.root / "data" / "receipts"
    folder.mkdir()
    (folder / ".ds-flow").write_text("")
    (folder / "student_a.csv.json").symlink_to(elsewhere / "student_a.csv.json")
    (folder / ".receipt.part").symlink_to(elsewhere / "new")
    (folder / "student_b.csv.json").mkdir()
    (folder / "sub").symlink_to(elsewhere)
    assert written(project, chosen) == ["student_b.csv", "sub/student_d.csv"]
    assert receipt(project)["state"] == receipt(project, "student_c.csv")["state"] == "waiting"
    assert stat.S_ISREG((folder / "student_a.csv.json").lstat().st_mode)
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == {
        "student_a.csv.json": "mine"
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(project: Project, chosen: Settings) -> None:
    project.admit("student_a.csv")
    folder = project.root / "data" / "receipts"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(RefusedError, match="is another user's"):
        written(project, chosen)


@pytest.mark.parametrize(
    ("mode", "of_file", "of_folder"),
    [(0o3770, 0o640, 0o750), (0o755, 0o644, 0o755), (0o1777, 0o644, 0o755), (0o700, 0o600, 0o700)],
)
def test_whoever_may_read_the_inbox_may_read_receipts_and_nobody_may_write_them(
    project: Project, chosen: Settings, mode: int, of_file: int, of_folder: int
) -> None:
    inbox = project.root / "data"
    inbox.chmod(mode)
    if os.geteuid() == 0:
        os.chown(inbox, -1, 12345)
        inbox.chmod(mode)
    (inbox / "sub").mkdir()
    project.admit("student_a.csv", "sub/student_b.csv")
    before = os.umask(0o077)
    try:
        written(project, chosen)
    finally:
        os.umask(before)
    for path in (inbox / "receipts", *(inbox / "receipts").rglob("*")):
        found = path.stat()
        wanted = of_folder if path.is_dir() else of_file
        assert (found.st_gid, found.st_mode & 0o777) == (inbox.stat().st_gid, wanted)


def test_a_list_of_rights_that_the_inbox_hands_down_gives_receipts_to_nobody_else(
    project: Project, chosen: Settings
) -> None:
    inbox = project.root / "data"
    inbox.chmod(0o770)
    acl = runpy.run_path(str(CHECKOUT / "systemd" / "inbox_acl.py"))["acl"](12345, 7)
    try:
        os.setxattr(inbox, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("this file system has no access control lists")
    project.admit("student_a.csv")
    written(project, chosen)
    for path in (inbox / "receipts", inbox / "receipts" / "student_a.csv.json"):
        assert not [name for name in os.listxattr(path) if "acl" in name]
        assert path.stat().st_mode & 0o022 == 0


# --------------------------------------------------------------------------- kills and time


def test_a_kill_at_any_moment_loses_no_receipt(project: Project, chosen: Settings) -> None:
    project.admit("student_a.csv", "student_b.csv")
    newest = project.ledger.moves.newest()

    def act() -> None:  # in a process of its own, which has no ledger open
        with receipts_folder(str(chosen.inbox)) as files:
            write_receipts(Job(chosen, newest, NOON), files, lambda *_: None)

    for step in range(1000):
        project.ledger.close()
        lived = lives_through(act, step)
        project.open()
        written(project, chosen)
        assert receipt(project)["state"] == receipt(project, "student_b.csv")["state"] == "waiting"
        left = {path.name for path in (project.root / "data" / "receipts").iterdir()}
        assert left == {".ds-flow", "student_a.csv.json", "student_b.csv.json"}
        if lived:
            assert step > 3
            return
        for path in (project.root / "data" / "receipts").iterdir():
            path.unlink()
        (project.root / "data" / "receipts").rmdir()
        (project.root / "out" / ".work" / "receipts" / "at").unlink(missing_ok=True)


def test_what_moved_before_a_day_gets_none_when_they_are_new(
    project: Project, chosen: Settings
) -> None:
    project.admit("student_a.csv")
    with receipts_folder(str(chosen.inbox)) as files:
        later = NOON + timedelta(days=2)
        job = Job(chosen, project.ledger.moves.newest(), later)
        write_receipts(job, files, lambda *_: None)
    assert not (project.root / "data" / "receipts" / "student_a.csv.json").exists()


def test_a_ledger_that_was_made_anew_is_followed_from_its_end(
    project: Project, chosen: Settings
) -> None:
    project.admit("student_a.csv")
    (project.root / "out" / ".work" / "receipts").mkdir()
    (project.root / "out" / ".work" / "receipts" / "at").write_text("1000000")
    written(project, chosen)
    project.admit("student_b.csv")
    written(project, chosen)
    assert receipt(project, "student_b.csv")["state"] == "waiting"


def test_a_receipt_goes_some_time_after_its_file(project: Project, chosen: Settings) -> None:
    project.admit("student_a.csv", "student_b.csv")
    written(project, chosen)
    folder = project.root / "data" / "receipts"
    for path in folder.iterdir():
        os.utime(path, (NOON.timestamp(), NOON.timestamp()))
    (project.root / "data" / "student_a.csv").unlink()
    for days, left in ((89, 3), (91, 2)):
        now = NOON + timedelta(days=days)
        done = Retention(chosen, project.ledger, now, is_dry=False).collect()
        assert len(list(folder.iterdir())) == left
    assert done.counts["receipts"] == 1
    assert not (folder / "student_a.csv.json").exists()


def test_the_receipt_of_a_long_name_stays_as_long_as_its_file(
    project: Project, chosen: Settings
) -> None:
    name = f"student_{'ä' * 110}.csv"
    project.admit(name)
    written(project, chosen)
    folder = project.root / "data" / "receipts"
    for file, left in (("there", 2), ("gone", 1)):
        for path in folder.iterdir():
            os.utime(path, (NOON.timestamp(), NOON.timestamp()))
        if file == "gone":
            (project.root / "data" / name).unlink()
        Retention(chosen, project.ledger, NOON + timedelta(days=91), is_dry=False).collect()
        assert len(list(folder.iterdir())) == left


def test_a_link_that_a_dropper_puts_where_a_folder_was_keeps_nothing_from_being_removed(
    project: Project, chosen: Settings, tmp_path: Path
) -> None:
    inbox = project.root / "data"
    (inbox / "sub").mkdir()
    project.admit("sub/student_a.csv", "student_b.csv")
    written(project, chosen)
    for path in (inbox / "receipts").rglob("*.json"):
        os.utime(path, (NOON.timestamp(), NOON.timestamp()))
    shutil.rmtree(inbox / "sub")
    (inbox / "sub").symlink_to(outside(tmp_path))
    (inbox / "student_b.csv").unlink()
    done = Retention(chosen, project.ledger, NOON + timedelta(days=91), is_dry=False).collect()
    assert done.counts["receipts"] == 1
    assert not (inbox / "receipts" / "student_b.csv.json").exists()


def test_receipts_whose_folder_is_removed_while_they_are_written_are_written_again(
    project: Project, chosen: Settings
) -> None:
    project.admit("student_a.csv", "student_b.csv")
    newest = project.ledger.moves.newest()
    with receipts_folder(str(chosen.inbox)) as files:
        shutil.rmtree(project.root / "data" / "receipts")
        with pytest.raises(OSError, match="its folder was removed meanwhile"):
            write_receipts(Job(chosen, newest, NOON), files, lambda *_: None)
    written(project, chosen)
    assert receipt(project)["state"] == receipt(project, "student_b.csv")["state"] == "waiting"


@pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENOMEM, errno.EIO, errno.ESTALE])
def test_a_fault_of_the_host_passes_no_receipt_over(
    project: Project, chosen: Settings, fault: int
) -> None:
    project.admit("student_a.csv")

    class Failing(ReceiptFiles):
        def put(self, *_: object) -> None:
            raise OSError(fault, os.strerror(fault))

    job = Job(chosen, project.ledger.moves.newest(), NOON)
    with receipts_folder(str(chosen.inbox)) as files, pytest.raises(OSError, match="Errno"):
        write_receipts(job, Failing(files.folder, files.readers), lambda *_: None)
    written(project, chosen)
    assert receipt(project)["state"] == "waiting"


def test_the_daemon_says_once_why_it_cannot_write_and_goes_on_when_it_can(
    project: Project, chosen: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    receipts, now_s = Receipts(), 1000.0
    folder = project.root / "data" / "receipts"
    folder.write_text("planted")
    project.admit("student_a.csv")

    def keep() -> None:
        receipts.keep(chosen, project.ledger, NOON, now_s)
        until("the thread had ended", lambda: receipts._thread is None or not is_alive(receipts))
        receipts.keep(chosen, project.ledger, NOON, now_s)

    for _ in range(3):
        keep()
        assert not receipts.is_pending
        now_s += 61
    assert [record.message for record in caplog.records] == ["receipts.wait"]
    folder.unlink()
    keep()
    assert receipt(project)["state"] == "waiting"
    off = replace(chosen, inbox_rules=project.settings.inbox_rules)
    project.admit("student_b.csv")
    receipts.keep(off, project.ledger, NOON, now_s)
    assert not receipts.is_pending


def is_alive(receipts: Receipts) -> bool:
    return receipts._thread is not None and receipts._thread.is_alive()


def test_a_daemon_that_is_killed_leaves_no_file_without_its_receipt(tmp_path: Path) -> None:
    project = real.Project(
        tmp_path, inbox={"receipts": True}, paths={"input_pattern": "data/**/*.*"}
    )
    try:
        project.start()
        project.drop("student_a.csv", real.table("a"))
        project.wait_processed("student_a.csv")
        project.kill()
        project.drop("sub/student_b.csv", real.table("b"))
        project.drop("student_c.csv", b"\0\0\0")
        project.start()
        project.wait_processed("student_a.csv", "sub/student_b.csv")

        def states() -> list[str]:
            folder = tmp_path / "data" / "receipts"
            found = sorted(path for path in folder.rglob("*.json"))
            return [json.loads(path.read_text())["state"] for path in found]

        until(
            "all had their receipts", lambda: states() == ["published", "quarantined", "published"]
        )
        project.stop()
        said = project.ds_flow("files", "--json").stdout
        assert "receipts" not in said
    finally:
        project.end_everything()
