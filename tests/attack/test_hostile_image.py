"""A daemon's whole life beside an image that does whatever it can: it harms its own files only."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds_flow.core.states import FileState
from engine import docker, engine, names_of, small_image
from project import Project, table

# In place of python3: it is told the script, the batch's folder, that for results, and positions.
HOSTILE = r"""#!/bin/bash
work=$2 results=$3
busybox() { /bin/busybox "$@" 2>/dev/null; }
cd "$results" || exit 3
busybox yes "a log without end" | busybox head -c 20000000
busybox truncate -s 900G huge.json
busybox mknod device.json c 1 8
busybox mkfifo student_0.json
busybox ln -s "$work/batch.json" student_1.json
busybox ln -s /etc/passwd passwd.json
busybox cp /bin/busybox shell; busybox chmod 6755 shell
for ((number = 0; number < 2000; number++)); do : >"file-$number.json"; done
busybox mkdir -p "$(printf 'n/%.0s' {1..1100})"
for place in "$work" "$work/.." "$work/../.." "$work/../../../data" /proc/sys/kernel; do
    busybox touch "$place/pwned"; busybox rm -rf "$place"/*.csv "$place"/ledger*
done
busybox chmod 0 "$results"
"""
ENDS = {
    "with everything killed": "busybox kill -9 -1\n",
    "beside a process that stays": "busybox sleep 100000 &\nexit 0\n",
}


@pytest.fixture(autouse=True)
def running(tmp_path: Path) -> Iterator[None]:
    with engine():
        yield
    subprocess.run(["rm", "-rf", "--", tmp_path], check=True)  # what pytest could not remove


def image(folder: Path, end: str) -> str:
    """An image with such a python3."""
    folder.mkdir()
    (folder / "python3").write_text(HOSTILE + end)
    (folder / "python3").chmod(0o755)
    (folder / "Dockerfile").write_text(f"FROM {small_image()}\nCOPY python3 /bin/python3\n")
    tag = "ds-flow-test/hostile-life"
    docker("build", "--quiet", "--network=none", f"--tag={tag}", str(folder))
    return tag


def found(folder: Path, name: str) -> bytes:
    """Where a name is; also in folders that are too deep for Python."""
    return subprocess.run(["find", folder, "-name", name], capture_output=True, check=True).stdout


def published(project: Project) -> dict[str, str]:
    """Every output, with its hash."""
    files = [path for path in project.out.iterdir() if path.suffix in {".csv", ".json"}]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.exhaustive
@pytest.mark.parametrize("end", ENDS)
def test_an_image_that_does_all_it_can_harms_its_own_files_alone(tmp_path: Path, end: str) -> None:
    project = Project(tmp_path / "project")
    project.drop("student_before.csv", table("before"))
    assert project.once().returncode == 0
    before = published(project)

    hostile = {"executor": "docker", "image": image(tmp_path / "image", ENDS[end])}
    project.configure(compute={"stages": {"process": hostile}}, run={"attempts": 1})
    for number in range(3):
        project.drop(f"student_{number}.csv", table(str(number)))
    ended = project.once()
    assert ended.returncode == 1, ended.stderr
    assert published(project) == before
    assert not found(tmp_path, "pwned")
    assert names_of("ds-flow.round") == []

    project.configure()
    project.drop("student_after.csv", table("after"))
    project.once()
    with project.reading() as read:
        states = {row.path: row.state for row in read.files()}
    assert states.pop("data/student_before.csv") == FileState.PROCESSED
    assert states.pop("data/student_after.csv") == FileState.PROCESSED
    assert set(states.values()) == {FileState.QUARANTINED}
    assert before.items() <= published(project).items()
    assert len(published(project)) == len(before) + 4
    assert project.ds_flow("verify").returncode == 0
    assert project.status()["accounted"]
