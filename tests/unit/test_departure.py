"""A file leaves the inbox, whoever changes it meanwhile and whenever this process dies."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from crash import lives_through
from disks import fill, mounted, other_disk
from ds_flow.inbox.departure import PRIVATE, End, Leaving, depart, sync_departures
from ds_flow.inbox.scan import stat_of
from moments import at_every_moment
from power import Power

OLD, NEW = "published\n", "not published\n"
HOW = ["archive", "other disk", "delete"]


@dataclass
class Place:
    """An inbox with one published file, and where that goes."""

    inbox: Path
    archive: Path | None
    file_id: int = 7

    @property
    def file(self) -> Path:
        return self.inbox / "sub" / "student_a.csv"

    @property
    def kept(self) -> Path | None:
        return self.archive and self.archive / "17" / "sub" / "student_a.csv"

    def fresh(self) -> Leaving:
        """Make it anew, with nothing left of before."""
        for path in [*self.inbox.rglob("*"), *(self.archive.rglob("*") if self.archive else ())]:
            if path.is_file() or path.is_symlink():
                path.unlink()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(OLD)
        return self.leaving()

    def leaving(self) -> Leaving:
        return Leaving(
            id=self.file_id,
            raw=str(self.file),
            base=str(self.inbox),
            stat=str(stat_of(self.file.stat())),
            sha256=sha256(OLD.encode()).hexdigest(),
            to=str(self.kept) if self.kept else "",
        )

    def texts(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.inbox.rglob("*") if path.is_file()}


@pytest.fixture(params=HOW)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        archive: Path | None = None
        if request.param == "archive":
            archive = tmp_path / "archive"
        elif request.param == "other disk":
            archive = stack.enter_context(other_disk(tmp_path)) / "archive"
        yield Place(tmp_path / "inbox", archive)


def assert_gone(place: Place) -> None:
    """Only what was published has left, and it is kept where it should be."""
    assert place.texts() == {}
    if place.kept:
        assert place.kept.read_text() == OLD
        assert [path.name for path in place.kept.parent.iterdir()] == ["student_a.csv"]


# --------------------------------------------------------------------------- alone


def test_a_published_file_leaves(place: Place) -> None:
    left = depart(place.fresh())
    assert (left.end, left.why) == (End.GONE, "")
    assert_gone(place)


def test_to_do_it_again_changes_nothing(place: Place) -> None:
    leaving = place.fresh()
    depart(leaving)
    assert depart(replace(leaving, is_again=True)).end == End.GONE
    assert_gone(place)


def test_a_file_that_somebody_removed_is_missing(place: Place) -> None:
    leaving = place.fresh()
    place.file.unlink()
    assert depart(leaving).end == End.MISSING
    place.file.parent.rmdir()
    assert depart(leaving).end == End.MISSING


def test_a_changed_file_stays(place: Place) -> None:
    leaving = place.fresh()
    place.file.write_text(NEW)
    assert depart(leaving).end == End.STAYS
    assert place.texts() == {"student_a.csv": NEW}


def test_a_file_of_other_content_that_looks_the_same_stays(place: Place) -> None:
    leaving = replace(place.fresh(), sha256="0" * 64)
    assert depart(leaving).end == End.STAYS
    assert place.texts() == {"student_a.csv": OLD}


def test_a_file_that_is_open_for_writing_stays(place: Place) -> None:
    leaving = place.fresh()
    with place.file.open("r+"):
        left = depart(leaving)
    assert (left.end, left.why) == (End.STAYS, "a process has it open for writing")
    assert place.texts() == {"student_a.csv": OLD}


def test_no_link_is_followed(place: Place, tmp_path: Path) -> None:
    leaving = place.fresh()
    elsewhere = tmp_path / "elsewhere.csv"
    place.file.rename(elsewhere)
    place.file.symlink_to(elsewhere)
    assert depart(replace(leaving, stat=str(stat_of(elsewhere.stat())))).end == End.MISSING
    assert elsewhere.read_text() == OLD
    assert place.file.is_symlink()


def test_no_linked_folder_is_entered(place: Place, tmp_path: Path) -> None:
    leaving = place.fresh()
    elsewhere = tmp_path / "elsewhere"
    place.file.parent.rename(elsewhere)
    place.file.parent.symlink_to(elsewhere)
    assert depart(leaving).end == End.MISSING
    assert (elsewhere / "student_a.csv").read_text() == OLD


def test_a_foreign_file_under_the_private_name_is_kept(place: Place) -> None:
    leaving = place.fresh()
    (place.file.parent / f"{PRIVATE}{place.file_id}").write_text(NEW)
    assert depart(leaving).end == End.GONE
    assert list(place.texts().values()) == [NEW]


def test_what_stands_in_the_archive_and_is_no_copy_does_not_count_as_one(tmp_path: Path) -> None:
    place = Place(tmp_path / "inbox", tmp_path / "archive")
    leaving = place.fresh()
    assert place.kept
    place.kept.parent.mkdir(parents=True)
    place.kept.write_text(NEW)
    assert depart(leaving).end == End.GONE
    assert place.kept.read_text() == OLD
    texts = {path.read_text() for path in place.kept.parent.iterdir()}
    assert texts == {OLD, NEW}  # nothing is removed


def test_a_reason_stands_beside_what_was_rejected(tmp_path: Path) -> None:
    place = Place(tmp_path / "inbox", tmp_path / "rejected")
    assert depart(replace(place.fresh(), note="line 7: two cells\n")).end == End.GONE
    assert place.kept
    reason = place.kept.with_name("student_a.csv.reason.txt")
    assert reason.read_text() == "line 7: two cells\n"


def test_a_full_archive_leaves_the_file_where_it_is(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=256k"):
        place = Place(tmp_path / "inbox", tmp_path / "small" / "archive")
        leaving = place.fresh()
        filler = fill(tmp_path / "small")
        left = depart(leaving)
        assert (left.end, left.why) == (End.FAILED, "No space left on device")
        assert place.texts() == {"student_a.csv": OLD}
        filler.unlink()
        assert depart(leaving).end == End.GONE
        assert_gone(place)


def test_what_left_outlasts_a_power_loss_before_that_is_recorded(
    tmp_path: Path, power: Power
) -> None:
    place = Place(tmp_path / "inbox", tmp_path / "archive")
    sync_departures([depart(place.fresh())])
    assert place.kept
    assert place.kept.name in power.names(place.kept.parent)
    assert "archive" in power.names(tmp_path)
    assert power.names(place.file.parent) == set()


def test_a_copy_on_another_disk_is_durable_before_the_file_is_removed(
    tmp_path: Path, power: Power
) -> None:
    with other_disk(tmp_path) as disk:
        place = Place(tmp_path / "inbox", disk / "archive")
        leaving, seen = place.fresh(), []

        def look(path: Path) -> None:
            if path.name.startswith(PRIVATE) and path.parent == Path():
                assert place.kept
                seen.append(power.keeps(place.kept))

        power.before_each_name(look)
        assert depart(leaving).end == End.GONE
        assert seen
        assert all(seen)


# --------------------------------------------------------------------------- beside others


def check_at_every_moment(place: Place, change: Callable[[], object], left: str) -> None:
    """Whatever moment the change comes at, what it has left is in the inbox in the end."""
    leaving: list[Leaving] = []

    def attempt() -> None:
        done = depart(leaving[-1])
        assert done.end in {End.GONE, End.STAYS, End.MISSING}, done

    def prepare() -> None:
        if leaving:
            check()
        leaving.append(place.fresh())

    def check() -> None:
        assert left in place.texts()["student_a.csv"]
        if place.kept and place.kept.exists():
            assert place.kept.read_text() == OLD

    assert at_every_moment(prepare, attempt, change) > 10


def test_a_file_that_is_replaced_at_any_moment_stays_in_the_inbox(place: Place) -> None:
    def replace_it() -> None:
        spare = place.inbox / "spare.part"
        spare.write_text(NEW)
        spare.replace(place.file)

    check_at_every_moment(place, replace_it, NEW)


def test_what_is_written_at_any_moment_stays_in_the_inbox(place: Place) -> None:
    def write() -> None:
        with place.file.open("a") as file:
            file.write(NEW)

    check_at_every_moment(place, write, NEW)


def test_what_a_writer_adds_later_stays_in_the_inbox_whenever_it_began(place: Place) -> None:
    open_files = []

    def begin() -> None:
        open_files.append(place.file.open("a"))

    leaving: list[Leaving] = []

    def prepare() -> None:
        finish()
        leaving.append(place.fresh())

    def finish() -> None:
        while open_files:
            with open_files.pop() as file:
                file.write(NEW)
            assert NEW in place.texts()["student_a.csv"]

    at_every_moment(prepare, lambda: depart(leaving[-1]), begin)


# --------------------------------------------------------------------------- through crashes


def test_a_death_at_any_step_loses_nothing_and_is_made_up_for(place: Place) -> None:
    for step in count():
        leaving = place.fresh()
        lived = lives_through(lambda leaving=leaving: depart(leaving), step)  # type: ignore[misc]
        kept = place.kept.exists() if place.kept else False
        assert OLD in place.texts().values() or kept or not place.archive
        after = depart(replace(leaving, is_again=True))
        if after.end == End.STAYS:  # its inode has changed: the next look sees that
            after = depart(replace(place.leaving(), is_again=True))
        assert after.end == End.GONE
        assert_gone(place)
        if lived:
            break
    assert step > 2


def test_the_last_copy_is_not_removed_although_it_has_the_private_name(tmp_path: Path) -> None:
    place = Place(tmp_path / "inbox", tmp_path / "archive")
    leaving = place.fresh()
    place.file.rename(place.file.with_name(f"{PRIVATE}{place.file_id}"))
    depart(replace(leaving, is_again=True))
    assert place.kept
    assert OLD in place.texts().values() or place.kept.read_text() == OLD


def test_a_file_that_comes_after_a_death_at_any_step_stays(place: Place) -> None:
    for step in count():
        leaving = place.fresh()
        lived = lives_through(lambda leaving=leaving: depart(leaving), step)  # type: ignore[misc]
        with suppress(FileNotFoundError):
            place.file.unlink()
        place.file.write_text(NEW)
        depart(replace(leaving, is_again=True))
        assert place.texts()["student_a.csv"] == NEW
        if place.kept and place.kept.exists():
            assert place.kept.read_text() == OLD
        if lived:
            break
