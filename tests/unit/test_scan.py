"""What matches the input pattern, and what is ignored with a reason."""

import math
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ds_flow.core.errors import DispatchError
from ds_flow.core.paths import unescape
from ds_flow.inbox import scan
from ds_flow.inbox.pattern import Look, Pattern
from ds_flow.inbox.scan import scan_files, sight_file
from moments import LinkAndFolder, at_every_moment, chain, nest
from rights import no_rights, public_folder

Find = Callable[[str], Look]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def find(root: Path) -> Find:
    return lambda pattern: scan_files(Pattern.parse(f"{root}/{pattern}", root))


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")


def found(seen: Look) -> list[str]:
    return sorted(sighting.path for sighting in seen.sightings)


def test_a_long_scan_goes_in_steps_that_give_what_it_has_found_so_far(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FILES_A_STEP", 2)
    put(root, *(f"data/{number}.csv" for number in range(5)))

    steps = scan.scan_in_steps(Pattern.parse(f"{root}/data/*.csv", root))

    # for the folder, after the second and the fourth file, and at the end
    assert [len(found.sightings) for found in steps] == [0, 2, 4, 5]


def test_markers_are_looked_at_in_steps_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "FILES_A_STEP", 2)
    names = [f"data/{number}.csv" for number in range(4)]
    put(root, *names, *(f"{name}.done" for name in names), "data/a.csv.done", "data/b.csv.done")

    steps = scan.scan_in_steps(Pattern.parse(f"{root}/data/*.csv", root, "{name}.done"))

    # ten names are listed; then four files are looked at, and two markers without one
    *_, first, second, third, end = [len(found.sightings) for found in steps]
    assert (first, second, third, end) == (2, 4, 4, 4)


def test_a_scan_that_is_given_up_holds_no_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FILES_A_STEP", 1)
    put(root, "data/1.csv", "data/2.csv")
    before = descriptors()
    steps = scan.scan_in_steps(Pattern.parse(f"{root}/data/*.csv", root))
    next(steps)
    next(steps)
    assert descriptors() > before
    del steps
    assert descriptors() == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_link_that_becomes_a_folder_at_any_moment_concerns_itself_alone(
    root: Path, find: Find
) -> None:
    pair = LinkAndFolder(root / "data")
    put(root, "data/student_a.csv")

    def attempt() -> None:
        assert "data/student_a.csv" in found(find("data/student_*.csv"))
        assert scan.needed_quiet_s(str(pair.link), str(root / "data"), 1) in {
            1,
            scan.UNLEASED_QUIET_SECONDS,
        }

    assert at_every_moment(pair.prepare, attempt, pair.swap) > 10


def test_a_chain_of_very_many_links_is_ignored_with_a_reason_and_stops_no_look(
    root: Path, find: Find
) -> None:
    chain(root / "data" / "student_chain.csv")
    put(root, "data/student_a.csv")

    seen = find("data/student_*.csv")

    assert found(seen) == ["data/student_a.csv"]
    assert scan.needed_quiet_s(f"{root}/data/student_chain.csv", f"{root}/data", 1) == 1
    why = "cannot be looked at: Too many levels of symbolic links"
    assert seen.ignored == {"data/student_chain.csv": why}


@pytest.mark.exhaustive
def test_a_very_deep_nest_of_folders_stops_no_look(root: Path, find: Find) -> None:
    put(root, "data/student_a.csv")
    with nest(root / "data", "student_b.csv") as file:
        seen = find("data/**/student_*.csv")
        name = Pattern.parse(f"{root}/data/**/student_*.csv", root).name_of(file)

    assert name is not None
    assert found(seen) == sorted(["data/student_a.csv", name])


# --------------------------------------------------------------------------- patterns


def test_a_star_stays_within_one_name(root: Path, find: Find) -> None:
    put(root, "data/student_1.csv", "data/student_.csv", "data/teacher_1.csv", "data/student_1.txt")
    put(root, "data/deep/student_2.csv")

    assert found(find("data/student_*.csv")) == ["data/student_.csv", "data/student_1.csv"]


def test_a_question_mark_is_one_character(root: Path, find: Find) -> None:
    put(root, "data/1.csv", "data/12.csv", "data/é.csv")

    assert found(find("data/?.csv")) == ["data/1.csv", "data/é.csv"]


