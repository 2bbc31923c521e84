"""`explain` over real files and a real ledger: what it says of a file, and what to do next."""

import fcntl
import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli_project import Project
from clock import NOON
from ds_flow.core.retry_policy import Dead, RetryAt
from ds_flow.core.states import Cause, RunState, Settled, Sighting, Trigger
from ds_flow.core.wording import local_time
from ds_flow.inbox.scan import stat_of
from ds_flow.settings.load import load_settings
from ds_flow.views.explain import Question, explanation
from ds_flow.views.lookup import Place, find_place
from samples import manifest, read

LATER = timedelta(hours=1)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


def verdict(project: Project, typed: str, *, has_daemon: bool = True) -> tuple[str, str]:
    place = find_place(project.settings, project.ledger, typed, str(project.root))
    now = datetime.now(UTC) + LATER
    answer = explanation(Question(project.settings, project.ledger, place, has_daemon, now))
    return answer["verdict"], answer["next"]


def test_what_was_published_is_explained_by_its_run(project: Project) -> None:
    project.published("0123456789", "17", "student_a.csv")
    assert verdict(project, "data/student_a.csv") == ("Version 1 was processed by run 17.", "")


def test_what_could_not_be_read_once_is_explained_by_the_content_that_it_has(
    project: Project,
) -> None:
    (row,) = project.published("0123456789", "17", "student_a.csv")
    seen = Sighting(row.path, stat_of(os.stat(project.root / row.path)))
    for sha256, cause in ((None, Cause.UNREADABLE), (row.sha256, None)):
        project.ledger.admit([Settled(sighting=seen, sha256=sha256, cause=cause)], NOON)
    said, _ = verdict(project, "data/student_a.csv")
    assert said == "Version 1 was processed by run 17."


def test_what_a_run_noted_of_its_input_is_explained(project: Project) -> None:
    (row,) = project.published("0123456789", "17", "student_a.csv")
    noted = replace(read(row.path, ""), notes=("its last line has no line end",))
    path = project.settings.output_dir / "manifest_17.json"
    path.write_text(json.dumps(manifest("17", inputs=[noted]).to_json()))
    assert verdict(project, "data/student_a.csv")[0] == (
        "Version 1 was processed by run 17; note: its last line has no line end."
    )


def test_what_a_rerun_left_out_is_said_until_it_is_published_again(project: Project) -> None:
    rows = project.published("0123456789", "17", "student_a.csv")

    def rerun(batch: str, run_id: str, *, is_left_out: bool) -> str:
        project.ledger.form(batch, [rows[0].id], Trigger.RERUN, NOON)
        project.start(batch, run_id)
        project.publish(batch, run_id, [] if is_left_out else rows, rows if is_left_out else [])
        return verdict(project, "data/student_a.csv")[0]

    assert rerun("0123456788", "18", is_left_out=True) == (
        "Version 1 was processed by run 17, but was later left out by run 18:"
        " line 2: cells: 1 in this row, 2 in the header."
    )
    assert rerun("0123456787", "19", is_left_out=False) == "Version 1 was processed by run 19."


def test_a_waiting_file_waits_for_a_batch(project: Project) -> None:
    project.admit("student_a.csv")
    said, advice = verdict(project, "data/student_a.csv", has_daemon=False)
    assert said == "Version 1 is waiting for a batch, which forms 1 s after the last file."
    assert "ds-flow once" in advice


def test_low_space_that_holds_a_file_back_is_said(project: Project) -> None:
    project.admit("student_a.csv")
    project.form("0123456789", project.admit("student_b.csv"))
    project.settings = load_settings(project.config, {"DS_FLOW_RUN__MIN_FREE_MB": f"{2**30}"})
    waiting, batched = (verdict(project, f"data/student_{name}.csv")[0] for name in "ab")
    why = r"/out has \d+\.\d MB free, run\.min_free_mb is 1073741824\."
    assert re.search(rf"for a batch, and none forms while space is low: \S+{why}", waiting)
    assert re.search(rf"which is queued; held back: \S+{why}", batched)


def test_a_batch_that_needs_more_room_than_there_is_says_so(project: Project) -> None:
    project.form("0123456789", project.admit("student_a.csv"))
    attempt = project.settings.work_root / "0123456789" / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "no_room").write_text(f"{2**60}")
    assert re.search(
        r"which is queued; held back: \S+/out has \d+\.\d MB free, \d+\.\d needed\.",
        verdict(project, "data/student_a.csv")[0],
    )


