"""Drift from the files to the ledger: thirty nights of a made-up school."""

import json
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from cli_project import Project as Place
from clock import NOON
from ds_flow.core.families import Family, family_of
from ds_flow.core.manifest import Manifest
from ds_flow.core.plan import Options, Plan, PlannedFile, StageOptions
from ds_flow.core.states import ATTEMPT_MARK, Trigger
from ds_flow.ledger.families import BATCH_DRIFTED, FILE_DRIFTED
from ds_flow.ledger.ledger import Ledger
from ds_flow.views.status import status_document
from ds_flow.work.batch import Batch
from ds_flow.work.families import FILE, put_families, read_families
from project import Project
from steps import process_job, publish

SCHOOLS = ("north", "south", "east")
COLUMNS = ("id", "name", "class", "score", "note")
NIGHTS = 30


@dataclass
class School:
    """A project in which each night is a batch: its files are really read and published."""

    root: Path
    ledger: Ledger
    transform: str = "transforms:transform"
    manifests: list[Manifest] = field(default_factory=list)

    def drop(self, name: str, lines: list[str]) -> str:
        path = self.root / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([*lines, ""]))
        return f"data/{name}"

    def night(self, day: int, *paths: str, trigger: Trigger = Trigger.ARRIVAL) -> Manifest:
        """Process and publish some files in one run, and record it."""
        at = f"2026-11-{day:02}T02:00:00+00:00"
        made = replace(self.run(day, paths, trigger), published_at=at)
        assert self.ledger.record(made, NOON + timedelta(days=day))
        self.manifests.append(made)
        return made

    def run(self, number: int, paths: tuple[str, ...], trigger: Trigger) -> Manifest:
        options = Options(
            project_name="school",
            root=str(self.root),
            output_dir=str(self.root / "out"),
            log_dir=str(self.root / "log"),
            inbox=str(self.root / "data"),
            transform=self.transform,
            stages={name: StageOptions() for name in ("process", "combine", "analyze")},
        )
        number += 100 * (trigger == Trigger.RERUN)
        files = tuple(
            PlannedFile(path=path, version=None, sha256=None, size_bytes=1) for path in paths
        )
        plan = Plan(
            batch=f"{number:010x}", trigger=trigger, formed_at="", files=files, options=options
        )
        batch = Batch.create(self.root / "out", plan)
        put_families(batch, self.ledger.families.of(paths))
        batch.attempt_dir(1).mkdir()
        os.environ[ATTEMPT_MARK] = f"{batch.id}/1"
        code = process_job.main(
            [str(batch.folder), str(batch.results.folder), f"0-{len(paths) - 1}"]
        )
        assert code == 0
        run = publish.Run(flow="F", run_id=str(number), started_at="", combined=None, analysis=None)
        batch.jobs.mkdir()
        return publish.finish(Batch(batch.folder), run).manifest

    def marked(self) -> dict[str, list[str]]:
        """The kinds of marks that each file got."""
        found: dict[str, list[str]] = {}
        for made in self.manifests:
            for mark in made.drift:
                found.setdefault(mark.path.removeprefix("data/student_"), []).append(mark.kind)
        return found


