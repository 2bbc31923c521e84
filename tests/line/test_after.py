"""After publication: what leaves the inbox, what stays, and that nothing else ever does."""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ds_flow.core.errors import DispatchError, SettingsError
from ds_flow.core.states import FileState, Trigger
from ds_flow.inbox import after
from ds_flow.ledger.away import Away
from ds_flow.settings.load import load_settings
from ds_flow.upkeep.retention import Retention
from ds_flow.views.explain import Question, explanation
from ds_flow.views.health import problems
from ds_flow.views.lookup import Place
from project import Project
from timed_line import HOUR, Line

ARCHIVE, DELETE = "{after: archive}", "{after: delete}"


class Site(Line):
    """A line whose published files leave the inbox."""

    def inbox(self, rules: str, **environ: str) -> None:
        """Work by these rules from now on."""
        file = self.root / "config" / "settings.yaml"
        text = file.read_text().partition("inbox: ")[0]
        file.write_text(f"{text}inbox: {rules}\n")
        self.settings = load_settings(file, environ)
        self.engine.change_settings(self.settings)

    def work(self) -> None:
        super().work()
        self.put_away()

    def put_away(self) -> None:
        """Let everything leave that is to leave, however long the thread takes."""
        while self.engine.after.is_busy:
            if (thread := self.engine.after._thread) is not None:
                thread.join()
            self.engine.after.put_away()

    def inputs(self) -> list[str]:
        return sorted(path.name for path in (self.root / "data").iterdir())

    def kept(self, folder: str = "archive") -> dict[str, str]:
        """What is in the archive, by its path below."""
        root = self.root / folder
        found = (path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_text() for path in found}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.inbox(ARCHIVE)
    yield made
    made.close()


def kinds(site: Site, path: str) -> list[str]:
    return [event.kind for event in site.ledger.read.events(path)]


# --------------------------------------------------------------------------- what leaves


def test_a_published_file_is_moved_to_the_folder_of_its_run(site: Site) -> None:
    site.drop(a="1", b="2")
    assert site.inputs() == []
    assert site.kept() == {"1/data/a.csv": "1", "1/data/b.csv": "2"}
    (row, _) = site.ledger.read.latest()
    assert (row.away, row.kept_at) == ("gone", "archive/1/data/a.csv")
    assert kinds(site, "data/a.csv")[-1] == "input.archived"


def test_nothing_leaves_unless_the_settings_say_so(site: Site) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1")
    assert site.inputs() == ["a.csv"]
    assert not (site.root / "archive").exists()


def test_a_published_file_is_deleted_if_the_settings_say_so(site: Site) -> None:
    site.inbox(DELETE)
    site.drop(a="1", b="2")
    assert site.inputs() == []
    assert kinds(site, "data/a.csv")[-1] == "input.deleted"


def test_what_was_published_before_the_setting_leaves_too(site: Site) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1", b="2")
    site.inbox(ARCHIVE)
    site.wait(HOUR)
    site.work()
    assert site.inputs() == []


def test_a_thousand_files_leave_an_empty_inbox(site: Site) -> None:
    site.inbox(ARCHIVE, DS_FLOW_BATCH__MAX_FILES="400")
    site.drop(**{f"s{number}": str(number) for number in range(1000)})
    assert site.inputs() == []
    assert len(site.kept()) == 1000
    assert {row.state for row in site.ledger.read.latest()} == {FileState.PROCESSED}


def test_a_rejected_file_stays(site: Site) -> None:
    site.drop(a="1", b="bad")
    assert site.inputs() == ["b.csv"]


def test_the_same_content_that_comes_again_leaves_again(site: Site) -> None:
    site.drop(a="1")
    site.drop(a="1")
    assert site.inputs() == []
    assert site.kept() == {"1/data/a.csv": "1"}
    assert len(site.ledger.read.versions("data/a.csv")) == 1


def test_new_content_under_the_same_name_is_a_new_version_beside_the_old_one(site: Site) -> None:
    site.drop(a="1")
    site.drop(a="2")
    assert site.inputs() == []
    assert site.kept() == {"1/data/a.csv": "1", "2/data/a.csv": "2"}


