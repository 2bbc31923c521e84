"""Which of a batch's files are published under `csv.columns: strict`, and in which order."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ds_flow.core.manifest import Manifest, Rejected
from ds_flow.core.plan import Options, Plan, PlannedFile, StageOptions
from ds_flow.core.states import ATTEMPT_MARK
from ds_flow.work.batch import Batch
from steps import publish
from steps.combine import combine_files
from steps.file_results import file_results
from steps.process import process_shards

pytestmark = pytest.mark.usefixtures("forked_jobs")

ONE, OTHER, THIRD = "id,name\n1,Ann\n", "id;mark\n1;A\n", "id|age\n1|9\n"

Form = Callable[..., Path]


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Form:
    """Process the given files as one batch after the others; its work directory."""
    options = Options(
        project_name="test",
        root=str(tmp_path),
        output_dir=str(tmp_path / "out"),
        log_dir=str(tmp_path / "log"),
        columns="strict",
        stages={name: StageOptions() for name in ("process", "combine", "analyze")},
    )
    ids = iter("0123456789")

    def processed(files: dict[str, str], **other: Any) -> Path:
        planned = []
        for name, text in files.items():
            path = tmp_path / "data" / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text)
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            one = PlannedFile(path=f"data/{name}", version=1, sha256=sha256, size_bytes=5)
            planned.append(one)
        plan = Plan(
            batch=next(ids) * 10,
            trigger="arrival",
            formed_at="",
            files=tuple(planned),
            options=replace(options, **other),
        )
        monkeypatch.setenv(ATTEMPT_MARK, f"{plan.batch}/1")
        work = Batch.create(tmp_path / "out", plan).folder
        (work / "attempts" / "1").mkdir()
        process_shards(Batch(work), "1of1", [(0, len(planned) - 1)])
        return work

    return processed


WIDE = ",".join(f"w{number}" for number in range(16_384)) + "\n"


def test_a_file_as_wide_as_any_may_be_is_combined_with_one_that_has_some_of_its_columns(
    batch: Form,
) -> None:
    files = {"a.csv": "w1,w0\n1,0\n", "b.csv": WIDE + "," * 16_383 + "\n"}
    manifest = published(batch(files, columns="union"))

    assert [one.path for one in manifest.inputs] == ["data/a.csv", "data/b.csv"]
    assert len(manifest.columns) == 16_384 + 3


def test_a_wide_file_among_others_is_set_aside_and_they_are_published(batch: Form) -> None:
    manifest = published(batch({"a.csv": WIDE, "b.csv": ONE, "c.csv": ONE}, columns="union"))

    assert [one.path for one in manifest.inputs] == ["data/b.csv", "data/c.csv"]
    assert [(one.path, one.cause) for one in manifest.rejected] == [("data/a.csv", "rejected")]
    assert manifest.rejected[0].reason == (
        "the combined file would have 16,386 columns, with 16,384 that other files of this batch"
        " lack (w0, w1, w2 and 16381 more); csv.max_columns is 16,384; release it alone, or raise"
        " it"
    )


def published(work: Path) -> Manifest:
    """Combine and publish a batch; its Run ID is its number."""
    run = publish.Run(
        flow="F",
        run_id=f"1700000000{work.name[:1]}",
        started_at="",
        combined=combine_files(Batch(work)),
        analysis=None,
    )
    return publish.finish(Batch(work), run).manifest


def verdict(work: Path) -> tuple[list[str], dict[str, str]]:
    """The names of the good files, and the reasons of the others."""
    good, bad = file_results(Batch(work))
    assert all(isinstance(one, Rejected) and one.cause == "rejected" for one in bad)
    reasons = {Path(one.path).stem: one.reason for one in bad}
    return [Path(one.path).stem for one in good], reasons


@pytest.mark.parametrize("odd", ["a", "c", "e"])
def test_the_columns_of_most_files_hold_wherever_the_odd_file_stands(batch: Form, odd: str) -> None:
    files = {f"{name}.csv": OTHER if name == odd else ONE for name in "abcde"}

    good, bad = verdict(batch(files))

    assert good == [name for name in "abcde" if name != odd]
    assert bad == {
        odd: "csv.columns is strict, and columns mark, name differ from those of most files of this"
        " batch; correct it, and send it again"
    }


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_if_no_columns_are_those_of_most_files_none_is_guessed(batch: Form, names: str) -> None:
    first, second = [*names]

    good, bad = verdict(batch({f"{first}.csv": ONE, f"{second}.csv": OTHER, "c.csv": THIRD}))

    assert good == []
    assert set(bad) == set("abc")
    assert bad["a"] == (
        "csv.columns is strict, and this batch has 3 different headers, none of them in most files;"
        " release the right files first"
    )


def test_the_columns_of_what_was_published_before_hold_over_those_of_most_files(
    batch: Form,
) -> None:
    before = published(batch({"a.csv": ONE}))
    assert before.columns == ("id", "name", "processed_at", "source_file", "tag")
    work = batch({"b.csv": OTHER, "c.csv": OTHER, "d.csv": ONE})

    assert verdict(work)[0] == ["d"]
    assert verdict(work)[1]["b"] == (
        "csv.columns is strict, and columns mark, name differ from those of run 17000000000; if"
        " they are right, set csv.columns to union for one batch"
    )
    assert [one.path for one in published(work).inputs] == ["data/d.csv"]


def test_columns_in_another_order_are_others(batch: Form) -> None:
    published(batch({"a.csv": ONE}))

    (reason,) = verdict(batch({"b.csv": "name,id\nAnn,1\n"}))[1].values()

    assert "strict, and its columns are in another order than those of run" in reason


def test_a_run_that_published_nothing_says_nothing_about_columns(batch: Form) -> None:
    published(batch({"a.csv": ONE}))
    published(batch({"b.csv": OTHER}))

    assert verdict(batch({"c.csv": ONE}))[0] == ["c"]


@pytest.mark.parametrize("changed", ["code", "settings"])
def test_what_other_code_or_settings_have_published_says_nothing_about_columns(
    batch: Form, tmp_path: Path, changed: str
) -> None:
    published(batch({"a.csv": ONE}, **({"columns": "union"} if changed == "settings" else {})))
    if changed == "code":
        (tmp_path / "transforms.py").write_text("def transform(frame):\n    return frame\n")

    assert verdict(batch({"b.csv": OTHER}))[0] == ["b"]


def test_another_tag_keeps_the_columns(batch: Form) -> None:
    published(batch({"a.csv": ONE}, tag="spring"))

    assert verdict(batch({"b.csv": OTHER}, tag="autumn"))[0] == []


def test_what_another_run_publishes_meanwhile_changes_nothing(batch: Form) -> None:
    work = batch({"a.csv": ONE, "b.csv": ONE, "c.csv": OTHER})
    combined = combine_files(Batch(work))
    published(batch({"d.csv": OTHER}))

    assert verdict(work)[0] == ["a", "b"]
    assert combine_files(Batch(work)) == combined


def test_a_broken_manifest_says_nothing_about_columns(batch: Form, tmp_path: Path) -> None:
    published(batch({"a.csv": ONE}))
    (tmp_path / "out" / "manifest_99999999999.json").write_text("{")

    assert verdict(batch({"b.csv": OTHER}))[0] == []


def test_files_are_combined_in_natural_order_of_their_paths(batch: Form) -> None:
    names = ["s_10", "s_2", "10/s_1", "9/s_1", "s_1", "s_02", "s_1b", "S_3", "s", "s_1/a"]
    work = batch({f"{name}.csv": f"id\n{name}\n" for name in names}, columns="union")
    combined = combine_files(Batch(work))
    assert combined
    rows = [line.split(",")[0] for line in combined.read_text().splitlines()[1:]]

    assert rows == ["9/s_1", "10/s_1", "S_3", "s", "s_1/a", "s_1", "s_1b", "s_02", "s_2", "s_10"]
    assert [one.path[5:-4] for one in published(work).inputs] == rows
