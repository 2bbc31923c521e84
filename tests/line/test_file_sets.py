"""Complete sets over a real ledger and a moved clock: when they form, and what people are told."""

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cli_project import SETTINGS, Project, manifest_of
from clock import NOON, MovedClock
from ds_flow.core.retry_policy import Dead
from ds_flow.core.sets import Member
from ds_flow.core.states import (
    BatchState,
    Cause,
    FileState,
    RunState,
    Settled,
    Sighting,
    Stat,
    Trigger,
)
from ds_flow.inbox.forming import Coming, Forming
from ds_flow.inbox.sets import OpenSets
from ds_flow.ledger.rows import FileRow
from ds_flow.ledger.sets import Sets
from ds_flow.runs.room import split_off
from ds_flow.settings.load import load_settings
from ds_flow.views.explain import Question, explanation
from ds_flow.views.lookup import find_place
from ds_flow.views.status import status_document

BY = r"student_(?P<school>\w+)_(?P<date>\d{4}-\d{2}-\d{2})"
NOTHING = Coming({}, is_soon_through=False)
MORNING = datetime.fromisoformat("2026-01-02T06:30:00+00:00")


def name(school: str, day: int = 2) -> str:
    return f"student_{school}_2026-01-{day:02}.csv"


class Line:
    """Files come, time goes by, batches form."""

    def __init__(self, project: Project, **given: object) -> None:
        self.project, self.clock = project, MovedClock()
        self.set(**given)

    def set(self, **given: object) -> None:
        """Begin with these settings, as a daemon that starts."""
        rule = {"by": BY, "key": "date", "expect": 3, "at_latest": "06:30", "timezone": "UTC"}
        more = yaml.safe_dump({"batch": {"max_files": 2, "set": {**rule, **given}}})
        self.project.config.write_text(SETTINGS + more)
        self.project.settings = load_settings(self.project.config, {})
        self.forming = Forming(self.project.settings, self.project.ledger, self.clock)

    def come(self, *names: str, content: str = "1", cause: Cause | None = None) -> None:
        items = []
        for one in names:
            path = self.project.drop(one, content)
            seen = Sighting(f"data/{one}", Stat(1, 1, len(content), 1, 1))
            sha256 = None if cause else hashlib.sha256(path.read_bytes()).hexdigest()
            reason = "odd" if cause else ""
            items.append(Settled(sighting=seen, sha256=sha256, cause=cause, reason=reason))
        self.forming.see([item.sighting for item in items], self.clock.elapsed_s)
        self.project.ledger.admit(items, self.clock.now())
        self.forming.add(items, self.clock.elapsed_s)

    def turn(self, room: int = 100) -> list[list[str]]:
        """Form what is due now; the names in each batch."""
        formed, before = list[str](), self._batches()

        def name_batch() -> str:
            formed.append(f"{len(formed) + before:010}")
            return formed[-1]

        self.forming.name_batch = name_batch
        self.forming.form(NOTHING, room, "")
        read = self.project.ledger.read
        return [[Path(path).name for path in read.batch_paths(batch)] for batch in formed]

    def _batches(self) -> int:
        return sum(self.project.ledger.read.counts("batch").values())

    def wait(self, seconds: float) -> None:
        self.clock.elapsed_s += seconds

    def wait_until(self, at: datetime) -> None:
        self.wait((at - self.clock.now()).total_seconds())

    def publish(self) -> None:
        """Let every batch be published."""
        ledger = self.project.ledger
        for batch in ledger.read.due_batches(self.clock.now()):
            run_id = str(int(batch.id) + 1)
            rows = ledger.read.latest(ledger.read.batch_paths(batch.id))
            self.project.start(batch.id, run_id)
            ledger.record(manifest_of(batch.id, run_id, rows), self.clock.now())

    def fail(self) -> None:
        """Let every batch die."""
        ledger, now = self.project.ledger, self.clock.now()
        for batch in ledger.read.due_batches(now):
            attempt = self.project.start(batch.id, str(int(batch.id) + 1))
            ledger.end_run(
                batch.id,
                attempt,
                RunState.FAILED,
                error="odd",
                results=0,
                then=Dead("odd"),
                now=now,
            )

    def retry(self) -> None:
        """Let the files of every dead batch make a new one."""
        ledger = self.project.ledger
        for batch in ledger.read.batches_in(BatchState.DEAD):
            if ledger.read.has_dead_files(batch.id):
                ledger.retry(batch.id, f"{self._batches():010}", self.clock.now())

    def row(self, one: str) -> FileRow:
        return self.project.ledger.read.latest([f"data/{one}"])[0]

    def said(self) -> list[str]:
        document = status_document(self.project.settings, self.project.ledger, 1, self.clock.now())
        return [one["text"] for one in document["sets"]]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


