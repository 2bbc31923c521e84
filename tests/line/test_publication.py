"""Publishing: all of a batch's outputs, once, whatever happens in between."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Thread

import pytest

from crash import lives_through
from disks import other_disk
from ds_flow.core.errors import BatchError, DispatchError
from ds_flow.core.manifest import Manifest
from ds_flow.system.durable import link_new, part_name
from ds_flow.work import publication
from ds_flow.work.analyses import publish_analysis
from ds_flow.work.batch import Batch, batches_in
from ds_flow.work.publication import AlreadyCommittedError, is_committed, publish, reveal
from ds_flow.work.published import (
    find_analysis,
    newest_analyses,
    published_manifests,
    remove_outputs,
)
from power import Power
from project import Gate, until
from samples import BATCH, manifest, read


@pytest.fixture(params=["links", "copies"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An output folder; once as usual, once with .work where no link leads out of."""
    folder = tmp_path / "out"
    folder.mkdir()
    if request.param == "links":
        yield folder
        return
    with other_disk(folder) as other:
        (folder / ".work").symlink_to(other)
        yield folder


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
    made = manifest(run_id, attempt=attempt, inputs=[read("a", "1"), read("b", "2")])
    combined = replace(made.outputs[0], name=f"final_combined_{run_id}.csv", source="")
    return replace(made, outputs=(*made.outputs, combined))


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
    publish(Batch(work), finished(run_id, attempt), sources(work, run_id))


def test_everything_is_published_under_its_final_name(out: Path) -> None:
    work = make_work(out)

    publish_as(out)

    assert visible(out) == whole()
    assert (out / "final_combined_17.csv").read_text() == "combined\n"
    assert {path.name for path in (work / "committed").iterdir()} == whole()
    assert not list(work.glob("publishing-*"))
    assert Manifest.from_json(json.loads((out / "manifest_17.json").read_text())) == finished()
    assert list(published_manifests(out)) == [out / "manifest_17.json"]


def test_a_second_run_cannot_commit_the_same_batch(out: Path) -> None:
    make_work(out)
    publish_as(out)

    with pytest.raises(AlreadyCommittedError, match="by run 17") as refused:
        publish_as(out, "18", attempt=2)

    assert refused.value.run_id == "17"
    assert visible(out) == whole()


