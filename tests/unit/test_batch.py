"""A batch's files on disk: plans, attempts, and verdicts that the first one puts."""

import fcntl
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import require

from ds_flow.core.errors import DispatchError, LedgerError
from ds_flow.core.manifest import Rejected
from ds_flow.core.plan import Options, StageOptions
from ds_flow.core.states import ATTEMPT_MARK, Cause
from ds_flow.system import durable, fs_type, sync_files
from ds_flow.system.durable import FLUSHED, MANY_FILES
from ds_flow.work import fingerprint, root
from ds_flow.work.batch import Batch, batches_in
from ds_flow.work.logs import find_log
from ds_flow.work.results import Result, Results
from power import Power
from rights import no_rights, public_folder
from samples import BATCH, OPTIONS, PLAN, rejected, result


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch.create(tmp_path, PLAN)


def results_under(batch: Batch, options: Options) -> Results:
    """The results that these settings may use."""
    batch.plan_file.unlink()
    return Batch.create(batch.output_dir, replace(PLAN, options=options)).results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results" / "code")


# --------------------------------------------------------------------------- the plan


def test_a_plan_is_written_once_and_stands(batch: Batch, tmp_path: Path) -> None:
    assert Batch.create(tmp_path, replace(PLAN, trigger="rerun")) == batch

    here = replace(PLAN, options=PLAN.options.located(str(tmp_path)))
    assert batch.plan == here
    assert list(batches_in(tmp_path)) == [batch]


def test_no_power_loss_takes_back_a_plan(power: Power, tmp_path: Path) -> None:
    batch = Batch.create(tmp_path, PLAN)

    assert power.keeps(batch.folder, batch.plan_file)


def test_a_missing_plan_is_a_matter_of_time_and_a_broken_one_is_not(batch: Batch) -> None:
    with pytest.raises(DispatchError, match="no such batch"):
        _ = Batch(batch.folder / "missing").plan
    for broken in ("{", "{}", "[]"):
        (batch.folder / "batch.json").write_text(broken)
        with pytest.raises(LedgerError, match=r"batch\.json"):
            _ = Batch(batch.folder).plan


def test_a_plan_is_read_once_and_a_batch_that_is_opened_anew_reads_it_again(batch: Batch) -> None:
    before = batch.plan
    batch.plan_file.unlink()
    Batch.create(batch.output_dir, replace(PLAN, trigger="rerun"))

    assert batch.plan == before
    assert Batch(batch.folder).plan == replace(before, trigger="rerun")


def test_a_folder_without_a_plan_is_no_work_directory(tmp_path: Path) -> None:
    (tmp_path / ".work" / "half-made").mkdir(parents=True)

    assert list(batches_in(tmp_path)) == []
    assert list(batches_in(tmp_path / "missing")) == []


def test_a_work_directory_that_nobody_may_look_into_is_named_and_stops_no_other() -> None:
    with public_folder() as out:
        for batch_id in ("0" * 10, "1" * 10):
            Batch.create(out, replace(PLAN, batch=batch_id))
        (out / ".work").chmod(0o755)  # for the user without rights
        with no_rights(closed := out / ".work" / ("0" * 10)):
            assert list(batches_in(out)) == [Batch(closed), Batch.at(out, "1" * 10)]


# --------------------------------------------------------------------------- durable files


def test_a_json_file_is_replaced_whole_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    durable.write_json(path, {"a": 1})
    durable.write_json(path, {"é": [2]})

    assert durable.read_json(path) == {"é": [2]}
    assert os.listdir(tmp_path) == ["a.json"]  # noqa: PTH208 - hidden ones, too


def test_a_new_file_replaces_none_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "a"
    durable.write_bytes(path, b"first", is_new=True)
    with pytest.raises(FileExistsError):
        durable.write_bytes(path, b"second", is_new=True)

    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208 - hidden ones, too


def test_what_cannot_be_written_as_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    durable.write_json(path, {"a": 1})

    with pytest.raises(TypeError):
        durable.write_json(path, {"a": object()})

    assert durable.read_json(path) == {"a": 1}


