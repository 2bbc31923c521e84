"""The front of the line over a moved clock: how often it looks, and what it says how often."""

import errno
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_project import Project
from clock import MovedClock
from ds_flow.core.errors import DispatchError
from ds_flow.core.states import Arrival, BatchState, Sighting
from ds_flow.inbox import admission as admission_module
from ds_flow.inbox import progress, scan, slices
from ds_flow.inbox.admission import IDLE_SCAN_SHARE, Admission
from ds_flow.inbox.hashing import PIECE_BYTES, SOON_BYTES
from ds_flow.inbox.pattern import Look, Pattern
from ds_flow.inbox.progress import Counted, last_look
from ds_flow.inbox.watcher import Inbox
from ds_flow.settings.load import load_settings
from ds_flow.system.wake import Wake

LEAST_S = 0.01  # between two turns of the engine

Make = Callable[..., Admission]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
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


def test_files_that_settle_together_are_entered_in_the_order_of_their_names(
    make: Make, project: Project, clock: MovedClock
) -> None:
    admission = make()
    paths = [f"data/{project.drop(f'student_{letter}.csv').name}" for letter in "jihgfedcba"]
    run_on(admission, clock, project.settings.watch.quiet_seconds + 1)
    entered = sorted(project.ledger.read.latest(paths), key=lambda file: file.id)
    assert [file.path for file in entered] == sorted(paths)


def test_many_files_that_may_have_settled_are_looked_at_in_turns(
    make: Make, project: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "LOOKS_A_TURN", 2)
    admission, looks = make(), []
    look_at = admission.inbox.look_at

    def counted_look(paths: Iterable[str]) -> list[Sighting]:
        looks.append(len([*paths]))
        return look_at(paths)

    monkeypatch.setattr(admission.inbox, "look_at", counted_look)
    files = [project.drop(f"student_{number}.csv") for number in range(5)]
    with files[0].open("a"), files[1].open("a"), files[2].open("a"):
        admission.admit()
        clock.elapsed_s += project.settings.watch.quiet_seconds
        admitted = []
        while admission.patience_s(clock.elapsed_s) <= 0:
            admitted.append(admission.admit())
        assert sum(admitted) == 2
        assert looks == [2, 2, 1]

    clock.elapsed_s += 60
    while admission.arriving or admission.turns:
        admission.admit()
        clock.elapsed_s += LEAST_S
    assert project.ledger.read.counts("file")["waiting"] == 5


