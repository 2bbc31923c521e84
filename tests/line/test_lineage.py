"""Lineage and data packages: what was made from what, and what tools of others read."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from frictionless import Package

import project as real
from cli_project import Project
from clock import NOON
from ds_flow.cli.main import main
from ds_flow.core.states import Settled, Sighting, Trigger
from ds_flow.inbox.scan import stat_of
from samples import BATCH, OTHER_BATCH

FIRST, SECOND = "processed_student_a_1001.csv", "processed_student_a_1002.csv"
WHOLE, AGAIN = "final_combined_1001.csv", "final_combined_1002.csv"
B = "processed_student_b_1001.csv"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Two files in one run; one of them again in a second run."""
    with Project(tmp_path) as made:
        rows = made.published(BATCH, "1001", "student_a.csv", "student_b.csv")
        made.start(made.form(OTHER_BATCH, rows[:1], Trigger.RERUN), "1002")
        made.publish(OTHER_BATCH, "1002", rows[:1])
        yield made


def said(project: Project, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["--config", str(project.config), *words]) == code
    out, err = capsys.readouterr()
    return str(err if code else out)


def tree(project: Project, capsys: pytest.CaptureFixture[str], path: str) -> list[str]:
    return [line.split("  run ")[0] for line in said(project, capsys, "lineage", path).splitlines()]


@pytest.mark.parametrize("typed", [WHOLE, f"out/{WHOLE}", "{root}/out/" + WHOLE])
def test_a_combined_file_leads_to_its_parts_and_their_inputs(
    project: Project, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    assert tree(project, capsys, typed.format(root=project.root)) == [
        f"out/{WHOLE}",
        f"  out/{FIRST}",
        "    data/student_a.csv  version 1",
        f"  out/{B}",
        "    data/student_b.csv  version 1",
    ]


def test_an_output_of_one_file_leads_to_that_file_alone(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tree(project, capsys, B) == [f"out/{B}", "  data/student_b.csv  version 1"]


def test_an_input_leads_to_all_outputs_of_all_its_versions(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.drop("student_a.csv", "a,b\n3,4\n")
    project.ledger.admit(
        [replace(one, sha256="e" * 64) for one in _settled(project, "student_a.csv")], NOON
    )
    assert tree(project, capsys, "data/student_a.csv") == [
        "data/student_a.csv  version 1",
        f"  out/{FIRST}",
        f"    out/{WHOLE}",
        f"  out/{SECOND}",
        f"    out/{AGAIN}",
        "data/student_a.csv  version 2",
    ]


def _settled(project: Project, name: str) -> list[Settled]:
    status = stat_of((project.root / "data" / name).stat())
    return [Settled(sighting=Sighting(f"data/{name}", status))]


def test_the_document_has_each_file_once_and_the_edges_between_them(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(said(project, capsys, "lineage", "student_a.csv", "--json"))
    nodes = {node["id"]: node for node in document["nodes"]}
    assert len(nodes) == len(document["nodes"])
    assert (document["kind"], document["start"]) == ("input", ["data/student_a.csv@1"])
    assert nodes[SECOND]["run_id"] == "1002"
    assert nodes[SECOND]["trigger"] == "rerun"
    assert nodes["data/student_a.csv@1"]["sha256"] == hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    assert [(edge["source"], edge["target"]) for edge in document["edges"]] == [
        ("data/student_a.csv@1", FIRST),
        (FIRST, WHOLE),
        ("data/student_a.csv@1", SECOND),
        (SECOND, AGAIN),
    ]


def test_an_output_that_retention_removed_is_still_known(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.ledger.history.remove_outputs(["1001"], "old", NOON)
    assert "removed since" in said(project, capsys, "lineage", WHOLE)


def test_no_name_can_end_its_label_in_a_drawing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    name = 'student_"]; click n0 "javascript:x" <b>é.csv'
    project.published("c" * 10, "1003", name)
    lines = said(project, capsys, "lineage", name, "--mermaid").splitlines()
    assert lines[0] == "flowchart LR"
    label = lines[1].strip().removeprefix('n0["').removesuffix('"]')
    assert not set(label) & set('"<>[]\\')
    assert label.startswith("data/student_#34;#93;#59; click n0 #34;javascript:x#34;")
    assert "    n0 --> n1" in lines


@pytest.mark.parametrize("typed", ["nothing.csv", "out/manifest_1001.json", "data/\udcff_1.csv"])
def test_what_is_neither_input_nor_output_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    assert "no input and no output" in said(project, capsys, "lineage", typed, code=1)


def test_a_file_elsewhere_with_an_outputs_name_is_not_taken_for_it(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    said(project, capsys, "lineage", f"data/{WHOLE}", code=1)


# --------------------------------------------------------------------------- data packages


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Project]:
    """One real run over names and cells that a reader may stumble on, and a bad file."""
    made = real.Project(tmp_path_factory.mktemp("package"))
    made.drop("student_a.csv", 'id,name,"two\nlines"\n1,"Ann, A.",x\n2,"say ""hi""",\n')
    made.drop("student_Ö [1] *%.csv", "id;score\n7;1,5\n8;\n")
    made.drop("student_bad.csv", "id,a\n1\n")
    made.ds_flow("once")
    try:
        yield made
    finally:
        made.end_everything()


def package(made: real.Project) -> Package:
    """Save the data package beside the outputs, and open it as a reader would."""
    run_id = made.manifests()[0].run_id
    done = made.ds_flow("manifest", "--datapackage", run_id)
    assert done.returncode == 0, done.stderr
    file = made.out / "datapackage.json"
    file.write_text(done.stdout)
    return Package(str(file))


@pytest.mark.exhaustive
def test_a_data_package_is_valid_by_frictionless_with_its_data(published: real.Project) -> None:
    report = package(published).validate()
    assert report.valid, report.flatten(["type", "note"])
    assert report.stats["tasks"] == 3


def test_frictionless_notices_an_output_that_was_changed(published: real.Project) -> None:
    described = package(published)
    file = published.out / str(described.resources[0].path)
    before = file.read_bytes()
    file.write_bytes(before + b"9,new,x,2026-01-01T00:00:00+00:00,a,b\n")
    try:
        assert not package(published).validate().valid
    finally:
        file.write_bytes(before)


def test_the_schema_has_the_columns_of_each_output(published: real.Project) -> None:
    names = {one.title: one.schema.field_names for one in package(published).resources}
    own = ["processed_at", "source_file", "tag"]
    assert names["data/student_a.csv"][:3] == ["id", "name", "two\nlines"]
    assert {*names["all files together"]} == {"id", "name", "two\nlines", "score", *own} | {
        *names["data/student_a.csv"][3:]
    }


@pytest.mark.parametrize("words", [("--csv",), ("--run", "1")])
def test_a_data_package_goes_with_no_other_format(
    project: Project, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert "--datapackage" in said(
        project, capsys, "manifest", "--datapackage", "1001", *words, code=2
    )


def test_a_run_without_outputs_has_no_data_package(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("manifest", "--datapackage")
    assert "no run '9'" in said(project, capsys, *words, "9", code=1)
    project.start(project.form("d" * 10, project.admit("student_d.csv")), "1009")
    assert "it has no manifest" in said(project, capsys, *words, "1009", code=1)
    project.ledger.history.remove_outputs(["1001"], "old", NOON)
    assert "removed its outputs" in said(project, capsys, *words, "1001", code=1)