def test_brackets_are_one_of_some_characters(root: Path, find: Find) -> None:
    put(root, "data/a.csv", "data/b.csv", "data/z.csv", "data/[.csv")

    assert found(find("data/[a-c].csv")) == ["data/a.csv", "data/b.csv"]
    assert found(find("data/[!a-c].csv")) == ["data/[.csv", "data/z.csv"]
    assert found(find("data/[[].csv")) == ["data/[.csv"]


def test_two_stars_are_any_number_of_folders(root: Path, find: Find) -> None:
    put(root, "data/a.csv", "data/x/a.csv", "data/x/y/a.csv", "data/x/y/a.txt")

    everywhere = ["data/a.csv", "data/x/a.csv", "data/x/y/a.csv"]
    assert found(find("data/**/*.csv")) == everywhere
    assert found(find("data/**/y/*.csv")) == ["data/x/y/a.csv"]
    assert found(find("data/**/**/*.csv")) == everywhere


def test_a_file_that_a_pattern_reaches_in_two_ways_is_seen_once(root: Path, find: Find) -> None:
    put(root, "data/a/a/a/1.csv")

    assert found(find("data/**/a/**/*.csv")) == ["data/a/a/a/1.csv"]


def test_a_wildcard_in_a_folder_s_name_reaches_one_level(root: Path, find: Find) -> None:
    put(root, "data/2025/a.csv", "data/2026/a.csv", "data/old/a.csv", "data/2026/x/a.csv")

    assert found(find("data/20*/a.csv")) == ["data/2025/a.csv", "data/2026/a.csv"]


def test_a_pattern_without_wildcards_is_one_file(root: Path, find: Find) -> None:
    put(root, "data/a.csv", "data/b.csv")

    assert found(find("data/a.csv")) == ["data/a.csv"]


def test_a_pattern_outside_the_project_gives_absolute_paths(root: Path, tmp_path: Path) -> None:
    put(root, "data/a.csv")
    elsewhere = tmp_path / "project"

    seen = scan_files(Pattern.parse(f"{root}/data/*.csv", elsewhere))

    assert found(seen) == [f"{root}/data/a.csv"]


def test_a_pattern_at_the_root_of_the_project_has_no_folder_before_the_name(
    root: Path, find: Find
) -> None:
    put(root, "a.csv")

    assert found(find("*.csv")) == ["a.csv"]


# --------------------------------------------------------------------------- what never matches


@pytest.mark.parametrize(
    "name",
    [
        ".a.csv",
        "a.csv.tmp",
        "a.csv.part",
        "a.csv.filepart",
        "a.csv~",
        "~$a.csv",
        "a.TMP",
        ".hid/a.csv",
    ],
)
def test_hidden_and_temporary_names_never_match(root: Path, find: Find, name: str) -> None:
    put(root, f"data/{name}")

    assert found(find("data/*")) == []
    assert found(find("data/**/*")) == []


def test_a_missing_base_is_an_error_and_not_an_empty_inbox(find: Find) -> None:
    with pytest.raises(DispatchError, match="No such file"):
        find("missing/*.csv")