def test_a_file_that_cannot_be_written_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    def half() -> None:
        with durable.put_file(tmp_path / "log", mode=0o600) as file:
            file.write(b"half of it")
            raise DispatchError("no answer")

    with pytest.raises(DispatchError):
        half()

    assert not list(tmp_path.iterdir())


def test_a_word_is_none_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "exit_code"
    assert durable.read_word(path) is None
    path.touch()
    assert durable.read_word(path) is None
    durable.write_word(path, "0")
    assert durable.read_word(path) == "0"


# --------------------------------------------------------------------------- attempts


def test_attempts_are_numbered_from_one(batch: Batch) -> None:
    assert batch.last_attempt() == 0
    assert [batch.new_attempt() for _ in range(11)] == list(range(1, 12))
    assert batch.last_attempt() == 11


def test_a_marked_process_knows_its_attempt_and_an_unmarked_one_makes_its_own(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ATTEMPT_MARK, f"{BATCH}/3")
    assert batch.own_attempt() == 3
    monkeypatch.setenv(ATTEMPT_MARK, "other/3")
    assert batch.own_attempt() == 1
    monkeypatch.delenv(ATTEMPT_MARK)
    assert batch.own_attempt() == 2


def test_a_named_attempt_s_log_carries_the_run_id(batch: Batch, tmp_path: Path) -> None:
    number = batch.new_attempt()
    log = find_log(tmp_path, BATCH, number, None)
    log.write_text("printed")
    assert find_log(tmp_path, BATCH, number, "17") == log  # it dies before it is renamed

    batch.name_attempt(number, "17", tmp_path)
    batch.name_attempt(number, "17", tmp_path)

    assert find_log(tmp_path, BATCH, number, "17") == tmp_path / "run_17.log"
    assert (tmp_path / "run_17.log").read_text() == "printed"
    assert durable.read_word(batch.folder / "attempts/1/run_id") == "17"


def test_progress_moves_with_results_and_jobs(batch: Batch) -> None:
    number = batch.new_attempt()
    moment = batch.last_progress_ns(number)
    for folder in ("results/code", "jobs/process/1"):
        (batch.folder / folder).mkdir(parents=True)
        os.utime(batch.folder / folder, ns=(moment + 10, moment + 10))
        assert batch.last_progress_ns(number) == moment + 10
        moment += 10


# --------------------------------------------------------------------------- verdicts


def test_a_result_is_found_again(results: Results) -> None:
    made = result(results, "a")
    assert results.get("a") is None

    results.put("a", made)

    assert results.get("a") == made


def test_the_first_verdict_wins_and_the_other_output_is_dropped(results: Results) -> None:
    first, second = result(results, "a", "1\n"), result(results, "a", "2\n")
    results.put("a", first)

    results.put("a", second)

    assert results.get("a") == first
    assert not (results.folder / second.output).exists()


def test_of_two_verdicts_that_are_put_at_once_one_stands_and_one_output(results: Results) -> None:
    others = [result(results, "a", "1\n")]

    class Overtaken(Results):
        """Another process puts its verdict just after a look at whether there is one."""

        def get(self, stem: str) -> Result | Rejected | None:
            found = super().get(stem)
            results.put(stem, others.pop())
            return found

    Overtaken(results.folder).put("a", result(results, "a", "2\n"))
    for late in others:
        results.put("a", late)

    stands = results.get("a")
    assert isinstance(stands, Result)
    assert [path.name for path in results.folder.glob("*.csv")] == [stands.output]


def test_a_result_whose_output_is_gone_or_cut_off_is_made_again(results: Results) -> None:
    made = result(results, "a")
    results.put("a", made)
    (results.folder / made.output).write_text("")
    assert results.get("a") is None

    again = result(results, "a")
    results.put("a", again)

    assert results.get("a") == again


def test_an_output_shorter_than_written_is_never_a_result(results: Results) -> None:
    made = replace(result(results, "a"), output_bytes=99)

    with pytest.raises(DispatchError, match="not as long"):
        results.put("a", made)

    assert results.get("a") is None


