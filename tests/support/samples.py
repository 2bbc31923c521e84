"""Small values of the model's types, all fields filled in."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import replace

from clock import NOON
from ds_flow.core.manifest import Input, Manifest, Output, Rejected
from ds_flow.core.plan import Options, Plan, PlannedFile, StageOptions
from ds_flow.core.states import Cause, Settled, Sighting, Stat
from ds_flow.work.results import Result, Results

# Tests end a batch by its mark on processes, and engines are shared by all who test on a machine.
# So each worker of each test run has ids of its own. What it starts has them, too.
RUN = os.environ.setdefault("SAMPLES_RUN", secrets.token_hex(8))
WORKER = RUN + os.environ.get("PYTEST_XDIST_WORKER", "")
OWN = hashlib.sha256(WORKER.encode()).hexdigest()[:9]
BATCH, OTHER_BATCH = f"0{OWN}", f"f{OWN}"

NOTHING_PUBLISHED = Manifest(
    schema=1,
    project="sample",
    run_id="1",
    pathspec="StudentFlow/1",
    flow="StudentFlow",
    batch=BATCH,
    trigger="arrival",
    attempt=1,
    attempts=(),
    tag="",
    host="here",
    user="me",
    started_at=NOON.isoformat(),
    published_at=NOON.isoformat(),
    code_fingerprint="c" * 64,
    git_commit="",
    settings_fingerprint="d" * 64,
    inputs=(),
    outputs=(),
    rejected=(),
    jobs=(),
    analysis=None,
)


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def settled(path: str, content: str | None, at: int = 1, cause: Cause | None = None) -> Settled:
    """One file as fingerprinted; `at` stands for when it was last changed."""
    return Settled(
        sighting=Sighting(path, Stat(1, 1, len(content or ""), at, at)),
        sha256=None if content is None else sha256(content),
        cause=cause,
        reason="cannot be read" if cause else "",
    )


def planned(path: str, size_bytes: int = 1) -> PlannedFile:
    return PlannedFile(path=path, version=1, sha256=sha256(path), size_bytes=size_bytes)


def read(path: str, content: str, version: int | None = 1) -> Input:
    return Input(
        path=path, version=version, sha256=sha256(content), bytes=len(content), rows=1, columns=1
    )


def rejected(
    path: str, cause: str, content: str | None = None, version: int | None = 1
) -> Rejected:
    return Rejected(
        path=path,
        version=version,
        sha256=None if content is None else sha256(content),
        cause=cause,
        reason=f"it is {cause}",
    )


def manifest(
    run_id: str = "1",
    *,
    batch: str = BATCH,
    attempt: int = 1,
    inputs: Iterable[Input] = (),
    rejects: Iterable[Rejected] = (),
    trigger: str = "arrival",
) -> Manifest:
    """What a run published that read `inputs`, each with one output of its own."""
    good = tuple(inputs)
    return replace(
        NOTHING_PUBLISHED,
        run_id=run_id,
        pathspec=f"StudentFlow/{run_id}",
        batch=batch,
        trigger=trigger,
        attempt=attempt,
        inputs=good,
        outputs=tuple(output(run_id, number, item) for number, item in enumerate(good)),
        rejected=tuple(rejects),
    )


def output(run_id: str, number: int, item: Input) -> Output:
    name = f"processed_{number}_{run_id}.csv"
    return Output(name=name, source=item.path, sha256=item.sha256, bytes=item.bytes, rows=1)


OPTIONS = Options(
    project_name="sample",
    root="/project",
    output_dir="/project/out",
    log_dir="/project/log",
    stages={"analyze": StageOptions()},
)
PLAN = Plan(
    batch=BATCH, trigger="arrival", formed_at="now", files=(planned("a.csv"),), options=OPTIONS
)


def result(results: Results, stem: str, content: str = "1\n") -> Result:
    """A finished output that no verdict names yet."""
    output = results.temporary(stem)
    output.write_text(content)
    return Result(
        path=f"data/{stem}.csv",
        version=1,
        sha256=sha256(stem),
        bytes=1,
        rows=1,
        columns=("id",),
        output=output.name,
        output_sha256=sha256(content),
        output_bytes=len(content),
    )