Make = Callable[..., Line]


@pytest.fixture
def line(project: Project) -> Line:
    return Line(project)


# --------------------------------------------------------------------------- when it forms


def test_a_set_is_one_batch_once_its_last_file_has_come_even_beyond_max_files(line: Line) -> None:
    line.come(name("a"), name("b"))
    line.wait(3600)
    assert line.turn() == []
    line.come(name("c"))
    assert line.turn() == [[name("a"), name("b"), name("c")]]
    assert line.turn() == []


def test_what_belongs_to_no_set_is_batched_as_usual_and_waits_for_none(line: Line) -> None:
    line.come(name("a"))
    line.wait(3600)
    line.come("student_x.csv")
    assert line.turn() == []  # one drop is one batch, although a set's file waits for long
    line.wait(0.5)
    line.come("student_y.csv")
    assert line.turn() == [["student_x.csv", "student_y.csv"]]
    assert line.row(name("a")).state == FileState.WAITING


def test_several_sets_are_open_at_once(line: Line) -> None:
    line.come(name("a", 2), name("a", 3), name("b", 2), name("b", 3), name("c", 3))
    assert line.turn() == [[name("a", 3), name("b", 3), name("c", 3)]]
    line.come(name("c", 2))
    assert line.turn() == [[name("a", 2), name("b", 2), name("c", 2)]]


def test_a_set_forms_at_its_time_with_what_has_come(line: Line) -> None:
    line.come(name("a"), name("b"))
    line.turn()
    line.wait_until(MORNING - timedelta(seconds=1))
    assert line.turn() == []
    assert line.forming.due_in_s(NOTHING, line.clock.elapsed_s) == 1
    line.wait(1)
    assert line.turn() == [[name("a"), name("b")]]
    assert line.forming.due_in_s(NOTHING, line.clock.elapsed_s) > 3600


def test_a_set_whose_time_came_while_no_daemon_ran_forms_at_its_start(line: Line) -> None:
    line.come(name("a"), name("b"))
    line.wait_until(MORNING + timedelta(hours=2))
    line.set()
    assert line.turn() == [[name("a"), name("b")]]


def test_a_set_that_began_after_its_time_of_day_waits_until_the_next_one(line: Line) -> None:
    line.wait_until(MORNING + timedelta(minutes=1))
    line.come(name("a"))
    line.wait(3600 * 23)
    assert line.turn() == []
    line.wait_until(MORNING + timedelta(days=1))
    assert line.turn() == [[name("a")]]


def test_without_a_time_a_set_waits_until_it_is_complete(project: Project) -> None:
    line = Line(project, at_latest=None)
    line.come(name("a"), name("b"))
    line.wait(3600 * 24 * 30)
    assert line.turn() == []
    assert line.said() == ["waits for 1 more of date=2026-01-02"]
    line.come(name("c"))
    assert len(line.turn()) == 1


def test_a_restart_in_between_loses_nothing(line: Line) -> None:
    line.come(name("a"), name("b"), "student_x.csv")
    line.set()
    line.come(name("c"))
    assert line.turn() == [[name("a"), name("b"), name("c")]]
    line.wait(60)
    assert line.turn() == [["student_x.csv"]]


def test_a_new_version_of_a_member_takes_the_place_of_the_one_before(line: Line) -> None:
    line.come(name("a"), name("b"))
    line.come(name("a"), content="2")
    assert line.turn() == []
    line.come(name("c"))
    assert line.turn() == [[name("b"), name("a"), name("c")]]
    assert line.project.ledger.read.planned(f"{0:010}")[1].version == 2


@pytest.mark.parametrize("late", ["alone", "again"])
def test_a_new_version_takes_its_place_in_a_set_that_has_formed_and_not_begun(
    project: Project, late: str
) -> None:
    line = Line(project, late=late)
    line.come(*map(name, "abc"))
    line.turn()
    line.come(name("a"), content="2")
    assert project.ledger.leave_replaced(f"{0:010}", line.clock.now()) == 3
    planned = {item.path: item.version for item in project.ledger.read.planned(f"{0:010}")}
    assert planned == {f"data/{name('a')}": 2, f"data/{name('b')}": 1, f"data/{name('c')}": 1}
    line.wait(60)
    assert line.turn() == []


def test_a_quarantined_member_has_not_come_and_is_named(line: Line) -> None:
    line.come(name("a"), name("b"))
    line.come(name("c"), cause=Cause.UNREADABLE)
    assert line.turn() == []
    (said,) = line.said()
    assert said.endswith(f"; set aside, so not counted: data/{name('c')}")


