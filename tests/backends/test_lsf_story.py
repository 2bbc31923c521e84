"""Whole runs whose stages are LSF job arrays: the same outputs as locally, whoever is killed."""

import csv
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import lsf
from ds_flow.core.errors import SettingsError
from ds_flow.core.states import BatchState, RunState
from lsf import Cluster
from project import Project, ids, table, until

FILES = 50
QUICK = {"poll_seconds": 0.2, "command_seconds": 20, "grace_seconds": 1}
ON_LSF = {"executor": "lsf", "lsf": QUICK, "shard_mb": 0.25, "max_shards": 5}
LEDGER = "ledger/ledger.db"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with lsf(
        tmp_path_factory.mktemp("cluster"), "ibm", minute_s=60.0, kill_interval_s=1.0
    ) as place:
        yield place.cluster


@pytest.fixture
def project(tmp_path: Path, cluster: Cluster) -> Iterator[Project]:
    assert cluster.folder.is_dir()  # its commands are on PATH
    made = Project(tmp_path / "project", compute=ON_LSF, paths=PATHS)
    made.ledger = made.root / LEDGER
    yield made
    made.end_everything()


PATHS = {
    "input_pattern": "data/student_*.csv",
    "output_dir": "out",
    "log_dir": "log",
    "ledger": LEDGER,
}


def drop_many(project: Project, count: int = FILES) -> None:
    for number in range(count):
        extra = {"more": "x"} if number % 7 == 0 else {}
        project.drop(f"student_{number:02}.csv", table(f"n{number}", **extra))
    project.drop("student_bad.csv", "a,b\n1\n")


def cells(project: Project) -> dict[str, list[dict[str, str]]]:
    """Every output but for the time in it, without the Run ID in its name."""
    (manifest,) = project.manifests()
    found = {}
    for output in manifest.outputs:
        with (project.out / output.name).open(encoding="utf-8", newline="") as file:
            rows = [{**row, "processed_at": ""} for row in csv.DictReader(file)]
        found[output.name.replace(manifest.run_id, "RUN")] = rows
    return found


def test_lsf_publishes_what_the_local_backend_publishes(project: Project, tmp_path: Path) -> None:
    local = Project(tmp_path / "local")
    for one in (local, project):
        drop_many(one)
        done = one.once()
        assert done.returncode == 1, done.stderr  # one file was quarantined

    assert cells(project) == cells(local)
    assert len(cells(local)) == FILES + 1
    (here,), (there,) = local.manifests(), project.manifests()
    assert there.inputs == here.inputs
    assert [item.path for item in there.rejected] == [item.path for item in here.rejected]
    arrays = [job for job in there.jobs if job["stage"] == "process"]
    assert len(arrays) == 5
    for job in there.jobs:
        assert job["backend"] == "lsf"
        assert job["queue"] == "short"
        assert job["host"]
        assert job["native_id"].endswith(f"[{job['index']}]")
        assert job["failure"] is None
    assert there.analysis
    assert there.analysis["stdout"].split()[0] == str(3 * FILES + 1)
    assert project.status()["accounted"] is True
    assert not project.leftovers()


def held(project: Project, cluster: Cluster) -> int:
    """Drop one file whose job waits at a gate; how many bsub there had been before."""
    before = len(cluster.calls("bsub"))
    project.drop("student_held.csv", table("held", gate="held"))
    return before


@pytest.mark.exhaustive
def test_whoever_is_killed_the_same_array_is_found_and_used(
    project: Project, cluster: Cluster
) -> None:
    gate = project.gate("held")
    before = held(project, cluster)
    project.start()
    gate.wait()
    project.kill()
    for pid in project.processes("student_flow.py"):
        os.kill(pid, signal.SIGKILL)
    project.start()
    until("a second attempt runs", lambda: len(project.runs()) > 1)
    until("its run is known", lambda: project.runs()[-1].state == RunState.RUNNING)
    gate.open()
    project.wait_processed("student_held.csv")
    project.stop()

    names = [" ".join(call.argv) for call in cluster.calls("bsub")[before:]]
    assert len([name for name in names if "-process-" in name]) == 1
    assert len(names) == 3  # process, combine, analyze
    assert project.published_ids() == ids("held")
    assert not project.strays()


