"""The whole line under any order of events: files, time, runs that end anyhow, and crashes."""

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clock import MovedClock
from ds_flow.core.errors import RequestError
from ds_flow.core.states import RERUN_TRIGGERS, BatchState, Cause, FileState
from ds_flow.inbox import scan, slices
from ds_flow.inbox.pattern import Pattern
from ds_flow.inbox.watcher import Inbox
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.rows import FileRow
from ds_flow.service.engine import Engine
from ds_flow.settings.load import load_settings
from ds_flow.system.wake import Wake
from ds_flow.work.published import published_manifests, read_manifest
from pretended import BAD, CrashError, PretendedRuns
from samples import sha256

SETTINGS = """\
project_name: line
paths: {input_pattern: "data/**/*.csv", output_dir: out, log_dir: log}
watch: {observer: poll, quiet_seconds: 0.5, poll_seconds: 5}
batch: {quiet_seconds: 1, max_wait_seconds: 30, max_files: 3}
run: {max_parallel: 2, attempts: 3, retry_first_seconds: 10, limit_minutes: 60}
schedule:
- {name: often, cron: "*/10 * * * *", timezone: UTC, skip_unchanged: true}
- {name: news, cron: "5 * * * *", timezone: UTC, select: since_last, catch_up: false}
"""
NAMES = ["a.csv", "b.csv", "c.csv", "deep/a.csv", "d\n.csv"]

names = st.sampled_from(NAMES)
contents = st.sampled_from(["1", "2", "3", BAD])


