"""Publishing: all of a batch's outputs, once, whatever happens in between."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from crash import lives_through
from ds_flow.core.errors import DispatchError, LedgerError
from ds_flow.core.manifest import Manifest
from ds_flow.system.durable import link_new, part_name
from ds_flow.work.directory import remove_work_dir, work_dirs
from ds_flow.work.publication import (
    AlreadyCommittedError,
    publish,
    publish_lock,
    published_manifests,
    recover,
)
from samples import BATCH, manifest, read


@pytest.fixture(params=["links", "copies"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An output folder; once as usual, once with .work where no link leads out of."""
    folder = tmp_path / "out"
    folder.mkdir()
    if request.param == "links":
        yield folder
        return
    other = Path(tempfile.mkdtemp(dir="/dev/shm"))
    if other.stat().st_dev == folder.stat().st_dev:
        pytest.skip("no second file system here")
    (folder / ".work").symlink_to(other)
    yield folder
    shutil.rmtree(other)


def make_work(out: Path) -> Path:
    """A batch with three finished results, about to be published."""
    work = out / ".work" / BATCH
    (work / "attempts" / "1").mkdir(parents=True)
    (work / "attempts" / "2").mkdir()
    (work / "batch.json").write_text("{}")
    for name in ("0", "1", "combined"):
        (work / f"{name}.csv").write_text(f"{name}\n")
    return work


def finished(run_id: str = "17", attempt: int = 1) -> Manifest:
    return manifest(run_id, attempt=attempt, inputs=[read("a", "1"), read("b", "2")])


def sources(work: Path, run_id: str = "17") -> dict[str, Path]:
    return {
        f"processed_0_{run_id}.csv": work / "0.csv",
        f"processed_1_{run_id}.csv": work / "1.csv",
        f"final_combined_{run_id}.csv": work / "combined.csv",
    }


def visible(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()} - {".work"}


def whole(run_id: str = "17") -> set[str]:
    return {*sources(Path(), run_id), f"manifest_{run_id}.json"}


def publish_as(out: Path, run_id: str = "17", attempt: int = 1) -> None:
    work = out / ".work" / BATCH
    publish(work, finished(run_id, attempt), sources(work, run_id), out)


def test_everything_is_published_under_its_final_name(out: Path) -> None:
    work = make_work(out)

    publish_as(out)

    assert visible(out) == whole()
    assert (out / "final_combined_17.csv").read_text() == "combined\n"
    assert (work / "committed.json").read_bytes() == (out / "manifest_17.json").read_bytes()
    assert Manifest.from_json(json.loads((out / "manifest_17.json").read_text())) == finished()
    assert list(published_manifests(out)) == [out / "manifest_17.json"]


def test_a_second_run_cannot_commit_the_same_batch(out: Path) -> None:
    make_work(out)
    publish_as(out)

    with pytest.raises(AlreadyCommittedError, match="by run 17") as refused:
        publish_as(out, "18", attempt=2)

    assert refused.value.run_id == "17"
    assert visible(out) == whole()


def test_the_commit_itself_is_a_link_that_fails_the_second_time(out: Path) -> None:
    work = make_work(out)
    publish_as(out)
    (work / "other.json").write_text("{}")

    with pytest.raises(FileExistsError):
        link_new(work / "other.json", work / "committed.json")


def test_the_same_run_publishing_again_changes_nothing(out: Path) -> None:
    make_work(out)
    publish_as(out)
    before = {path.name: path.stat() for path in out.iterdir() if path.is_file()}

    publish_as(out)

    after = {path.name: path.stat() for path in out.iterdir() if path.is_file()}
    assert {n: s.st_ino for n, s in after.items()} == {n: s.st_ino for n, s in before.items()}
    assert {n: s.st_mtime_ns for n, s in after.items()} == {
        n: s.st_mtime_ns for n, s in before.items()
    }


@pytest.mark.parametrize("taken", sorted(sources(Path())))
def test_a_foreign_file_under_an_outputs_name_is_never_lost(out: Path, taken: str) -> None:
    work = make_work(out)
    (out / taken).write_text("mine")

    for _ in range(2):
        with pytest.raises(DispatchError, match="move it away"):
            publish_as(out)
        assert recover(work, out) is None

    assert visible(out) == {taken}
    assert (out / taken).read_text() == "mine"
    (out / taken).unlink()
    publish_as(out)
    assert visible(out) == whole()


def test_a_dangling_link_under_an_outputs_name_is_a_foreign_file_too(out: Path) -> None:
    make_work(out)
    (out / "processed_0_17.csv").symlink_to("nowhere")

    with pytest.raises(DispatchError, match="move it away"):
        publish_as(out)

    assert (out / "processed_0_17.csv").is_symlink()


# --------------------------------------------------------------------------- recovery


def test_what_an_uncommitted_run_had_begun_is_taken_back_by_name(out: Path) -> None:
    work = make_work(out)
    names = ["processed_0_17.csv", "processed_1_17.csv"]
    (work / "attempts/1/intent.json").write_text(json.dumps({"run_id": "17", "names": names}))
    (out / "processed_0_17.csv").write_text("half")
    (out / part_name("processed_1_17.csv")).write_text("half")
    (out / "processed_2_17.csv").write_text("not in the intent")

    assert recover(work, out) is None

    assert visible(out) == {"processed_2_17.csv"}
    assert not (work / "attempts/1/intent.json").exists()