@pytest.mark.parametrize("how", ["bkill", pytest.param("kill", marks=pytest.mark.exhaustive)])
def test_a_job_that_was_killed_by_hand_and_done_again_is_told_of_everywhere(
    project: Project, cluster: Cluster, how: str
) -> None:
    gate = project.gate("held")
    held(project, cluster)
    project.start()
    gate.wait()
    (job,) = [job for job in cluster.jobs() if not job.ended_at]
    native_id = f"{job.job_id}[{job.index}]"
    if how == "bkill":
        subprocess.run(["bkill", native_id], check=False, env=cluster.env, capture_output=True)
    else:
        os.killpg(job.pid, signal.SIGKILL)
    gate.open()
    project.wait_processed("student_held.csv")
    project.stop()
    said = project.ds_flow("explain", "student_held.csv").stdout
    run = project.runs()[-1]

    told = f"-process-1of1-1[1] on {os.uname().nodename} ({native_id}): "
    assert told in said.splitlines()[0]
    assert f"jobs.done_again  process job dsf-{run.batch}{told}" in said
    (line,) = [line for line in project.said().splitlines() if "jobs.done_again" in line]
    assert "WARNING" in line
    assert told in line
    log = (project.log / f"run_{run.run_id}.log").read_text()
    assert re.search(rf"\[lsf\] job .*{re.escape(told)}.*; it is done again", log)


@pytest.mark.exhaustive
def test_what_is_pending_is_told_of_with_the_cluster_s_reason(tmp_path: Path) -> None:
    made = Project(tmp_path / "project", compute=ON_LSF, paths=PATHS)
    made.ledger = made.root / LEDGER
    with lsf(tmp_path / "cluster", "openlava", scheduling_delay_s=600.0) as place:
        drop_many(made, 3)
        made.start()
        reason = "New job is waiting"
        until("LSF was asked", lambda: reason in made.ds_flow("status").stdout, every=0.5)
        (job_id,) = {job.job_id for job in place.cluster.jobs()}
        (of_status,) = made.status()["jobs"]
        (run,) = made.runs()
        shown = json.loads(made.ds_flow("show", run.batch, "--json").stdout)["jobs"]
        pages = [made.ds_flow(*words).stdout for words in (["runs"], ["explain", "student_00.csv"])]
        cancelled = made.ds_flow("cancel", run.batch)
        until("it was cancelled", lambda: made.runs()[0].state == RunState.CANCELLED)
        made.stop()

        assert cancelled.returncode == 0
        assert (of_status["stage"], of_status["pending"]) == ("process", len(shown))
        assert of_status["native_ids"] == [str(job_id)]
        assert [job["native_id"] for job in shown] == [
            f"{job_id}[{index}]" for index in range(1, len(shown) + 1)
        ]
        for page in pages:
            assert f"process on lsf: {len(shown)} pending since 2" in page
            assert "(New job is waiting for scheduling)" in page
        made.end_everything()


@pytest.mark.exhaustive
def test_cancel_leaves_no_job(project: Project, cluster: Cluster) -> None:
    gate = project.gate("held")
    held(project, cluster)
    project.start()
    gate.wait()
    (run,) = project.runs()

    done = project.ds_flow("cancel", run.batch)

    assert done.returncode == 0, done.stderr
    until("it was cancelled", lambda: project.runs()[0].state == RunState.CANCELLED)
    assert [job for job in cluster.jobs() if not job.ended_at] == []
    project.stop()
    assert not project.leftovers()
    gate.open()


@pytest.mark.exhaustive
def test_a_batch_that_is_cancelled_between_two_attempts_leaves_no_job(
    project: Project, cluster: Cluster
) -> None:
    project.configure(compute=ON_LSF, paths=PATHS, run={"stop_grace_seconds": 0})
    gate = project.gate("held")
    held(project, cluster)
    project.start()
    gate.wait()
    project.stop()
    assert [job for job in cluster.jobs() if not job.ended_at]  # a stop leaves it alone

    done = project.ds_flow("cancel", project.runs()[0].batch)

    assert done.returncode == 0, done.stderr
    with project.reading() as read:
        assert [batch.state for batch in read.batches_in(BatchState.CANCELLED)]
    assert [job for job in cluster.jobs() if not job.ended_at] == []
    assert not project.leftovers()
    gate.open()


