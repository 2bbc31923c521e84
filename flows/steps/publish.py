"""The last step: the manifest of a run, and its publication."""

import hashlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ds_flow.core import (
    DispatchError,
    Input,
    LedgerError,
    Manifest,
    Output,
    Plan,
    Rejected,
    compare_manifests,
    output_stems,
)
from ds_flow.dispatch import rounds_in, stage_of
from ds_flow.system import read_word
from ds_flow.work import (
    Batch,
    Result,
    git_commit,
    has_settings,
    manifest_name,
    measured,
    publish,
    read_manifest,
    settings_fingerprint,
)
from steps.combine import parquet_of
from steps.drift import compare_inputs
from steps.file_results import file_results, union
from steps.profiles import put_profile
from steps.union_limit import APPENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What Metaflow and the steps before know of this run."""

    flow: str
    run_id: str
    started_at: str
    combined: Path | None
    analysis: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a run published. Paths are relative to the project."""

    manifest: Manifest
    files: list[str]  # the manifest's own file is the last
    combined: str | None


def finish(batch: Batch, run: Run) -> Published:
    """Publish the batch and say what was published."""
    plan = batch.plan
    good, bad = file_results(batch)
    stems = output_stems(file.path for file in plan.files)
    folder = batch.results.folder
    sources = {
        f"processed_{stems[item.path]}_{run.run_id}.csv": folder / item.output for item in good
    }
    outputs = [
        _output(name, source, item)
        for (name, source), item in zip(sources.items(), good, strict=True)
    ]
    if run.combined is not None:
        name = f"final_combined_{run.run_id}.csv"
        sources[name] = run.combined
        outputs.append(_combined_output(name, run.combined, good))
        if plan.options.parquet:
            name = f"final_combined_{run.run_id}.parquet"
            sources[name] = parquet_of(run.combined)
            outputs.append(_combined_output(name, sources[name], good))
    manifest = compare(plan, _manifest(batch, run, outputs, good, bad))
    if profile := put_profile(batch, run.run_id, good):
        sources[profile.name] = profile
        manifest = replace(manifest, profile=profile.name)
    manifest = publish(batch, manifest, sources)
    out = os.path.relpath(plan.options.output_dir, plan.options.root)
    names = [*(output.name for output in manifest.outputs), manifest_name(manifest.run_id)]
    joined = [f"{out}/{output.name}" for output in manifest.outputs if not output.source]
    return Published(
        manifest=manifest,
        files=[f"{out}/{name}" for name in names],
        combined=joined[0] if joined else None,
    )


def _manifest(
    batch: Batch,
    run: Run,
    outputs: Sequence[Output],
    good: Sequence[Result],
    bad: Sequence[Rejected],
) -> Manifest:
    plan, attempt = batch.plan, batch.own_attempt()
    compared = compare_inputs(batch, good)
    return Manifest(
        schema=1,
        project=plan.options.project_name,
        run_id=run.run_id,
        pathspec=f"{run.flow}/{run.run_id}",
        flow=run.flow,
        batch=plan.batch,
        trigger=plan.trigger,
        attempt=attempt,
        attempts=tuple(_attempts(batch)),
        tag=plan.options.tag,
        host=socket.gethostname(),
        user=os.environ.get("METAFLOW_USER", ""),
        started_at=run.started_at,
        published_at=now(),
        code_fingerprint=batch.code_fingerprint,
        git_commit=git_commit(),
        settings_fingerprint=settings_fingerprint(plan.options),
        inputs=tuple(map(_input, good, compared.which)),
        outputs=tuple(outputs),
        rejected=tuple(bad),
        jobs=tuple(job_rows(batch)),
        analysis=run.analysis,
        selection=plan.selection,
        columns=union([item.columns for item in good]) if good else (),
        transform=next((item.transform for item in good), ""),
        shapes=compared.shapes,
        drift=compared.marks,
    )


def compare(plan: Plan, manifest: Manifest) -> Manifest:
    """Compare with the last run of the same selection, if there is one that can be read."""
    path = Path(plan.options.output_dir, manifest_name(plan.compare_with))
    try:
        old = read_manifest(path)
    except (LedgerError, OSError):
        return manifest
    is_same = has_settings(old, plan.options)
    return compare_manifests(manifest, old, has_same_settings=is_same)


def now() -> str:
    """Give the present time as manifests have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _input(item: Result, shape: int | None) -> Input:
    return Input(
        path=item.path,
        version=item.version,
        sha256=item.sha256,
        bytes=item.bytes,
        rows=item.rows,
        columns=len(item.columns) - APPENDED,
        delimiter=item.delimiter,
        encoding=item.encoding,
        format=item.format,
        notes=item.notes,
        shape=shape,
        rows_read=item.rows_read,
        empty=() if shape is None else item.empty,
    )


def _output(name: str, source: Path, item: Result) -> Output:
    """Say what is to be published, by this process's own reading: the verdict is a job's word."""
    if measured(source) != (item.output_sha256, item.output_bytes):
        raise DispatchError(f"{item.path}: its output is not what the verdict on it says")
    return Output(
        name=name,
        source=item.path,
        sha256=item.output_sha256,
        bytes=item.output_bytes,
        rows=item.rows,
        content_sha256=item.content_sha256,
    )


def _combined_output(name: str, path: Path, good: Sequence[Result]) -> Output:
    sha256, size_bytes = measured(path)
    return Output(
        name=name,
        source="",
        sha256=sha256,
        bytes=size_bytes,
        rows=sum(item.rows for item in good),
        content_sha256=_content_of_all(good),
    )


def _content_of_all(good: Sequence[Result]) -> str:
    """The combined file holds the others' content, in their order."""
    parts = "\n".join(item.content_sha256 for item in good)
    return hashlib.sha256(parts.encode()).hexdigest()


def _attempts(batch: Batch) -> Iterator[dict[str, Any]]:
    for folder in sorted((batch.folder / "attempts").iterdir(), key=lambda path: int(path.name)):
        yield {
            "attempt": int(folder.name),
            "run_id": read_word(folder / "run_id"),
            "exit_code": read_word(folder / "exit_code"),
            "error": read_word(folder / "error"),
        }


def job_rows(batch: Batch) -> Iterator[dict[str, Any]]:
    """Give every job of closed rounds as a row of a manifest."""
    for part in sorted(batch.jobs.iterdir()):
        for batch_round in rounds_in(part):
            backend = batch_round.executor
            for outcome in batch_round.outcomes() or ():
                job = batch_round.jobs[outcome.index - 1]
                yield {
                    "stage": stage_of(part),
                    **asdict(outcome),
                    "backend": backend,
                    "cpus": job.cpus,
                    "memory_mb": job.memory_mb,
                    "limit_minutes": job.limit_minutes,
                    "queue": job.queue if backend in ("lsf", "slurm") else "",
                    "image": job.image if backend == "docker" else "",
                }