def test_a_rejection_lasts_and_other_reasons_are_judged_again(results: Results) -> None:
    gone, bad = rejected("a", Cause.GONE), rejected("b", Cause.REJECTED)
    results.set_aside("a", gone)
    results.set_aside("b", bad)
    assert (results.get("a"), results.get("b")) == (gone, bad)

    made = result(results, "a")
    results.put("a", made)
    results.put("b", result(results, "b"))

    assert results.get("a") == made
    assert results.get("b") == bad


@pytest.mark.parametrize("stem", ["a.aside", ".a", "aside.a", "a.json", "a.json.aside"])
def test_a_verdict_on_one_file_is_none_on_a_file_of_a_like_name(
    results: Results, stem: str
) -> None:
    results.put(stem, result(results, stem))
    assert results.get("a") is None

    results.set_aside("a", rejected("a", Cause.GONE))
    found = results.get(stem)
    assert isinstance(found, Result)
    assert found.path == f"data/{stem}.csv"


FORGED: dict[str, dict[str, object]] = {
    "an output elsewhere": {"output": "../../private.csv"},
    "an absolute output": {"output": "/etc/passwd"},
    "another file's output": {"output": "b.00000000.csv"},
    "an output without its form": {"output": "a.csv"},
    "a length that is none": {"output_bytes": "2"},
    "fewer rows than none": {"rows": -1},
    "more rows than the ledger can hold": {"rows": 2**63},
    "half a character": {"columns": ["\ud800"]},
    "a path that is none": {"path": 7},
    "a cause that nobody knows": {"cause": "magic"},
}


@pytest.mark.parametrize("changed", FORGED.values(), ids=FORGED)
def test_a_forged_verdict_is_none(results: Results, changed: dict[str, object]) -> None:
    made = result(results, "a")
    results.put("a", made)
    for name in ("a.csv", "b.00000000.csv"):
        (results.folder / name).write_text("1\n")
    (results.folder.parents[1] / "private.csv").write_text("1\n")

    (results.folder / "a.json").write_text(json.dumps({**asdict(made), **changed}))

    assert results.get("a") is None


@pytest.mark.parametrize(
    "changed",
    [{"cause": "magic"}, {"reason": 7}, {"reason": "\ud800"}, {"line": 2**63}, {"path": None}],
)
def test_a_forged_rejection_is_none(results: Results, changed: dict[str, object]) -> None:
    row = {**asdict(rejected("a", Cause.REJECTED)), **changed}

    (results.folder / "a.json").write_text(json.dumps(row))

    assert results.get("a") is None


def test_of_a_reason_without_end_the_start_is_kept(results: Results) -> None:
    results.set_aside("a", replace(rejected("a", Cause.REJECTED), reason="x" * 10**6))

    found = results.get("a")

    assert isinstance(found, Rejected)
    assert set(found.reason) == {"x"}
    assert len(found.reason) < 10**5


def test_a_verdict_may_have_64_mib_and_no_more(results: Results) -> None:
    made, file = result(results, "a"), results.folder / "a.json"
    text = json.dumps(asdict(made)).ljust(2**26)

    file.write_text(text)
    assert results.get("a") == made
    file.write_text(f"{text} ")
    assert results.get("a") is None


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    private = path.with_name("private")
    private.write_text("1\n")
    path.symlink_to(private)


def nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def set_user_id(path: Path) -> None:
    path.write_text("1\n")
    path.chmod(0o4755)


def without_end(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**36)


@pytest.mark.parametrize("leave", [fifo, link, nowhere, set_user_id, Path.mkdir, without_end])
def test_what_is_no_plain_file_is_no_output(
    results: Results, leave: Callable[[Path], None]
) -> None:
    made = result(results, "a")
    results.put("a", made)
    (results.folder / made.output).unlink()

    leave(results.folder / made.output)

    assert results.get("a") is None