@pytest.mark.exhaustive
def test_a_stage_that_lsf_refuses_fails_with_lsf_s_words(project: Project) -> None:
    project.configure(compute={**ON_LSF, "lsf_queue": "nosuch"}, paths=PATHS, run={"attempts": 1})
    project.drop("student_a.csv", table("a"))

    done = project.once()

    assert done.returncode == 1
    assert "nosuch: No such queue" in json.dumps(project.runs()[0].error)


@pytest.mark.exhaustive
def test_check_runs_a_job_for_each_stage_on_lsf(project: Project) -> None:
    (project.out / ".work").mkdir(parents=True)

    said = project.ds_flow("check").stdout

    for stage in ("process", "combine", "analyze"):
        (line,) = [one for one in said.splitlines() if f" {stage} on lsf (short)" in one]
        assert re.search(r"^ok .* a job ran on ", line), line
    assert re.search("ok +lsf +answers", said)
    assert not project.leftovers()


@pytest.mark.exhaustive
def test_check_tells_what_lsf_refuses(project: Project) -> None:
    project.configure(compute={**ON_LSF, "lsf_queue": "nosuch"}, paths=PATHS)

    done = project.ds_flow("check")

    assert done.returncode == SettingsError.exit_code
    assert re.search(r"fault +process on lsf \(nosuch\) +bsub refused", done.stdout)
    assert "No such queue" in done.stdout


@pytest.mark.exhaustive
def test_a_cluster_that_is_down_is_a_fault_as_an_engine_that_is_down_is(
    project: Project, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.fault("down", mode="fail", stream="stderr")
    on_lsf = project.ds_flow("check")
    cluster.mend("down")
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n")
    engine.chmod(0o755)
    docker = {"executor": "docker", "docker_image": "own", "docker_command": str(engine)}
    project.configure(compute=docker, paths=PATHS)
    on_docker = project.ds_flow("check")

    assert re.search(r"^fault +lsf +unreachable \(.*Cannot connect", on_lsf.stdout, re.MULTILINE)
    assert re.search(r"^fault +docker .*Cannot connect", on_docker.stdout, re.MULTILINE)
    assert on_lsf.returncode == on_docker.returncode == SettingsError.exit_code


def test_what_is_there_can_be_read_where_no_lsf_is(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)

    assert project.ds_flow("status", "--json").returncode == 0
    assert "no program 'bsub' on PATH" in project.ds_flow("once").stderr


@pytest.mark.exhaustive
def test_an_analysis_on_lsf_is_done_again_by_the_job_that_an_interrupted_call_submitted(
    project: Project, cluster: Cluster
) -> None:
    gate = project.gate("analysis")
    fails, waits = ["false"], ["flock", "-s", str(gate.path), "echo", "passed"]
    stages = {"process": {"executor": "local"}, "combine": {"executor": "local"}}
    project.configure(
        compute={**ON_LSF, "stages": {**stages, "analyze": {"command": fails}}}, paths=PATHS
    )
    project.drop("student_a.csv", table("a"))
    assert project.once().returncode == 1
    run_id = str(project.runs()[0].run_id)
    project.configure(
        compute={**ON_LSF, "stages": {**stages, "analyze": {"command": waits}}}, paths=PATHS
    )
    before = len(cluster.calls("bsub"))
    call = subprocess.Popen(
        project.command("rerun", "--analyze", run_id), env=project.environ(), process_group=0
    )
    until("the analysis waits", lambda: gate.is_reached, while_lives=call)
    for pid in [call.pid, *project.processes("analyze_again.py")]:
        os.kill(pid, signal.SIGKILL)
    call.wait()
    gate.open()

    done = project.ds_flow("rerun", "--analyze", run_id)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(cluster.calls("bsub")) == before + 1
    shown = json.loads(project.ds_flow("show", run_id, "--json").stdout)
    assert shown["analysis"]["stdout"].startswith("passed ")
    assert not project.leftovers()