# --------------------------------------------------------------------------- what is read again


def test_a_rerun_by_the_clock_reads_what_was_archived(site: Site) -> None:
    site.drop(a="1", b="2")
    site.next_hour()
    assert site.outcomes() == ["run"]
    assert [item.path for item in site.manifest().inputs] == ["data/a.csv", "data/b.csv"]
    site.next_hour()
    assert site.outcomes() == ["run", "verified"]


def test_a_rerun_leaves_out_what_was_deleted(site: Site) -> None:
    site.inbox(DELETE)
    site.drop(a="1")
    site.next_hour()
    assert site.outcomes() == ["nothing"]
    assert site.last().detail == "left out: 1 no longer there"


# --------------------------------------------------------------------------- rejected

REJECTED = "{after: archive, rejected: move}"


def test_a_rejected_file_is_moved_with_the_reason_beside_it(site: Site) -> None:
    site.inbox(REJECTED)
    site.drop(a="1", b="bad")
    assert site.inputs() == []
    assert site.kept("rejected") == {
        "1/data/b.csv": "bad",
        "1/data/b.csv.reason.txt": "data/b.csv: it is rejected\n",
    }
    assert kinds(site, "data/b.csv")[-1] == "input.moved"
    assert "moved to rejected/1/data/b.csv: it is rejected" in told(site, "data/b.csv")


def test_the_archive_may_be_below_the_folder_of_what_was_rejected(site: Site) -> None:
    site.inbox("{after: archive, archive_dir: old/good, rejected: move, rejected_dir: old}")
    site.drop(a="1", b="bad")
    assert sorted(site.kept("old")) == [
        "1/data/b.csv",
        "1/data/b.csv.reason.txt",
        "good/1/data/a.csv",
    ]
    assert kinds(site, "data/a.csv")[-1] == "input.archived"


def test_a_rejected_file_that_was_moved_is_read_again_once_it_is_released(site: Site) -> None:
    site.inbox(REJECTED)
    site.runs.left_out["data/a.csv"] = "rejected"
    site.drop(a="1")
    site.runs.left_out.clear()
    (row,) = site.ledger.read.latest()
    site.ledger.release(row.id, site.clock.now())
    site.work()
    (row,) = site.ledger.read.latest()
    assert (row.state, row.kept_at) == (FileState.PROCESSED, "rejected/1/data/a.csv")


def test_a_moved_file_needs_a_person_until_it_is_removed(site: Site) -> None:
    site.inbox(REJECTED)
    site.drop(b="bad")

    def named() -> list[str]:
        found = problems(site.settings, site.ledger, 1, site.clock.now())
        return [one.text for one in found if one.kind == "quarantined"]

    assert named() == ["data/b.csv is set aside: it is rejected"]
    (site.root / "rejected/1/data/b.csv").unlink()
    assert named() == []


def test_a_corrected_file_is_a_new_version_beside_the_rejected_one(site: Site) -> None:
    site.inbox(REJECTED)
    site.drop(b="bad")
    site.drop(b="2")
    assert site.inputs() == []
    assert site.kept() == {"2/data/b.csv": "2"}


# --------------------------------------------------------------------------- what people are told


def told(site: Site, path: str) -> str:
    place = Place(path, str(site.root / path))
    question = Question(site.settings, site.ledger, place, has_daemon=True, now=site.clock.now())
    return str(explanation(question)["verdict"])


def test_explain_says_where_a_file_has_gone(site: Site) -> None:
    site.drop(a="1")
    assert told(site, "data/a.csv") == (
        "Version 1 was processed by run 1, and was moved to archive/1/data/a.csv."
    )
    site.inbox(DELETE)
    site.drop(b="2")
    assert told(site, "data/b.csv") == "Version 1 was processed by run 2, and was deleted then."


# --------------------------------------------------------------------------- what goes wrong


