"""Every kind of bad file among good ones: the bad are set aside with a reason, the rest goes on."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds_flow.core.errors import SettingsError
from ds_flow.core.states import BatchState, Cause, FileState, RunState
from project import Gate, Project, ids, rows_of, table, until

LONG = "l" * 251  # 255 bytes with its ending: the longest name there can be

GOOD: dict[str, str] = {
    "student_plain.csv": table("plain"),
    "student_header_only.csv": "id,score\n",
    "student with spaces.csv": table("spaces"),
    'it\'s "quoted".csv': table("quoted"),
    "-rf.csv": table("dash"),
    "; rm -rf $(pwd) `id`.csv": table("shell"),
    "Zoë 学生 🎓.csv": table("unicode"),
    f"{LONG}.csv": table("long"),
    "autumn/student_same.csv": table("autumn"),
    "spring/student_same.csv": table("spring"),
}

BAD: dict[str, tuple[str | bytes, str]] = {
    "empty.csv": (b"", "the file is empty"),
    "binary.csv": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1", "it is a PNG image, not a CSV file"),
    "latin1.csv": ("id,city\n1,Köln\n".encode("latin-1"), "line 2: byte 0xf6 is not utf-8"),
    "utf16.csv": ("id,city\n1,Köln\n".encode("utf-16-le"), "it looks like utf-16-le"),
    "failed_download.csv": (b"Internal Server Error", "it is one line of text"),
    "short.csv": (b"id,score\n1,2\n3\n", "line 3: cells: 1 in this row, 2 in the header"),
    "long.csv": (b"id,score\n1,2,3\n", "line 2: cells: 3 in this row, 2 in the header"),
    "twice.csv": (b"id,score,id\n1,2,3\n", "line 1: the header names 'id' twice"),
    "nul.csv": (b"id,score\n1,\0\n", "line 2: a NUL byte"),
    "quote.csv": (b'id,score\n1,"2\n3,4\n', "line 2: a quote is never closed"),
    "raises.csv": (table("raises", **{"raise": "no such term"}), "ValueError: no such term"),
    "crashes.csv": (table("crashes", crash="now"), "crashed by SIGSEGV"),
    "unreadable.csv": (table("unreadable"), "cannot be read: Permission denied"),
}

IGNORED = {
    "student_dangling.csv": "a symbolic link that leads nowhere",
    "student_escaping.csv": "a symbolic link that leaves the inbox",
    "student_folder.csv": "a directory, not a file",
    "student_fifo.csv": "a FIFO, not a file",
}

HOSTILE = {"new\nline.csv": r"new\x0aline.csv", "undecod\udcff.csv": r"undecod\xff.csv"}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All of the above in one folder at once, worked off."""
    made = Project(tmp_path_factory.mktemp("mixed"), paths={"input_pattern": "data/**/*.csv"})
    for name, good in GOOD.items():
        made.drop(name, good)
    for name, (bad, _) in BAD.items():
        made.drop(name, bad)
    for name in HOSTILE:
        made.drop(name, table("hostile"))
    (made.inbox / "unreadable.csv").chmod(0)
    if os.geteuid() == 0:  # nothing is unreadable for root, unless it gives that power away
        made.prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    outside = made.root / "outside.csv"
    outside.write_text(table("outside"))
    (made.inbox / "student_escaping.csv").symlink_to(outside)
    (made.inbox / "student_dangling.csv").symlink_to("nowhere.csv")
    (made.inbox / "student_staying.csv").symlink_to("student_plain.csv")
    (made.inbox / "student_folder.csv").mkdir()
    os.mkfifo(made.inbox / "student_fifo.csv")
    done = made.once()
    (made.root / "daemon.log").write_text(done.stderr, encoding="utf-8")
    return made


def test_good_and_bad_files_together_take_one_run(mixed: Project) -> None:
    assert [run.state for run in mixed.runs()] == [RunState.SUCCEEDED], mixed.said()
    assert (mixed.strays(), mixed.leftovers()) == (set(), [])
    assert mixed.status()["accounted"]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_has_its_output_whatever_its_name(mixed: Project, name: str) -> None:
    (manifest,) = mixed.manifests()
    (output,) = [out for out in manifest.outputs if out.source == f"data/{name}"]
    rows = rows_of(mixed.out / output.name)
    assert [row["id"] for row in rows] == [line.split(",")[0] for line in lines_of(name)]
    assert {row["source_file"] for row in rows} <= {f"data/{name}"}
    assert mixed.states(name) == [FileState.PROCESSED]