def test_what_could_not_be_entered_is_not_read_again(
    make: Make, project: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission, read = make(), []
    fingerprint, enter = admission.inbox.fingerprint, project.ledger.admit

    def counted_read(arrival: Arrival, *rest: Any) -> Any:
        read.append(arrival.sighting.path)
        return fingerprint(arrival, *rest)

    def refuse(*_: object) -> None:
        raise DispatchError("the disk is full")

    monkeypatch.setattr(admission.inbox, "fingerprint", counted_read)
    monkeypatch.setattr(project.ledger, "admit", refuse)
    files = [project.drop(f"student_{name}.csv") for name in "ab"]
    admission.admit()
    for _ in range(3):
        clock.elapsed_s += 60
        with pytest.raises(DispatchError, match="full"):
            admission.admit()
    assert sorted(read) == ["data/student_a.csv", "data/student_b.csv"]

    files[1].write_text("new\n1\n")
    monkeypatch.setattr(project.ledger, "admit", enter)
    for _ in range(4):
        clock.elapsed_s += 60
        admission.admit()
    sizes = {file.path: file.size_bytes for file in project.ledger.read.latest()}
    assert sizes == {f"data/{file.name}": file.stat().st_size for file in files}
    assert read.count("data/student_a.csv") == 1


def test_what_was_read_before_a_file_that_cannot_be_read_now_is_not_read_again(
    make: Make, project: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission, read = make(), []
    fingerprint = admission.inbox.fingerprint

    def refuse_second(arrival: Arrival, *rest: Any) -> Any:
        read.append(arrival.sighting.path)
        if len(read) > 1:
            raise DispatchError("too many open files")
        return fingerprint(arrival, *rest)

    monkeypatch.setattr(admission.inbox, "fingerprint", refuse_second)
    for name in "ab":
        project.drop(f"student_{name}.csv")
    admission.admit()
    clock.elapsed_s += 60
    with pytest.raises(DispatchError, match="open files"):
        admission.admit()

    assert admission.admit() == 1
    for _ in range(3):
        clock.elapsed_s += 60
        with pytest.raises(DispatchError, match="open files"):
            admission.admit()
    assert read.count(read[0]) == 1
    assert project.ledger.read.counts("file")["waiting"] == 1


def test_a_scan_that_overtakes_another_look_leaves_nothing_to_look_at_again_and_again(
    make: Make, project: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "LOOKS_A_TURN", 2)
    admission, quiet_s = make(), project.settings.watch.quiet_seconds
    for number in range(5):
        project.drop(f"student_{number}.csv")
    admission.admit()
    clock.elapsed_s += quiet_s
    admission.admit()  # looks at two of them
    project.drop("student_new.csv")
    clock.elapsed_s += project.settings.watch.poll_seconds
    assert admission.is_scan_due(clock.elapsed_s)
    turns = 0
    while admission.patience_s(clock.elapsed_s) <= 0 and turns < 20:
        admission.admit()
        turns += 1
    assert admission.arriving.keys() == {"data/student_new.csv"}
    assert turns < 20


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
        admission.known.forget(project.ledger.read.unseen())
        admission.admit()
        clock.elapsed_s += 600

    (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert vars(said)["why"] == "cannot be read: Input/output error"


# --------------------------------------------------------------------------- one drop, one batch


def run_on(admission: Admission, clock: MovedClock, seconds: float) -> None:
    """Let the front of the line work for so long."""
    end_s = clock.elapsed_s + seconds
    while clock.elapsed_s < end_s:
        admission.admit()
        admission.form(room=1)
        clock.elapsed_s += min(max(LEAST_S, admission.patience_s(clock.elapsed_s)), 0.1)


def batches(project: Project) -> list[list[str]]:
    """The names of the files of each batch."""
    read = project.ledger.read
    found = [read.batch_paths(batch.id) for batch in read.batches_in(BatchState.QUEUED)]
    return sorted(sorted(Path(path).stem.removeprefix("student_") for path in one) for one in found)


@pytest.fixture
def quick(project: Project) -> Project:
    """Both quiet times are the same."""
    return with_quiet(project, 0.5)


def with_quiet(project: Project, batch_s: float) -> Project:
    settings = {"DS_FLOW_WATCH__QUIET_SECONDS": "0.5", "DS_FLOW_BATCH__QUIET_SECONDS": f"{batch_s}"}
    project.settings = load_settings(project.config, settings)
    return project


def test_a_batch_waits_for_a_file_of_the_same_drop_that_was_seen_half_written(
    make: Make, quick: Project, clock: MovedClock
) -> None:
    admission = make()
    for name in "ab":
        quick.drop(f"student_{name}.csv")
    late = quick.drop("student_c.csv", "a,b\n")
    run_on(admission, clock, 0.3)
    late.write_text("a,b\n1,2\n")
    admission.hinted = True

    run_on(admission, clock, 5)

    assert batches(quick) == [["a", "b", "c"]]


def test_a_batch_waits_for_no_file_that_a_process_has_open(
    make: Make, quick: Project, clock: MovedClock
) -> None:
    admission = make()
    quick.drop("student_a.csv")
    with quick.drop("student_open.csv").open("a"):
        run_on(admission, clock, 2)
        assert batches(quick) == [["a"]]

    run_on(admission, clock, 2)
    assert batches(quick) == [["a"], ["open"]]


def test_a_batch_waits_for_no_file_that_is_written_again_and_again(
    make: Make, quick: Project, clock: MovedClock
) -> None:
    admission, restless = make(), quick.drop("student_restless.csv")
    quick.drop("student_a.csv")
    for count in range(1, 15):  # sooner than it could settle
        restless.write_text("a,b\n" + "1,2\n" * count)
        run_on(admission, clock, 0.2)

    assert batches(quick) == [["a"]]


def test_a_file_that_grows_and_settles_all_the_time_keeps_no_batch_open(
    make: Make, project: Project, clock: MovedClock
) -> None:
    with_quiet(project, batch_s=3)
    admission, growing = make(), project.drop("student_growing.csv")
    for count in range(1, 4):
        growing.write_text("a,b\n" + "1,2\n" * count)
        admission.hinted = True
        run_on(admission, clock, 2)

    assert len(batches(project)) == 1


def test_a_drop_to_a_file_system_without_leases_is_one_batch(
    make: Make, quick: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "is_open_for_writing", lambda _descriptor: None)
    admission = make()
    for name in "abc":  # each needs ten seconds
        quick.drop(f"student_{name}.csv")
        admission.hinted = True
        run_on(admission, clock, 0.3)

    run_on(admission, clock, 20)

    assert batches(quick) == [["a", "b", "c"]]


def test_what_comes_while_files_are_hashed_is_in_the_same_batch(
    make: Make, project: Project, clock: MovedClock
) -> None:
    with_quiet(project, batch_s=1)
    admission = make()

    def hash_for_long() -> None:
        admission.pulse = lambda: None
        clock.elapsed_s += 1
        project.drop("student_b.csv")
        admission.hinted = True

    admission.pulse = hash_for_long
    project.drop("student_a.csv")
    run_on(admission, clock, 5)

    assert batches(project) == [["a", "b"]]


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(3 * PIECE_BYTES, [["a", "large"]]), (SOON_BYTES + 8 * PIECE_BYTES, [["a"]])],
)
def test_a_batch_waits_for_a_file_only_if_it_will_have_been_read_soon(
    make: Make, quick: Project, clock: MovedClock, size_bytes: int, expected: list[list[str]]
) -> None:
    admission = make()
    quick.drop("student_a.csv")
    os.truncate(quick.drop("student_large.csv"), size_bytes)

    run_on(admission, clock, 0.6)

    assert batches(quick) == expected


def test_a_file_that_is_being_read_is_no_new_arrival_unless_it_has_changed(
    make: Make, quick: Project, clock: MovedClock
) -> None:
    admission, path = make(), quick.drop("student_large.csv")
    os.truncate(path, 9 * PIECE_BYTES)
    admission.admit()
    clock.elapsed_s += 0.5

    def read_bytes() -> list[int]:
        clock.elapsed_s += 60  # a scan is due
        admission.admit()
        return [one.read_bytes for one in admission.turns.progress()]

    assert [read_bytes(), read_bytes()] == [[PIECE_BYTES], [2 * PIECE_BYTES]]
    assert not admission.arriving
    os.truncate(path, 8 * PIECE_BYTES)
    assert read_bytes() == []
    assert admission.arriving.keys() == {"data/student_large.csv"}


def test_no_more_batches_form_than_runs_may_start(
    make: Make, quick: Project, clock: MovedClock
) -> None:
    quick.settings = load_settings(quick.config, {"DS_FLOW_BATCH__MAX_FILES": "1"})
    admission = make()
    for name in "abc":
        quick.drop(f"student_{name}.csv")
    admission.admit()
    clock.elapsed_s += 60
    admission.admit()

    assert [admission.form(room=room) for room in (0, 2, 5)] == [0, 2, 1]


def test_a_batch_is_full_at_its_megabytes(make: Make, quick: Project, clock: MovedClock) -> None:
    quick.settings = load_settings(quick.config, {"DS_FLOW_BATCH__MAX_MB": "1"})
    admission = make()
    for name in "ab":
        os.truncate(quick.drop(f"student_{name}.csv"), 2**20)
    admission.admit()
    clock.elapsed_s += 60
    admission.admit()

    assert admission.form(room=5) == 2


def test_a_named_file_is_seen_although_others_are_due_for_another_look(
    make: Make, quick: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = make()
    quick.drop("student_a.csv")
    admission.admit()
    quick.drop("student_b.csv")
    monkeypatch.setattr(admission.inbox, "named", lambda: {"data/student_b.csv"})
    clock.elapsed_s += 0.5

    admission.admit()

    assert admission.arriving.keys() == {"data/student_b.csv"}


def test_files_that_wait_are_not_read_turn_by_turn_while_no_run_may_start(
    make: Make, quick: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission, read = make(), quick.ledger.read
    waiting = itertools.count()
    monkeypatch.setattr(read, "waiting", lambda: next(waiting) and [])
    quick.drop("student_a.csv")
    clock.elapsed_s += 1
    for _ in range(5):
        admission.admit()
        admission.form(room=0)
        clock.elapsed_s += 1
    assert read.counts("file")["waiting"] == 1
    assert next(waiting) == 0

    monkeypatch.undo()
    admission.form(room=1)
    assert batches(quick) == [["a"]]


def test_files_that_wait_are_read_only_when_a_batch_may_be_due(
    make: Make, project: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"DS_FLOW_BATCH__MAX_FILES": "6", "DS_FLOW_BATCH__QUIET_SECONDS": "5"}
    project.settings = load_settings(project.config, settings)
    admission, waiting, read = make(), project.ledger.read.waiting, itertools.count()
    monkeypatch.setattr(project.ledger.read, "waiting", lambda: (next(read), waiting())[1])
    for number in range(20):
        project.drop(f"student_{number:02}.csv")
        admission.hinted = True
        run_on(admission, clock, 1)
    assert [len(names) for names in batches(project)] == [6, 6, 6]
    assert next(read) <= 1 + 2 * 3  # of some hundred turns: at first, when full, and once after it

    run_on(admission, clock, 9)
    assert [len(names) for names in batches(project)] == [6, 6, 6, 2]


# --------------------------------------------------------------------------- a large inbox


class Slow(Inbox):
    """An inbox whose scans take long, on a moved clock."""

    clock: MovedClock
    scans = 0
    is_polling = False  # events would tell of a change

    def look(self, is_known: Callable[[Sighting], bool] = lambda _: False) -> Iterator[Look]:
        self.scans += 1
        yield from super().look(is_known)
        self.clock.elapsed_s += 6


@pytest.fixture
def slow(project: Project, clock: MovedClock) -> Admission:
    inbox = Slow(Pattern.parse(project.settings.pattern, project.root), Wake(), "poll")
    inbox.clock = clock
    project.settings.work_root.mkdir()
    return Admission(project.settings, project.ledger, inbox, clock, lambda: None)


def test_a_large_inbox_is_scanned_rarely_while_nothing_comes(
    slow: Admission, clock: MovedClock
) -> None:
    admission, inbox = slow, slow.inbox
    assert isinstance(inbox, Slow)
    end_s = clock.elapsed_s + 3600
    while clock.elapsed_s < end_s:
        admission.admit()
        clock.elapsed_s += max(LEAST_S, admission.patience_s(clock.elapsed_s))

    assert 6 * inbox.scans <= 3600 * IDLE_SCAN_SHARE + 6
    assert inbox.scans > 1


def counted(admission: Admission) -> Counted | None:
    settings = admission.settings
    return last_look(settings.work_root, os.getpid(), settings.pattern, admission.clock.now())


def test_what_a_long_look_counts_is_written_down_until_the_next_one(
    slow: Admission, project: Project, clock: MovedClock
) -> None:
    project.drop("student_a.csv")
    (project.root / "data" / "student_b.csv").mkdir()
    began = clock.now()
    slow.admit()
    first = counted(slow)
    assert first is not None
    assert (first.arriving, first.ignored, first.looked_at) == (1, 1, began.isoformat())

    clock.elapsed_s += 60
    assert slow.admit() == 1
    second = counted(slow)
    assert second is not None
    assert (second.arriving, second.until) == (0, first.until)

    while not slow.is_scan_due(clock.elapsed_s):
        clock.elapsed_s += 1
    assert counted(slow) == second
    clock.elapsed_s += 3600
    assert counted(slow) is None


def test_an_old_count_stays_no_longer_than_it_holds(
    slow: Admission, project: Project, make: Make, clock: MovedClock
) -> None:
    slow.admit()
    assert counted(slow) is not None
    full = project.settings.work_root / "look.json"
    slow.inbox.pattern.base.rename(project.root / "away")
    slow.hinted = True
    clock.elapsed_s += 3600
    slow.admit()
    assert not full.exists()

    full.write_text("of a daemon that was killed")
    make().admit()
    assert not full.exists()


def test_a_daemon_that_ends_leaves_no_count(slow: Admission, project: Project) -> None:
    slow.admit()
    full = project.settings.work_root / "look.json"
    assert full.exists()
    slow.close()
    assert not full.exists()


def test_a_short_look_writes_nothing_down(make: Make, project: Project) -> None:
    project.settings.work_root.mkdir()
    make().admit()
    assert list(project.settings.work_root.iterdir()) == []


def test_a_count_that_cannot_be_written_leaves_no_older_one(
    slow: Admission, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow.admit()
    project.drop("student_a.csv")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(progress, "write_bytes", full)
    monkeypatch.setattr(slow.inbox, "named", lambda: {"data/student_a.csv"})
    slow.admit()
    assert slow.arriving
    assert counted(slow) is None


# --------------------------------------------------------------------------- a scan in slices


@pytest.fixture
def sliced(make: Make, project: Project, monkeypatch: pytest.MonkeyPatch) -> Admission:
    """A slice for the folder, one for each file in it, one for the end."""
    monkeypatch.setattr(scan, "FILES_A_STEP", 1)
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    for number in range(5):
        project.drop(f"student_{number}.csv")
    return make()


def scan_whole(admission: Admission) -> int:
    """Turn until the scan that is under way has ended; how many turns."""
    turns = 0
    while admission.scan is not None:
        admission.admit()
        turns += 1
    return turns


def name(admission: Admission, *names: str) -> None:
    """Turn once, with these files named by events."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(admission.inbox, "named", lambda: {f"data/{one}" for one in names})
        admission.admit()


def settle(admission: Admission, clock: MovedClock) -> None:
    clock.elapsed_s += admission.settings.watch.quiet_seconds


def test_a_long_scan_takes_turns_with_the_other_work(sliced: Admission, clock: MovedClock) -> None:
    sliced.admit()
    assert sliced.is_busy
    assert sliced.patience_s(clock.elapsed_s) <= 0
    sliced.hinted = True
    assert not sliced.is_scan_due(clock.elapsed_s)  # one at a time

    assert scan_whole(sliced) == 7
    assert len(sliced.arriving) == 5
    assert sliced.is_scan_due(clock.elapsed_s)  # for the hint


def test_a_file_that_is_named_during_a_long_scan_does_not_wait_for_its_end(
    sliced: Admission, project: Project, clock: MovedClock
) -> None:
    sliced.admit()
    project.drop("student_new.csv")
    name(sliced, "student_new.csv")
    settle(sliced, clock)
    assert sliced.admit() == 1
    assert sliced.scan is not None
    assert [file.size_bytes for file in project.ledger.read.waiting()] == [8]


def test_a_file_that_is_arriving_when_a_long_scan_ends_is_not_forgotten(
    sliced: Admission, project: Project, clock: MovedClock
) -> None:
    while sliced.admit() == 0 and (sliced.scan is None or not sliced.scan.found.sightings):
        pass
    (project.root / "data" / "new").write_text("a")  # behind what has been listed, or before it
    (project.root / "data" / "new").rename(project.root / "data" / "student_new.csv")
    name(sliced, "student_new.csv")
    scan_whole(sliced)
    assert len(sliced.arriving) == 6
    settle(sliced, clock)
    sliced.admit()
    assert len(project.ledger.read.waiting()) == 6


def test_what_was_admitted_during_a_long_scan_is_no_news_at_its_end(
    sliced: Admission, project: Project, clock: MovedClock
) -> None:
    names = [f"student_{number}.csv" for number in range(5)]
    sliced.admit()
    name(sliced, *names)
    while sliced.scan is not None and len(sliced.scan.found.sightings) < 5:
        sliced.admit()
    settle(sliced, clock)
    sliced.admit()
    assert len(project.ledger.read.waiting()) == 5
    scan_whole(sliced)
    assert not sliced.arriving


def test_an_inbox_that_is_lost_during_a_long_scan_is_reported_and_scanned_again(
    sliced: Admission, project: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> Iterator[Look]:
        yield Look(0)
        raise DispatchError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(sliced.inbox, "look", lost)
        sliced.admit()
        assert sliced.inbox_error == ""
        sliced.admit()
    assert "gone" in sliced.inbox_error
    assert sliced.scan is None
    clock.elapsed_s += project.settings.watch.poll_seconds
    sliced.admit()
    scan_whole(sliced)
    assert not sliced.inbox_error
    assert len(sliced.arriving) == 5


def test_a_long_scan_that_ends_lets_no_arriving_file_begin_again(
    sliced: Admission, clock: MovedClock
) -> None:
    sliced.admit()
    name(sliced, "student_0.csv")
    clock.elapsed_s += sliced.settings.watch.quiet_seconds / 2
    scan_whole(sliced)
    clock.elapsed_s += sliced.settings.watch.quiet_seconds / 2
    assert sliced.admit() == 1


def test_slices_follow_each_other_at_once(sliced: Admission, clock: MovedClock) -> None:
    sliced.admit()
    scan_whole(sliced)
    sliced.arriving.clear()
    sliced.hinted = True
    sliced.admit()
    assert sliced.scan is not None
    sliced.hinted = False
    assert sliced.patience_s(clock.elapsed_s) == 0


def test_the_time_of_a_scan_is_that_of_its_slices(clock: MovedClock) -> None:
    def steps() -> Iterator[Look]:
        for _ in range(3):
            clock.elapsed_s += 6
            yield Look(0)

    under_way = slices.Scan(steps(), clock, clock.now())
    while not under_way.go_on(clock.elapsed_s):
        clock.elapsed_s += 100
    assert under_way.spent_s == 18


def look(inbox: Inbox, is_known: Callable[[Sighting], bool] = lambda _: False) -> Look:
    *_, found = inbox.look(is_known)
    return found


def test_a_scan_gives_no_file_that_is_known_as_it_is(make: Make, project: Project) -> None:
    admission, path = make(), project.drop("student_a.csv")
    other = project.drop("student_b.csv")
    looks = [Sighting(f"data/{one.name}", scan.stat_of(one.stat())) for one in (path, other)]
    admission.known.add((path, str(look)) for path, look in looks)
    other.write_text("a,b\n1,2\n3,4\n")

    assert len(look(admission.inbox).sightings) == 2
    (seen,) = look(admission.inbox, admission.known.has).sightings
    assert seen.path == "data/student_b.csv"

    admission.known.forget(["data/student_a.csv"])
    assert len(look(admission.inbox, admission.known.has).sightings) == 2