def test_a_site_that_refuses_is_said_once_and_tried_again(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.reopen("[]")
    site.inbox(ARCHIVE)
    (site.root / "archive").write_text("a file stands in the way")
    site.drop(a="1", b="2")
    for _ in range(5):
        site.wait(HOUR)
        site.tick()
        site.put_away()
    said = [record for record in caplog.records if record.message == "after.waits"]
    assert len(said) == 1
    assert "cannot be put away after their run" in site.engine.problems[0]
    assert site.inputs() == ["a.csv", "b.csv"]
    assert {row.state for row in site.ledger.read.latest()} == {FileState.PROCESSED}

    (site.root / "archive").unlink()
    site.wait(HOUR)
    site.tick()
    site.put_away()
    assert site.inputs() == []
    assert site.engine.problems == []


def test_a_daemon_that_died_between_the_ledger_and_the_move_goes_on_with_it(site: Site) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1", b="2")
    rows = site.ledger.read.latest()
    places = [(row.id, f"archive/1/{row.path}") for row in rows]
    site.ledger.away.begin(places, site.clock.now())
    (site.root / "archive/1/data").mkdir(parents=True)
    (site.root / "data/a.csv").rename(site.root / "archive/1/data/a.csv")
    site.reopen()  # by now the settings say keep
    site.put_away()
    assert site.inputs() == []
    assert site.kept() == {"1/data/a.csv": "1", "1/data/b.csv": "2"}
    assert {row.away for row in site.ledger.read.latest()} == {"gone"}


def begin_to_leave(site: Site) -> None:
    """Let the thread do its work, whose outcome is not yet recorded."""
    site.engine.after.hinted = True
    site.engine.after.put_away()
    thread = site.engine.after._thread
    assert thread is not None
    thread.join()


def test_what_has_left_while_the_ledger_refused_is_recorded_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1")
    site.inbox(ARCHIVE)
    begin_to_leave(site)

    def refuse(*_: object, **__: object) -> None:
        raise DispatchError("the ledger's disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Away, "record", refuse)
        site.tick()
    assert site.ledger.read.latest()[0].away == "going"
    site.wait(HOUR)
    site.work()
    assert site.kept() == {"1/data/a.csv": "1"}
    assert site.ledger.read.latest()[0].away == "gone"


def test_what_left_is_on_its_way_until_it_is_known_to_outlast_a_power_loss(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1")
    site.inbox(ARCHIVE)

    def fail(_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(after, "sync_departures", fail)
        begin_to_leave(site)
    site.tick()
    (row,) = site.ledger.read.latest()
    assert (site.inputs(), row.away, row.kept_at) == ([], "going", "archive/1/data/a.csv")
    site.inbox("{after: keep}")  # what has begun is ended all the same
    site.wait(HOUR)
    site.work()
    assert site.ledger.read.latest()[0].away == "gone"


def test_the_same_content_that_comes_while_its_departure_is_recorded_leaves_too(
    site: Site,
) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1")
    site.inbox(ARCHIVE)
    begin_to_leave(site)
    done, site.engine.after._done = site.engine.after._done, []  # others of its slice take longer
    (site.root / "data/a.csv").write_text("1")
    for _ in range(3):
        site.tick()
        site.wait(1)
    site.engine.after._done = done
    site.wait(HOUR)
    site.work()
    assert site.inputs() == []
    assert site.kept() == {"1/data/a.csv": "1"}


def test_a_reload_that_says_keep_stops_a_round_that_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(after, "FILES_A_SLICE", 1)
    site.inbox("{after: keep}")
    site.drop(a="1", b="2", c="bad")
    site.inbox("{after: delete, rejected: move}")
    begin_to_leave(site)
    site.inbox("{after: keep, rejected: move}")
    site.put_away()
    (left,) = site.inputs()
    assert left in {"a.csv", "b.csv"}


@pytest.mark.parametrize("is_restarted", [False, True])
def test_what_was_missing_while_the_inbox_was_not_mounted_leaves_once_it_is_back(
    site: Site, *, is_restarted: bool
) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1")
    (site.root / "data").rename(site.root / "unmounted")
    (site.root / "data").mkdir()
    site.inbox(ARCHIVE)
    site.put_away()
    assert site.ledger.read.latest()[0].away == "none"
    if is_restarted:
        site.reopen()
    (site.root / "data").rmdir()
    (site.root / "unmounted").rename(site.root / "data")
    site.inbox(ARCHIVE)
    site.wait(HOUR)
    site.work()
    assert (site.inputs(), site.kept()) == ([], {"1/data/a.csv": "1"})


def test_once_waits_for_files_that_are_on_their_way(site: Site) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1")
    (row,) = site.ledger.read.latest()
    site.ledger.away.begin([(row.id, "archive/1/data/a.csv")], site.clock.now())
    site.reopen("[]")
    site.engine.after._is_taken_up = False
    assert not any((site.engine.is_idle, site.engine.is_held_back, site.engine.is_paused))


def test_a_file_that_a_rerun_has_claimed_stays_until_that_has_ended(site: Site) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1")
    (row,) = site.ledger.read.latest()
    site.ledger.form("0123456789", [row.id], Trigger.RERUN, site.clock.now())
    assert not site.ledger.away.begin([(row.id, "")], site.clock.now())
    site.inbox(DELETE)
    site.engine.after.hinted = True
    site.engine.after.put_away()
    site.put_away()
    assert site.inputs() == ["a.csv"]
    site.work()
    assert site.inputs() == []


def test_no_rerun_takes_a_file_that_is_being_deleted(site: Site) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1")
    (row,) = site.ledger.read.latest()
    site.ledger.away.begin([(row.id, "")], site.clock.now())
    assert not site.ledger.form("0123456789", [row.id], Trigger.RERUN, site.clock.now())


def test_a_lost_ledger_finds_what_was_archived_again(site: Site) -> None:
    site.drop(a="1")
    site.close()
    for path in (site.root / "out").glob("ledger.db*"):
        path.unlink()
    site.open()
    site.inbox(ARCHIVE)
    site.work()
    (row,) = site.ledger.read.latest()
    assert (row.away, row.kept_at) == ("gone", "archive/1/data/a.csv")
    site.next_hour()
    assert site.outcomes() == ["run"]


def test_archived_files_are_removed_after_the_days_that_the_settings_say(site: Site) -> None:
    site.drop(a="1", b="2")
    site.wait(10 * 24 * HOUR)
    site.drop(c="3")
    keep = site.settings.retention.model_copy(update={"archive_days": 9})
    settings = replace(site.settings, retention=keep)
    found = Retention(settings, site.ledger, site.clock.now(), is_dry=False).collect()
    assert found.counts["archived inputs"] == 2
    assert site.kept() == {"3/data/c.csv": "3"}
    assert not (site.root / "archive/1").exists()
    assert told(site, "data/a.csv").endswith("and was deleted then.")


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ("{after: archive, archive_dir: data/archive}", "inbox.archive_dir"),
        ("{after: archive, archive_dir: .}", "inbox.archive_dir"),
        ("{after: archive, archive_dir: out/.work/x}", "inbox.archive_dir"),
        ("{rejected: move, rejected_dir: data}", "inbox.rejected_dir"),
        ("{after: archive, rejected: move, rejected_dir: archive}", "inbox.rejected_dir"),
        ("{after: move}", "inbox.after"),
    ],
)
def test_a_folder_that_droppers_can_change_or_that_is_read_again_is_refused(
    site: Site, rules: str, key: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(key)):
        site.inbox(rules)


def test_a_folder_that_is_not_used_may_be_anywhere(site: Site) -> None:
    site.inbox("{archive_dir: data, rejected_dir: data}")
    site.drop(a="1")
    assert site.inputs() == ["a.csv"]


# --------------------------------------------------------------------------- with real runs


@pytest.mark.exhaustive
def test_a_real_rerun_reads_the_archive_and_makes_the_same_outputs(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", inbox={"after": "archive"})
    try:
        project.drop("student_a.csv", b"id\n1\n")
        project.drop("student_b.csv", b"id\n2\n")
        assert project.once().returncode == 0
        assert list(project.inbox.iterdir()) == []
        done = project.ds_flow("rerun", "--all")
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(project.manifests()) == 2
        for manifest in project.manifests():
            paths = [item.path for item in manifest.inputs]
            assert paths == ["data/student_a.csv", "data/student_b.csv"]
        assert project.ds_flow("verify").returncode == 0
        assert project.status()["accounted"]
    finally:
        project.end_everything()