def lines_of(name: str) -> list[str]:
    return GOOD[name].splitlines()[1:]


def test_the_final_file_has_every_good_row_once(mixed: Project) -> None:
    expected = [line for name in GOOD for line in lines_of(name)]
    assert mixed.published_ids() == sorted([*expected, *ids("plain")])  # a link leads to it, too


def test_files_of_one_stem_in_two_folders_have_two_outputs(mixed: Project) -> None:
    (manifest,) = mixed.manifests()
    names = {out.name for out in manifest.outputs if out.source.endswith("/student_same.csv")}
    assert len(names) == 2
    assert all(name.startswith("processed_student_same-") for name in names)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_quarantined_with_its_reason(mixed: Project, name: str) -> None:
    assert mixed.states(name) == [FileState.QUARANTINED]
    assert BAD[name][1] in mixed.reason(name)


@pytest.mark.parametrize("name", HOSTILE.values())
def test_a_name_that_nobody_could_print_is_quarantined(mixed: Project, name: str) -> None:
    assert mixed.states(name) == [FileState.QUARANTINED]
    assert "rename the file" in mixed.reason(name)


def test_a_link_that_stays_in_the_inbox_is_a_file_like_any(mixed: Project) -> None:
    assert mixed.states("student_staying.csv") == [FileState.PROCESSED]


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_no_file_is_ignored_with_a_reason(mixed: Project, name: str) -> None:
    assert mixed.states(name) == []
    (line,) = [line for line in mixed.said().splitlines() if f"data/{name}" in line]
    assert "file.ignored" in line
    assert IGNORED[name] in line


# --------------------------------------------------------------------------- while it is read


