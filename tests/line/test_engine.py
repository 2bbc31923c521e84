"""The line as a whole where something outside stops it for a while."""

import errno
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from clock import MovedClock
from ds_flow.core.problems import Problems
from ds_flow.core.states import BatchState, FileState, RunState, Trigger
from ds_flow.dispatch import JobSpec, has_jobs_elsewhere, open_round
from ds_flow.inbox import scan, slices
from ds_flow.inbox.pattern import Pattern
from ds_flow.inbox.watcher import Inbox
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.rows import BatchRow
from ds_flow.runs.launch import Runs
from ds_flow.runs.start import Starter, why_must_wait
from ds_flow.runs.supervise import POLL_SECONDS
from ds_flow.service import engine as engine_module
from ds_flow.service.engine import Engine
from ds_flow.settings.load import load_settings
from ds_flow.system import durable
from ds_flow.system.disk_space import LowSpaceError, free_bytes
from ds_flow.system.wake import Wake
from ds_flow.work.batch import Batch
from ds_flow.work.published import read_manifest
from pretended import PretendedRuns
from samples import settled

SETTINGS = """
project_name: test
paths: {input_pattern: data/*.csv, output_dir: out, log_dir: log}
batch: {quiet_seconds: 1000, max_wait_seconds: 1000}
"""


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def engine(tmp_path: Path, clock: MovedClock) -> Iterator[Engine]:
    for folder in ("config", "data"):
        (tmp_path / folder).mkdir()
    file = tmp_path / "config" / "settings.yaml"
    file.write_text(SETTINGS)
    settings = load_settings(file, {})
    ledger, wake = Ledger(settings.ledger), Wake()
    inbox = Inbox(Pattern.parse(settings.pattern, tmp_path), wake, "poll")
    made = Engine(settings, ledger, inbox, Runs(), clock)
    made.open()
    yield made
    ledger.close()
    wake.close()


def test_what_a_look_found_when_the_system_refused_is_found_again_without_a_hint(
    engine: Engine, clock: MovedClock, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "data" / "a.csv").write_text("id\n1\n")
    engine.admission.pulse = refuse

    for _ in range(10):  # more often than bugs in a row would be borne
        assert engine.tick() == 0
        clock.elapsed_s += 40
    assert engine.problems
    assert not engine.is_idle

    engine.admission.pulse = lambda: None
    admitted = engine.tick()
    clock.elapsed_s += 1
    assert admitted + engine.tick() == 1
    assert [row.path for row in engine.ledger.read.latest()] == ["data/a.csv"]


def test_a_batch_forms_by_the_settings_that_were_read_again(
    engine: Engine, clock: MovedClock, tmp_path: Path
) -> None:
    (tmp_path / "data" / "a.csv").write_text("id\n1\n")
    for _ in range(3):
        engine.admission.admit()
        clock.elapsed_s += 1
    assert engine.admission.form(room=1) == 0

    engine.change_settings(
        load_settings(engine.settings.file, {"DS_FLOW_BATCH__QUIET_SECONDS": "0.5"})
    )

    assert engine.admission.form(room=1) == 1


def test_nothing_is_admitted_before_the_ledger_knows_what_was_published_by_hand(
    engine: Engine, clock: MovedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "data" / "a.csv").write_text("id\n1\n")
    with monkeypatch.context() as broken:
        broken.setattr(engine_module, "admit_commits", refuse)
        for _ in range(3):
            assert engine.tick() == 0
            clock.elapsed_s += 40
    assert engine.ledger.read.total() == 0
    assert engine.problems == ["[Errno 5] Input/output error"]

    engine.tick()
    clock.elapsed_s += 1
    assert engine.tick() == 1
    assert engine.ledger.read.total() == 1


