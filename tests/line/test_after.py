"""After publication: what leaves the inbox, what stays, and that nothing else ever does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds_flow.core.errors import SettingsError
from ds_flow.core.states import FileState
from ds_flow.settings.load import load_settings
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
    assert kinds(site, "data/a.csv")[-1] == "file.archived"


def test_nothing_leaves_unless_the_settings_say_so(site: Site) -> None:
    site.inbox("{after: keep}")
    site.drop(a="1")
    assert site.inputs() == ["a.csv"]
    assert not (site.root / "archive").exists()


def test_a_published_file_is_deleted_if_the_settings_say_so(site: Site) -> None:
    site.inbox(DELETE)
    site.drop(a="1", b="2")
    assert site.inputs() == []
    assert kinds(site, "data/a.csv")[-1] == "file.deleted"


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