@pytest.mark.parametrize("name", ["processed_0_18.csv", "final_combined_18.csv"])
def test_an_intent_takes_back_nothing_of_another_run(out: Path, name: str) -> None:
    work = make_work(out)
    (out / name).write_text("published by another batch")
    intent = {"run_id": "17", "names": [name]}
    (work / "attempts/1/intent.json").write_text(json.dumps(intent))

    with pytest.raises(LedgerError, match="not an output's name of that run"):
        recover(work, out)

    assert (out / name).exists()


@pytest.mark.parametrize("path", ["attempts/1/intent.json", "committed.json"])
def test_a_fifo_or_a_link_in_place_of_a_record_blocks_nobody_and_is_told(
    out: Path, path: str
) -> None:
    work = make_work(out)
    os.mkfifo(work / path)
    with pytest.raises(LedgerError, match=f"{path}: is not a regular file"):
        recover(work, out)

    (work / path).unlink()
    (work / path).symlink_to(work / "batch.json")
    with pytest.raises(LedgerError, match=f"{path}: is a symbolic link"):
        recover(work, out)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "", ".", "..", "a/b"])
def test_an_intent_reaches_nothing_outside_the_output_folder(out: Path, name: str) -> None:
    work = make_work(out)
    intent = {"run_id": "17", "names": [name]}
    (work / "attempts/1/intent.json").write_text(json.dumps(intent))

    with pytest.raises(LedgerError, match="not an output's name"):
        recover(work, out)


def test_an_intent_whose_run_has_a_manifest_takes_nothing_back(out: Path) -> None:
    work = make_work(out)
    publish_as(out)
    (work / "committed.json").unlink()

    with pytest.raises(LedgerError, match="not touched"):
        recover(work, out)

    assert visible(out) == whole()


def test_a_work_directory_on_its_way_out_takes_nothing_back(out: Path) -> None:
    work = make_work(out)
    publish_as(out)
    trash = work.with_name(".trash-0123456789-00000000")
    work.rename(trash)
    (trash / "committed.json").unlink()

    assert list(work_dirs(out)) == []
    assert not trash.exists()
    assert visible(out) == whole()


def test_removing_a_work_directory_leaves_what_is_published(out: Path) -> None:
    work = make_work(out)
    publish_as(out)

    remove_work_dir(work)

    assert not work.exists()
    assert visible(out) == whole()
    assert (out / "processed_1_17.csv").read_text() == "1\n"


# --------------------------------------------------------------------------- crashes


def publish_until(step: int, out: Path, run_id: str, attempt: int) -> bool:
    """Publish in a process that dies before its step-th change; whether it lived to the end."""
    return lives_through(lambda: publish_as(out, run_id, attempt), step)


def test_a_crash_at_any_step_leaves_all_or_after_recovery_nothing(out: Path) -> None:
    committed_at = None
    for step in count():
        shutil.rmtree(out / ".work" / BATCH, ignore_errors=True)
        for name in visible(out):
            (out / name).unlink()
        work = make_work(out)
        (out / "foreign.csv").write_text("mine")

        lived = publish_until(step, out, "17", 1)
        is_committed = (work / "committed.json").exists()
        found = recover(work, out)

        assert (found is not None) == is_committed
        assert visible(out) - {"foreign.csv"} == (whole() if is_committed else set())
        assert is_committed or not list(work.glob("attempts/*/intent.json"))
        assert [(work / f"{name}.csv").read_text() for name in "01"] == ["0\n", "1\n"]
        if is_committed and committed_at is None:
            committed_at = step
        assert (committed_at is not None) == is_committed
        if lived:
            break

    assert committed_at
    assert step > committed_at > 10


def test_the_attempt_after_a_crash_publishes_alone(out: Path) -> None:
    make_work(out)
    assert not publish_until(14, out, "17", 1)  # some of its outputs are there

    publish_as(out, "18", attempt=2)

    assert visible(out) == whole("18")


def test_two_runs_that_publish_together_commit_once(out: Path) -> None:
    make_work(out)
    code = (
        "import sys; from pathlib import Path; from test_publication import publish_as;"
        "publish_as(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(out), run_id, attempt],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for run_id, attempt in (("17", "1"), ("18", "2"))
    ]

    errors = {racer.communicate(timeout=60)[1]: racer.returncode for racer in racers}

    assert sorted(errors.values()) == [0, 1]
    assert "AlreadyCommittedError" in "".join(errors)
    assert visible(out) in (whole("17"), whole("18"))


def test_the_lock_of_publishing_has_one_holder(out: Path) -> None:
    lock = out / ".work" / "publish.lock"
    with publish_lock(out), lock.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_that_nobody_can_have_is_no_batch_s_fault(out: Path) -> None:
    (out / ".work" / "publish.lock").mkdir(parents=True)

    with pytest.raises(DispatchError, match=r"publish\.lock"):
        recover(out / ".work" / "0123456789", out)


# --------------------------------------------------------------------------- links


def test_a_name_taken_by_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")

    with pytest.raises(FileExistsError):
        link_new(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "b").read_text() == "b"


def test_a_copy_takes_no_name_either(out: Path) -> None:
    work = make_work(out)
    (out / "taken").write_text("mine")

    with pytest.raises(FileExistsError):
        link_new(work / "0.csv", out / "taken")

    assert visible(out) == {"taken"}
    assert (out / "taken").read_text() == "mine"


def test_a_name_that_the_file_has_already_is_right(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")

    link_new(tmp_path / "a", tmp_path / "b")
    link_new(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "a").stat().st_nlink == 2


def test_an_error_that_is_not_about_links_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")

    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        link_new(tmp_path / "a", tmp_path / "missing" / "a")