class Line(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        shared = Path("/dev/shm")  # noqa: S108 - fsync is free there
        self.root = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
        for folder in ("config", "data/deep"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "config" / "settings.yaml").write_text(SETTINGS)
        self.settings = load_settings(self.root / "config" / "settings.yaml", {})
        self.clock = MovedClock()
        self.runs = PretendedRuns(self.root)
        self.changes = count(1)
        self.open()

    def open(self) -> None:
        self.wake = Wake()
        pattern = Pattern.parse(self.settings.pattern, self.root)
        self.ledger = Ledger(self.settings.ledger)
        inbox = Inbox(pattern, self.wake, "poll")
        self.engine = Engine(self.settings, self.ledger, inbox, self.runs, self.clock)
        self.engine.fires.keeps_time = True
        self.engine.open()

    def close(self) -> None:
        self.ledger.close()
        self.wake.close()

    def teardown(self) -> None:
        try:
            self.come_to_rest()
        finally:
            self.close()
            shutil.rmtree(self.root)

    # ------------------------------------------------------------------ files

    def change(self, path: Path) -> None:
        """Give a file a time of its own: writes of a test are closer than a clock's tick."""
        moment = next(self.changes)
        os.utime(path, ns=(moment, moment))

    @rule(name=names, content=contents)
    def write(self, name: str, content: str) -> None:
        path = self.root / "data" / name
        path.write_text(content)
        self.change(path)

    @rule(name=names, content=contents)
    def move_in(self, name: str, content: str) -> None:
        new = self.root / "new"
        new.write_text(content)
        self.change(new)
        new.rename(self.root / "data" / name)

    @rule(name=names)
    def touch(self, name: str) -> None:
        if (self.root / "data" / name).exists():
            self.change(self.root / "data" / name)

    @rule(name=names)
    def delete(self, name: str) -> None:
        (self.root / "data" / name).unlink(missing_ok=True)

    # ------------------------------------------------------------------ time

    @rule(seconds=st.sampled_from([0.3, 0.6, 1.5, 6, 31, 2000]))
    def wait(self, seconds: float) -> None:
        self.clock.elapsed_s += seconds

    @rule()
    def tick(self) -> None:
        try:
            self.engine.tick()
        except CrashError:
            self.crash()
        assert self.engine._bugs_in_a_row == 0
        assert not self.engine.admission.inbox_error

    @rule(times=st.integers(1, 5))
    def wait_and_tick(self, times: int) -> None:
        for _ in range(times):
            self.clock.elapsed_s += 1
            self.engine.hint()
            self.tick()

    @rule()
    def form_without_a_start(self) -> None:
        """A queued batch is left: the daemon dies here, or something holds it back."""
        self.engine.reconcile()
        self.engine.admit()
        self.engine.form()

    @rule(names=st.sets(names))
    def find_no_room_for(self, names: set[str]) -> None:
        """A queued batch gives up some of its files, as where a disk is too small."""
        for batch in self.ledger.read.batches_in(BatchState.QUEUED)[:1]:
            paths = self.ledger.read.batch_paths(batch.id)
            moving = {path for path in paths if path.removeprefix("data/") in names}
            if moving and len(moving) < len(paths) and self.engine.starter._is_untried(batch):
                new_batch = f"{next(self.changes):010d}"
                self.ledger.split(batch.id, moving, new_batch, self.clock.now())

    # ------------------------------------------------------------------ runs

    def any_run(self, choice: int) -> str:
        return sorted(self.runs.alive)[choice % len(self.runs.alive)]

    @precondition(lambda self: self.runs.alive)
    @rule(choice=st.integers(0, 1))
    def run_publishes_and_ends(self, choice: int) -> None:
        mark = self.any_run(choice)
        self.runs.publish(mark)
        self.runs.end(mark, "0")

    @precondition(lambda self: self.runs.alive)
    @rule(choice=st.integers(0, 1))
    def run_publishes(self, choice: int) -> None:
        self.runs.publish(self.any_run(choice))

    @precondition(lambda self: self.runs.alive)
    @rule(choice=st.integers(0, 1), step=st.integers(0, 60))
    def run_dies_while_it_publishes(self, choice: int, step: int) -> None:
        self.runs.publish(self.any_run(choice), dies_at=step)

    @precondition(lambda self: self.runs.alive)
    @rule(choice=st.integers(0, 1), exit_code=st.sampled_from(["0", "1", "137", None]))
    def run_ends(self, choice: int, exit_code: str | None) -> None:
        self.runs.end(self.any_run(choice), exit_code)

    # ------------------------------------------------------------------ the daemon

    @rule()
    def crash(self) -> None:
        self.close()
        self.open()

    @rule(when=st.sampled_from(["before", "after"]))
    def crash_at_the_next_start(self, when: str) -> None:
        self.runs.crash = when

    @rule()
    def lose_the_ledger(self) -> None:
        for mark in list(self.runs.alive):
            self.runs.end(mark, None)
        self.close()
        for path in (self.root / "out").glob("ledger.db*"):
            path.unlink()
        self.open()

    # ------------------------------------------------------------------ people

    @rule(choice=st.integers(0, 5))
    def release(self, choice: int) -> None:
        files = list(self.ledger.read.files_in(FileState.QUARANTINED))
        if files:
            with suppress(RequestError):
                self.ledger.release(files[choice % len(files)].id, self.clock.now())

    @rule(state=st.sampled_from(BatchState))
    def cancel(self, state: BatchState) -> None:
        for batch in self.ledger.read.batches_in(state)[:1]:
            with suppress(RequestError):
                self.ledger.cancel(batch.id, self.clock.now())

    @rule()
    def cancel_what_is_about_to_start(self) -> None:
        self.runs.meanwhile = lambda batch: self.ledger.cancel(batch, self.clock.now())

    @rule(state=st.sampled_from([BatchState.DEAD, BatchState.RETRYING]))
    def retry(self, state: BatchState) -> None:
        for batch in self.ledger.read.batches_in(state)[:1]:
            with suppress(RequestError):
                self.ledger.retry(batch.id, f"{next(self.changes):010d}", self.clock.now())

    @rule(name=st.sampled_from(["often", "news"]))
    def fire(self, name: str) -> None:
        timetables = {one.name: one.timetable for one in self.settings.schedule}
        self.ledger.schedules.ask(name, timetables[name], self.clock.now())

    @rule(seconds=st.sampled_from([-100_000, -700, 700, 100_000]))
    def set_the_clock(self, seconds: float) -> None:
        self.clock.set_by_s += seconds

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def the_counts_add_up(self) -> None:
        assert sum(self.ledger.read.counts("file").values()) == self.ledger.read.total()

    @invariant()
    def a_version_is_in_a_live_batch_while_it_is_batched(self) -> None:
        for row in self.ledger.read.files():
            assert row.state != FileState.BATCHED or row.batch
            assert row.state != FileState.WAITING or not row.batch
            assert row.cause or row.state not in {FileState.QUARANTINED, FileState.SUPERSEDED}

    @invariant()
    def the_last_event_of_each_version_tells_its_state(self) -> None:
        with closing(sqlite3.connect(self.settings.ledger)) as db:
            told = db.execute(
                "SELECT state, (SELECT kind FROM event WHERE file_id = file.id"
                " AND kind NOT IN ('file.released', 'file.published', 'file.left_out')"
                " ORDER BY event.id DESC LIMIT 1) FROM file"
            ).fetchall()
        assert all(kind == f"file.{state}" for state, kind in told)

    @invariant()
    def no_version_is_published_twice_but_by_a_rerun(self) -> None:
        inputs = Counter(
            (item.path, item.version)
            for path in published_manifests(self.root / "out")
            if (made := read_manifest(path)).trigger not in RERUN_TRIGGERS
            for item in made.inputs
        )
        assert all(times == 1 for times in inputs.values())

    # ------------------------------------------------------------------ what holds in the end

    def come_to_rest(self) -> None:
        """Let everything go well until nothing moves, then compare the ledger with the disk."""
        self.runs.crash, self.runs.meanwhile = "", str
        self.engine.hint()
        for _ in range(200):
            self.tick()
            for mark in list(self.runs.alive):
                self.runs.publish(mark)
                self.runs.end(mark, "0")
            self.tick()
            if self.engine.is_idle:
                break
            self.clock.elapsed_s += max(1.0, self.engine.patience_s())
        else:
            pytest.fail("it never comes to rest")
        self.every_file_is_accounted_for()
        self.the_outputs_are_those_of_the_manifests()

    def every_file_is_accounted_for(self) -> None:
        latest = {row.path: row for row in self.ledger.read.latest()}
        on_disk = {path: path.read_text() for path in self.root.glob("data/**/*.csv")}
        for path, content in on_disk.items():
            name = str(path.relative_to(self.root)).replace("\n", "\\x0a")
            self.is_done_with(latest[name], content)
        for row in self.ledger.read.files():
            assert row.state not in {FileState.WAITING, FileState.BATCHED}

    def is_done_with(self, row: FileRow, content: str) -> None:
        if "\\" in row.path:
            assert (row.state, row.cause) == (FileState.QUARANTINED, Cause.NAME)
            return
        if row.state == FileState.PROCESSED:
            assert row.sha256 == sha256(content) != sha256(BAD)
            return
        assert row.sha256 == sha256(content)
        causes = {Cause.DEAD, Cause.CANCELLED} | ({Cause.REJECTED} if content == BAD else set())
        assert (row.state, row.cause in causes) == (FileState.QUARANTINED, True), row

    def the_outputs_are_those_of_the_manifests(self) -> None:
        out = self.root / "out"
        manifests = [read_manifest(path) for path in published_manifests(out)]
        said = {item.name: item.sha256 for made in manifests for item in made.outputs}
        there = {path.name: sha256(path.read_text()) for path in out.glob("processed_*")}
        assert there == said
        assert self.ledger.read.run_ids() == {made.run_id for made in manifests}
        named = {(i.path, i.version, i.sha256) for made in manifests for i in made.inputs}
        done = self.ledger.read.files_in(FileState.PROCESSED)
        assert {(row.path, row.version, row.sha256) for row in done} == named


class SlicedLine(Line):
    """A line whose every scan takes many turns, with all else going on meanwhile."""

    def __init__(self) -> None:
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(slices, "SLICE_SECONDS", 0.0)
        self.patched.setattr(scan, "FILES_A_STEP", 1)
        super().__init__()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.patched.undo()


TestLine, TestSlicedLine = Line.TestCase, SlicedLine.TestCase
TestLine.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestSlicedLine.settings = settings(TestLine.settings, max_examples=40)
