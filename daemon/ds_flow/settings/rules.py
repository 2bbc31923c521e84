"""What the settings may not be together, though each alone is possible."""

import os
from collections.abc import Iterator
from pathlib import Path

from ds_flow.settings import patterns
from ds_flow.settings.resolved import Settings
from ds_flow.settings.sources import Loc

AVAILABLE_EXECUTORS = frozenset({"local"})

Broken = tuple[Loc, str]
"""The key to change, and what is wrong."""

_RUN_ID = "1700000000000000"


def broken(settings: Settings) -> Iterator[Broken]:
    """Give every rule that the settings break."""
    yield from _inbox_apart(settings)
    yield from _ledger_apart(settings)
    yield from _executors_available(settings)


def _inbox_apart(settings: Settings) -> Iterator[Broken]:
    """Nothing that ds-flow writes may be an input, or each run would bring the next."""
    pattern = _real_pattern(settings.pattern)
    inbox, _ = patterns.split(pattern)
    if Path(inbox).is_relative_to(os.path.realpath(settings.work_dir)):
        yield ("paths", "input_pattern"), "lies in the work directory; take a folder of its own"
    for key, folder, names in _written(settings, pattern):
        real = os.path.realpath(folder)
        met = [name for name in names if patterns.matches(pattern, f"{real}/{name}")]
        if met:
            shown = settings.paths.input_pattern
            wrong = f"files written there, like {met[0]}, would match input_pattern {shown!r}"
            yield ("paths", key), f"{wrong}; take another folder or a narrower pattern"


def _real_pattern(pattern: str) -> str:
    folder, globs = patterns.split(pattern)
    return "/".join([os.path.realpath(folder).rstrip("/"), *globs])


def _written(settings: Settings, pattern: str) -> Iterator[tuple[str, Path, list[str]]]:
    """Give for each place of our own its key, its folder, and names like those made there."""
    name = patterns.example(pattern.rpartition("/")[2])
    stem = name.rpartition(".")[0] or name
    outputs = [f"processed_{stem}_{_RUN_ID}.csv", f"processed_x_{_RUN_ID}.csv"]
    others = [f"final_combined_{_RUN_ID}.csv", f"manifest_{_RUN_ID}.json"]
    inner = [f".work/0123456789/results/0/{stem}.0.csv"]
    yield "output_dir", settings.output_dir, [*outputs, *others, *inner]
    yield "log_dir", settings.log_dir, ["ds-flow.log", "ds-flow.log.1"]
    ledger = settings.ledger
    yield "ledger", ledger.parent, [f"{ledger.name}{end}" for end in ("", "-wal", "-shm")]


def _ledger_apart(settings: Settings) -> Iterator[Broken]:
    if settings.ledger in {settings.output_dir, settings.log_dir, settings.root}:
        yield ("paths", "ledger"), "is a folder; name a file in it, like ledger.db"
    elif settings.ledger.is_relative_to(settings.work_dir):
        yield ("paths", "ledger"), "lies in the work directory; take another folder"


def _executors_available(settings: Settings) -> Iterator[Broken]:
    """Name the key that chose an executor: the common one, or a stage's own."""
    chosen: dict[Loc, str | None] = {("compute", "executor"): settings.compute.executor}
    for name in settings.stages:
        own = getattr(settings.compute.stages, name).executor
        chosen["compute", "stages", name, "executor"] = own
    for key, executor in chosen.items():
        if executor is not None and executor not in AVAILABLE_EXECUTORS:
            known = ", ".join(sorted(AVAILABLE_EXECUTORS))
            yield key, f"{executor} is not available in this version; take {known}"