@pytest.fixture
def school(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[School]:
    monkeypatch.setenv(ATTEMPT_MARK, "")
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        yield School(tmp_path, ledger)


def cells(chance: random.Random, columns: tuple[str, ...], *, half_empty: bool) -> Iterator[str]:
    """The lines of one file: classes differ by a tenth, and a fifth of the notes is empty."""
    yield ",".join(columns)
    for number in range(chance.randint(45, 55)):
        usual = {"id": str(number + 1), "name": f"pupil {number}", "class": f"{number % 4}b"}
        usual["score"] = str(chance.randint(0, 100))
        usual["note"] = chance.choice(["", "late", "ill", "good", "-"])
        row = [usual.get(name.casefold(), "x") for name in columns]
        is_empty = half_empty and number % 2
        yield ",".join(["", *row[1:2], *[""] * (len(row) - 2)] if is_empty else row)


ODD = {
    "north_2026-11-08.csv": ("id", "name", "class", "Score", "note"),
    "south_2026-11-14.csv": ("id", "name", "class", "note"),
    "east_2026-11-19.csv": ("id", "class", "name", "score", "note"),
}
HALF_EMPTY = "north_2026-11-25.csv"
RERUN_ON = 27


def thirty_nights(school: School) -> None:
    chance = random.Random(7)
    for day in range(1, NIGHTS + 1):
        names = [f"{place}_2026-11-{day:02}.csv" for place in SCHOOLS]
        paths = [
            school.drop(
                f"student_{name}",
                [*cells(chance, ODD.get(name, COLUMNS), half_empty=name == HALF_EMPTY)],
            )
            for name in names
        ]
        school.night(day, *paths)


def test_of_thirty_nights_exactly_the_odd_files_are_marked(school: School) -> None:
    thirty_nights(school)
    assert school.marked() == {
        "north_2026-11-08.csv": ["renamed"],
        "south_2026-11-14.csv": ["missing"],
        "east_2026-11-19.csv": ["reordered"],
        HALF_EMPTY: ["empty"] * 4,
    }
    (renamed,) = school.manifests[7].drift
    assert renamed.text == (
        "student_north: column `score` is missing; it was there in 7 of 7 files;"
        " a new column `Score` is there"
    )
    published = [item for made in school.manifests for item in made.inputs]
    assert len(published) == NIGHTS * len(SCHOOLS)  # no file was stopped


def families(ledger: Ledger, places: tuple[str, ...] = SCHOOLS) -> dict[str, Family]:
    return ledger.families.of(f"data/student_{place}_1.csv" for place in places)


def test_a_ledger_that_is_built_again_knows_the_same_whatever_is_recorded_first(
    school: School, tmp_path: Path
) -> None:
    thirty_nights(school)
    random.Random(1).shuffle(school.manifests)
    with closing(Ledger(tmp_path / "again.db")) as again:
        for made in school.manifests:
            assert again.record(made, NOON)
            assert not again.record(made, NOON)
        assert families(again) == families(school.ledger)
        assert families(again)["data/student_north_#"].files == NIGHTS


def test_files_of_one_batch_are_compared_with_what_was_before_it(school: School) -> None:
    school.night(1, *(school.drop(f"student_{n}.csv", ["id,a", "1,2"]) for n in range(3)))
    odd = [school.drop(f"student_{n}.csv", ["id,A", "1,2"]) for n in range(10, 20)]
    assert {mark.since for mark in school.night(2, *odd).drift} == {""}
    assert len(school.manifests[-1].drift) == len(odd)


def test_a_rerun_counts_no_file_twice_and_tells_nobody_again(school: School) -> None:
    first = school.drop("student_1.csv", ["id,a", "1,2"])
    second = school.drop("student_2.csv", ["id,A", "1,2"])
    school.night(1, first)
    assert len(school.night(2, second).drift) == 1
    before = school.ledger.families.of([first])
    count, _ = school.ledger.families.newest_drifted(NOON, 9)

    again = school.night(3, first, second, trigger=Trigger.RERUN)

    assert [mark.path for mark in again.drift] == [second]
    assert school.ledger.families.of([first]) == before
    assert school.ledger.families.newest_drifted(NOON, 9)[0] == count == 1


def test_a_ledger_that_is_built_again_tells_of_no_mark_as_if_it_were_new(
    school: School, tmp_path: Path
) -> None:
    for day, columns in ((1, "id,a"), (2, "id,A")):
        school.night(day, school.drop(f"student_{day}.csv", [columns, "1,2"]))

    with closing(Ledger(tmp_path / "again.db")) as again:
        for made in school.manifests:
            assert again.record(made, NOON + timedelta(days=400))
        assert again.families.newest_drifted(NOON + timedelta(days=390), 9) == (0, [])
        (told,) = again.families.newest_drifted(NOON, 9)[1]
        assert told.at.startswith("2026-11-02T02:00")


def test_a_batch_with_a_new_change_is_one_event_and_one_that_goes_on_is_none(
    school: School,
) -> None:
    school.night(1, *(school.drop(f"student_{n}.csv", ["id,a", "1,2"]) for n in range(3)))
    for day in (2, 3, 4, 5):
        odd = [school.drop(f"student_{day}{n}.csv", ["id,A", "1,2"]) for n in range(3)]
        school.night(day, *odd)

    kinds = [kind for (kind,) in school.ledger._store.each("SELECT kind FROM event ORDER BY id")]
    assert kinds.count(BATCH_DRIFTED) == 1
    assert kinds.count(FILE_DRIFTED) == 6  # of the second and third night; then it is known
    assert len(school.manifests[2].drift) == 3
    assert {mark.since for mark in school.manifests[2].drift} == {"2026-11-02"}


def test_what_a_transform_does_to_columns_and_rows_is_no_drift(school: School) -> None:
    code = "def transform(frame):\n    return frame.rename(columns={'a': frame['a'][0]}).head(1)\n"
    (school.root / "odd_transform.py").write_text(code)
    school.transform = "odd_transform:transform"
    for day in range(1, 5):
        lines = ["id,a", *(f"{n},{day}" for n in range(100))]
        school.night(day, school.drop(f"student_{day}.csv", lines))
    assert school.marked() == {}
    assert [item.rows_read for item in school.manifests[-1].inputs] == [100]


def test_a_torn_or_foreign_file_of_families_compares_nothing(school: School) -> None:
    path = school.drop("student_1.csv", ["id", "1"])
    school.run(1, (path,), Trigger.ARRIVAL)
    batch = Batch.at(school.root / "out", f"{2:010x}")
    batch.folder.mkdir()
    for text in ("", "{", "[]", '{"x": 1}', '{"x": {"shapes": [], "days": [[1]]}}', "[" * 10_000):
        (batch.folder / FILE).write_text(text)
        assert read_families(batch) == {}


def test_families_that_do_not_fit_in_are_left_out(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [school.drop(f"student_{name}.csv", ["id", "1"]) for name in "abc"]
    school.night(1, *paths)
    known = school.ledger.families.of(paths)
    batch = Batch.at(school.root / "out", f"{2:010x}")
    batch.folder.mkdir()
    monkeypatch.setattr("ds_flow.work.families.LIMIT_BYTES", 200)

    put_families(batch, known)

    assert 0 < len(read_families(batch)) < len(known)
    assert set(known) == {family_of(path) for path in paths}


def test_status_names_marked_files_for_a_week_and_until_they_are_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ATTEMPT_MARK, "")
    with Place(tmp_path) as place:
        made = School(place.root, place.ledger)
        made.night(1, made.drop("student_1.csv", ["id,a", "1,2"]))
        made.night(2, made.drop("student_2.csv", ["id,A", "1,2"]))
        made.night(3, made.drop("student_3.csv", ["id", "1"]))

        def told(day: int) -> list[str]:
            at = NOON + timedelta(days=day)
            found = status_document(place.settings, place.ledger, None, at)
            assert found["drifted"] == len(found["drift"])
            return [one["path"] for one in found["drift"]]

        assert told(3) == ["data/student_3.csv", "data/student_2.csv"]
        assert told(9) == ["data/student_3.csv"]
        assert told(11) == []
        made.night(4, made.drop("student_3.csv", ["id,a", "1,2"]))
        assert told(5) == ["data/student_2.csv"]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    yield made
    made.end_everything()


@pytest.mark.exhaustive
def test_a_column_that_was_renamed_is_told_wherever_people_look(project: Project) -> None:
    said = (
        "student_north: column `score` is missing; it was there in 2 of 2 files;"
        " a new column `Score` is there"
    )
    for day in (26, 27):
        project.drop(f"student_north_2026-11-{day}.csv", "id,score\n1,2\n")
    assert project.once().returncode == 0
    odd = project.drop("student_north_2026-11-28.csv", "id,Score\n1,2\n")

    done = project.once()

    assert done.returncode == 0
    name = f"data/{odd.name}"
    (run,) = project.runs()[1:]
    made = {one.run_id: one for one in project.manifests()}[str(run.run_id)]
    assert [(mark.path, mark.kind, mark.text) for mark in made.drift] == [(name, "renamed", said)]
    status = project.status()
    assert [(one["path"], one["text"]) for one in status["drift"]] == [(name, said)]
    shown = project.ds_flow("status").stdout
    assert "drift      1 file unlike those before, in a week\n" in shown
    assert f"{name} is published, but differs from the files before it: {said} (since" in shown
    answer = json.loads(project.ds_flow("explain", "--json", str(odd)).stdout)
    assert answer["drift"] == [said]
    assert answer["verdict"].endswith(f"; drift: {said}.")
    assert said in project.ds_flow("show", str(run.run_id)).stdout
    with closing(sqlite3.connect(project.ledger)) as db:
        found = db.execute("SELECT detail FROM event WHERE kind = ?", (BATCH_DRIFTED,)).fetchall()
    assert found == [(f"{name}: {said}",)]
    assert BATCH_DRIFTED in (project.log / "ds-flow.log").read_text()
