"""What `ds-flow gc` removes, and above all what it does not: the live, the newest, the shared."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

import pytest

from cli_project import Project
from clock import NOON
from ds_flow.cli.commands.manifest import manifests, missing_manifests
from ds_flow.cli.main import main
from ds_flow.core.errors import DispatchError, RequestError
from ds_flow.core.retry_policy import Dead, RetryAt
from ds_flow.core.states import FileState, RunState, Trigger
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.rows import FileRow
from ds_flow.runs import recovery
from ds_flow.settings.load import load_settings
from ds_flow.system import metaflow_store
from ds_flow.upkeep import retention
from ds_flow.upkeep.child import only_one
from ds_flow.upkeep.retention import DONE, WAITS_FOR_RUNS, Collected, Retention
from ds_flow.work.batch import Batch
from ds_flow.work.published import find_manifest, removed_manifests
from project import until
from rights import NOBODY
from samples import PLAN, settled

LATER = NOON + timedelta(days=40)
A, B, C = "aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


def gc(
    project: Project, now: datetime = LATER, *, is_dry: bool = False, **retention: float
) -> Collected:
    environ = {f"DS_FLOW_RETENTION__{key.upper()}": f"{days:g}" for key, days in retention.items()}
    return Retention(load_settings(project.config, environ), project.ledger, now, is_dry).collect()


def aged(path: Path) -> Path:
    os.utime(path, (NOON.timestamp(), NOON.timestamp()))
    return path


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def arrive(project: Project, **contents: str) -> list[FileRow]:
    """Admit files with these contents; their newest versions."""
    paths = [f"data/{name}.csv" for name in contents]
    new = [settled(path, text) for path, text in zip(paths, contents.values(), strict=True)]
    project.ledger.admit(new, NOON)
    return project.ledger.read.latest(paths)


def publish(project: Project, batch: str, run_id: str, **contents: str) -> set[str]:
    """A run that published files with these contents; the names of its outputs, on disk."""
    rows = arrive(project, **contents)
    is_again = any(row.state == FileState.PROCESSED for row in rows)
    trigger = Trigger.RERUN if is_again else Trigger.ARRIVAL
    project.start(project.form(batch, rows, trigger), run_id)
    outputs = project.publish(batch, run_id, rows)["outputs"]
    return {write(project.root / "out" / output["name"]).name for output in outputs}


def there(project: Project) -> set[str]:
    return {path.name for path in (project.root / "out").glob("*.csv")}


# --------------------------------------------------------------------------- logs


def test_old_logs_go_and_new_ones_and_those_of_live_runs_stay(project: Project) -> None:
    log = project.root / "log"
    project.start(project.form(A, project.admit("a.csv")), "1700000000000001")
    project.start(project.form(B, project.admit("b.csv")))
    live = {"run_1700000000000001.log", f"attempt_{B}_1.log"}
    for name in ("run_1.log", "attempt_x_1.log", "ds-flow.log", *live):
        aged(write(log / name))
    write(log / "run_2.log")

    assert gc(project, log_days=50).counts == {}
    assert gc(project, log_days=30).counts == {"logs": 2}
    assert {path.name for path in log.iterdir()} == {"ds-flow.log", "run_2.log", *live}


# --------------------------------------------------------------------------- work directories


def work_of(project: Project, batch_id: str, trigger: Trigger = Trigger.ARRIVAL) -> Path:
    plan = replace(PLAN, batch=batch_id, trigger=trigger)
    batch = Batch.create(project.root / "out", plan)
    batch.new_attempt()
    for path in (batch.attempt_dir(1), batch.folder / "attempts", batch.folder):
        aged(path)
    return batch.folder


def test_only_what_is_given_up_loses_its_work_directory(project: Project) -> None:
    dead, live, by_hand = (
        work_of(project, A),
        work_of(project, B),
        work_of(project, C, Trigger.MANUAL),
    )
    for batch, name in ((A, "a.csv"), (B, "b.csv")):
        project.start(project.form(batch, project.admit(name)))
    project.ledger.end_run(
        A, 1, RunState.FAILED, error="no", results=0, then=Dead("used up"), now=NOON
    )
    assert gc(project, work_days=50).counts == {}

    (by_hand / "attempts" / "1" / "exit_code").touch()  # somebody works there
    assert gc(project, work_days=30).counts == {"work directories": 1}
    assert (dead.exists(), live.exists(), by_hand.exists()) == (False, True, True)
    assert project.ledger.retry(A, "dddddddddd", LATER) == "dddddddddd"

    aged(by_hand / "attempts" / "1")
    assert gc(project, work_days=30).counts == {"work directories": 1}
    assert not by_hand.exists()


def test_a_committed_or_a_waiting_batch_keeps_its_work_directory(project: Project) -> None:
    for batch, name, then in (
        (A, "a.csv", Dead("used up")),
        (B, "b.csv", RetryAt(LATER)),
    ):
        work_of(project, batch)
        project.start(project.form(batch, project.admit(name)))
        project.ledger.end_run(
            batch, 1, RunState.FAILED, error="no", results=0, then=then, now=NOON
        )
    (project.root / "out" / ".work" / A / "committed").mkdir()  # by a person's resume
    aged(project.root / "out" / ".work" / A)
    assert gc(project, work_days=30).counts == {}


def too_long(folder: Path) -> None:
    """Leave files below each other. The first whose path is too long lies where one can look."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(25):
        os.close(os.open("x" * 200, os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.mkdir("d" * 200, dir_fd=at)
        above, at = at, os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(above)
    os.close(at)


def too_deep(folder: Path) -> None:
    """Leave more folders, each in the one before, than Python's stack is deep."""
    path = f"{folder}"
    for _ in range(sys.getrecursionlimit() + 100):
        path += "/d"
        Path(path).mkdir()


def loop(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")


@pytest.mark.parametrize("leave", [too_long, too_deep, loop])
def test_whatever_a_job_has_left_keeps_gc_from_nothing(
    project: Project, leave: Callable[[Path], None]
) -> None:
    dead = work_of(project, A)
    project.start(project.form(A, project.admit("a.csv")))
    project.ledger.end_run(
        A, 1, RunState.FAILED, error="no", results=0, then=Dead("used up"), now=NOON
    )
    leave(dead)
    aged(dead)
    publish(project, B, "1", x="1")
    publish(project, C, "2", x="2")

    assert gc(project, work_days=30, output_days=1).counts == {"work directories": 1, "outputs": 2}
    assert not dead.exists()


# --------------------------------------------------------------------------- outputs


def test_outputs_stay_for_ever_unless_the_settings_ask(project: Project) -> None:
    publish(project, A, "1", x="1")
    publish(project, B, "2", x="2")
    assert gc(project, LATER + timedelta(days=9999), event_days=36_500).counts == {}


def test_a_run_is_kept_whole_while_one_of_its_files_is_the_newest(project: Project) -> None:
    first = publish(project, A, "1", x="1", y="1")
    second = publish(project, B, "2", x="2")
    assert gc(project, output_days=1, output_count=1).counts == {}

    third = publish(project, C, "3", y="2")
    assert gc(project, is_dry=True, output_days=1).runs == ["1"]
    assert there(project) == first | second | third
    found = gc(project, output_days=1)
    assert (found.runs, found.counts["outputs"]) == (["1"], 3)
    assert there(project) == second | third
    assert gc(project, output_days=1, output_count=1).counts == {}


def test_a_rerun_replaces_what_it_published_again(project: Project) -> None:
    publish(project, A, "1", x="1")
    again = publish(project, B, "2", x="1")  # the same version
    assert gc(project, NOON, output_days=1).counts == {}  # not old enough
    assert gc(project, output_days=1).runs == ["1"]
    assert there(project) == again
    (row,) = project.ledger.read.versions("data/x.csv")
    assert (row.state, row.run_id) == (FileState.PROCESSED, "2")


def test_a_count_keeps_so_many_runs_of_each_file(project: Project) -> None:
    for number, batch in enumerate((A, B, C), 1):
        publish(project, batch, str(number), x=str(number))
    assert gc(project, NOON + timedelta(days=1), output_count=2).runs == ["1"]
    assert gc(project, NOON + timedelta(days=1), output_count=1).runs == ["2"]


def test_what_is_told_of_a_run_stays_right_after_its_outputs_went(project: Project) -> None:
    publish(project, A, "1", x="1")
    publish(project, B, "2", x="2")
    gc(project, output_days=1)

    chosen, ledger = project.settings, project.ledger
    assert missing_manifests(chosen, ledger) == []
    assert [one["run_id"] for one in manifests(chosen, None, pytest.fail)] == ["2"]
    assert [one["run_id"] for one in manifests(chosen, "1", pytest.fail)] == ["1"]
    run = ledger.read.run("1")
    assert run is not None
    assert run.removed_at == LATER.isoformat(timespec="milliseconds")
    assert [event.kind for event in ledger.read.events("data/x.csv")].count("run.removed") == 1
    with pytest.raises(DispatchError, match="published already, by run 1 "):
        _ = Batch.at(chosen.output_dir, A).plan


def test_a_removal_that_was_stopped_goes_on(project: Project) -> None:
    publish(project, A, "1", x="1")
    second = publish(project, B, "2", x="2")
    out = project.root / "out"
    (out / "removed").mkdir()
    (out / "manifest_1.json").rename(out / "removed" / "manifest_1.json")

    assert gc(project, output_days=1).runs == ["1"]
    assert there(project) == second


def test_a_rebuilt_ledger_knows_what_was_removed_and_does_nothing_twice(
    project: Project, tmp_path: Path
) -> None:
    publish(project, A, "1", x="1")
    publish(project, B, "2", x="2")
    gc(project, output_days=1)

    anew = Ledger(tmp_path / "anew.db")
    assert recovery.rebuild_ledger(anew, project.root / "out", LATER) == 2
    assert recovery.rebuild_ledger(anew, project.root / "out", LATER) == 0
    assert [run.removed_at is None for run in anew.read.runs()] == [False, True]
    assert anew.admit([settled("data/x.csv", "2")], LATER) == [("data/x.csv", "processed")]
    assert list(anew.history.replaced_runs(LATER, 1)) == []
    anew.close()


def test_a_commit_that_is_not_recorded_yet_keeps_its_outputs(project: Project) -> None:
    first = publish(project, A, "1", x="1")
    second = publish(project, B, "2", x="2")
    work_of(project, A)
    assert gc(project, output_days=1, work_days=9999).counts == {}
    assert there(project) == first | second
    assert find_manifest(project.root / "out", "1") not in set(
        removed_manifests(project.root / "out")
    )


# --------------------------------------------------------------------------- Metaflow


def stored(project: Project, run_id: str, *objects: str, is_old: bool = True) -> Path:
    """A run's folder as Metaflow leaves it, with blobs; the blobs may be other runs' too."""
    flow = project.root / ".metaflow" / metaflow_store.FLOW_NAME
    task = flow / run_id / "start" / "1"
    write(task / "0.data.json", json.dumps({"objects": dict(enumerate(objects))}))
    for name in objects:
        write(flow / "data" / name[:2] / name)
        write(flow / "data" / name[:2] / f"{name}_meta")
    write(flow / "latest_run", run_id)
    if is_old:
        for path in (task, task.parent, flow / run_id):
            aged(path)
    return flow / run_id


def blobs(project: Project) -> set[str]:
    return {path.name for path in (project.root / ".metaflow").glob("*/data/*/*")}


def test_a_blob_goes_with_the_last_run_that_refers_to_it(project: Project) -> None:
    old = stored(project, "1", "aa1", "bb2")
    live = stored(project, "2", "bb2", "cc3")
    new = stored(project, "3", "dd4", is_old=False)
    latest = stored(project, "4", "ee5")
    project.start(project.form(A, project.admit("a.csv")), "2")

    expected = {"Metaflow runs": 1, "Metaflow blobs": 2}
    assert gc(project, is_dry=True).counts == expected
    assert old.exists()
    assert gc(project).counts == expected
    assert [path.exists() for path in (old, live, new, latest)] == [False, True, True, True]
    used = {"bb2", "cc3", "dd4", "ee5"}
    assert blobs(project) == used | {f"{name}_meta" for name in used}
    assert not (project.root / ".metaflow" / metaflow_store.STORE_TRASH).exists()


def carded(run: Path) -> Path:
    """A card of a run, as Metaflow leaves it."""
    cards = run.parent.parent / "mf.cards" / run.parent.name / "runs" / run.name
    write(cards / "steps" / "end" / "tasks" / "5" / "cards" / "ds_flow_report-0a1b.html")
    return cards


def test_the_cards_of_a_run_go_with_it(project: Project) -> None:
    old, new, _latest = (stored(project, str(number), is_old=number == 1) for number in (1, 2, 3))
    of_old, of_new = carded(old), carded(new)
    gc(project)
    assert [path.exists() for path in (old, of_old, new, of_new)] == [False, False, True, True]


def test_a_gc_that_was_killed_between_the_cards_and_the_run_is_made_up_for(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _latest = (stored(project, str(number)) for number in (1, 2))
    of_old = carded(old)
    renamed: list[Path] = []
    rename = Path.rename

    def killed_at_the_second(path: Path, target: Path) -> None:
        if renamed:
            raise KeyboardInterrupt
        renamed.append(path)
        rename(path, target)

    monkeypatch.setattr(Path, "rename", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        gc(project)
    monkeypatch.setattr(Path, "rename", rename)
    gc(project)
    assert [path.exists() for path in (old, of_old)] == [False, False]


def test_of_metaflows_records_the_newest_are_kept_and_those_of_the_last_day(
    project: Project,
) -> None:
    runs = [stored(project, str(number), is_old=False) for number in range(1, 6)]
    for run, days in zip(runs, (3, 9, 2, 0.5, 0.1), strict=True):
        changed_s = LATER.timestamp() - days * 86400
        for path in (run / "start" / "1", run / "start", run):
            os.utime(path, (changed_s, changed_s))
    assert gc(project, metaflow_count=5).counts == {}
    assert gc(project, metaflow_count=4).counts == {"Metaflow runs": 1}
    assert [run.exists() for run in runs] == [True, False, True, True, True]
    assert gc(project, metaflow_count=1).counts == {"Metaflow runs": 2}
    assert [run.exists() for run in runs] == [False, False, False, True, True]


def test_a_live_run_is_kept_however_many_are_newer(project: Project) -> None:
    live, _latest = (stored(project, str(number)) for number in (1, 2))
    project.start(project.form(A, project.admit("a.csv")), "1")

    assert gc(project, metaflow_count=1).counts == {}
    assert live.exists()


def test_a_run_that_cannot_be_removed_keeps_its_blobs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(project, "1", "aa1")
    stored(project, "2")

    def refuse(_run: Path) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(retention, "remove_stored_run", refuse)
    found = gc(project)
    assert found.counts == {}
    assert found.left == ["Metaflow runs 1: no"]
    assert blobs(project) == {"aa1", "aa1_meta"}


HOLD = """
import sys
from pathlib import Path
from ds_flow.system import hold_store
hold_store(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def run_alive(project: Project) -> Iterator[IO[str]]:
    """A process that uses the datastore as every run does; what it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(project.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        yield process.stdout
    finally:
        process.kill()
        process.communicate()


def test_no_blob_goes_while_a_run_is_alive(project: Project) -> None:
    stored(project, "1", "aa1")
    stored(project, "2")
    with run_alive(project) as said:
        assert said.readline() == "held\n"
        assert gc(project).left == [WAITS_FOR_RUNS]
        assert blobs(project) == {"aa1", "aa1_meta"}
    assert gc(project).counts == {"Metaflow blobs": 2}


def test_a_run_that_starts_during_a_sweep_waits_for_its_end(project: Project) -> None:
    stored(project, "1")
    with ExitStack() as sweep:
        assert sweep.enter_context(metaflow_store.alone_in_store(project.root))
        inode = f":{(project.root / '.metaflow' / metaflow_store.STORE_LOCK).stat().st_ino} "
        with run_alive(project) as said:
            until("the run waits", lambda: is_waited_for(inode))
            sweep.close()
            assert said.readline() == "held\n"


def is_waited_for(inode: str) -> bool:
    """Whether somebody waits for a lock: proc_locks(5) shows that by an arrow."""
    locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any("->" in line and inode in line for line in locks)


def test_a_record_that_cannot_be_read_keeps_every_blob(project: Project) -> None:
    run = stored(project, "1", "aa1", is_old=False)
    stored(project, "2")
    (run / "start" / "1" / "0.data.json").write_text('{"obj')
    assert "no blob is removed" in gc(project).left[0]
    assert blobs(project) == {"aa1", "aa1_meta"}


FLOW = """
import os
from metaflow import FlowSpec, step
class StudentDataFlow(FlowSpec):
    @step
    def start(self):
        self.shared, self.own = "shared", os.environ["OWN"]
        print("said by", self.own)
        self.next(self.end)
    @step
    def end(self):
        pass
if __name__ == "__main__":
    StudentDataFlow()
"""
READ = """
from metaflow import Flow, namespace
namespace(None)
for run in Flow("StudentDataFlow"):
    print(run.id, run.data.shared, run.data.own, run["start"].task.stdout.strip())
"""


@pytest.mark.exhaustive
def test_metaflow_reads_artifacts_and_logs_of_kept_runs_after_a_sweep(project: Project) -> None:
    flow = write(project.root / "flow.py", FLOW)
    root = str(project.root)
    stores = {
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": root,
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_USER": "x",
    }

    def python(*words: str, **environ: str) -> str:
        given = {**os.environ, **stores, **environ}
        done = subprocess.run(
            [sys.executable, *words], env=given, capture_output=True, text=True, check=True
        )
        return done.stdout

    for own in ("first", "second"):
        python(str(flow), "run", "--run-id-file", f"{root}/{own}", OWN=own)
    first, second = ((project.root / own).read_text() for own in ("first", "second"))
    store = project.root / ".metaflow" / "StudentDataFlow"
    for path in (store / first).rglob("*"):
        aged(path)
    aged(store / first)

    found = gc(project)
    assert found.counts["Metaflow runs"] == 1
    assert found.counts["Metaflow blobs"] > 0
    assert python("-c", READ) == f"{second} shared second said by second\n"


# --------------------------------------------------------------------------- events


def test_old_events_go_but_never_the_last_of_a_thing(project: Project) -> None:
    publish(project, A, "1", x="1")
    project.ledger.history.note(DONE, "first", NOON)
    project.ledger.history.note(DONE, "second", NOON)
    before = [event.kind for event in project.ledger.read.events("data/x.csv")]
    assert gc(project, event_days=50).counts == {}

    found = gc(project, event_days=30, is_dry=True)
    assert gc(project, event_days=30).counts == found.counts
    after = [event.kind for event in project.ledger.read.events("data/x.csv")]
    assert after == ["run.succeeded", "file.processed", "batch.succeeded"]
    assert found.counts == {"events": len(before) - len(after) + 2}  # gc.done: itself is newer
    assert project.ledger.history.last(DONE) == (LATER, f"{found.counts['events']} events")
    assert gc(project, event_days=30).counts == {}


# --------------------------------------------------------------------------- the command


def test_the_command_says_what_it_removes_and_removes_nothing_when_dry(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    old = aged(write(project.root / "log" / "run_1.log"))
    os.utime(old, (1, 1))
    config = ["--config", str(project.config)]

    assert main([*config, "gc", "--dry-run"]) == 0
    assert "would be removed  count  MB\nlogs              1      0.0\n" in capsys.readouterr().out
    assert old.exists()
    assert main([*config, "gc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"]["logs"]["count"] == 1
    assert not old.exists()


def test_two_collections_are_not_at_work_at_once(project: Project) -> None:
    with only_one(project.settings, "gc", ""), pytest.raises(RequestError, match="another"):
        gc(project)


@pytest.mark.parametrize(("folder", "lock"), [(0o755, 0o600), (0o775, 0o660), (0o777, 0o666)])
def test_who_may_write_to_the_datastore_may_hold_it_whoever_made_the_lock(
    tmp_path: Path, folder: int, lock: int
) -> None:
    store = metaflow_store.store_folder(tmp_path)
    store.mkdir()
    store.chmod(folder)
    if os.geteuid() == 0:
        os.chown(store, NOBODY, NOBODY)
    made = store / metaflow_store.STORE_LOCK
    made.touch(0o644)

    with metaflow_store.alone_in_store(tmp_path):
        status = made.stat()
    assert stat.S_IMODE(status.st_mode) == lock
    assert (status.st_uid, status.st_gid) == (store.stat().st_uid, store.stat().st_gid)