def test_the_commit_itself_is_a_rename_that_fails_the_second_time(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_work(out)
    publish_as(out)
    monkeypatch.setattr(publication, "is_committed", lambda _work: False)  # it looked too early

    with pytest.raises(AlreadyCommittedError, match="by run 17"):
        publish_as(out, "18", attempt=2)

    assert visible(out) == whole()
    assert not list(work.glob("publishing-*"))


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


@pytest.mark.parametrize("taken", sorted(whole()))
def test_a_foreign_file_under_an_outputs_name_is_never_lost(out: Path, taken: str) -> None:
    work = make_work(out)
    (out / taken).write_text("mine")

    for _ in range(2):
        with pytest.raises(DispatchError, match="move it away"):
            publish_as(out)
        assert reveal(Batch(work)) is None

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


# --------------------------------------------------------------------------- revealing


def unrevealed(out: Path) -> Path:
    """A batch that was committed by a run that died before it revealed anything."""
    work = make_work(out)
    publish_as(out)
    for name in whole():
        (out / name).unlink()
    return work


@pytest.mark.parametrize("there", [[], ["processed_0_17.csv"], sorted(sources(Path()))])
def test_a_delivery_goes_on_where_it_was_stopped(out: Path, there: list[str]) -> None:
    work = unrevealed(out)
    for name in there:
        link_new(work / "committed" / name, out / name)

    assert reveal(Batch(work)) == finished()

    assert visible(out) == whole()
    assert (out / "processed_1_17.csv").read_text() == "1\n"


def test_half_of_a_copy_is_made_whole(out: Path) -> None:
    work = unrevealed(out)
    (out / part_name("processed_0_17.csv")).write_text("half of it")

    reveal(Batch(work))

    assert (out / "processed_0_17.csv").read_text() == "0\n"
    assert visible(out) - {part_name("processed_0_17.csv")} == whole()


@pytest.mark.parametrize("taken", sorted(whole()))
def test_a_foreign_file_that_came_after_the_commit_is_left_alone_until_it_is_moved_away(
    out: Path, taken: str
) -> None:
    work = unrevealed(out)
    (out / taken).write_text("mine")

    for _ in range(2):
        with pytest.raises(FileExistsError, match="move it away"):
            reveal(Batch(work))

    assert (out / taken).read_text() == "mine"
    (out / taken).unlink()
    reveal(Batch(work))
    assert visible(out) == whole()
    assert (out / "processed_0_17.csv").read_text() == "0\n"


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_file_in_an_output_s_place_blocks_nobody_and_is_left_alone(
    out: Path, kind: str
) -> None:
    work = unrevealed(out)
    path = out / "processed_0_17.csv"
    if kind == "link":
        path.symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()

    with pytest.raises(FileExistsError, match="move it away"):
        reveal(Batch(work))

    assert os.path.lexists(path)


def test_outputs_that_retention_removed_do_not_come_back(out: Path) -> None:
    work = make_work(out)
    publish_as(out)
    remove_outputs(out, ["17"])

    assert reveal(Batch(work)) == finished()

    assert visible(out) == {"removed"}


def test_analyses_that_were_done_again_go_with_the_outputs_of_their_run(out: Path) -> None:
    make_work(out)
    publish_as(out)
    for name in ("analysis_17_1.json", "analysis_17_2.json", "analysis_171_1.json"):
        (out / name).write_text("{}")

    remove_outputs(out, ["17"])

    assert visible(out) == {"removed", "analysis_171_1.json"}
    assert find_analysis(out, "17", 2) == out / "removed" / "analysis_17_2.json"
    assert newest_analyses(out) == {"17": 2, "171": 1}


def test_each_analysis_that_is_done_again_gets_a_number_and_keeps_it(out: Path) -> None:
    batch = Batch(make_work(out))
    (out / "analysis_17_9.txt").write_text("another's")
    for number in (1, 2, 10):
        batch.analysis.unlink(missing_ok=True)
        batch.analysis.write_text(f"{number}")
        assert publish_analysis(batch, "17") == number
        assert publish_analysis(batch, "17") == number
        assert (out / f"analysis_17_{number}.json").read_text() == f"{number}"
        if number == 2:
            (out / "analysis_17_9.json").symlink_to("nowhere")


def test_a_published_output_that_a_person_removed_does_not_come_back(out: Path) -> None:
    work = make_work(out)
    publish_as(out)
    (out / "processed_0_17.csv").unlink()

    reveal(Batch(work))

    assert visible(out) == whole() - {"processed_0_17.csv"}


def change(work: Path, **changes: object) -> None:
    """Change a commit, as a job that may write there could."""
    path = work / "committed" / "manifest_17.json"
    row = {**json.loads(path.read_text()), **changes}
    path.unlink()
    path.write_text(json.dumps(row))


@pytest.mark.parametrize(
    "name",
    ["../a", "/etc/passwd", "", ".", "..", "a/b", "processed_0_18.csv", "final_combined_18.csv"],
)
def test_a_commit_reaches_nothing_outside_the_output_folder_and_nothing_of_another_run(
    out: Path, name: str
) -> None:
    work = unrevealed(out)
    outputs = [{**row, "name": name} for row in finished().to_json()["outputs"]]
    change(work, outputs=outputs)

    with pytest.raises(BatchError, match="not an output's name of run 17"):
        reveal(Batch(work))

    assert visible(out) == set()


def test_a_link_in_a_commit_publishes_nothing_of_anybody(out: Path, tmp_path: Path) -> None:
    work = unrevealed(out)
    (tmp_path / "private").write_text("secret")
    (work / "committed" / "processed_0_17.csv").unlink()
    (work / "committed" / "processed_0_17.csv").symlink_to(tmp_path / "private")

    with pytest.raises(BatchError, match="is not a regular file"):
        reveal(Batch(work))

    assert visible(out) == set()


def test_a_commit_that_is_no_folder_of_one_run_is_told(out: Path) -> None:
    work = unrevealed(out)
    (work / "committed" / "manifest_18.json").write_text("{}")
    with pytest.raises(BatchError, match="holds 2 manifests"):
        reveal(Batch(work))
    (work / "committed" / "manifest_18.json").unlink()
    change(work, run_id="18")
    with pytest.raises(BatchError, match="not the manifest's name of run 18"):
        reveal(Batch(work))
    shutil.rmtree(work / "committed")
    (work / "committed").symlink_to(out)
    with pytest.raises(BatchError, match="is not a folder"):
        reveal(Batch(work))


def test_a_work_directory_on_its_way_out_is_removed_and_nothing_else(out: Path) -> None:
    work = make_work(out)
    publish_as(out)
    trash = work.with_name(".trash-0123456789-00000000")
    work.rename(trash)

    assert list(batches_in(out)) == []
    assert not trash.exists()
    assert visible(out) == whole()


def test_removing_a_work_directory_leaves_what_is_published(out: Path) -> None:
    work = make_work(out)
    publish_as(out)

    Batch(work).remove()

    assert not work.exists()
    assert visible(out) == whole()
    assert (out / "processed_1_17.csv").read_text() == "1\n"


# --------------------------------------------------------------------------- crashes


def publish_until(step: int, out: Path, run_id: str, attempt: int) -> bool:
    """Publish in a process that dies before its step-th change; whether it lived to the end."""
    return lives_through(lambda: publish_as(out, run_id, attempt), step)


def test_a_crash_at_any_step_leaves_all_or_nothing_and_what_was_visible_stays(out: Path) -> None:
    committed_at = None
    for step in count():
        shutil.rmtree(out / ".work" / BATCH, ignore_errors=True)
        for name in visible(out):
            (out / name).unlink()
        work = make_work(out)
        (out / "foreign.csv").write_text("mine")

        lived = publish_until(step, out, "17", 1)
        seen = {name for name in visible(out) if not name.startswith(".")} - {"foreign.csv"}
        has_committed = is_committed(Batch(work))
        found = reveal(Batch(work))

        assert (found is not None) == has_committed
        assert visible(out) - {"foreign.csv"} == (whole() if has_committed else set())
        assert seen <= visible(out)
        assert "manifest_17.json" not in seen or seen == whole()
        assert [(work / f"{name}.csv").read_text() for name in "01"] == ["0\n", "1\n"]
        if has_committed and committed_at is None:
            committed_at = step
        assert (committed_at is not None) == has_committed
        if lived:
            break

    assert committed_at
    assert step > committed_at + 8


def test_the_attempt_after_a_crash_publishes_alone(out: Path) -> None:
    make_work(out)
    assert not publish_until(8, out, "17", 1)  # some of its outputs are gathered
    assert not is_committed(Batch(out / ".work" / BATCH))

    publish_as(out, "18", attempt=2)

    assert visible(out) == whole("18")


# --------------------------------------------------------------------------- power losses


def test_nothing_is_visible_that_a_power_loss_takes_back(out: Path, power: Power) -> None:
    work = make_work(out)
    looked = []

    def look(target: Path) -> None:
        if target.parent == out and target.name in whole():
            committed = work / "committed"
            assert power.keeps(committed, *(committed / name for name in whole()))
            looked.append(target.name)
        if target == out / "manifest_17.json":
            assert power.keeps(*(out / name for name in sources(work)))

    power.before_each_name(look)
    publish_as(out)

    assert set(looked) == whole()
    assert power.keeps(*(out / name for name in whole()))


def test_outputs_are_removed_after_no_power_loss_can_take_their_manifest_back(
    out: Path, power: Power
) -> None:
    make_work(out)
    publish_as(out)
    looked = []

    def look(target: Path) -> None:
        if target == out / "final_combined_17.csv":
            assert power.keeps(out / "removed" / "manifest_17.json")
            assert "manifest_17.json" not in power.names(out)
            looked.append(target)

    power.before_each_name(look)
    remove_outputs(out, ["17"])

    assert looked


def test_no_power_loss_takes_back_an_analysis_that_was_done_again(out: Path, power: Power) -> None:
    work = make_work(out)
    publish_as(out)
    (work / "analysis.json").write_text("{}")

    number = publish_analysis(Batch(work), "17")

    assert f"analysis_17_{number}.json" in power.names(out)


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


RECORDED_MEANWHILE = """
import sys
from pathlib import Path
from ds_flow.work.batch import Batch
from ds_flow.work.publication import reveal
from test_publication import publish_as

out, work, seen = Path(sys.argv[1]), Path(sys.argv[2]), []

def watch(event, args):
    if event == "os.link" and Path(args[1]).parent == out and not seen:
        seen.append(event)
        reveal(Batch(work))
        Batch(work).remove()

sys.addaudithook(watch)
publish_as(out)
assert seen
"""


def test_a_publication_that_another_process_delivers_and_records_meanwhile_is_done(
    out: Path,
) -> None:
    work = make_work(out)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    subprocess.run(
        [sys.executable, "-c", RECORDED_MEANWHILE, str(out), str(work)], env=environment, check=True
    )

    assert visible(out) == whole()
    assert not work.exists()


def test_processes_that_deliver_together_deliver_whole_files_once(out: Path) -> None:
    work = make_work(out)
    for name in ("0", "1", "combined"):
        (work / f"{name}.csv").write_text(f"{name}\n" * 300_000)
    publish_as(out)
    for name in whole():
        (out / name).unlink()
    code = (
        "import sys; from pathlib import Path; from ds_flow.work import Batch, reveal;"
        "reveal(Batch(Path(sys.argv[1])))"
    )
    racers = [subprocess.Popen([sys.executable, "-c", code, str(work)]) for _ in range(4)]

    assert [racer.wait(timeout=60) for racer in racers] == [0] * 4
    assert visible(out) == whole()
    for name, source in sources(work).items():
        assert (out / name).read_bytes() == source.read_bytes()


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


def test_a_copy_waits_for_another_process_that_makes_the_same_one(tmp_path: Path) -> None:
    with other_disk(tmp_path) as other:
        (other / "a").write_text("a")
        gate = Gate(tmp_path / part_name("a"))
        copy = Thread(target=lambda: link_new(other / "a", tmp_path / "a"))
        copy.start()
        until("it waits", lambda: gate.is_reached or (tmp_path / "a").exists())

        assert not (tmp_path / "a").exists()
        gate.open()
        copy.join()

    assert (tmp_path / "a").read_text() == "a"


def test_a_name_that_the_file_has_already_is_right(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")

    link_new(tmp_path / "a", tmp_path / "b")
    link_new(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "a").stat().st_nlink == 2


def test_an_error_that_is_not_about_links_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")

    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        link_new(tmp_path / "a", tmp_path / "missing" / "a")