def test_a_ledger_that_is_busy_for_long_is_waited_for_and_is_no_bug(
    engine: Engine, clock: MovedClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data" / "a.csv").write_text("id\n1\n")
    engine.tick()
    engine.ledger._store._db.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(engine.settings.ledger)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(10):  # more often than bugs in a row would be borne
            clock.elapsed_s += 40
            assert engine.tick() == 0
        assert any("locked" in trouble for trouble in engine.problems)
        other.rollback()
    clock.elapsed_s += 40

    assert engine.tick() == 1
    assert engine.problems == []
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_a_run_s_life_is_in_the_log_from_its_batch_to_its_end(
    engine: Engine,
    runs: PretendedRuns,
    clock: MovedClock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ds_flow")
    file = tmp_path / "config" / "settings.yaml"
    engine.change_settings(load_settings(file, {"DS_FLOW_RUN__ATTEMPTS": "2"}))
    good, bad = batches_of(engine, a="1", b="2")

    engine.tick()
    runs.publish(f"{good}/1")
    engine.tick()
    runs.end(f"{good}/1", "0")
    engine.tick()
    engine.tick()
    for attempt in (1, 2):
        runs.end(f"{bad}/{attempt}", "1")
        engine.tick()
        clock.elapsed_s += 3600
        engine.tick()
        engine.tick()

    def said_of(batch: str) -> list[str]:
        of = [record for record in caplog.records if vars(record).get("batch") == batch]
        return [record.getMessage() for record in of]

    assert said_of(good) == ["run.starting", "run.running", "run.succeeded"]
    assert [line for line in said_of(bad) if not line.startswith("file.")] == [
        *("run.starting", "run.running", "run.failed", "batch.retrying"),
        *("run.starting", "run.running", "run.failed", "batch.dead"),
    ]


def test_a_lost_inbox_is_told_once_with_what_to_do_and_so_is_its_return(
    engine: Engine, clock: MovedClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ds_flow")

    def look(times: int) -> None:
        for _ in range(times):
            engine.hint()
            engine.tick()
            clock.elapsed_s += 40

    look(1)
    (tmp_path / "data").rmdir()
    look(3)
    (trouble,) = engine.problems
    assert trouble.endswith("create it or make it readable, or change paths.input_pattern")
    (tmp_path / "data").mkdir()
    look(3)

    assert engine.problems == []
    assert [record.message for record in caplog.records] == ["inbox.lost", "inbox.back"]


@pytest.fixture
def runs(engine: Engine, tmp_path: Path) -> PretendedRuns:
    """Runs of the engine that have no processes."""
    engine.starter.runs = engine.supervisor.runs = made = PretendedRuns(tmp_path)
    return made


def batches_of(engine: Engine, **contents: str) -> list[str]:
    """Let each file have arrived, and be a batch of its own; the batches."""
    batches = []
    for name, content in contents.items():
        engine.ledger.admit([settled(f"data/{name}.csv", content)], engine.clock.now())
        Path(engine.settings.root, "data", f"{name}.csv").write_text(content)
        (waiting,) = engine.ledger.read.waiting()
        batches.append(f"{waiting.id:010d}")
        engine.ledger.form(batches[-1], [waiting.id], Trigger.ARRIVAL, engine.clock.now())
    return batches


def test_a_run_that_dies_while_a_long_scan_is_under_way_is_recorded_before_its_end(
    engine: Engine, runs: PretendedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(scan, "FILES_A_STEP", 1)
    batches_of(engine, a="1", b="2", c="3", d="4")
    engine.tick()
    (mark, *_) = runs.alive
    runs.end(mark, "1")
    before = len(engine.ledger.read.live_runs())

    engine.tick()

    assert engine.admission.scan is not None
    assert len(engine.ledger.read.live_runs()) == before - 1


def test_a_batch_that_is_cancelled_while_it_is_started_ends_nothing_else(
    engine: Engine, runs: PretendedRuns
) -> None:
    first, second = batches_of(engine, a="1", b="2")
    runs.meanwhile = lambda batch: engine.ledger.cancel(batch, engine.clock.now())

    engine.tick()

    assert engine.ledger.read.batches_in(BatchState.CANCELLED)[0].id == first
    assert list(runs.alive) == [f"{second}/1"]
    assert not (engine.settings.work_root / first).exists()


def test_a_batch_that_is_cancelled_while_it_is_started_keeps_what_its_canceller_ends(
    engine: Engine, runs: PretendedRuns
) -> None:
    (batch,) = batches_of(engine, a="1")
    work = engine.settings.work_root / batch

    def cancel(batch: str) -> None:
        engine.ledger.cancel(batch, engine.clock.now())
        job = JobSpec(key="a", command=("true",))
        open_round(
            work / "jobs" / "process",
            executor="lsf",
            batch=batch,
            opened_by=f"{batch}/1",
            jobs=[job],
            commands=[job.command],
        )

    runs.meanwhile = cancel
    engine.tick()

    assert [one.id for one in engine.ledger.read.batches_in(BatchState.CANCELLED)] == [batch]
    assert has_jobs_elsewhere(work / "jobs")


@pytest.mark.parametrize(
    "content",
    ["", "{", "{}", "[]", "null", '{"run_id": "9", "names": ["removed"]}', '{"run_id": 1}'],
)
def test_a_batch_whose_intent_cannot_be_read_is_dead_and_the_line_goes_on(
    engine: Engine, runs: PretendedRuns, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = batches_of(engine, a="1", b="2")
    engine.tick()
    (runs.alive[f"{first}/1"] / "intent.json").write_text(content)
    runs.end(f"{first}/1", "1")

    engine.tick()  # as after a restart, which does not help
    engine.open()
    engine.tick()

    (dead,) = engine.ledger.read.batches_in(BatchState.DEAD)
    assert dead.id == first
    assert "intent.json" in dead.reason
    assert list(runs.alive) == [f"{second}/1"]
    (said,) = [record for record in caplog.records if record.message == "file.quarantined"]
    assert vars(said)["path"] == "data/a.csv"
    assert dead.reason in vars(said)["why"]


def test_a_batch_whose_files_the_system_refuses_waits_for_it_and_stops_no_other(
    engine: Engine, runs: PretendedRuns, clock: MovedClock
) -> None:
    first, second, third = batches_of(engine, a="1", b="2", c="3")
    engine.tick()
    runs.end(f"{first}/1", "1")
    work = engine.settings.work_root / first
    aside = work.rename(engine.settings.root / "aside")
    work.symlink_to(work)  # the system follows no link to itself, whoever asks

    for _ in range(30):  # as after a restart, which does not help
        engine.tick()
        clock.elapsed_s += 40
    engine.open()
    engine.tick()
    assert list(runs.alive) == [f"{second}/1"]
    (trouble,) = engine.problems
    assert str(work) in trouble
    runs.end(f"{second}/1", "0")
    engine.tick()
    engine.tick()
    assert list(runs.alive) == [f"{third}/1"]
    assert not engine.ledger.read.batches_in(BatchState.DEAD)

    work.unlink()
    aside.rename(work)
    engine.tick()
    assert engine.problems == []
    ended = {run.batch: run.state for run in engine.ledger.read.runs()}
    assert ended[first] == RunState.FAILED


def test_a_disk_that_takes_nothing_concerns_every_batch(
    engine: Engine, runs: PretendedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    first, second = batches_of(engine, a="1", b="2")
    engine.tick()
    runs.end(f"{first}/1", "1")
    monkeypatch.setattr(Batch, "count_results", full)

    engine.tick()
    engine.tick()

    assert list(engine.unreadable) == []
    assert f"{second}/1" not in runs.alive


def test_a_copy_of_a_work_directory_is_no_batch(
    engine: Engine, runs: PretendedRuns, caplog: pytest.LogCaptureFixture
) -> None:
    (batch,) = batches_of(engine, a="1")
    engine.tick()
    work = engine.settings.work_root / batch
    shutil.copytree(work, work.with_name(f"{batch}.bak"))

    engine.open()

    assert [run.batch for run in engine.ledger.read.live_runs()] == [batch]
    (named,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert "a copy of batch" in str(vars(named)["why"])
    runs.publish(f"{batch}/1")
    runs.end(f"{batch}/1", "0")
    engine.tick()
    assert [row.state for row in engine.ledger.read.latest()] == ["processed"]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_batch_that_got_another_s_files_is_dead_and_the_line_goes_on(
    engine: Engine, runs: PretendedRuns, *, is_known: bool
) -> None:
    first, second, third = batches_of(engine, a="1", b="2", c="3")
    engine.tick()
    runs.publish(f"{first}/1")
    copy = shutil.copytree(engine.settings.work_root / first, engine.settings.root / "copy")
    runs.end(f"{first}/1", "0")
    engine.tick()
    engine.tick()
    manifest = engine.settings.output_dir / "manifest_1.json"
    if not is_known:
        commit = read_manifest(copy / "committed" / "manifest_1.json")
        (copy / "committed" / "manifest_1.json").unlink()
        durable.write_json(
            copy / "committed" / "manifest_99.json", {**commit.to_json(), "run_id": "99"}
        )
    shutil.copytree(copy, engine.settings.work_root / second, dirs_exist_ok=True)
    runs.end(f"{second}/1", "1")

    engine.tick()
    engine.tick()
    engine.open()

    (dead,) = engine.ledger.read.batches_in(BatchState.DEAD)
    assert (dead.id, f"commit of batch {first}" in dead.reason) == (second, True)
    assert list(runs.alive) == [f"{third}/1"]
    assert list(engine.settings.output_dir.glob("manifest_*")) == [manifest]


def test_a_commit_that_the_ledger_refuses_makes_its_batch_dead_and_the_line_goes_on(
    engine: Engine, runs: PretendedRuns
) -> None:
    first, second = batches_of(engine, a="1", b="2")
    engine.tick()
    runs.publish(f"{first}/1")
    commit = engine.settings.work_root / first / "committed" / "manifest_1.json"
    (engine.settings.output_dir / "manifest_1.json").unlink()
    changed = read_manifest(commit).to_json()
    changed["inputs"][0]["version"] = -1
    changed["inputs"][0]["sha256"] = "0" * 64
    commit.unlink()
    durable.write_json(commit, changed)
    runs.end(f"{first}/1", "0")

    engine.tick()
    engine.tick()

    (dead,) = engine.ledger.read.batches_in(BatchState.DEAD)
    assert dead.id == first
    assert list(runs.alive) == [f"{second}/1"]


def test_a_stranger_among_the_attempts_is_passed_over(engine: Engine, runs: PretendedRuns) -> None:
    (batch,) = batches_of(engine, a="1")
    (engine.settings.work_root / batch / "attempts" / "1.bak").mkdir(parents=True)

    engine.tick()

    assert list(runs.alive) == [f"{batch}/1"]


def test_a_batch_whose_output_s_name_another_file_has_stands_still_and_stops_no_other(
    engine: Engine, runs: PretendedRuns, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = batches_of(engine, a="1", b="2")
    engine.tick()
    runs.publish(f"{first}/1")
    (output,) = engine.settings.output_dir.glob("processed_*.csv")
    (engine.settings.output_dir / "manifest_1.json").unlink()
    whole = output.read_text()
    output.unlink()  # as if the run had died after its commit, and somebody had been faster
    output.write_text("mine")
    runs.end(f"{first}/1", None)

    for _ in range(3):
        engine.tick()

    assert output.read_text() == "mine"
    assert list(runs.alive) == [f"{second}/1"]
    said = [record for record in caplog.records if record.message == "batch.unreadable"]
    assert [("move it away" in vars(one)["why"]) for one in said] == [True]

    output.unlink()
    engine.tick()

    assert output.read_text() == whole
    assert RunState.SUCCEEDED in {run.state for run in engine.ledger.read.runs()}


def form_too_large(engine: Engine) -> None:
    """A batch that no disk here takes."""
    (engine.settings.root / "data/.large.csv").touch()  # no scan finds it there
    large = settled("data/.large.csv", "1")
    stat = large.sighting.stat._replace(size_bytes=2**60)
    large = replace(large, sighting=large.sighting._replace(stat=stat))
    engine.ledger.admit([large], engine.clock.now())
    engine.ledger.form("0" * 10, [1], Trigger.ARRIVAL, engine.clock.now())


def test_a_batch_for_which_there_is_no_room_holds_no_other_back(
    engine: Engine, runs: PretendedRuns
) -> None:
    form_too_large(engine)
    (small,) = batches_of(engine, small="1")

    engine.tick()
    assert list(runs.alive) == [f"{small}/1"]

    runs.end(f"{small}/1", "1")
    engine.tick()
    engine.tick()
    (said,) = engine.problems
    assert "batch 0000000000 waits" in said


def test_a_batch_that_has_room_waits_for_none_that_has_not(
    engine: Engine, runs: PretendedRuns, clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    form_too_large(engine)
    for _ in range(800):  # by now it is looked at every half a minute
        engine.tick()
        clock.elapsed_s += engine.patience_s()
        assert engine.patience_s() > 0.2
    assert [record.message for record in caplog.records] == ["batch.waits"]
    (small,) = batches_of(engine, small="1")

    engine.tick()
    assert list(runs.alive) == [f"{small}/1"]
    assert engine.problems

    engine.ledger.cancel("0" * 10, clock.now())
    engine.tick()
    assert engine.problems == []


def test_a_batch_whose_folder_refuses_its_run_waits_and_stops_no_other(
    engine: Engine, runs: PretendedRuns, clock: MovedClock
) -> None:
    first, second = batches_of(engine, a="1", b="2")
    work = engine.settings.work_root / first
    work.mkdir(parents=True)
    (work / "attempts").touch()

    engine.tick()
    assert list(runs.alive) == [f"{second}/1"]
    assert str(work) in engine.problems[0]

    (work / "attempts").unlink()
    runs.end(f"{second}/1", None)
    engine.tick()
    clock.elapsed_s += 40
    engine.tick()
    assert f"{first}/1" in runs.alive
    assert engine.problems == []


def test_an_attempt_that_a_restored_ledger_does_not_know_is_waited_for(
    engine: Engine, runs: PretendedRuns, clock: MovedClock
) -> None:
    (batch,) = batches_of(engine, a="1")
    folder = Batch.at(engine.settings.output_dir, batch).attempt_dir(1)
    folder.mkdir(parents=True)
    runs.alive[f"{batch}/1"] = folder

    engine.tick()
    assert list(runs.alive) == [f"{batch}/1"]
    assert "its attempt 1 is alive, and the ledger does not know it" in engine.problems[0]

    runs.end(f"{batch}/1", None)
    clock.elapsed_s += 40
    engine.tick()
    assert list(runs.alive) == [f"{batch}/2"]
    assert engine.problems == []


def test_a_run_that_never_began_and_ended_with_its_daemon_holds_nothing_back(
    engine: Engine, runs: PretendedRuns
) -> None:
    (batch,) = batches_of(engine, a="1")
    for attempt in range(1, 6):
        engine.tick()
        assert list(runs.alive) == [f"{batch}/{attempt}"]
        engine.open()  # the next daemon
        runs.end(f"{batch}/{attempt}", None)
        engine.tick()

    engine.tick()
    runs.end(f"{batch}/6", None)
    engine.tick()
    engine.tick()
    assert list(runs.alive) == []  # this daemon has seen one that did not begin, and waits


def test_low_space_holds_new_batches_back_until_there_is_room(
    engine: Engine, clock: MovedClock, tmp_path: Path
) -> None:
    file = tmp_path / "config" / "settings.yaml"
    (tmp_path / "data" / "a.csv").write_text("id\n1\n")
    engine.change_settings(load_settings(file, {"DS_FLOW_RUN__MIN_FREE_MB": "1000000000"}))
    for _ in range(100):
        engine.tick()
        clock.elapsed_s += 40
    assert [row.state for row in engine.ledger.read.latest()] == ["waiting"]

    engine.change_settings(load_settings(file, {"DS_FLOW_RUN__MIN_FREE_MB": "0"}))
    assert engine.form() == 1
    engine.change_settings(load_settings(file, {"DS_FLOW_RUN__MIN_FREE_MB": "1000000000"}))
    with pytest.raises(LowSpaceError):
        engine.starter.start()
    assert not engine.ledger.read.live_runs()


# --------------------------------------------------------------------------- while no run may start


@pytest.fixture
def quick(engine: Engine, tmp_path: Path) -> Engine:
    """An engine whose batches form soon, and whose only inputs are dropped by `drop`."""
    quiet = {"DS_FLOW_BATCH__QUIET_SECONDS": "1", "DS_FLOW_RUN__MIN_FREE_MB": "0"}
    engine.change_settings(load_settings(tmp_path / "config" / "settings.yaml", quiet))
    return engine


def work(engine: Engine, clock: MovedClock, seconds: float) -> int:
    """Let the engine work for so long; how often it turned."""
    turns, end_s = 0, clock.elapsed_s + seconds
    while clock.elapsed_s < end_s:
        moved, turns = engine.tick(), turns + 1
        clock.elapsed_s += 0.01 if moved else min(engine.patience_s(), 0.5)
    return turns


def drop(engine: Engine, name: str, content: str) -> None:
    (engine.settings.root / "data" / f"{name}.csv").write_text(content)
    engine.hint()


def planned(runs: PretendedRuns) -> list[int]:
    """How many files each live run has."""
    return [len(Batch(folder.parents[1]).plan.files) for folder in runs.alive.values()]


def test_files_that_come_while_no_run_may_start_are_one_batch(
    quick: Engine, runs: PretendedRuns, clock: MovedClock
) -> None:
    drop(quick, "first", "1")
    work(quick, clock, 3)
    (first,) = runs.alive
    for number in range(20):
        drop(quick, f"late{number}", str(number))
        work(quick, clock, 2)
    assert quick.ledger.read.counts("batch") == {"running": 1}

    runs.publish(first)
    runs.end(first, "0")
    work(quick, clock, 2)
    assert planned(runs) == [20]


def test_waiting_for_a_run_to_end_turns_no_faster(
    quick: Engine, runs: PretendedRuns, clock: MovedClock
) -> None:
    drop(quick, "first", "1")
    work(quick, clock, 3)
    drop(quick, "second", "2")
    assert work(quick, clock, 100) <= 100 / POLL_SECONDS + 20
    assert planned(runs) == [1]


def test_no_more_batches_form_than_runs_may_start(
    quick: Engine, runs: PretendedRuns, clock: MovedClock, tmp_path: Path
) -> None:
    limits = {"DS_FLOW_BATCH__MAX_FILES": "2", "DS_FLOW_RUN__MAX_PARALLEL": "2"}
    file = tmp_path / "config" / "settings.yaml"
    quick.change_settings(load_settings(file, {"DS_FLOW_BATCH__QUIET_SECONDS": "1", **limits}))
    for number in range(9):
        drop(quick, str(number), str(number))
    work(quick, clock, 3)
    assert planned(runs) == [2, 2]
    drop(quick, "9", "9")
    work(quick, clock, 3)

    for mark in list(runs.alive):
        runs.publish(mark)
        runs.end(mark, "0")
    work(quick, clock, 1)
    assert planned(runs) == [2, 2]
    assert len(quick.ledger.read.waiting()) == 2


def test_of_a_file_that_grows_all_the_time_one_version_waits_at_most(
    quick: Engine, runs: PretendedRuns, clock: MovedClock
) -> None:
    drop(quick, "first", "1")
    work(quick, clock, 3)
    for count in range(10):
        drop(quick, "growing", "1" * (count + 1))
        work(quick, clock, 2)
        assert len(quick.ledger.read.waiting()) == 1
    assert planned(runs) == [1]


# --------------------------------------------------------------------------- before the first run


def form_with_too_large(engine: Engine) -> str:
    """A batch of two small files and one that no disk here takes."""
    form_too_large(engine)
    engine.ledger.cancel("0" * 10, engine.clock.now())
    engine.ledger.release(1, engine.clock.now())
    for name in "ab":
        (engine.settings.root / "data" / f"{name}.csv").write_text(name)
        engine.ledger.admit([settled(f"data/{name}.csv", name)], engine.clock.now())
    files = [file.id for file in engine.ledger.read.waiting()]
    assert engine.ledger.form("1" * 10, files, Trigger.ARRIVAL, engine.clock.now()) == 3
    return "1" * 10


def drop_of_size(engine: Engine, name: str, size_bytes: int) -> int:
    """Admit a file that seems to be so large; the id of its version."""
    drop(engine, name, name)
    file = settled(f"data/{name}.csv", name)
    stat = file.sighting.stat._replace(size_bytes=size_bytes)
    file = replace(file, sighting=file.sighting._replace(stat=stat))
    engine.ledger.admit([file], engine.clock.now())
    return engine.ledger.read.latest([f"data/{name}.csv"])[0].id


def test_what_does_not_fit_on_the_disk_gets_a_batch_of_its_own(
    engine: Engine, runs: PretendedRuns, clock: MovedClock, tmp_path: Path
) -> None:
    batch, read = form_with_too_large(engine), engine.ledger.read
    engine.tick()
    assert list(runs.alive) == [f"{batch}/1"]
    assert read.batch_paths(batch) == ["data/a.csv", "data/b.csv"]
    (large,) = read.batches_in(BatchState.QUEUED)
    assert read.batch_paths(large.id) == ["data/.large.csv"]
    assert [row.batch for row in read.versions("data/.large.csv")] == [large.id]

    runs.publish(f"{batch}/1")
    runs.end(f"{batch}/1", "0")
    for _ in range(3):
        engine.tick()
    (said,) = engine.problems
    assert f"batch {large.id} waits" in said

    (tmp_path / "data/.large.csv").unlink()
    clock.elapsed_s += 40
    engine.tick()
    assert list(runs.alive) == [f"{large.id}/1"]  # which sets it aside
    assert engine.problems == []


def test_what_was_split_off_waits_for_the_run_that_is_to_have_the_room(
    quick: Engine, runs: PretendedRuns, clock: MovedClock, tmp_path: Path
) -> None:
    parallel = {"DS_FLOW_RUN__MAX_PARALLEL": "3", "DS_FLOW_RUN__MIN_FREE_MB": "0"}
    quick.change_settings(load_settings(tmp_path / "config" / "settings.yaml", parallel))
    size_bytes = free_bytes(tmp_path) * 2 // 15  # the outputs of three such files fit
    for number in range(8):
        drop_of_size(quick, f"{number}", size_bytes)
    files = [file.id for file in quick.ledger.read.waiting()]
    quick.ledger.form("1" * 10, files, Trigger.ARRIVAL, clock.now())

    for planned_files in ([3], [3], [2]):
        for _ in range(4):
            starter = Starter(quick.settings, quick.ledger, runs, clock, Problems())  # a new daemon
            starter.start()
            clock.elapsed_s += 40
        assert planned(runs) == planned_files
        (mark,) = runs.alive
        runs.publish(mark)
        runs.end(mark, "0")
        quick.follow()
    assert quick.ledger.read.counts("batch") == {"succeeded": 3}


def test_two_batches_that_do_not_fit_together_run_one_after_the_other(
    quick: Engine, runs: PretendedRuns, clock: MovedClock, tmp_path: Path
) -> None:
    parallel = {"DS_FLOW_RUN__MAX_PARALLEL": "3", "DS_FLOW_RUN__MIN_FREE_MB": "0"}
    settings = load_settings(tmp_path / "config" / "settings.yaml", parallel)
    quick.change_settings(settings)
    size_bytes = free_bytes(tmp_path) * 3 // 10  # the outputs of one such file fit
    for number in "12":
        file = drop_of_size(quick, number, size_bytes)
        quick.ledger.form(number * 10, [file], Trigger.ARRIVAL, clock.now())
    for _ in range(4):
        quick.starter.start()
        clock.elapsed_s += 40

    assert list(runs.alive) == [f"{'1' * 10}/1"]
    said = f"batch {'2' * 10} waits: the disk has room for batch {'1' * 10}, which runs"
    assert why_must_wait(settings, quick.ledger, "2" * 10) == said
    assert quick.problems == [said]

    runs.publish(f"{'1' * 10}/1")
    runs.end(f"{'1' * 10}/1", "0")
    quick.follow()
    quick.starter.start()
    assert list(runs.alive) == [f"{'2' * 10}/1"]


def test_a_batch_that_met_a_full_disk_starts_again_once_its_large_file_is_gone(
    engine: Engine, runs: PretendedRuns, clock: MovedClock, tmp_path: Path
) -> None:
    (batch,) = batches_of(engine, a="1")
    engine.tick()
    durable.write_word(runs.alive[f"{batch}/1"] / "no_room", f"{2**60}")
    runs.end(f"{batch}/1", "1")
    for _ in range(3):
        clock.elapsed_s += 40
        engine.tick()
    assert not runs.alive

    (tmp_path / "data" / "a.csv").unlink()
    clock.elapsed_s += 40
    engine.tick()
    assert list(runs.alive) == [f"{batch}/2"]


def test_a_batch_whose_every_version_was_replaced_before_it_starts_ends_without_a_run(
    engine: Engine, runs: PretendedRuns
) -> None:
    (batch,) = batches_of(engine, a="1")
    engine.ledger.admit([settled("data/a.csv", "2", at=2)], engine.clock.now())

    engine.tick()

    assert not runs.alive
    (ended,) = engine.ledger.read.batches_in(BatchState.CANCELLED)
    assert (ended.id, ended.reason) == (batch, "newer versions of all its files have come")
    states = [row.state for row in engine.ledger.read.versions("data/a.csv")]
    assert states == [FileState.SUPERSEDED, FileState.WAITING]


def test_a_version_that_was_replaced_before_its_batch_starts_leaves_it(
    engine: Engine, runs: PretendedRuns
) -> None:
    now = engine.clock.now()
    for name in "ab":
        engine.ledger.admit([settled(f"data/{name}.csv", name)], now)
    engine.ledger.form("1" * 10, [1, 2], Trigger.ARRIVAL, now)
    engine.ledger.admit([settled("data/a.csv", "2", at=2)], now)

    engine.tick()

    assert planned(runs) == [1]
    assert engine.ledger.read.batch_paths("1" * 10) == ["data/b.csv"]


def test_a_batch_whose_plan_is_written_keeps_its_files(
    engine: Engine, runs: PretendedRuns, clock: MovedClock
) -> None:
    (batch,) = batches_of(engine, a="1")
    Batch.create(engine.settings.output_dir, engine.starter._plan(only_batch(engine)))
    engine.ledger.admit([settled("data/a.csv", "2", at=2)], clock.now())

    engine.tick()

    assert list(runs.alive) == [f"{batch}/1"]


def only_batch(engine: Engine) -> BatchRow:
    (batch,) = engine.ledger.read.batches_in(BatchState.QUEUED)
    return batch


def test_a_run_s_end_is_no_reason_to_look_unless_a_file_is_to_be_looked_at_again(
    engine: Engine, runs: PretendedRuns, tmp_path: Path
) -> None:
    first, second = batches_of(engine, a="1", b="2")
    engine.tick()
    runs.publish(f"{first}/1")
    runs.end(f"{first}/1", "0")
    engine.tick()
    assert not engine.admission.hinted

    engine.tick()
    (tmp_path / "data" / "b.csv").write_text("changed")
    runs.publish(f"{second}/1")
    runs.end(f"{second}/1", "0")
    engine.tick()
    assert engine.admission.hinted