@pytest.mark.parametrize("leave", [fifo, link, nowhere, without_end])
def test_what_is_no_file_of_json_is_no_verdict_and_gives_way(
    results: Results, leave: Callable[[Path], None]
) -> None:
    for name in ("a.json", "a.json.aside"):
        leave(results.folder / name)
    results.forget_torn()
    assert results.get("a") is None

    made = result(results, "a")
    results.put("a", made)

    assert results.get("a") == made


def test_a_link_that_a_job_left_beside_its_results_is_not_written_through(
    results: Results, tmp_path: Path
) -> None:
    for name in ("boot", ".boot.part", ".a.json.part", ".a.json.aside.part"):
        (results.folder / name).symlink_to(tmp_path / "victim")

    results.forget_torn()
    results.set_aside("a", rejected("a", Cause.GONE))
    results.set_aside("b", rejected("b", Cause.REJECTED))

    assert not (tmp_path / "victim").exists()


def test_verdicts_of_all_kinds_are_counted(batch: Batch) -> None:
    results = results_under(batch, OPTIONS)
    results.put("a", result(results, "a"))
    results.set_aside("b", rejected("b", Cause.GONE))
    results.set_aside("c", rejected("c", Cause.REJECTED))

    assert batch.count_results() == 3
    assert batch.own_reasons() == {"b": "it is gone", "c": "it is rejected"}


def test_of_a_file_that_mended_code_has_processed_no_older_reason_is_given(batch: Batch) -> None:
    old = results_under(batch, OPTIONS)
    old.set_aside("a", rejected("a", Cause.REJECTED))
    old.set_aside("b", rejected("b", Cause.REJECTED))
    os.utime(old.folder, (1, 1))
    new = results_under(batch, replace(OPTIONS, transform="mine:transform"))
    new.put("a", replace(result(new, "a"), path="a"))

    assert batch.own_reasons() == {"b": "it is rejected"}


def test_other_settings_use_no_result_made_under_these(batch: Batch) -> None:
    here = results_under(batch, OPTIONS).folder

    assert results_under(batch, OPTIONS).folder == here
    for other in (replace(OPTIONS, tag="x"), replace(OPTIONS, transform="mine:transform")):
        assert results_under(batch, other).folder != here


OWN_CODE = ("mine.py", "flows/mine.py", "flows/beside.py", "flows/deep/er.py", "flows/mine/a.py")
OWN_PACKAGE = (
    "science/core.py",
    "science/__init__.py",
    "science/of/all.py",
    "flows/science/core.py",
)


