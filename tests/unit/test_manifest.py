"""The manifest of a rerun: what each output is against the last run of the same selection."""

from dataclasses import replace
from typing import ClassVar

import pytest

from ds_flow.core.manifest import Manifest, Output, compare_manifests
from samples import manifest, read

A, B = "data/a.csv", "data/b.csv"


def run(run_id: str, contents: dict[str, str], inputs: dict[str, str] | None = None) -> Manifest:
    """A run with an output of each content, and a combined one."""
    made = manifest(run_id, inputs=[read(path, text) for path, text in (inputs or FILES).items()])
    outputs = [
        Output(
            name=f"{path or 'all'}_{run_id}".replace("/", "_"),
            source=path,
            sha256=run_id * 64,
            bytes=1,
            rows=1,
            content_sha256=text,
        )
        for path, text in contents.items()
    ]
    return replace(made, outputs=tuple(outputs))


FILES = {A: "1", B: "2"}
SAME = {A: "a", B: "b", "": "ab"}
OLD = run("1", SAME)


def said(new: Manifest, old: Manifest = OLD, *, has_same_settings: bool = True) -> dict[str, str]:
    made = compare_manifests(new, old, has_same_settings=has_same_settings)
    assert made.compared_with == old.run_id
    return {out.source: " ".join([out.compared, *out.because]) for out in made.outputs}


def test_the_same_content_is_identical_whatever_has_changed_around_it() -> None:
    assert said(run("2", SAME)) == {A: "identical", B: "identical", "": "identical"}
    code = replace(run("2", SAME), code_fingerprint="e" * 64, tag="autumn")
    assert set(said(code, has_same_settings=False).values()) == {"identical"}


def test_the_combined_file_as_parquet_is_compared_with_the_one_before() -> None:
    def with_parquet(made: Manifest) -> Manifest:
        whole = replace(made.outputs[-1], name="all.parquet")
        return replace(made, outputs=(*made.outputs, whole))

    old, new = with_parquet(OLD), with_parquet(run("2", {**SAME, "": "x"}))
    made = compare_manifests(new, old, has_same_settings=True)
    assert [out.compared for out in made.outputs[2:]] == ["changed", "changed"]
    made = compare_manifests(new, OLD, has_same_settings=True)
    assert [out.compared for out in made.outputs[2:]] == ["changed", "new"]


def test_another_input_changes_its_own_output_and_the_combined_one() -> None:
    new = run("2", {A: "x", B: "b", "": "xb"}, {A: "3", B: "2"})
    assert said(new) == {A: "changed input", B: "identical", "": "changed input"}


@pytest.mark.parametrize("cause", ["code", "settings", "tag"])
def test_each_other_cause_is_named(cause: str) -> None:
    new = run("2", {A: "x", B: "b", "": "xb"})
    if cause == "code":
        new = replace(new, code_fingerprint="e" * 64)
    if cause == "tag":
        new = replace(new, tag="autumn")
    told = said(new, has_same_settings=cause != "settings")
    assert told == {A: f"changed {cause}", B: "identical", "": f"changed {cause}"}


def test_a_change_without_a_cause_is_said_to_have_another() -> None:
    assert said(run("2", {A: "x", B: "b", "": "xb"}))[A] == "changed other"


def test_a_file_that_the_last_run_did_not_have_is_new() -> None:
    old = run("1", {A: "a", "": "a"}, {A: "1"})
    assert said(run("2", SAME), old) == {A: "identical", B: "new", "": "changed input"}


def test_against_a_run_from_before_there_was_a_content_hash_the_causes_decide() -> None:
    old = run("1", dict.fromkeys(SAME, ""))
    assert set(said(run("2", SAME), old).values()) == {"identical"}
    new = replace(run("2", SAME), code_fingerprint="e" * 64)
    assert set(said(new, old).values()) == {"changed code"}


class Counted(str):
    """A path that counts how often it is looked at."""

    __slots__ = ()
    looks: ClassVar[list[None]] = []

    def __hash__(self) -> int:
        self.looks.append(None)
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        self.looks.append(None)
        return super().__eq__(other)


def looks_to_compare(count: int) -> int:
    paths = [Counted(f"data/{number}.csv") for number in range(count)]
    contents: dict[str, str] = {"": "all", **dict.fromkeys(paths, "x")}
    new, old = (run(run_id, contents, dict.fromkeys(paths, "1")) for run_id in "21")
    Counted.looks.clear()
    assert set(said(new, old).values()) == {"identical"}
    return len(Counted.looks)


def test_ten_times_the_files_are_ten_times_the_work_to_compare() -> None:
    assert looks_to_compare(1000) < 11 * looks_to_compare(100)


def test_a_manifest_reads_back_with_what_it_says_and_without_what_it_does_not_know() -> None:
    made = compare_manifests(run("2", {**SAME, A: "x"}), OLD, has_same_settings=False)
    row = made.to_json()
    row["outputs"][0]["later"] = row["later"] = 1
    assert Manifest.from_json(row) == made


def test_a_manifest_of_the_first_version_can_be_read() -> None:
    row = OLD.to_json()
    for key in ("selection", "compared_with", "transform"):
        del row[key]
    for output in row["outputs"]:
        for key in ("content_sha256", "compared", "because"):
            del output[key]
    old = Manifest.from_json(row)
    assert (old.run_id, old.selection, old.outputs[0].compared) == ("1", "", "")


JOB = {"stage": "process", "backend": "lsf", "key": "a", "round": "r1", "index": 1}
KILLED = {"failure": "killed", "reason": "killed by SIGTERM", "host": "node7", "native_id": "9[1]"}


def redone(*jobs: object) -> str:
    return replace(OLD, jobs=tuple(jobs)).redone  # type: ignore[arg-type]


def test_jobs_that_failed_and_were_done_again_are_named_with_their_place_and_reason() -> None:
    failed, again = {**JOB, **KILLED}, {**JOB, "round": "r2", "failure": None}
    said = "process job r1[1] on node7 (9[1]): killed by SIGTERM"

    assert redone(failed, again) == said
    assert (
        redone(failed, again, {**again, **KILLED}, again) == f"{said}; {said.replace('r1', 'r2')}"
    )
    assert redone({**failed, "backend": "local"}, again) == said.replace(" on node7 (9[1])", "")
    assert redone(*[failed] * 5, again) == "; ".join([said] * 3) + " and 2 more"


def test_a_job_that_nobody_did_again_is_none_of_them() -> None:
    failed = {**JOB, **KILLED}

    assert redone() == redone(failed) == redone(failed, {**JOB, "key": "b", "failure": None}) == ""
    assert redone({**JOB, "failure": None}, {**JOB, "failure": None}) == ""


def test_what_is_no_job_is_passed_over() -> None:
    odd: list[object] = [
        7,
        None,
        "x",
        [],
        {"failure": [1], "key": {"a": 1}},
        {"failure": 1, "host": 7},
        {},
    ]

    assert redone(*odd) == "None job None[None] on 7: None"
    assert redone(*odd[:4]) == ""