def test_a_missing_inbox_that_holds_files_back_is_said(project: Project) -> None:
    project.admit("student_a.csv")
    (project.root / "data").rename(project.root / "gone")
    said, _ = verdict(project, "data/student_a.csv")
    assert f"and none forms while the inbox {project.root}/data is missing" in said


def test_a_full_max_parallel_that_holds_a_batch_back_is_said(project: Project) -> None:
    project.start(project.form("0123456789", project.admit("student_a.csv")), "17")
    project.form("9876543210", project.admit("student_b.csv"))
    said, advice = verdict(project, "data/student_b.csv")
    assert said == (
        "Version 1 is in batch 9876543210, which is queued;"
        " held back: run.max_parallel is 1, and 17 is live."
    )
    assert advice == ""
    project.settings = load_settings(project.config, {"DS_FLOW_RUN__MAX_PARALLEL": "2"})
    assert "held back" not in verdict(project, "data/student_b.csv")[0]


def test_a_full_max_parallel_that_lets_a_file_wait_is_said(project: Project) -> None:
    project.start(project.form("0123456789", project.admit("student_a.csv")), "17")
    project.admit("student_b.csv")
    assert verdict(project, "data/student_b.csv")[0] == (
        "Version 1 is waiting for a batch, which forms when a run may start:"
        " run.max_parallel is 1, and 17 is live."
    )


def test_a_rerun_holds_no_new_file_back_and_is_itself_held_back(project: Project) -> None:
    first, other = project.published("0123456789", "17", "student_a.csv", "student_c.csv")
    project.form("0123456788", [first], Trigger.RERUN)
    project.form("0123456787", project.admit("student_b.csv"))
    project.start("0123456788", "18")
    project.form("0123456786", [other], Trigger.RERUN)
    assert "held back" not in verdict(project, "data/student_b.csv")[0]
    assert (
        "held back: run.max_parallel is 1, and 18 is" in verdict(project, "data/student_c.csv")[0]
    )


def test_a_batched_file_names_batch_attempt_and_due_time(project: Project) -> None:
    batch = project.form("0123456789", project.admit("student_a.csv"))
    attempt = project.start(batch, "17")
    assert (
        "batch 0123456789, which is running, attempt 1, run 17."
        in verdict(project, "data/student_a.csv")[0]
    )
    project.ledger.end_run(
        batch,
        attempt,
        RunState.FAILED,
        error="no disk",
        results=0,
        then=RetryAt(NOON + LATER),
        now=NOON,
    )
    said, _ = verdict(project, "data/student_a.csv")
    assert f"which is retrying, attempt 1, run 17, due at {local_time(NOON + LATER)}" in said
    assert "after: no disk" in said


def test_a_dead_batchs_file_says_why_and_what_to_do(project: Project) -> None:
    batch = project.form("0123456789", project.admit("student_a.csv"))
    attempt = project.start(batch)
    dead = Dead("3 attempts used up")
    project.ledger.end_run(
        batch, attempt, RunState.FAILED, error="no disk", results=0, then=dead, now=NOON
    )
    said, advice = verdict(project, "data/student_a.csv")
    assert said.startswith("Version 1 is quarantined: batch 0123456789: 3 attempts used up")
    assert "`ds-flow logs 0123456789`" in advice
    assert "`ds-flow release -- data/student_a.csv`" in advice


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause != Cause.REPLACED])
def test_every_quarantine_has_a_remedy(project: Project, cause: Cause) -> None:
    project.admit("student_a.csv", cause=cause, reason="so it is")
    said, advice = verdict(project, "data/student_a.csv")
    assert said == "Version 1 is quarantined: so it is."
    assert advice


def test_a_name_cannot_end_the_command_that_it_is_in(project: Project) -> None:
    name = "student_`; rm x `.csv"
    project.admit(name, cause=Cause.REJECTED, reason="so it is")
    _, advice = verdict(project, f"data/{name}")
    commands = advice.split("`")[1::2]
    assert [shlex.split(command)[1] for command in commands] == ["try", "release"]
    for command in commands:
        *said, typed = shlex.split(command)
        assert (said[0], said[2:]) == ("ds-flow", ["--"])
        assert find_place(project.settings, project.ledger, typed, "/").path == f"data/{name}"


def test_a_reason_that_is_a_question_ends_as_one(project: Project) -> None:
    project.admit("student_a.csv", cause=Cause.REJECTED, reason="is a quote left open?")
    said, _ = verdict(project, "data/student_a.csv")
    assert said == "Version 1 is quarantined: is a quote left open?"


