"""The eyes on the input directory: events as hints, looks, and fingerprints of what has settled."""

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disks import other_disk
from ds_flow.core.errors import DispatchError
from ds_flow.core.states import Arrival, Cause, Settled, Sighting
from ds_flow.inbox.hashing import PIECE_BYTES, Hash, StillArriving
from ds_flow.inbox.pattern import Look, Pattern
from ds_flow.inbox.scan import is_open_for_writing
from ds_flow.inbox.watcher import Inbox
from ds_flow.system.wake import Wake
from moments import LinkAndFolder, at_every_moment, chain, moved_too_deep, nest
from project import until
from rights import no_rights, public_folder
from samples import sha256

LONG_S = 3600.0  # for what is to come; the test's own limit is shorter
SHORT_S = 0.2  # in which nothing is to come

Make = Callable[..., Inbox]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def wake() -> Iterator[Wake]:
    made = Wake()
    yield made
    made.close()


@pytest.fixture
def make(root: Path, wake: Wake) -> Iterator[Make]:
    opened: list[Inbox] = []

    def made(observer: str = "inotify", pattern: str = "data/*.csv") -> Inbox:
        opened.append(Inbox(Pattern.parse(f"{root}/{pattern}", root), wake, observer))
        return opened[-1]

    yield made
    for inbox in opened:
        inbox.close()


@pytest.fixture
def inbox(make: Make) -> Inbox:
    return make("poll")


@pytest.fixture
def file(root: Path) -> Path:
    path = root / "data" / "a.csv"
    path.write_text("1")
    return path


def be_quiet(wake: Wake) -> None:
    """Let all events come that are on their way."""
    while wake.wait(SHORT_S):
        pass


def look(inbox: Inbox) -> Look:
    *_, found = inbox.look()
    return found


def fingerprint(inbox: Inbox, arrival: Arrival, now_s: float = 100) -> Settled | StillArriving:
    judged = inbox.fingerprint(arrival, now_s, Hash(), at_most=2**40)
    assert judged is not None
    return judged


def seen(inbox: Inbox) -> Arrival:
    (sighting,) = look(inbox).sightings
    return Arrival(sighting, 0)


# --------------------------------------------------------------------------- fingerprints


def test_a_settled_file_gets_the_hash_of_its_bytes(inbox: Inbox, file: Path) -> None:
    arrival = seen(inbox)

    assert file.read_text() == "1"
    assert fingerprint(inbox, arrival) == Settled(sighting=arrival.sighting, sha256=sha256("1"))


def test_a_file_that_is_open_for_writing_is_still_arriving(inbox: Inbox, file: Path) -> None:
    with file.open("a") as writer:
        writer.write("2")
        writer.flush()
        arrival = seen(inbox)
        assert fingerprint(inbox, arrival) == StillArriving("open for writing", is_settling=False)

    judged = fingerprint(inbox, arrival)
    assert isinstance(judged, Settled)
    assert judged.sha256 == sha256("12")


def test_a_reader_does_not_hold_a_file_up(inbox: Inbox, file: Path) -> None:
    with file.open():
        assert isinstance(fingerprint(inbox, seen(inbox)), Settled)


