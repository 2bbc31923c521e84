"""What the version before the `committed` folder left: its commits, and what it had only begun."""

import json
import os
from pathlib import Path

import pytest

from ds_flow.core.errors import BatchError
from ds_flow.system.durable import part_name, write_json
from ds_flow.work.batch import Batch
from ds_flow.work.publication import AlreadyCommittedError, publish, reveal
from ds_flow.work.upgrade import old_lock
from power import Power
from samples import BATCH, manifest, read

NAME = "processed_0_17.csv"
COMMIT = manifest("17", inputs=[read("a", "1")])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    (folder / ".work" / BATCH / "attempts" / "1").mkdir(parents=True)
    (folder / ".work" / BATCH / "batch.json").write_text("{}")
    return folder


@pytest.fixture
def work(out: Path) -> Path:
    return out / ".work" / BATCH


def visible(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()} - {".work"}


def intend(work: Path, *names: str) -> Path:
    path = work / "attempts" / "1" / "intent.json"
    path.write_text(json.dumps({"run_id": "17", "names": names}))
    return path


def commit(work: Path, out: Path) -> None:
    """Publish as the old version did, up to its commit."""
    intend(work, NAME)
    (out / NAME).write_text("1\n")
    write_json(work / "committed.json", COMMIT.to_json())


# --------------------------------------------------------------------------- commits


@pytest.mark.parametrize("has_manifest", [True, False])
def test_an_old_commit_becomes_a_new_one(out: Path, work: Path, *, has_manifest: bool) -> None:
    commit(work, out)
    if has_manifest:
        (out / "manifest_17.json").hardlink_to(work / "committed.json")

    assert reveal(Batch(work)) == COMMIT
    assert reveal(Batch(work)) == COMMIT

    assert visible(out) == {NAME, "manifest_17.json"}
    assert [path.name for path in (work / "committed").iterdir()] == ["manifest_17.json"]
    assert not (work / "committed.json").exists()


def test_an_old_commit_goes_after_no_power_loss_can_take_the_new_one_back(
    out: Path, work: Path, power: Power
) -> None:
    commit(work, out)
    looked = []

    def look(target: Path) -> None:
        if target == work / "committed.json":
            assert power.keeps(work / "committed", out / "manifest_17.json")
            assert "manifest_17.json" in power.names(work / "committed")
            looked.append(target)

    power.before_each_name(look)
    reveal(Batch(work))

    assert looked


def test_an_upgrade_that_died_before_its_last_step_is_finished(out: Path, work: Path) -> None:
    commit(work, out)
    text = (work / "committed.json").read_text()
    reveal(Batch(work))
    (work / "committed.json").write_text(text)

    assert reveal(Batch(work)) == COMMIT

    assert not (work / "committed.json").exists()


def test_a_batch_that_the_old_version_committed_is_published_by_no_other_run(
    out: Path, work: Path
) -> None:
    commit(work, out)

    with pytest.raises(AlreadyCommittedError, match="by run 17"):
        publish(Batch(work), manifest("18", attempt=2), {})

    assert visible(out) == {NAME, "manifest_17.json"}


def test_an_old_commit_in_a_copied_work_directory_is_none_of_that_batch(
    out: Path, work: Path
) -> None:
    commit(work, out)
    copy = work.rename(work.with_name("f" * 10))

    with pytest.raises(BatchError, match=f"the commit of batch {BATCH}"):
        reveal(Batch(copy))

    assert visible(out) == {NAME}


# --------------------------------------------------------------------------- intents


def test_what_an_old_run_had_only_begun_is_taken_back_by_name(out: Path, work: Path) -> None:
    intent = intend(work, NAME, "processed_1_17.csv")
    (out / NAME).write_text("half")
    (out / part_name("processed_1_17.csv")).write_text("half")
    (out / "processed_2_17.csv").write_text("not in the intent")

    assert reveal(Batch(work)) is None

    assert visible(out) == {"processed_2_17.csv"}
    assert not intent.exists()


def test_what_two_attempts_had_begun_is_taken_back(out: Path, work: Path) -> None:
    first = intend(work, NAME)
    second = work / "attempts" / "2" / "intent.json"
    second.parent.mkdir()
    second.write_text(json.dumps({"run_id": "18", "names": ["processed_0_18.csv"]}))
    for name in (NAME, "processed_0_18.csv"):
        (out / name).write_text("half")

    assert reveal(Batch(work)) is None

    assert visible(out) == set()
    assert not first.exists()
    assert not second.exists()


def test_an_intent_goes_after_no_power_loss_can_bring_its_names_back(
    out: Path, work: Path, power: Power
) -> None:
    intent = intend(work, NAME)
    (out / NAME).write_text("half")
    looked = []

    def look(target: Path) -> None:
        if target == intent:
            assert power.names(out)
            assert NAME not in power.names(out)
            looked.append(target)

    power.before_each_name(look)
    reveal(Batch(work))

    assert looked


def test_nothing_is_taken_back_while_an_old_process_may_publish(out: Path, work: Path) -> None:
    intent = intend(work, NAME)
    (out / NAME).write_text("being published")

    with old_lock(out), pytest.raises(BlockingIOError, match="tried again"):
        reveal(Batch(work))

    assert (out / NAME).exists()
    assert intent.exists()
    assert reveal(Batch(work)) is None
    assert not (out / NAME).exists()


@pytest.mark.parametrize(
    "name",
    ["processed_0_18.csv", "final_combined_18.csv", "../a", "/etc/passwd", "", ".", "..", "a/b"],
)
def test_an_intent_reaches_nothing_of_another_run_and_nothing_outside_the_output_folder(
    out: Path, work: Path, name: str
) -> None:
    intend(work, name)
    (out / "processed_0_18.csv").write_text("published by another batch")

    with pytest.raises(BatchError, match="not an output's name of that run"):
        reveal(Batch(work))

    assert (out / "processed_0_18.csv").exists()


def test_an_intent_whose_run_has_a_manifest_takes_nothing_back(out: Path, work: Path) -> None:
    commit(work, out)
    (work / "committed.json").rename(out / "manifest_17.json")

    with pytest.raises(BatchError, match="not touched"):
        reveal(Batch(work))

    assert visible(out) == {NAME, "manifest_17.json"}


@pytest.mark.parametrize("path", ["attempts/1/intent.json", "committed.json"])
def test_a_fifo_or_a_link_in_place_of_an_old_record_blocks_nobody_and_is_told(
    work: Path, path: str
) -> None:
    os.mkfifo(work / path)
    with pytest.raises(BatchError, match=f"{path}: is not a regular file"):
        reveal(Batch(work))

    (work / path).unlink()
    (work / path).symlink_to(work / "batch.json")
    with pytest.raises(BatchError, match=f"{path}: is a symbolic link"):
        reveal(Batch(work))