@pytest.mark.parametrize("layout", ["a checkout", "a folder of its own"])
@pytest.mark.parametrize(
    ("transform", "changed"),
    [
        *(("mine:transform", name) for name in OWN_CODE),
        *(("science.core:transform", name) for name in OWN_PACKAGE),
    ],
)
def test_a_change_of_any_code_that_the_transform_may_import_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, transform: str, changed: str
) -> None:
    if layout == "a checkout":
        monkeypatch.setattr(fingerprint, "CHECKOUT", tmp_path)
    options = replace(OPTIONS, root=str(tmp_path), transform=transform)
    code, other = tmp_path / changed, tmp_path / "other" / "core.py"
    for path in (code, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    before = fingerprint.code_fingerprint(options)

    other.write_text("2\n")
    assert fingerprint.code_fingerprint(options) == before
    code.write_text("2\n")
    assert fingerprint.code_fingerprint(options) != before


def test_another_image_is_a_change_where_it_is_used(batch: Batch) -> None:
    def folder(executor: str, image: str) -> Path:
        stages = {**OPTIONS.stages, "process": StageOptions(executor=executor, image=image)}
        return results_under(batch, replace(OPTIONS, stages=stages)).folder

    assert folder("docker", "one:1") != folder("docker", "one:2")
    assert folder("local", "one:1") == folder("local", "one:2")


def test_a_batch_that_is_gone_because_it_is_published_says_by_which_run(tmp_path: Path) -> None:
    (tmp_path / "manifest_16.json").write_text("{")
    (tmp_path / "manifest_17.json").write_text('{"batch": "0123456789", "run_id": "17"}')

    with pytest.raises(DispatchError, match="published already, by run 17"):
        _ = Batch(tmp_path / ".work" / "0123456789").plan
    with pytest.raises(DispatchError, match="no such batch here"):
        _ = Batch(tmp_path / ".work" / "abcdef0123").plan


def test_on_ext4_work_directories_lie_in_parts_of_the_disk_of_their_own(
    batch: Batch, tmp_path: Path
) -> None:
    if fs_type(tmp_path) != "ext4":
        pytest.skip("another file system")
    descriptor = os.open(batch.folder.parent, os.O_RDONLY)
    try:
        flags = fcntl.ioctl(descriptor, root.GET_FLAGS, bytes(8))
    finally:
        os.close(descriptor)

    assert int.from_bytes(flags, sys.byteorder) & root.TOP_FOLDER


# --------------------------------------------------------------------------- power losses


@pytest.mark.parametrize("is_new", [True, False])
def test_a_durable_file_is_kept(power: Power, tmp_path: Path, *, is_new: bool) -> None:
    durable.write_bytes(tmp_path / "file", b"kept", is_new=is_new)

    assert power.keeps(tmp_path / "file")


@pytest.mark.parametrize("error", sorted(durable.CANNOT_LINK))
def test_a_copy_in_place_of_a_link_is_kept(
    power: Power, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def cannot_link(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    (tmp_path / "source").write_text("kept")
    monkeypatch.setattr(os, "link", cannot_link)

    durable.link_new(tmp_path / "source", tmp_path / "copy")
    durable.sync_dir(tmp_path)

    assert (tmp_path / "copy").read_text() == "kept"
    assert power.keeps(tmp_path / "copy")


@pytest.mark.parametrize(("files", "at_most"), [(MANY_FILES - 1, MANY_FILES), (MANY_FILES, 0)])
def test_very_many_files_are_synced_by_one_flush_of_their_file_system(
    tmp_path: Path, files: int, at_most: int
) -> None:
    if fs_type(tmp_path) not in FLUSHED:
        pytest.skip("this file system is synced file by file")
    paths = [tmp_path / f"{number}.csv" for number in range(files)]
    for path in paths:
        path.write_text("a")
    synced = fsyncs_of(lambda: sync_files(paths))

    assert synced == min(files, at_most)


@pytest.mark.parametrize(("fault", "said"), [((), ""), (("-e", "inject=syncfs:error=EIO"), "EIO")])
def test_a_flush_asks_the_kernel_and_hears_what_it_says(
    tmp_path: Path, fault: tuple[str, ...], said: str
) -> None:
    if fs_type(tmp_path) not in FLUSHED:
        pytest.skip("this file system is synced file by file")
    for number in range(MANY_FILES):
        (tmp_path / f"{number}.csv").write_text("a")
    probe = (
        "import errno, sys; from pathlib import Path; from ds_flow.system import sync_files\n"
        "try: sync_files(Path(sys.argv[1]).glob('*.csv'))\n"
        "except OSError as error: print(errno.errorcode[error.errno], end='')"
    )
    calls = tmp_path / "calls"
    traced = [require("strace"), "-f", "-qq", "-e", "trace=syncfs", *fault, "-o", str(calls)]
    done = subprocess.run(
        [*traced, sys.executable, "-c", probe, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout == said
    assert calls.read_text().count("syncfs(") == 1


def test_files_of_a_file_system_that_is_not_known_are_synced_one_by_one() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # another kind
        if fs_type(Path(folder)) in FLUSHED:
            pytest.skip("it is no other kind here")
        paths = [Path(folder, f"{number}.csv") for number in range(MANY_FILES)]
        for path in paths:
            path.touch()

        assert fsyncs_of(lambda: sync_files(paths)) == MANY_FILES


def fsyncs_of(act: Callable[[], None]) -> int:
    """How often fsync(2) is called, by all threads."""
    found = itertools.count()

    def look(_frame: object, event: str, called: object) -> None:
        if event == "c_call" and called is os.fsync:
            next(found)

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        act()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return next(found)
