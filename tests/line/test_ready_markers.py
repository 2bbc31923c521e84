"""Files that count only with their markers: from a look to what people are told."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli_project import Project
from clock import MovedClock
from ds_flow.core.states import Sighting
from ds_flow.inbox.admission import Admission
from ds_flow.inbox.pattern import Pattern
from ds_flow.inbox.scan import scan_files
from ds_flow.inbox.watcher import Inbox
from ds_flow.runs.launch import Runs
from ds_flow.service.engine import Engine
from ds_flow.service.health import Health
from ds_flow.settings.load import load_settings
from ds_flow.system.wake import Wake
from ds_flow.upkeep.record import read_record
from ds_flow.views.explain import Question, explanation
from ds_flow.views.lookup import find_place
from ds_flow.views.status import status_document
from project import until

LATER = timedelta(hours=2)
Make = Callable[..., Admission]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def make(project: Project, clock: MovedClock) -> Iterator[Make]:
    opened = []

    def made(marker: str = "{name}.done", observer: str = "poll", pattern: str = "") -> Admission:
        given = {"DS_FLOW_WATCH__MARKER": marker}
        if pattern:
            given["DS_FLOW_PATHS__INPUT_PATTERN"] = pattern
        project.settings = load_settings(project.config, given)
        inbox = Inbox(Pattern.of(project.settings), Wake(), observer)
        opened.append(inbox)
        return Admission(project.settings, project.ledger, inbox, clock, lambda: None)

    yield made
    for inbox in opened:
        inbox.close()


def scan(admission: Admission) -> list[str]:
    """Let a whole scan come to its end and read what it found; the paths that wait for a batch."""
    clock = admission.clock
    assert isinstance(clock, MovedClock)
    admission.hinted = True
    clock.elapsed_s += 60
    for _ in range(3):
        admission.admit()
        clock.elapsed_s += 0.01
    return sorted(row.path for row in admission.ledger.read.latest() if row.state == "waiting")


def mark(file: Path, name: str = "{}.done") -> Path:
    marker = file.with_name(name.format(file.name))
    marker.touch()
    return marker


def why(admission: Admission, name: str) -> str:
    return admission.inbox.waiting.held[f"data/{name}"].why


def newer(file: Path) -> None:
    """Change a file so that its ctime is later than that of all that is there."""
    others = max(one.stat().st_ctime_ns for one in file.parent.iterdir())
    while file.stat().st_ctime_ns <= others:
        file.touch()


# --------------------------------------------------------------------------- what counts


def test_a_file_is_taken_only_once_its_marker_is_there(make: Make, project: Project) -> None:
    admission, file = make(), project.drop("student_a.csv")
    assert scan(admission) == []
    assert why(admission, "student_a.csv") == "waits for its marker student_a.csv.done"

    mark(file)
    assert scan(admission) == ["data/student_a.csv"]
    assert not admission.inbox.waiting.held


def test_a_file_with_its_marker_need_not_stay_unchanged(make: Make, project: Project) -> None:
    admission = make()
    mark(project.drop("student_a.csv"))
    assert admission.admit() == 1


def test_a_file_that_is_open_for_writing_waits_even_with_its_marker(
    make: Make, project: Project
) -> None:
    admission, file = make(), project.drop("student_a.csv")
    with file.open("a"):
        mark(file)
        assert scan(admission) == []
        assert admission.unfinished() == {"data/student_a.csv": "open for writing"}
    assert scan(admission) == ["data/student_a.csv"]


def test_a_file_that_changed_after_its_marker_waits_for_a_new_one(
    make: Make, project: Project
) -> None:
    admission, file = make(), project.drop("student_a.csv")
    marker = mark(file)
    newer(file)
    assert scan(admission) == []
    assert "it has changed since the marker was made" in why(admission, "student_a.csv")

    newer(marker)
    assert scan(admission) == ["data/student_a.csv"]


def test_a_marker_copied_with_an_old_time_counts(make: Make, project: Project) -> None:
    admission, file = make(), project.drop("student_a.csv")
    os.utime(mark(file), ns=(0, 0))
    assert scan(admission) == ["data/student_a.csv"]


def test_a_stem_and_a_hidden_name_may_make_the_marker(make: Make, project: Project) -> None:
    file = project.drop("student_a.csv")
    file.with_name("student_a.ok").touch()
    assert scan(make("{stem}.ok")) == ["data/student_a.csv"]

    file = project.drop("student_b.csv")
    file.with_name(".student_b.csv.ok").touch()
    assert scan(make(".{name}.ok")) == ["data/student_a.csv", "data/student_b.csv"]


def test_a_marker_of_a_folder_counts_for_its_files_and_for_no_folder_below(
    make: Make, project: Project
) -> None:
    admission = make("_SUCCESS", pattern="data/**/student_*.csv")
    below = project.root / "data" / "below"
    below.mkdir()
    files = [project.drop("student_a.csv"), project.drop("below/student_b.csv")]
    mark(files[0], "_SUCCESS")
    assert scan(admission) == ["data/student_a.csv"]
    mark(files[1], "_SUCCESS")
    assert scan(admission) == ["data/below/student_b.csv", "data/student_a.csv"]


@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
def test_what_is_no_regular_file_is_no_marker(make: Make, project: Project, kind: str) -> None:
    admission, file = make(), project.drop("student_a.csv")
    marker = file.with_name("student_a.csv.done")
    if kind == "folder":
        marker.mkdir()
    elif kind == "fifo":
        os.mkfifo(marker)
    else:
        (project.root / "outside").touch()
        marker.symlink_to(project.root / "outside")
    assert scan(admission) == []
    assert "waits for its marker student_a.csv.done" in why(admission, "student_a.csv")
    assert admission._look_at(["data/student_a.csv"]) == []
    assert "is not a regular file" in why(admission, "student_a.csv")


def test_a_marker_is_no_input_whatever_the_pattern(make: Make, project: Project) -> None:
    admission = make(pattern="data/*")
    mark(project.drop("a.csv"))
    project.drop("b.csv.done")
    (project.root / "data" / "c.done").mkdir()
    assert scan(admission) == ["data/a.csv"]
    assert admission.inbox.pattern.name_of(str(project.root / "data/b.csv.done")) is None
    assert not admission.misnamed


def test_a_file_whose_marker_can_have_no_name_waits_and_is_said(
    make: Make, project: Project
) -> None:
    admission, name = make(), f"student_{'x' * 240}.csv"
    project.drop(name)
    assert scan(admission) == []
    admission._look_at([f"data/{name}"])
    assert "File name too long" in why(admission, name)


# --------------------------------------------------------------------------- what was taken


def test_what_was_published_before_the_setting_needs_no_marker_unless_it_changes(
    make: Make, project: Project
) -> None:
    file = project.drop("student_a.csv")
    before = make("")
    scan(before)
    scan(before)
    admission = make()
    admission.known.add(project.ledger.read.known())
    scan(admission)
    assert not admission.inbox.waiting.held

    file.chmod(0o640)  # only its rights
    scan(admission)
    assert not admission.inbox.waiting.held
    assert len(project.ledger.read.versions("data/student_a.csv")) == 1

    file.write_text("a,b\n7,7\n")
    scan(admission)
    assert [*admission.inbox.waiting.held] == ["data/student_a.csv"]
    assert len(project.ledger.read.versions("data/student_a.csv")) == 1


def test_a_reload_takes_other_markers_and_none(project: Project, clock: MovedClock) -> None:
    settings = load_settings(project.config, {"DS_FLOW_WATCH__MARKER": "{name}.done"})
    engine = Engine(
        settings, project.ledger, Inbox(Pattern.of(settings), Wake(), "poll"), Runs(), clock
    )
    project.drop("student_a.csv").with_name("student_a.ok").touch()
    assert scan(engine.admission) == []
    engine.change_settings(load_settings(project.config, {"DS_FLOW_WATCH__MARKER": "{stem}.ok"}))
    assert scan(engine.admission) == ["data/student_a.csv"]

    project.drop("student_b.csv")
    scan(engine.admission)
    assert [*engine.admission.inbox.waiting.held] == ["data/student_b.csv"]
    engine.change_settings(load_settings(project.config, {}))
    scan(engine.admission)
    assert scan(engine.admission) == ["data/student_a.csv", "data/student_b.csv"]


# --------------------------------------------------------------------------- when it looks


def test_the_event_of_a_marker_wakes_the_look_at_its_files(make: Make, project: Project) -> None:
    admission = make("_SUCCESS", "inotify")
    files = [project.drop(f"student_{name}.csv") for name in "ab"]
    assert scan(admission) == []

    mark(files[0], "_SUCCESS")
    admitted = []

    def are_taken() -> bool:  # without a scan
        admission.hinted = False
        admitted.append(admission.admit())
        return sum(admitted) == 2

    until("both are taken", are_taken)


def test_the_files_of_one_marker_are_looked_at_in_turns(
    make: Make, project: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds_flow.inbox.admission.LOOKS_A_TURN", 2)
    admission = make("_SUCCESS")
    files = [project.drop(f"student_{number}.csv") for number in range(5)]
    assert scan(admission) == []
    names = [f"data/{file.name}" for file in files]
    mark(files[0], "_SUCCESS")
    monkeypatch.setattr(admission.inbox, "named", lambda: {names.pop() for _ in [*names]})

    admitted = []
    for _ in range(4):
        admitted.append(admission.admit())
        if sum(admitted) < 5:
            assert admission.due_in_s(clock.elapsed_s) <= 0
    assert admitted == [2, 2, 1, 0]


def test_files_that_wait_for_markers_are_not_looked_at_between_scans(
    make: Make, project: Project, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission, looks = make(), list[str]()

    def look_at(paths: Iterable[str]) -> list[Sighting]:
        looks.extend(paths)
        return []

    for number in range(50):
        project.drop(f"student_{number}.csv")
    scan(admission)
    monkeypatch.setattr(admission.inbox, "look_at", look_at)
    rescan_s = admission.patience_s(clock.elapsed_s)
    assert rescan_s > 1
    for _ in range(20):
        clock.elapsed_s += rescan_s / 25
        admission.admit()
    assert looks == []


# --------------------------------------------------------------------------- what is said


def say(project: Project, typed: str) -> tuple[str, str]:
    place = find_place(project.settings, project.ledger, typed, str(project.root))
    now = datetime.now(UTC) + LATER
    answer = explanation(
        Question(project.settings, project.ledger, place, has_daemon=True, now=now)
    )
    return answer["verdict"], answer["next"]


def test_explain_names_the_marker_that_a_file_waits_for(make: Make, project: Project) -> None:
    make()
    marker = mark(project.drop("student_a.csv"))
    project.drop("student_b.csv")
    assert say(project, "data/student_b.csv") == (
        "It waits for its marker student_b.csv.done.",
        "ask its sender; make the marker yourself once the file is complete",
    )
    assert "it is a marker, which says" in say(project, str(marker))[0]


def test_status_counts_what_waits_and_names_what_waits_too_long(
    make: Make, project: Project
) -> None:
    make()
    project.drop("student_a.csv")
    project.drop("student_z.csv.done")
    found = status_document(project.settings, project.ledger, None, datetime.now(UTC))
    assert (found["arriving"], found["unmarked"], found["accounted"]) == (1, 1, True)
    assert not [one for one in found["problems"] if one["kind"] == "marker"]

    late = status_document(project.settings, project.ledger, None, datetime.now(UTC) + LATER)
    told = [one for one in late["problems"] if one["kind"] == "marker"]
    assert [one["text"] for one in told] == [
        "data/student_a.csv waits for its marker student_a.csv.done",
        "data/student_z.csv.done is a marker without a file",
    ]
    assert all(one["remedy"] and one["needs_person"] for one in told)
    assert late["accounted"] is True


@pytest.mark.parametrize("marker", ["{name}.done", "{stem}.ok", "_SUCCESS"])
def test_a_marker_whose_file_was_taken_and_is_gone_is_not_told(
    make: Make, project: Project, marker: str
) -> None:
    admission = make(marker)
    file = project.drop("student_a.csv")
    file.with_name(admission.inbox.pattern.marker.of(file.name)).touch()  # type: ignore[union-attr]
    scan(admission)
    file.unlink()
    late = status_document(project.settings, project.ledger, None, datetime.now(UTC) + LATER)
    assert not [one for one in late["problems"] if one["kind"] == "marker"]


def test_the_daemon_notes_once_what_waits_too_long(project: Project, clock: MovedClock) -> None:
    settings = load_settings(project.config, {"DS_FLOW_WATCH__MARKER": "{name}.done"})
    engine = Engine(
        settings, project.ledger, Inbox(Pattern.of(settings), Wake(), "poll"), Runs(), clock
    )
    settings.work_root.mkdir(parents=True, exist_ok=True)
    health = Health(settings, engine, lambda _: None)
    project.drop("student_a.csv")
    project.drop("student_z.csv.done")
    scan(engine.admission)
    health.keep()
    assert engine.admission.late == []

    clock.set_by_s = (datetime.now(UTC) + LATER - clock.now()).total_seconds()
    for _ in range(3):
        scan(engine.admission)
        health.keep()
    kinds = ("file.unmarked", "marker.alone")
    assert [project.ledger.history.last(kind, "data/student") is not None for kind in kinds]
    counted = "SELECT count(*) FROM event WHERE kind IN ('file.unmarked', 'marker.alone')"
    assert project.ledger._store.row(counted) == (2,)

    record = read_record(settings.work_root, os.getpid())
    assert record is not None
    assert (record.unmarked, len(record.late)) == (1, 2)


def test_once_ends_although_a_file_waits_for_its_marker_and_says_so(
    project: Project,
) -> None:
    with project.config.open("a") as file:
        file.write("watch: {marker: '{name}.done'}\n")
    project.drop("student_a.csv")
    program = Path(sys.executable).with_name("ds-flow")
    command = [str(program), "--config", str(project.config), "once"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "data/student_a.csv waits for its marker student_a.csv.done" in done.stdout
    assert done.returncode == 0


def test_without_leases_a_marker_is_trusted_at_once(
    make: Make, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_leases(_descriptor: int) -> None:
        return None

    monkeypatch.setattr("ds_flow.inbox.scan.is_open_for_writing", no_leases)
    mark(project.drop("student_a.csv"))
    assert make().admit() == 1


def test_many_markers_without_files_keep_a_look_small(
    make: Make, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ds_flow.inbox.markers.ALONE", 3)
    admission = make()
    for number in range(9):
        project.drop(f"student_{number}.csv.done")
    assert len(scan_files(admission.inbox.pattern).alone) == 3