def test_sets_wait_for_room_and_the_oldest_goes_first(line: Line) -> None:
    line.come("student_x.csv")
    line.wait(60)
    line.come(*(name(school, day) for day in (2, 3) for school in "abc"))
    line.wait(60)
    assert line.turn(room=0) == []
    assert line.turn(room=1) == [["student_x.csv"]]
    assert line.turn(room=1) == [[name("a", 2), name("b", 2), name("c", 2)]]
    assert line.turn(room=1) == [[name("a", 3), name("b", 3), name("c", 3)]]


def test_a_set_is_never_split_for_want_of_room(line: Line) -> None:
    line.come(*map(name, "abc"))
    line.turn()
    assert split_off(line.project.settings, line.project.ledger, f"{0:010}", NOON) == ""


# --------------------------------------------------------------------------- late files


def formed_without_c(line: Line) -> None:
    line.come(name("a"), name("b"))
    line.wait_until(MORNING)
    assert line.turn() == [[name("a"), name("b")]]


def test_late_files_of_a_set_are_a_batch_of_their_own(line: Line) -> None:
    formed_without_c(line)
    line.come(name("c"))
    assert line.turn() == []
    line.wait(0.5)
    line.come(name("d"), "student_x.csv")
    assert line.turn() == []
    line.wait(2)
    assert line.turn() == [[name("c"), name("d")], ["student_x.csv"]]


def test_a_late_file_makes_the_whole_set_again_after_its_last_batch_has_ended(
    project: Project,
) -> None:
    line = Line(project, late="again")
    formed_without_c(line)
    line.come(name("c"))
    line.wait(60)
    assert line.turn() == []  # the first batch has not ended
    assert line.forming.due_in_s(NOTHING, line.clock.elapsed_s) > 60
    line.publish()
    line.come(name("a"), content="2")
    line.wait(60)
    assert line.turn() == [[name("b"), name("c"), name("a")]]
    batch = project.ledger.read.batch(f"{1:010}")
    assert batch is not None
    assert (batch.trigger, batch.selection) == (Trigger.RERUN, "set:date=2026-01-02")
    line.publish()
    assert {line.row(name(school)).state for school in "abc"} == {FileState.PROCESSED}
    line.wait(60)
    assert line.turn() == []


def test_a_late_file_forms_once_the_last_batch_has_ended_and_nothing_else_comes(
    project: Project,
) -> None:
    line = Line(project, late="again")
    formed_without_c(line)
    line.come(name("c"))
    line.wait(60)
    assert line.turn() == []
    line.publish()
    assert line.turn() == [[name("a"), name("b"), name("c")]]


def test_a_late_file_waits_for_the_retry_of_a_dead_set_too(project: Project) -> None:
    line = Line(project, late="again")
    formed_without_c(line)
    line.fail()
    line.retry()
    line.come(name("c"))
    line.wait(60)
    assert line.turn() == []  # or the set would be published again without the others
    line.publish()
    line.wait(60)
    assert line.turn() == [[name("a"), name("b"), name("c")]]


def test_a_late_file_waits_for_a_rerun_that_has_files_of_its_set(project: Project) -> None:
    line = Line(project, late="again")
    formed_without_c(line)
    line.publish()
    rerun = f"{1:010}"
    project.ledger.form(rerun, [line.row(name("a")).id], Trigger.SCHEDULE, line.clock.now(), "all")
    line.come(name("c"))
    line.wait(60)
    assert line.turn() == []  # or the set would lack that file
    project.ledger.cancel(rerun, line.clock.now())
    line.wait(60)
    assert line.turn() == [[name("a"), name("b"), name("c")]]


def test_the_retry_of_a_whole_set_takes_the_files_that_were_published_before(
    project: Project,
) -> None:
    line = Line(project, late="again")
    formed_without_c(line)
    line.publish()
    line.come(name("c"))
    line.wait(60)
    line.turn()
    line.fail()
    line.retry()
    batch = project.ledger.read.batch(f"{2:010}")
    assert batch is not None
    assert (batch.trigger, batch.selection) == (Trigger.RERUN, "set:date=2026-01-02")
    assert len(project.ledger.read.planned(batch.id)) == 3


def test_a_released_file_of_a_set_that_was_formed_waits_for_no_other(line: Line) -> None:
    line.come(*map(name, "abc"))
    line.turn()
    line.project.ledger.cancel(f"{0:010}", line.clock.now())
    line.set()
    for school in "abc":
        line.project.ledger.release(line.row(name(school)).id, line.clock.now())
    assert line.turn() == [[name("a"), name("b"), name("c")]]  # a cancelled set is open again


