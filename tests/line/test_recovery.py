"""What a start finds on disk and the ledger does not know yet."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from clock import NOON
from ds_flow.core.errors import RequestError
from ds_flow.core.manifest import Manifest
from ds_flow.core.plan import Options, Plan, PlannedFile
from ds_flow.core.problems import Problems
from ds_flow.core.retry_policy import Dead, RetryAt
from ds_flow.core.states import BatchState, Cause, FileState, RunState, Trigger
from ds_flow.ledger.ledger import Ledger
from ds_flow.runs import recovery
from ds_flow.system import durable
from ds_flow.work.batch import Batch
from ds_flow.work.publication import publish
from ds_flow.work.published import read_manifest
from ds_flow.work.root import work_root
from samples import BATCH, OTHER_BATCH, manifest, planned, read, rejected, settled, sha256

PATH = "data/a.csv"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def published(out: Path, made: Manifest) -> Path:
    """A work directory whose run has committed."""
    work = out / ".work" / made.batch
    (work / "attempts" / str(made.attempt)).mkdir(parents=True)
    (work / "batch.json").write_text("{}")
    sources = {}
    for output in made.outputs:
        sources[output.name] = work / f"{output.name}.result"
        sources[output.name].write_text("1\n")
    publish(Batch(work), made, sources)
    return work


def waiting(ledger: Ledger) -> int:
    ledger.admit([settled(PATH, "1")], NOON)
    return ledger.read.versions(PATH)[-1].id


def state(ledger: Ledger, path: str = PATH) -> FileState:
    return ledger.read.versions(path)[-1].state


# --------------------------------------------------------------------------- commits


def test_a_commit_by_hand_is_recorded_by_whoever_opens_the_ledger_next(
    ledger: Ledger, out: Path
) -> None:
    waiting(ledger)
    work = published(out, manifest("17", inputs=[read(PATH, "1", None)], trigger="manual"))

    assert recovery.admit_commits(ledger, out, NOON) == 1
    assert recovery.admit_commits(ledger, out, NOON) == 0

    assert state(ledger) == FileState.PROCESSED
    assert not work.exists()


def test_a_commit_that_was_revealed_in_part_is_revealed_whole_before_it_is_recorded(
    ledger: Ledger, out: Path
) -> None:
    published(out, manifest("17", inputs=[read(PATH, "1")]))
    (out / "manifest_17.json").unlink()
    (out / "processed_0_17.csv").unlink()

    recovery.admit_commits(ledger, out, NOON)

    assert (out / "processed_0_17.csv").read_text() == "1\n"
    assert read_manifest(out / "manifest_17.json").run_id == "17"


def test_the_commit_of_a_live_run_is_left_to_its_daemon(ledger: Ledger, out: Path) -> None:
    file = waiting(ledger)
    ledger.form(BATCH, [file], Trigger.ARRIVAL, NOON)
    ledger.start_run(BATCH, NOON)
    work = published(out, manifest("17", inputs=[read(PATH, "1")]))

    assert recovery.admit_commits(ledger, out, NOON) == 0
    assert recovery.rebuild_ledger(ledger, out, NOON) == 0
    recovery.tidy_work_dirs(ledger, out)

    assert ledger.read.has_live_run(BATCH)
    assert work.exists()


def test_the_holder_of_the_lock_removes_what_is_recorded(ledger: Ledger, out: Path) -> None:
    work = published(out, manifest("17", inputs=[read(PATH, "1")]))

    assert recovery.admit_commits(ledger, out, NOON) == 1

    assert not work.exists()
    assert (out / "processed_0_17.csv").read_text() == "1\n"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema": 1}'])
def test_a_commit_that_cannot_be_read_stops_no_other(
    ledger: Ledger, out: Path, content: str
) -> None:
    options = Options(project_name="x", root="/", output_dir=str(out), log_dir=str(out))
    for batch in ("0" * 10, BATCH):
        made = Plan(
            batch=batch, trigger="manual", formed_at="", files=(planned("a"),), options=options
        )
        Batch.create(out, made)
    broken, whole = (work_root(out) / batch for batch in ("0" * 10, BATCH))
    (broken / "committed").mkdir()
    (broken / "committed" / "manifest_16.json").write_text(content)
    commit = manifest("17", inputs=[read("data/a.csv", "1", None)], trigger="manual")
    (whole / "committed").mkdir()
    (whole / "committed" / "processed_0_17.csv").write_text("1\n")
    durable.write_json(whole / "committed" / "manifest_17.json", commit.to_json())

    assert recovery.admit_commits(ledger, out, NOON) == 1

    assert (broken / "committed" / "manifest_16.json").read_text() == content


@pytest.mark.parametrize("name", ["committed", "batch.json"])
def test_a_work_directory_that_the_system_refuses_stops_no_other(
    ledger: Ledger, out: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    refused = planned_work(out, Trigger.ARRIVAL)
    (refused / name).unlink(missing_ok=True)
    (refused / name).symlink_to("0" * 999)  # ENAMETOOLONG stands for EACCES and EIO
    whole = published(out, manifest("17", batch="f" * 10, inputs=[read(PATH, "1", None)]))
    (whole / "batch.json").write_text("{}")

    assert recovery.admit_commits(ledger, out, NOON) == 1
    recovery.adopt_batches(ledger, out, NOON)
    recovery.tidy_work_dirs(ledger, out)

    assert refused.exists()
    assert "batch.unreadable" in {record.message for record in caplog.records}


def test_what_is_off_with_a_batch_is_said_once_to_who_looks_again_and_again(
    ledger: Ledger, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = published(out, manifest("17", inputs=[read(PATH, "1", None)], trigger="manual"))
    (work / "committed" / "manifest_17.json").unlink()
    (work / "committed" / "manifest_17.json").write_text("{")
    problems = Problems()

    for _ in range(3):
        recovery.admit_commits(ledger, out, NOON, problems)

    assert [record.message for record in caplog.records] == ["batch.unreadable"]


def test_a_commit_is_told_with_the_files_that_it_left_out(
    ledger: Ledger, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waiting(ledger)
    bad = rejected(PATH, Cause.REJECTED, "1")
    published(out, manifest("17", rejects=[bad], trigger="manual"))

    with caplog.at_level(logging.INFO):
        recovery.admit_commits(ledger, out, NOON)

    succeeded, quarantined = caplog.records
    assert succeeded.message == "run.succeeded"
    figures = [vars(succeeded)[name] for name in ("seconds", "files", "rows", "outputs")]
    assert figures == [0.0, 0, 0, 0]
    assert quarantined.message == "file.quarantined"
    assert vars(quarantined)["path"] == PATH
    assert vars(quarantined)["why"] == "it is rejected"


def test_a_commit_in_a_copied_work_directory_is_none_of_that_batch(
    ledger: Ledger, out: Path
) -> None:
    work = published(out, manifest("17", inputs=[read(PATH, "1", None)], trigger="manual"))
    (out / "manifest_17.json").unlink()
    work.rename(work.with_name(OTHER_BATCH))

    assert recovery.admit_commits(ledger, out, NOON) == 0
    recovery.tidy_work_dirs(ledger, out)

    assert work.with_name(OTHER_BATCH).exists()
    assert not (out / "manifest_17.json").exists()


def test_a_commit_that_the_ledger_refuses_stops_no_other(ledger: Ledger, out: Path) -> None:
    published(out, manifest("16", batch="0" * 10, inputs=[read("data/b.csv", "1", -1)]))
    published(out, manifest("17", inputs=[read(PATH, "1", None)], trigger="manual"))

    assert recovery.admit_commits(ledger, out, NOON) == 1

    assert state(ledger) == FileState.PROCESSED


# --------------------------------------------------------------------------- a lost ledger


def test_a_lost_ledger_is_rebuilt_and_nothing_is_done_twice(ledger: Ledger, out: Path) -> None:
    bad = rejected("data/b.csv", Cause.REJECTED, "bad")
    published(out, manifest("17", inputs=[read(PATH, "1")], rejects=[bad]))
    Batch(out / ".work" / BATCH).remove()

    assert recovery.rebuild_ledger(ledger, out, NOON) == 1
    assert recovery.rebuild_ledger(ledger, out, NOON) == 0

    ledger.admit([settled(PATH, "1"), settled("data/b.csv", "bad")], NOON)
    assert state(ledger) == FileState.PROCESSED
    assert state(ledger, "data/b.csv") == FileState.QUARANTINED
    assert ledger.read.waiting() == []


def test_a_rebuilt_ledger_knows_content_that_came_back(ledger: Ledger, out: Path) -> None:
    for version, content in enumerate("ABA", 1):
        made = manifest(
            f"{version}", batch=f"{version:010d}", inputs=[read(PATH, content, version)]
        )
        published(out, made)
        Batch(out / ".work" / made.batch).remove()

    recovery.rebuild_ledger(ledger, out, NOON)
    ledger.admit([settled(PATH, "A")], NOON)

    assert [row.version for row in ledger.read.versions(PATH)] == [1, 2, 3]
    assert ledger.read.waiting() == []


def test_a_rebuilt_version_keeps_its_number(ledger: Ledger, out: Path) -> None:
    published(out, manifest("17", inputs=[read(PATH, "C", 7)]))

    recovery.rebuild_ledger(ledger, out, NOON)
    ledger.admit([settled(PATH, "D", at=2)], NOON)

    assert [row.version for row in ledger.read.versions(PATH)] == [7, 8]


def test_manifests_are_read_oldest_run_first(ledger: Ledger, out: Path) -> None:
    for run_id in ("9", "10", "11"):
        made = manifest(run_id, batch=run_id.zfill(10), inputs=[read(PATH, run_id, int(run_id))])
        published(out, made)

    recovery.rebuild_ledger(ledger, out, NOON)

    assert [run.run_id for run in ledger.read.runs()] == ["9", "10", "11"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', "null"])
def test_a_manifest_that_cannot_be_read_is_passed_over(
    ledger: Ledger, out: Path, text: str
) -> None:
    (out / "manifest_1.json").write_text(text)
    (out / "manifest_2.json").mkdir()
    published(out, manifest("17", inputs=[read(PATH, "1")]))

    assert recovery.rebuild_ledger(ledger, out, NOON) == 1


# --------------------------------------------------------------------------- what died half-way


@pytest.mark.parametrize(
    ("ended", "is_kept"),
    [(BatchState.CANCELLED, False), (BatchState.DEAD, True), (BatchState.RETRYING, True)],
)
def test_the_work_of_a_batch_is_kept_while_anybody_may_need_it(
    ledger: Ledger, out: Path, ended: BatchState, *, is_kept: bool
) -> None:
    file = waiting(ledger)
    ledger.form(OTHER_BATCH, [file], Trigger.ARRIVAL, NOON)
    work = out / ".work" / OTHER_BATCH
    (work / "attempts").mkdir(parents=True)
    (work / "batch.json").write_text("{}")
    if ended == BatchState.CANCELLED:
        ledger.cancel(OTHER_BATCH, NOON)
    else:
        ledger.start_run(OTHER_BATCH, NOON)
        then = Dead("") if ended == BatchState.DEAD else RetryAt(NOON)
        failed = RunState.FAILED
        ledger.end_run(OTHER_BATCH, 1, failed, error="", results=0, then=then, now=NOON)

    recovery.tidy_work_dirs(ledger, out)

    assert work.exists() == is_kept


# --------------------------------------------------------------------------- uncommitted batches


def planned_work(out: Path, trigger: Trigger) -> Path:
    """A work directory of one planned file and one attempt, not committed."""
    file = PlannedFile(path=PATH, version=3, sha256=sha256("1"), size_bytes=1)
    options = Options(project_name="test", root="/", output_dir=str(out), log_dir=str(out))
    made = Plan(batch=BATCH, trigger=trigger, formed_at="", files=(file,), options=options)
    batch = Batch.create(out, made)
    batch.new_attempt()
    return batch.folder


def test_a_batch_that_only_its_work_directory_knows_is_taken_up_with_its_last_attempt(
    ledger: Ledger, out: Path
) -> None:
    planned_work(out, Trigger.ARRIVAL)

    assert recovery.adopt_batches(ledger, out, NOON) == 1
    assert recovery.adopt_batches(ledger, out, NOON) == 0

    (run,) = ledger.read.live_runs()
    assert (run.batch, run.attempt, run.state) == (BATCH, 1, RunState.STARTING)
    (version,) = ledger.read.versions(PATH)
    assert (version.version, version.state, version.batch) == (3, FileState.BATCHED, BATCH)
    assert ledger.admit([settled(PATH, "1")], NOON) == [(PATH, FileState.BATCHED)]


def test_a_file_that_was_released_into_a_batch_is_in_it_again(ledger: Ledger, out: Path) -> None:
    reject = rejected(PATH, Cause.REJECTED, "1", version=3)
    ledger.record(manifest("17", batch=OTHER_BATCH, rejects=[reject]), NOON)
    planned_work(out, Trigger.ARRIVAL)

    assert recovery.adopt_batches(ledger, out, NOON) == 1
    assert state(ledger) == FileState.BATCHED
    with pytest.raises(RequestError, match="batched, not quarantined"):
        ledger.release(ledger.read.versions(PATH)[-1].id, NOON)


def test_a_version_that_is_found_after_a_later_one_keeps_its_number(ledger: Ledger) -> None:
    for run_id, batch, version in (("19", BATCH, 3), ("17", OTHER_BATCH, 1)):
        made = manifest(run_id, batch=batch, inputs=[read(PATH, "1", version)])
        ledger.record(made, NOON)

    found = [(row.version, row.run_id) for row in ledger.read.versions(PATH)]
    assert found == [(1, "17"), (3, "19")]


def test_a_batch_by_hand_is_left_to_its_person(ledger: Ledger, out: Path) -> None:
    planned_work(out, Trigger.MANUAL)

    assert recovery.adopt_batches(ledger, out, NOON) == 0
    assert ledger.read.batch(BATCH) is None


def test_a_broken_plan_is_named_and_passed_over(ledger: Ledger, out: Path) -> None:
    (planned_work(out, Trigger.ARRIVAL) / "batch.json").write_text("{")

    assert recovery.adopt_batches(ledger, out, NOON) == 0


def test_a_dead_batchs_work_directory_stays_until_no_retry_needs_it(
    ledger: Ledger, out: Path
) -> None:
    file = waiting(ledger)
    ledger.form(BATCH, [file], Trigger.ARRIVAL, NOON)
    ledger.start_run(BATCH, NOON)
    work = planned_work(out, Trigger.ARRIVAL)
    ledger.end_run(BATCH, 1, RunState.FAILED, error="", results=0, then=Dead("used up"), now=NOON)

    recovery.tidy_work_dir(ledger, Batch(work))
    assert work.exists()
    ledger.retry(BATCH, OTHER_BATCH, NOON)
    recovery.tidy_work_dir(ledger, Batch(work))
    assert not work.exists()


# --------------------------------------------------------------------------- analyses


def analyzed_again(out: Path, number: int, error: str, **other: object) -> None:
    content = {"analysis": {"command": ["wc"], "stdout": "", "error": error}, **other}
    durable.write_json(out / f"analysis_17_{number}.json", content)


def why_failed(ledger: Ledger) -> str:
    run = ledger.read.run("17")
    assert run
    return run.analysis_error


def test_a_ledger_that_is_older_than_an_analysis_takes_the_newest_one(
    ledger: Ledger, out: Path
) -> None:
    made = replace(
        manifest("17", inputs=[read(PATH, "1")]),
        analysis={"command": ["wc"], "stdout": "", "error": "first"},
    )
    published(out, made)
    recovery.admit_commits(ledger, out, NOON)
    assert why_failed(ledger) == "first"

    for number, error in ((2, "second"), (10, "tenth")):
        analyzed_again(out, number, error)
    recovery.rebuild_ledger(ledger, out, NOON)
    assert why_failed(ledger) == "tenth"

    ledger.record_analysis("17", 2, "second", NOON)
    assert why_failed(ledger) == "tenth"
    analyzed_again(out, 11, "")
    recovery.rebuild_ledger(ledger, out, NOON)
    assert why_failed(ledger) == ""


@pytest.mark.parametrize("content", ["", "[]", '{"analysis": null}', '{"analysis": {}}'])
def test_a_file_that_only_looks_like_an_analysis_is_named_and_passed_over(
    ledger: Ledger, out: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    published(out, manifest("17", inputs=[read(PATH, "1")]))
    recovery.admit_commits(ledger, out, NOON)
    (out / "analysis_17_1.json").write_text(content)
    (out / "analysis_18_1.json").write_text("of no run")

    recovery.rebuild_ledger(ledger, out, NOON)

    assert why_failed(ledger) == ""
    assert [one.message for one in caplog.records if one.levelno >= logging.ERROR] == [
        "analysis.unreadable"
    ]