# So large that a transform gets its first rows while the last ones are not read yet.
HUGE = "id,gate\nhuge-0,huge\n" + f"huge-1,{'x' * 2**20}\n" * 40


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Files that are copied over while a transform holds them, and some that change before that."""
    made = Project(tmp_path_factory.mktemp("reading"))
    made.drop("student_plain.csv", table("plain"))
    made.drop("student_same.csv", table("same", gate="same"))
    made.drop("student_other.csv", table("before", gate="other"))
    made.drop("student_huge.csv", HUGE)
    copied = {
        made.gate("huge"): ("student_huge.csv", table("small", gate="huge")),
        made.gate("same"): ("student_same.csv", table("same", gate="same")),
        made.gate("other"): ("student_other.csv", table("after", gate="other")),
    }
    try:
        made.start()
        last = copy_over_while_read(made, copied)
        change_while_waiting(made)
        last.open()
        until("the gone file was missed", lambda: "gone" in made.reason("student_gone.csv"))
        made.drop("student_gone.csv", table("gone"))
        made.wait_processed("student_gone.csv", "student_same.csv")
        made.stop()
        yield made
    finally:
        made.end_everything()


def copy_over_while_read(made: Project, copied: dict[Gate, tuple[str, str]]) -> Gate:
    """Copy over each file as soon as its gate holds it; the last gate, still closed."""
    while True:
        until("a file was being read", lambda: any(gate.is_reached for gate in copied))
        gate = next(gate for gate in copied if gate.is_reached)
        made.drop(*copied.pop(gate))
        if not copied:
            return gate
        gate.open()


def change_while_waiting(made: Project) -> None:
    gone = made.drop("student_gone.csv", table("gone"))
    made.drop("student_newer.csv", table("older"))
    made.wait_known("student_gone.csv")
    made.wait_known("student_newer.csv")
    gone.unlink()
    made.drop("student_newer.csv", table("newer"))
    made.wait_known("student_newer.csv", version=2)


@pytest.mark.exhaustive
def test_a_file_copied_over_by_the_same_content_while_read_is_published_once(
    reading: Project,
) -> None:
    assert reading.states("student_same.csv") == [FileState.PROCESSED]
    inputs = [item.path for run in reading.manifests() for item in run.inputs]
    assert inputs.count("data/student_same.csv") == 1


def test_of_a_file_copied_over_once_it_was_read_both_contents_are_published(
    reading: Project,
) -> None:
    assert reading.states("student_other.csv") == [FileState.PROCESSED, FileState.PROCESSED]


def test_of_a_file_copied_over_half_read_only_the_new_content_is_published(
    reading: Project,
) -> None:
    assert reading.states("student_huge.csv") == [FileState.SUPERSEDED, FileState.PROCESSED]


def test_of_a_file_replaced_while_it_waited_only_the_new_content_is_published(
    reading: Project,
) -> None:
    assert reading.states("student_newer.csv") == [FileState.SUPERSEDED, FileState.PROCESSED]


def test_a_file_gone_before_it_was_read_is_processed_once_it_is_seen_again(
    reading: Project,
) -> None:
    assert reading.states("student_gone.csv") == [FileState.PROCESSED]
    assert [one.cause for run in reading.manifests() for one in run.rejected].count(Cause.GONE) == 1


def test_whatever_changed_while_it_was_read_every_row_is_published_once(reading: Project) -> None:
    names = ("plain", "small", "same", "before", "after", "newer", "gone")
    assert reading.published_ids() == sorted(row for name in names for row in ids(name))
    assert (reading.strays(), reading.leftovers()) == (set(), [])


# --------------------------------------------------------------------------- nothing is good


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project", run={"attempts": 2})
    yield made
    made.end_everything()


@pytest.mark.exhaustive
def test_a_transform_that_fails_on_every_file_uses_up_its_attempts_until_it_is_mended(
    project: Project,
) -> None:
    for name in ("a", "b"):
        project.drop(f"student_{name}.csv", table(name))
    whole = (project.root / "gated.py").read_text()
    (project.root / "gated.py").write_text(
        "def transform(frame):\n    raise ValueError(f'moon of {frame.id[0]}')\n"
    )
    done = project.once()

    runs = project.runs()
    assert [run.state for run in runs] == [RunState.FAILED] * 2, done.stderr
    assert done.returncode == 1
    assert project.names() == set()
    for name in ("a", "b"):
        assert project.states(f"student_{name}.csv") == [FileState.QUARANTINED]
        reason = project.reason(f"student_{name}.csv")
        assert f"ValueError: moon of {name}" in reason
        assert f"(batch {runs[0].batch} is dead)" in reason
    with project.reading() as read:
        (dead,) = read.batches_in(BatchState.DEAD)
    assert dead.id == runs[0].batch
    assert "2 of 2 attempts used up; last: every file failed" in dead.reason
    log = (project.log / f"run_{runs[0].run_id}.log").read_text()
    assert log.count("Traceback (most recent call last):") == 1  # of the line in which both fail
    assert "every file failed" in log
    assert "metaflow/" not in log

    (project.root / "gated.py").write_text(whole)
    assert project.ds_flow("retry", runs[0].batch).returncode == 0
    assert project.published_ids() == ids("a") + ids("b")
    assert (project.strays(), project.status()["accounted"]) == (set(), True)


def test_outputs_that_would_match_the_input_pattern_are_refused(project: Project) -> None:
    project.configure(paths={"input_pattern": "out/**/*.csv"})
    done = project.once()
    assert done.returncode == SettingsError.exit_code
    assert "paths" in done.stderr


@pytest.mark.parametrize("command", ["check", "once"])
def test_an_inbox_that_holds_the_project_is_refused_before_a_dropped_env_runs_anything(
    project: Project, command: str
) -> None:
    analysis = json.dumps(["touch", str(project.root / "pwned")])
    project.configure(paths={"input_pattern": "student_*.csv"})
    (project.root / "student_a.csv").write_text(table("a"))
    (project.root / ".env").write_text(f"DS_FLOW_COMPUTE__STAGES__ANALYZE__COMMAND={analysis}\n")

    done = project.ds_flow(command)

    assert done.returncode == SettingsError.exit_code
    assert "could change the project with its `.env`" in done.stderr
    assert not (project.root / "pwned").exists()
