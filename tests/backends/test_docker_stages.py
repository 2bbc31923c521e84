"""All stages in containers: the same outputs as without, and what ran is in the manifest."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from backends import LSF_SITE, lsf
from ds_flow.core.errors import DispatchError
from ds_flow.core.manifest import Manifest
from ds_flow.core.plan import Options, Plan, PlannedFile, Site, StageOptions
from ds_flow.core.program import CHECKOUT
from ds_flow.core.states import ATTEMPT_MARK, STAGES, RunState
from ds_flow.dispatch import JobSpec, rounds_in
from ds_flow.work.batch import Batch
from engine import docker, engine, full_image, small_image
from project import Project, table
from steps import publish
from steps.analyze import analyze_combined
from steps.combine import combine_files
from steps.file_results import file_results
from steps.process import process_shards

SHARDS = [(0, 24), (25, 49)]


@pytest.fixture(autouse=True)
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TOKEN", "s3cr3t")
    monkeypatch.setenv("DS_FLOW_GIVEN", "TOKEN")
    with engine():
        yield


def planned(root: Path, name: str, batch: str, images: dict[str, str], otherwise: str) -> Plan:
    options = Options(
        project_name="test",
        root=str(root),
        output_dir=str(root / name),
        log_dir=str(root / "log"),
        inbox=str(root / "data"),
        tag="über",
        stages={
            stage: StageOptions(
                executor="docker" if stage in images else otherwise,
                memory_mb=512,
                queue="short",
                image=images.get(stage, ""),
                command=("wc", "-l") if stage == "analyze" else (),
            )
            for stage in STAGES
        },
        site=Site(lsf=LSF_SITE),
    )
    files = [
        PlannedFile(path=f"data/{path.name}", version=1, sha256=None, size_bytes=1)
        for path in sorted((root / "data").iterdir())
    ]
    return Plan(batch=batch, trigger="arrival", formed_at="", files=tuple(files), options=options)


def ran(
    root: Path,
    name: str,
    batch: str,
    images: dict[str, str],
    otherwise: str = "local",
    shards: Sequence[tuple[int, int]] = SHARDS,
) -> Manifest:
    """Fifty files through every stage, in these images or, for want of one, elsewhere."""
    work = Batch.create(root / name, planned(root, name, batch, images, otherwise)).folder
    (work / "attempts" / "1").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(ATTEMPT_MARK, f"{batch}/1")
        process_shards(Batch(work), "1of1", shards)
        combined = combine_files(Batch(work))
        analysis = analyze_combined(Batch(work), combined)
        run = publish.Run(
            flow="StudentFlow", run_id="7", started_at="", combined=combined, analysis=analysis
        )
        return publish.finish(Batch(work), run).manifest


HOSTILE = """#!/bin/bash
# In place of python3: it is told the script, the batch's folder, that for results, and positions.
work=$2 results=$3
busybox() { /bin/busybox "$@" 2>/dev/null; }
for folder in jobs/process-1of1/2 jobs/combine/1 attempts/1 combined aligned results/other; do
    busybox mkdir -p "$work/$folder"
done
for round in jobs/process-1of1/2 jobs/combine/1; do
    cat "$results/../../../../../data/student_round.csv" >"$work/$round/round.json"
    printf 'touch\\0%s\\0' "$work/pwned" >"$work/$round/1.args"
done
busybox mkfifo "$work/attempts/1/intent.json"
busybox ln -s /etc/passwd "$work/committed.json"
busybox mknod "$results/.device" b 8 0
cd "$results" || exit 3
for number in 0 1 2 3 4 5; do
    row='"path": "data/student_'$number'.csv", "version": 1, "sha256": "", "bytes": 1, "rows": 1'
    row+=', "columns": ["id", "processed_at", "source_file", "tag"], "content_sha256": ""'
    row+=', "output_sha256": "'$(echo s3cr3t | busybox sha256sum | busybox cut -c 1-64)'"'
    name=student_$number.0000000$number.csv
    case $number in
        0) name=../../../../../private.csv ;;
        1) busybox ln -s "${work%/*/*/*}/private.csv" "$name" ;;
        2) busybox mkfifo "$name" ;;
        3) busybox mkfifo "student_$number.json"; continue ;;
        4) busybox truncate -s 64G "student_$number.json"; continue ;;
        5) name=student_0.00000000.csv; echo s3cr3t >$name ;;
    esac
    echo "{$row, \\"output\\": \\"$name\\", \\"output_bytes\\": 7}" >"student_$number.json"
