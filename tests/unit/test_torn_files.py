"""Files of a batch that hold anything at all: torn by a power loss, or changed by a stranger."""

import json
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ds_flow.core.errors import DispatchError, LedgerError
from ds_flow.core.program import CHECKOUT
from ds_flow.dispatch.cluster.handover import Handover, array_of, file_of
from ds_flow.dispatch.rounds import JobSpec, Round, open_round, rounds_in
from ds_flow.runs.outcome import EXIT_CODE
from ds_flow.system import durable
from ds_flow.work.batch import Batch
from ds_flow.work.results import Result, Results
from samples import BATCH, rejected, result

JOB = JobSpec(key="a", command=("true",))
words = st.binary(max_size=30) | st.from_regex(rb"\A[0-9 ]*\n?\Z")
documents = words | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
).map(lambda value: json.dumps(value).encode())


def test_words(tmp_path: Path) -> None:
    for torn in (b"", b"\n", b"\0\0\0", b"\xff"):
        (tmp_path / "word").write_bytes(torn)
        assert durable.read_word(tmp_path / "word") is None


@given(words)
@example(b"\0")
def test_an_exit_code_is_a_number_or_none(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "exit_code")
        path.write_bytes(content)
        word = durable.read_word(path)
    assert word is None or not EXIT_CODE.fullmatch(word) or 0 <= int(word) < 1000


@given(words)
@example(b"0 99999999999\n")
@example(b"0")
def test_a_job_has_ended_only_if_it_says_so_whole(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        made = Round(Path(folder), "name", f"{BATCH}/1", "local", (JOB,))
        (made.folder / "1.exit").write_bytes(content)
        (made.folder / "1.claim").write_bytes(b"host 7 " + content)
        ended = made.exit_of(1)
        made.claim_of(1)
    assert (ended is not None) == bool(re.fullmatch(rb"[0-9]{1,3} [0-9]{1,11}\n", content))


@given(documents)
def test_a_round_is_open_until_its_verdict_is_whole(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        made = open_round(Path(folder), BATCH, f"{BATCH}/1", "local", [JOB], [("true",)])
        (made.folder / "verdict.json").write_bytes(content)
        assert made.outcomes() in (None, [])


@given(documents)
def test_a_torn_round_is_passed_over_and_keeps_its_number(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        stage = Path(folder)
        made = open_round(stage, BATCH, f"{BATCH}/1", "local", [JOB], [("true",)])
        (made.folder / "round.json").write_bytes(content)
        assert not [found for found in rounds_in(stage) if found.jobs]
        assert open_round(stage, BATCH, "2", "local", [JOB], [("true",)]).folder.name == "2"


@given(documents)
@example(b"{}")
def test_of_a_torn_handover_everything_may_be_with_lsf(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        made = open_round(Path(folder), BATCH, f"{BATCH}/1", "lsf", [JOB] * 3, [("true",)] * 3)
        Handover.of(made).save()
        file_of(made).write_bytes(content)
        torn = Handover.of(made, max_array=2)
    assert [(one.first, one.count) for one in torn.asked()] == [(1, 2), (3, 1)]
    assert torn.next_to_submit() is None


def test_a_job_whose_command_is_gone_does_not_succeed(tmp_path: Path) -> None:
    (tmp_path / "1.args").touch()

    subprocess.run(["bash", CHECKOUT / "bash" / "run_job.sh", tmp_path, "1"], check=False)

    assert (tmp_path / "1.claim").exists()
    assert not (tmp_path / "1.exit").exists()


# --------------------------------------------------------------------------- results


def put(results: Results, stem: str, content: str = "1\n") -> Result:
    results.put(stem, made := result(results, stem, content))
    return made


@given(documents)
def test_a_torn_verdict_is_none_and_gives_way_to_the_next(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        results = Results(Path(folder))
        for stem in ("a", "b"):
            (results.folder / f"{stem}.json").write_bytes(content)
            assert results.get(stem) is None
        results.set_aside("b", rejected("data/b.csv", "rejected"))
        assert results.get("a") is None
        assert put(results, "a") == results.get("a")
        assert results.get("b") is not None


def test_after_a_power_loss_an_output_of_the_right_length_and_wrong_bytes_is_made_anew(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path / "code")
    results.forget_torn()
    whole, torn = put(results, "whole"), put(results, "torn")
    (results.folder / torn.output).write_bytes(bytes(torn.output_bytes))

    results.forget_torn()
    assert results.get("torn") == torn  # the machine was not off: nobody looks

    (tmp_path / ".boot-code").write_text("another\n")
    results.forget_torn()
    assert results.get("torn") is None
    assert results.get("whole") == whole


# --------------------------------------------------------------------------- plans and commits


@given(documents)
def test_a_plan_that_is_none_is_said_to_be_broken(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "batch.json").write_bytes(content)
        with pytest.raises((LedgerError, DispatchError)):
            _ = Batch(Path(folder)).plan


@pytest.mark.parametrize(
    ("executor", "form"), [("lsf", "{}[{}]"), ("slurm", "{}_{}")], ids=["lsf", "slurm"]
)
def test_a_job_has_one_name_with_its_cluster_and_is_found_by_it(
    tmp_path: Path, executor: str, form: str
) -> None:
    handover = Handover(executor, tmp_path, [], {})
    handover.cut("name", 1, 5, 3)
    for chunk, job_id in zip(handover.chunks, ("70", "80"), strict=True):
        chunk.job_ids = [job_id]

    names = [handover.native_id(index) for index in range(1, 6)]

    assert names == [form.format(*of) for of in ((70, 1), (70, 2), (70, 3), (80, 1), (80, 2))]
    assert [array_of(name) for name in names] == ["70", "70", "70", "80", "80"]
    assert handover.index_of("80", 2) == 5