# --------------------------------------------------------------------------- what is said


def test_people_are_told_what_a_set_waits_for_and_which_names_are_missing(line: Line) -> None:
    line.come(*(name(school, 1) for school in "abc"))
    line.turn()
    line.come(name("b"))
    line.turn()
    waits = (
        "waits for 2 more of date=2026-01-02, at the latest 06:30 UTC;"
        f" missing: {name('a')}, {name('c')}"
    )
    assert line.said() == [waits]

    project = line.project
    place = find_place(project.settings, project.ledger, f"data/{name('b')}", str(project.root))
    asked = Question(project.settings, project.ledger, place, has_daemon=True, now=line.clock.now())
    said = explanation(asked)["verdict"]
    assert said.startswith(f"Version 1 is waiting for a batch, and {waits}")


def test_a_set_that_formed_without_some_files_is_noted_with_it_until_they_have_come(
    line: Line,
) -> None:
    formed_without_c(line)
    document = status_document(line.project.settings, line.project.ledger, 1, line.clock.now())
    (problem,) = [one for one in document["problems"] if one["kind"] == "set"]
    assert problem["text"] == (
        "a set formed without all its files: 2 of 3 files of date=2026-01-02 have come by"
        " 06:30 UTC; 1 missing"
    )
    assert problem["remedy"]
    alert = line.project.ledger.history.take_alert(
        "set.incomplete", line.clock.now(), every=timedelta(hours=1), gather=timedelta()
    )
    assert alert is not None

    line.come(name("c"))
    line.wait(60)
    line.turn()
    document = status_document(line.project.settings, line.project.ledger, 1, line.clock.now())
    assert not [one for one in document["problems"] if one["kind"] == "set"]


def test_what_waits_is_read_again_only_when_something_has_moved(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, waiting = list[int](), Sets.waiting

    def counted(mine: Sets, after: int = 0) -> list[Member]:
        reads.append(after)
        return waiting(mine, after)

    monkeypatch.setattr(Sets, "waiting", counted)
    line.come(name("a"), name("b"))
    for _ in range(100):
        line.turn()
        line.wait(1)
    assert reads == [0]
    line.come(name("a", 3))
    line.turn()
    assert reads == [0, 2]  # only what is newer


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [*["come"] * 3, "change", "odd", "form", "publish", "fail", "retry", "release", "wait"]
        ),
        st.sampled_from("abc"),
        st.integers(2, 4),
    ),
    max_size=25,
)
FORMED_AND_LATE = [("come", "a", 2), ("wait", "a", 2), ("form", "a", 2), ("come", "b", 2)]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([("come", "a", 2), ("wait", "a", 2), ("form", "a", 2), ("release", "a", 2)], "alone")
@example(
    [("come", "a", 2), ("wait", "a", 2), ("form", "a", 2), ("come", "a", 2), ("release", "a", 2)],
    "alone",
)
@example([*FORMED_AND_LATE, ("publish", "a", 2)], "again")
@example([*FORMED_AND_LATE, ("fail", "a", 2), ("retry", "a", 2)], "again")
@given(STEPS, st.sampled_from(["alone", "again"]))
def test_what_is_known_of_sets_is_what_a_new_daemon_would_find(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]], late: str
) -> None:
    with Project(tmp_path_factory.mktemp("sets")) as project:
        line = Line(project, late=late)
        for number, (step, school, day) in enumerate(steps):
            play(line, step, name(school, day), str(number))
            rule = project.settings.batch.rule
            assert rule is not None
            mine, new = line.forming.sets, OpenSets(project.ledger)
            mine.look(rule, line.clock.now())
            new.look(rule, line.clock.now())
            assert (mine.found, mine.late) == (new.found, new.late)
            assert sorted(one.value for one in mine.due) == sorted(one.value for one in new.due)


def play(line: Line, step: str, one: str, content: str) -> None:
    do: dict[str, Callable[[], object]] = {
        "come": lambda: line.come(one, "student_x.csv"),
        "change": lambda: line.come(one, content=content),
        "odd": lambda: line.come(one, content=content, cause=Cause.UNREADABLE),
        "form": line.turn,
        "publish": line.publish,
        "fail": line.fail,
        "retry": line.retry,
        "release": lambda: cancel_and_release(line),
        "wait": lambda: line.wait(20 * 3600),
    }
    do[step]()


def cancel_and_release(line: Line) -> None:
    ledger, now = line.project.ledger, line.clock.now()
    for batch in ledger.read.due_batches(now):
        ledger.cancel(batch.id, now)
    for row in [*ledger.read.newest(FileState.QUARANTINED)]:
        ledger.release(row.id, now)