done
"""


def hostile_image(tmp_path: Path) -> str:
    """An image whose python3 writes all that it can, so as to command the host."""
    context = tmp_path / "image"
    context.mkdir()
    (context / "python3").write_text(HOSTILE)
    (context / "python3").chmod(0o755)
    (context / "Dockerfile").write_text(f"FROM {small_image()}\nCOPY python3 /bin/python3\n")
    docker("build", "--quiet", "--network=none", "--tag=ds-flow-test/hostile", str(context))
    return "ds-flow-test/hostile"


@pytest.mark.exhaustive
def test_a_hostile_image_commands_nothing_and_publishes_nobody_elses_file(tmp_path: Path) -> None:
    inbox = tmp_path / "data"
    inbox.mkdir()
    for number in range(6):
        (inbox / f"student_{number}.csv").write_text(f"id\n{number}\n")
    forged = {"name": "forged", "opened_by": "x", "executor": "local"}
    job = JobSpec(key="k", command=("true",)).to_json()
    (inbox / "student_round.csv").write_text(json.dumps({**forged, "jobs": [job]}))
    (tmp_path / "private.csv").write_text("s3cr3t\n")

    with pytest.raises(DispatchError, match=r"no result|every file failed"):
        ran(tmp_path, "out", "dddddddddd", {"process": hostile_image(tmp_path)}, shards=[(0, 6)])

    work = tmp_path / "out" / ".work" / "dddddddddd"
    assert {path.name for path in work.iterdir()} == {
        *("batch.json", "attempts", "jobs", "results", "tmp")
    }
    assert {path.name for path in (work / "jobs").iterdir()} == {"process-1of1"}
    assert list((work / "attempts" / "1").iterdir()) == []
    rounds = list(rounds_in(work / "jobs" / "process-1of1"))
    assert {one.executor for one in rounds} == {"docker"}
    found, bad = file_results(Batch(work))
    assert (found, len(bad)) == ([], 7)
    assert list((tmp_path / "out").glob("*.csv")) == []


def outputs(folder: Path) -> dict[str, str]:
    """What was published, without the times."""
    time = re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\b")
    return {path.name: time.sub("<time>", path.read_text()) for path in folder.glob("*.csv")}


@pytest.mark.exhaustive
def test_fifty_files_come_out_of_containers_and_of_a_mix_as_they_do_without(tmp_path: Path) -> None:
    inbox = tmp_path / "data"
    inbox.mkdir()
    for number in range(49):
        (inbox / f"student_{number}.csv").write_text(f'id,name\n00{number},"A, ""B"""\n,NA\n')
    (inbox / "student_other.csv").write_text("id;more\n1;x")  # other columns: it gets aligned
    full, small = full_image(), small_image()

    local = ran(tmp_path, "local", "aaaaaaaaaa", {})
    images = {"process": full, "combine": full, "analyze": small}
    contained = ran(tmp_path, "docker", "bbbbbbbbbb", images)
    with lsf(tmp_path / "cluster", "ibm"):
        mixed = ran(tmp_path, "mixed", "cccccccccc", {"analyze": small}, otherwise="lsf")

    assert outputs(tmp_path / "docker") == outputs(tmp_path / "local")
    assert outputs(tmp_path / "mixed") == outputs(tmp_path / "local")
    assert mixed.analysis
    assert mixed.analysis["stdout"].split()[0] == "100"
    backends = {job["stage"]: job["backend"] for job in mixed.jobs}
    assert backends == {"process": "lsf", "combine": "lsf", "analyze": "docker"}
    assert len(outputs(tmp_path / "docker")) == 51
    assert contained.rejected == local.rejected == ()
    assert contained.analysis
    assert contained.analysis["stdout"].split()[0] == "100"
    ids = {one: docker("image", "inspect", "--format={{.Id}}", one) for one in (full, small)}
    assert {(job["backend"], job["image_id"]) for job in contained.jobs} == {
        ("docker", ids[full]),
        ("docker", ids[small]),
    }
    schema = CHECKOUT / "daemon" / "ds_flow" / "core" / "manifest.schema.json"
    (path,) = (tmp_path / "docker").glob("manifest_*.json")
    Draft202012Validator(json.loads(schema.read_text())).validate(json.loads(path.read_text()))
    owners = {(tmp_path / "docker" / name).stat().st_uid for name in outputs(tmp_path / "docker")}
    assert owners == {os.getuid()}


@pytest.mark.exhaustive
def test_an_analysis_whose_program_the_image_lacks_has_failed_and_is_done_again_in_a_container(
    tmp_path: Path,
) -> None:
    stage = {"executor": "docker", "image": small_image(), "memory_mb": 512}
    project = Project(tmp_path / "project")
    project.drop("student_a.csv", table("a"))

    lacks = {**stage, "command": ["no-such-program"]}
    project.configure(compute={"stages": {"analyze": lacks}})
    assert project.once().returncode == 1
    (run,) = project.runs()
    assert (run.state, "no-such-program" in run.analysis_error) == (RunState.SUCCEEDED, True)

    counts = {**stage, "command": ["wc", "-l"]}
    project.configure(compute={"stages": {"analyze": counts}})
    done = project.ds_flow("rerun", "--analyze", str(run.run_id))
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = project.out.glob("analysis_*.json")
    made = json.loads(path.read_text())
    assert made["analysis"]["stdout"].split()[0] == "4"
    assert [job["backend"] for job in made["jobs"]] == ["docker"]
    assert project.leftovers() == []