def test_what_is_no_file_is_ignored_with_a_reason(root: Path, find: Find) -> None:
    (root / "data/folder.csv").mkdir()
    os.mkfifo(root / "data/fifo.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "data/socket.csv"))

    assert find("data/*.csv").ignored == {
        "data/folder.csv": "a directory, not a file",
        "data/fifo.csv": "a FIFO, not a file",
        "data/socket.csv": "a socket, not a file",
    }


def test_a_folder_that_cannot_be_read_is_named_and_the_rest_is_found() -> None:
    with public_folder() as root:
        put(root, "data/a.csv", "data/closed/b.csv")
        with no_rights(root / "data/closed"):
            seen = scan_files(Pattern.parse(f"{root}/data/**/*.csv", root))

    assert found(seen) == ["data/a.csv"]
    assert seen.ignored == {"data/closed/": "a folder that cannot be read: Permission denied"}


# --------------------------------------------------------------------------- symbolic links


def test_a_link_within_the_inbox_is_the_file_it_leads_to(root: Path, find: Find) -> None:
    put(root, "data/a.txt")
    (root / "data/a.csv").symlink_to("a.txt")

    (sighting,) = find("data/*.csv").sightings

    assert sighting.path == "data/a.csv"
    assert sighting.stat.inode == (root / "data/a.txt").stat().st_ino


def test_a_link_that_leaves_the_inbox_is_ignored(root: Path, find: Find) -> None:
    put(root, "secret.csv", "data2/a.csv")
    (root / "data/a.csv").symlink_to(root / "secret.csv")
    (root / "data/b.csv").symlink_to("../data2/a.csv")  # a name that begins like the inbox's

    seen = find("data/*.csv")

    assert not seen.sightings
    assert seen.ignored == {
        "data/a.csv": f"a symbolic link that leaves the inbox (to {root}/secret.csv)",
        "data/b.csv": f"a symbolic link that leaves the inbox (to {root}/data2/a.csv)",
    }


def test_a_link_that_leads_nowhere_is_ignored(root: Path, find: Find) -> None:
    (root / "data/a.csv").symlink_to("missing")
    (root / "data/b.csv").symlink_to("c.csv")
    (root / "data/c.csv").symlink_to("b.csv")

    seen = find("data/*.csv")

    assert not seen.sightings
    assert set(seen.ignored) == {"data/a.csv", "data/b.csv", "data/c.csv"}
    assert seen.ignored["data/a.csv"] == "a symbolic link that leads nowhere"


@pytest.mark.parametrize(
    ("pattern", "linked"),
    [
        ("data/**/*.csv", {"data/other", "data/deep/loop", "data/b.csv"}),
        ("data/*/*.csv", {"data/other", "data/b.csv"}),
        ("data/d*/*.csv", set()),
        ("data/*.csv", {"data/b.csv"}),
    ],
)
def test_a_link_to_a_folder_is_not_walked_into_but_named(
    root: Path, find: Find, pattern: str, linked: set[str]
) -> None:
    put(root, "data/deep/a.csv", "far/x.csv")
    for name, target in (("other", "../far"), ("deep/loop", ".."), ("b.csv", "deep")):
        (root / "data" / name).symlink_to(target)
    (root / "data/.hidden").symlink_to("deep")
    (root / "data/nowhere").symlink_to("missing")

    seen = find(pattern)

    assert found(seen) == (["data/deep/a.csv"] if "/*.csv" in pattern[5:] else [])
    assert seen.ignored.keys() == linked
    assert {why for path, why in seen.ignored.items() if path != "data/b.csv"} <= {
        "a symbolic link to a folder, and scans do not follow it",
        f"a symbolic link that leaves the inbox (to {root}/far)",
    }


def test_the_inbox_itself_may_be_a_link(root: Path, find: Find) -> None:
    put(root, "real/a.csv")
    (root / "linked").symlink_to("real")
    (root / "linked/b.csv").symlink_to("a.csv")

    assert found(find("linked/*.csv")) == ["linked/a.csv", "linked/b.csv"]


# --------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name", [b"a b.csv", b"a\n.csv", b"-rf.csv", b"$(x);'\".csv", b"\xff.csv", b"\\x41.csv"]
)
def test_hostile_names_are_found_and_can_be_found_again(
    root: Path, find: Find, name: bytes
) -> None:
    path = root / "data" / os.fsdecode(name)
    path.touch()

    (sighting,) = find("data/*.csv").sightings

    assert root / unescape(sighting.path) == path
    assert sighting.path.isprintable()


def test_a_sighting_has_what_changes_when_the_file_does(root: Path, find: Find) -> None:
    put(root, "data/a.csv")
    (before,) = find("data/*.csv").sightings
    os.utime(root / "data/a.csv", ns=(5, 7))

    (after,) = find("data/*.csv").sightings

    assert after.stat.mtime_ns == 7
    assert after.stat.inode == before.stat.inode
    assert sight_file(str(root / "data/a.csv"), str(root / "data")) == after.stat


def test_how_long_a_file_must_rest_depends_on_who_may_be_writing_it() -> None:
    if os.geteuid():
        pytest.skip("who owns a file can lease it")
    with public_folder() as folder:
        file = folder / "a.csv"
        file.touch()
        (folder / "closed").mkdir()
        assert scan.needed_quiet_s(str(file), str(folder), 0.5) == 0.5
        assert scan.needed_quiet_s(str(folder / "none"), str(folder), 0.5) == 0.5
        with file.open("a"):
            assert scan.needed_quiet_s(str(file), str(folder), 0.5) == math.inf
        with no_rights(folder / "closed"):
            assert scan.needed_quiet_s(str(file), str(folder), 0.5) == 10
            assert scan.needed_quiet_s(str(file), str(folder), 60) == 60