@pytest.mark.parametrize(
    ("names", "said"),
    [(["student_a.csv"], "1 file"), (["student_a.csv", "student_b.csv"], "2 files")],
)
def test_a_batch_says_how_many_files_it_has(project: Project, names: list[str], said: str) -> None:
    project.form("0123456789", project.admit(*names))
    place = find_place(project.settings, project.ledger, "data/student_a.csv", str(project.root))
    question = Question(project.settings, project.ledger, place, has_daemon=True, now=NOON)
    events = explanation(question)["events"]
    assert [one["detail"] for one in events if one["kind"] == "batch.queued"] == [said]


def test_a_changed_file_is_explained_as_both(project: Project) -> None:
    project.published("0123456789", "17", "student_a.csv")
    project.drop("student_a.csv", "other")
    said, advice = verdict(project, "data/student_a.csv", has_daemon=False)
    assert said == (
        "Version 1 was processed by run 17; it has changed since, and the new content is"
        " still arriving: no scan has seen it yet."
    )
    assert "ds-flow once" in advice


def test_a_file_that_is_open_for_writing_is_still_arriving(project: Project) -> None:
    with project.drop("student_a.csv").open("a"):
        said, advice = verdict(project, "data/student_a.csv")
    assert said == "It is still arriving: a process has it open for writing."
    assert advice == "close it"


def test_a_file_under_a_lease_is_still_arriving(project: Project) -> None:
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # asks the holder for it, or ends it
    with project.drop("student_a.csv").open("a") as holder:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        said, advice = verdict(project, "data/student_a.csv")
    assert said == "It is still arriving: a process has it open for writing."
    assert advice == "close it"


@pytest.mark.parametrize(
    ("has_daemon", "said"), [(True, "1.5 of 9.0 GB is read"), (False, "no scan has seen it yet")]
)
def test_a_large_file_that_is_being_read_is_said_to_be(
    project: Project, said: str, *, has_daemon: bool
) -> None:
    project.drop("student_a.csv")
    row = {"path": "data/student_a.csv", "read_bytes": 15 * 10**8, "size_bytes": 9 * 10**9}
    project.settings.work_root.mkdir()
    (project.settings.work_root / "reading.json").write_text(json.dumps([row]))
    found, _ = verdict(project, "data/student_a.csv", has_daemon=has_daemon)
    assert found == f"It is still arriving: {said}."


def test_a_file_that_just_changed_must_rest(project: Project) -> None:
    path = project.drop("student_a.csv")
    place = Place("data/student_a.csv", str(path))
    changed = datetime.fromtimestamp(os.stat(path).st_ctime + 0.1, UTC)
    answer = explanation(
        Question(project.settings, project.ledger, place, has_daemon=True, now=changed)
    )
    assert answer["verdict"].endswith("it changed 0.1 s ago and must stay unchanged for 0.5 s.")


def test_what_is_no_input_says_why(project: Project) -> None:
    data = project.root / "data"
    project.drop("student_a.csv.tmp")
    project.drop("other.csv")
    (data / "student_dir.csv").mkdir()
    (data / "student_link.csv").symlink_to("/etc/passwd")
    (data / "student_lost.csv").symlink_to(data / "nothing")
    os.mkfifo(data / "student_fifo.csv")
    for name, why in {
        "student_a.csv.tmp": "student_a.csv.tmp is a hidden or temporary name",
        "other.csv": "its name does not match the pattern student_*.csv",
        "student_dir.csv": "it is a directory, not a file",
        "student_link.csv": "it is a symbolic link that leaves the inbox (to /etc/passwd)",
        "student_lost.csv": "it is a symbolic link that leads nowhere",
        "student_fifo.csv": "it is a FIFO, not a file",
        "student_gone.csv": "this file does not exist",
        "sub/student_a.csv": "its name does not match the pattern",
        "../student_a.csv": "it is outside the inbox",
    }.items():
        assert verdict(project, f"data/{name}")[0].startswith(f"Not an input: {why}")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("Student_A.CSV", "student_A.csv"), ("students.xlsx", "student_students.csv"), ("x.py", "")],
)
def test_what_is_nearly_an_input_is_told_its_name(
    project: Project, name: str, nearest: str
) -> None:
    (project.root / "data" / name).write_text("a\n1\n", encoding="utf-8")
    _, advice = verdict(project, f"data/{name}")
    assert (f"{nearest} would be read" in advice) if nearest else (advice == "")


def test_what_is_elsewhere_or_gone_is_told_no_name(project: Project) -> None:
    (project.root / "data" / "sub").mkdir()
    (project.root / "data" / "sub" / "Student_A.CSV").write_text("a\n1\n", encoding="utf-8")
    for name in ("sub/Student_A.CSV", "Student_Gone.CSV"):
        assert verdict(project, f"data/{name}")[1] == ""