def test_a_lease_is_given_back(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        assert is_open_for_writing(descriptor) is False
        os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
    finally:
        os.close(descriptor)


def test_where_no_lease_can_be_had_a_file_must_be_quiet_for_longer() -> None:
    if os.geteuid() != 0:
        pytest.skip("who owns a file can lease it")
    with public_folder() as root:
        for name in ("data", "closed"):
            (root / name).mkdir()
        (root / "data/a.csv").write_text("1")
        inbox = Inbox(Pattern.parse(f"{root}/data/*.csv", root), Wake(), "poll")
        arrival = seen(inbox)
        with no_rights(root / "closed"):
            early = fingerprint(inbox, arrival, now_s=9.9)
            late = fingerprint(inbox, arrival, now_s=10)

    assert early == StillArriving("no lease: it must be quiet for 10 s")
    assert isinstance(late, Settled)


def test_a_change_after_the_look_is_noticed(inbox: Inbox, file: Path) -> None:
    arrival = seen(inbox)
    file.write_text("22")

    assert fingerprint(inbox, arrival) == StillArriving("changed since it was looked at")


def test_a_change_that_restores_size_and_mtime_is_noticed(inbox: Inbox, file: Path) -> None:
    arrival = seen(inbox)
    stat = arrival.sighting.stat._replace(ctime_ns=arrival.sighting.stat.ctime_ns - 1)

    judged = fingerprint(inbox, Arrival(Sighting("data/a.csv", stat), 0))

    assert file.exists()
    assert judged == StillArriving("changed since it was looked at")


def test_a_change_between_two_pieces_is_noticed(inbox: Inbox, file: Path) -> None:
    os.truncate(file, 10)
    arrival, so_far = seen(inbox), Hash()

    assert inbox.fingerprint(arrival, 100, so_far, at_most=4) is None
    os.truncate(file, 1)
    judged = inbox.fingerprint(arrival, 100, so_far, at_most=4)

    assert judged == StillArriving("changed since it was looked at")


def test_a_change_while_a_piece_is_read_is_noticed(inbox: Inbox, file: Path) -> None:
    class Grown(Hash):
        def go_on(self, descriptor: int, at_most: int) -> bool:
            os.truncate(file, 1)
            return super().go_on(descriptor, at_most)

    os.truncate(file, 10)

    judged = inbox.fingerprint(seen(inbox), 100, Grown(), at_most=4)

    assert judged == StillArriving("changed while it was fingerprinted")


CONTENT = os.urandom(3 * 2**20 + 17)


@pytest.mark.parametrize("at_most", [PIECE_BYTES, 2**20, 2**20 + 1, len(CONTENT), 100_000])
def test_a_hash_in_pieces_is_that_of_the_whole_file(file: Path, at_most: int) -> None:
    with file.open("wb") as sparse:
        sparse.seek(5 * 2**20)
        sparse.write(CONTENT)
        sparse.truncate(20 * 2**20)
    so_far, pieces = Hash(), 0

    with file.open("rb") as opened:
        while not so_far.go_on(opened.fileno(), at_most):
            pieces += 1
            assert so_far.read_bytes == pieces * at_most

    assert so_far.hex == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_that_went_is_gone(inbox: Inbox, file: Path) -> None:
    arrival = seen(inbox)
    file.unlink()

    assert fingerprint(inbox, arrival) == StillArriving("gone")
    assert inbox.look_at(["data/a.csv"]) == []


def test_what_was_swapped_for_a_fifo_blocks_nobody(inbox: Inbox, file: Path) -> None:
    arrival = seen(inbox)
    file.unlink()
    os.mkfifo(file)

    assert fingerprint(inbox, arrival) == StillArriving("gone")


def test_a_link_swapped_in_is_not_followed_out_of_the_inbox(
    inbox: Inbox, file: Path, root: Path
) -> None:
    arrival = seen(inbox)
    (root / "secret").write_text("1")
    file.unlink()
    file.symlink_to(root / "secret")

    assert isinstance(fingerprint(inbox, arrival), StillArriving)
    assert inbox.look_at(["data/a.csv"]) == []


def test_a_link_that_becomes_a_folder_at_any_moment_is_no_internal_error(
    inbox: Inbox, root: Path
) -> None:
    pair = LinkAndFolder(root / "data")
    pair.prepare()
    arrival = Arrival(inbox.look_at(["data/student_link.csv"])[0], 0)

    def attempt() -> None:
        inbox.look_at(["data/student_link.csv"])
        judged = fingerprint(inbox, arrival)
        assert isinstance(judged, StillArriving) or judged.sha256 == sha256("name\nAnn\n")

    assert at_every_moment(pair.prepare, attempt, pair.swap) > 10


def test_a_file_that_is_moved_too_deep_at_any_moment_leaves_no_descriptor_open(
    inbox: Inbox, root: Path
) -> None:
    folder, aside = root / "data", root / "aside"

    def prepare() -> None:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        for made in (folder, aside):
            made.mkdir()
        (folder / "a.csv").write_text("1")
        arrivals[:] = [seen(inbox)]

    arrivals: list[Arrival] = []
    before = len(list(Path("/proc/self/fd").iterdir()))
    moments = at_every_moment(
        prepare,
        lambda: fingerprint(inbox, arrivals[0]),
        lambda: moved_too_deep(folder, aside),
    )
    assert moments > 5
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_chain_of_very_many_links_is_passed_over(inbox: Inbox, root: Path) -> None:
    chain(root / "data" / "student_chain.csv")
    assert inbox.look_at(["data/student_chain.csv"]) == []


@pytest.mark.parametrize("name", [b"a\nb.csv", b"\xff.csv", b"\x7f.csv"])
def test_a_name_that_nobody_can_type_is_set_aside(inbox: Inbox, root: Path, name: bytes) -> None:
    (root / "data" / os.fsdecode(name)).touch()

    judged = fingerprint(inbox, seen(inbox))

    assert isinstance(judged, Settled)
    assert (judged.cause, judged.sha256) == (Cause.NAME, None)


def test_a_file_that_may_not_be_read_is_set_aside_with_the_reason() -> None:
    with public_folder() as root:
        (root / "data").mkdir()
        (root / "data/a.csv").touch()
        inbox = Inbox(Pattern.parse(f"{root}/data/*.csv", root), Wake(), "poll")
        arrival = seen(inbox)
        with no_rights(root / "data/a.csv"):
            judged = fingerprint(inbox, arrival)

    assert isinstance(judged, Settled)
    assert judged.cause == Cause.UNREADABLE
    assert judged.reason == "cannot be read: Permission denied"
    assert judged.look_again  # it may be the folder's rights: their return changes no file


def test_a_disk_that_fails_is_asked_again() -> None:
    mem = Path("/proc/self/mem").resolve()  # a regular file whose first read gives EIO
    inbox = Inbox(Pattern.parse(str(mem), mem.parent), Wake(), "poll")

    judged = fingerprint(inbox, seen(inbox))

    assert isinstance(judged, Settled)
    assert (judged.cause, judged.reason) == (
        Cause.UNREADABLE,
        "cannot be read: Input/output error",
    )
    assert judged.look_again


def test_a_file_is_not_blamed_where_the_daemon_has_no_descriptor_left(
    inbox: Inbox, file: Path
) -> None:
    arrival = seen(inbox)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(DispatchError, match="Too many open files"):
            fingerprint(inbox, arrival)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(fingerprint(inbox, arrival), Settled), file


# --------------------------------------------------------------------------- watching


def test_a_new_file_wakes(make: Make, root: Path, wake: Wake) -> None:
    make().watch()
    assert not wake.wait(0)

    (root / "data/a.csv").write_text("1")

    assert wake.wait(LONG_S)


def test_events_name_what_matches_the_pattern_and_nothing_else(make: Make, root: Path) -> None:
    inbox, named = make(), set[str]()
    inbox.watch()
    for name in ("a.txt", ".b.csv", "c.csv.part", "d.csv"):
        (root / "data" / name).write_text("1")

    def is_last_named() -> bool:
        named.update(inbox.named())
        return "data/d.csv" in named

    until("the last one was named", is_last_named)

    assert named == {"data/d.csv"}


def test_a_file_moved_in_wakes(make: Make, root: Path, wake: Wake) -> None:
    (root / "a.csv").write_text("1")
    make().watch()

    (root / "a.csv").rename(root / "data/a.csv")

    assert wake.wait(LONG_S)


def test_a_file_in_a_new_subfolder_wakes(make: Make, root: Path, wake: Wake) -> None:
    inbox = make(pattern="data/**/*.csv")
    inbox.watch()
    (root / "data/deep").mkdir()
    assert wake.wait(LONG_S)

    look(inbox)
    be_quiet(wake)
    (root / "data/deep/a.csv").write_text("1")

    assert wake.wait(LONG_S)


def test_a_file_in_an_inbox_that_is_a_link_wakes(make: Make, root: Path, wake: Wake) -> None:
    (root / "data").rename(root / "real")
    (root / "data").symlink_to("real")
    make().watch()

    (root / "data/a.csv").write_text("1")

    assert wake.wait(LONG_S)


def test_our_own_reading_wakes_nobody(make: Make, wake: Wake, file: Path) -> None:
    inbox = make()
    inbox.watch()
    arrival = seen(inbox)

    assert isinstance(fingerprint(inbox, arrival), Settled)

    assert file.exists()
    assert not wake.wait(SHORT_S)


@pytest.mark.parametrize("way", ["moved away", "removed"])
def test_a_watched_folder_that_goes_wakes_and_its_neighbours_do_not(
    make: Make, root: Path, wake: Wake, way: str
) -> None:
    make().watch()
    (root / "other").mkdir()
    (root / "other").rename(root / "another")
    assert not wake.wait(SHORT_S)

    if way == "removed":
        (root / "data").rmdir()
    else:
        (root / "data").rename(root / "old")

    assert wake.wait(LONG_S)


@pytest.mark.parametrize("way", ["moved away", "removed"])
def test_a_folder_put_in_place_of_the_watched_one_is_watched(
    make: Make, root: Path, wake: Wake, way: str
) -> None:
    inbox = make()
    look(inbox)
    if way == "removed":
        (root / "data").rmdir()
    else:
        (root / "data").rename(root / "old")
    (root / "data").mkdir()

    be_quiet(wake)
    look(inbox)
    (root / "data/a.csv").write_text("1")

    assert wake.wait(LONG_S)


def test_a_missing_folder_is_an_error_until_it_is_back(make: Make, root: Path, wake: Wake) -> None:
    inbox = make()
    look(inbox)
    (root / "data").rmdir()
    with pytest.raises(DispatchError, match="No such file or directory; create it or make"):
        look(inbox)

    (root / "data").mkdir()
    assert look(inbox).sightings == []
    be_quiet(wake)
    (root / "data/a.csv").write_text("1")
    assert wake.wait(LONG_S)


def test_a_folder_on_another_device_is_an_error_once(make: Make, root: Path) -> None:
    inbox = make("poll")
    look(inbox)
    (root / "data").rmdir()

    with other_disk(root) as other:
        (root / "data").symlink_to(other)
        with pytest.raises(DispatchError, match="on another device"):
            look(inbox)
        look(inbox)


def test_polling_watches_nothing(make: Make) -> None:
    inbox = make("poll")
    inbox.watch()

    assert inbox.is_polling


def test_a_local_folder_gives_events(make: Make) -> None:
    inbox = make("auto")
    inbox.watch()

    assert not inbox.is_polling


@pytest.mark.exhaustive
def test_folders_that_are_nested_very_deep_are_watched(make: Make, root: Path, wake: Wake) -> None:
    inbox = make("inotify", "data/**/*.csv")
    with nest(root / "data", "a.csv") as file:
        assert len(look(inbox).sightings) == 1
        be_quiet(wake)
        Path(file).write_text("2")
        assert wake.wait(LONG_S)

    assert not inbox.is_polling


@pytest.mark.exhaustive
def test_more_events_than_the_kernel_keeps_wake_and_later_ones_do_too(
    make: Make, root: Path, wake: Wake, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    inbox = make("inotify", "data/**/*.csv")
    look(inbox)
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    assert inbox._watches is not None
    with inbox._watches._inotify._lock:  # nobody reads meanwhile
        for number in range(queue):
            name = root / "data" / f"folder{number % 10}"
            name.mkdir()
            name.rename(f"{name}-moved")
            Path(f"{name}-moved").rmdir()

    until("it was said", lambda: "inbox.overflow" in caplog.text)
    assert wake.wait(LONG_S)
    look(inbox)
    be_quiet(wake)
    (root / "data/a.csv").write_text("1")
    assert wake.wait(LONG_S)
    assert not inbox.is_polling


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_of_events_that_dies_is_told_and_started_again(
    make: Make,
    root: Path,
    wake: Wake,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inbox = make()
    look(inbox)
    watches = inbox._watches
    assert watches is not None
    monkeypatch.setattr(watches, "on_event", None)
    (root / "data/a.csv").write_text("1")
    until("it died", lambda: not watches.is_alive)

    look(inbox)

    assert "inbox.deaf" in caplog.text
    be_quiet(wake)
    (root / "data/b.csv").write_text("1")
    assert wake.wait(LONG_S)


WITHOUT_DESCRIPTORS = """
import logging, resource, sys
from pathlib import Path
from ds_flow.inbox.pattern import Look, Pattern
from ds_flow.inbox.watcher import Inbox
from ds_flow.system.wake import Wake
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
root = Path(sys.argv[1])
inbox = Inbox(Pattern.parse(f"{root}/data/*.csv", root), Wake(), "inotify")
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
inbox.watch()
print(inbox.is_polling)
"""


def test_where_no_watch_is_left_it_polls_and_says_so(root: Path) -> None:
    # A process of its own: the watching threads of other tests need descriptors.
    said = subprocess.check_output([sys.executable, "-c", WITHOUT_DESCRIPTORS, root], text=True)

    assert said == "WARNING inbox.polled\nTrue\n"


def test_an_inbox_that_is_closed_leaves_no_thread(make: Make) -> None:
    inbox, before = make(), set(threading.enumerate())
    inbox.watch()
    assert set(threading.enumerate()) > before

    inbox.close()

    assert set(threading.enumerate()) == before
