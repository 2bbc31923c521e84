"""Real runs over inputs of every format, with the combined file as Parquet beside the CSV."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from frictionless import Package

from ds_flow.core.states import FileState
from project import Project

PARTS = {"a": ["Ann", "007"], "b": ["Bob", "NA"], "c": ["", "0.1"], "d": ['Zoë, "Z"', "x\ny"]}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(
        tmp_path / "project",
        paths={"input_pattern": "data/student_*.*"},
        csv={"encoding": ["utf-8", "cp1252"]},
        outputs={"parquet": True},
    )
    yield made
    made.end_everything()


def drop_all(project: Project) -> None:
    frames = {
        name: pd.DataFrame({"id": [name], **dict(zip(["name", "score"], cells, strict=True))})
        for name, cells in PARTS.items()
    }
    project.drop("student_a.csv.gz", gzip.compress(frames["a"].to_csv(index=False).encode()))
    project.drop(
        "student_b.csv.zst",
        pa.compress(frames["b"].to_csv(index=False).encode(), "zstd", asbytes=True),
    )
    frames["c"].to_excel(project.inbox / "student_c.xlsx", index=False)
    frames["d"].to_parquet(project.inbox / "student_c.parquet")
    project.drop("student_e.csv", "id;name\ne;José\n".encode("cp1252"))


def test_inputs_of_every_format_are_one_batch_with_one_combined_file(project: Project) -> None:
    drop_all(project)
    project.drop("student_f.csv", gzip.compress(b"id\n1\n"))
    done = project.once()
    assert done.returncode == 1, done.stderr
    assert project.states("student_f.csv") == [FileState.QUARANTINED]
    assert "it is a gzip archive, not a CSV file; name it .csv.gz" in project.reason(
        "student_f.csv"
    )
    (manifest,) = project.manifests()
    used = {one.path: (one.format, one.encoding, one.delimiter) for one in manifest.inputs}
    assert used == {
        "data/student_a.csv.gz": ("csv.gz", "utf-8", ","),
        "data/student_b.csv.zst": ("csv.zst", "utf-8", ","),
        "data/student_c.parquet": ("parquet", "", ""),
        "data/student_c.xlsx": ("xlsx", "", ""),
        "data/student_e.csv": ("csv", "cp1252", ";"),
    }
    rows = {row["id"]: [row["name"], row["score"]] for row in project.combined()}
    assert rows == {**PARTS, "e": ["José", ""]}
    sources = sorted(out.name for out in manifest.outputs if out.source)
    assert sources[0] == f"processed_student_a_{manifest.run_id}.csv"
    assert len(set(sources)) == len(manifest.inputs)
    told = project.ds_flow("show", manifest.run_id).stdout
    assert "cp1252" in told
    assert "csv.zst" in told
    assert project.leftovers() == []


@pytest.mark.exhaustive
def test_the_combined_file_is_parquet_too_with_the_same_cells_as_text(project: Project) -> None:
    drop_all(project)
    assert project.once().returncode == 0
    (manifest,) = project.manifests()
    run_id = manifest.run_id
    path = project.out / f"final_combined_{run_id}.parquet"
    table = pq.read_table(path)
    assert {str(field.type) for field in table.schema} == {"string"}
    assert table.to_pylist() == project.combined()
    text, columns = [out for out in manifest.outputs if not out.source]
    assert (text.name, columns.name) == (f"final_combined_{run_id}.csv", path.name)
    assert (columns.rows, columns.content_sha256) == (text.rows, text.content_sha256)
    assert project.ds_flow("verify", run_id).returncode == 0
    status = project.status()
    assert status["newest_combined"]["file"].endswith(text.name)
    assert status["last_night"]["rows"] == 5
    metrics = project.ds_flow("metrics").stdout.splitlines()
    counted = [
        line.split()[1] for line in metrics if line.startswith("ds_flow_published_rows_total")
    ]
    assert counted == ["5.0", "5.0"]


@pytest.mark.exhaustive
def test_the_parquet_file_leads_back_and_goes_with_its_run(project: Project) -> None:
    drop_all(project)
    assert project.once().returncode == 0
    (first,) = project.manifests()
    name = f"final_combined_{first.run_id}.parquet"
    document = json.loads(project.ds_flow("lineage", name, "--json").stdout)
    assert {node["kind"] for node in document["nodes"]} == {"input", "processed", "combined"}
    assert [node["id"] for node in document["nodes"] if node["kind"] == "combined"] == [name]
    whole = project.ds_flow("lineage", "data/student_a.csv.gz").stdout
    assert name in whole
    package = json.loads(project.ds_flow("manifest", "--datapackage", first.run_id).stdout)
    assert [one["name"] for one in package["resources"]][-1] == "combined"
    (project.out / "package.json").write_text(json.dumps(package))
    report = Package(str(project.out / "package.json")).validate()
    assert report.valid, report.to_summary()

    assert project.ds_flow("rerun", "--all").returncode == 0
    project.once()
    old, new = project.manifests()
    assert [out.name.endswith(".parquet") for out in new.outputs].count(True) == 1
    project.configure(
        paths={"input_pattern": "data/student_*.*"},
        csv={"encoding": ["utf-8", "cp1252"]},
        outputs={"parquet": True},
        retention={"output_count": 1},
    )
    assert project.ds_flow("gc").returncode == 0
    assert not (project.out / name).exists()
    assert (project.out / f"final_combined_{new.run_id}.parquet").exists()
    assert old.run_id == first.run_id


@pytest.mark.exhaustive
def test_a_parquet_file_that_was_changed_is_found(project: Project) -> None:
    drop_all(project)
    assert project.once().returncode == 0
    (path,) = project.out.glob("*.parquet")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = project.ds_flow("verify")
    assert done.returncode == 1
    assert f"{path.name}: has other content than was published" in done.stdout + done.stderr
