"""Rules about several settings together. Each setting alone is already valid."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ds_flow.core import CHECKOUT, STAGES, Marker, example, matches, root_problem, split, stem_of
from ds_flow.settings.resolved import Settings
from ds_flow.settings.sources import Loc

Broken = tuple[Loc, str]
"""The key to change, and the problem."""

CLUSTERS = {
    "lsf": ("bsub", "source LSF's profile before the daemon starts"),
    "slurm": ("sbatch", "install Slurm's commands"),
}
"""What submits jobs there, and what to do where that is missing."""

_RUN_ID = "1700000000000000"


def broken(settings: Settings, path: str | None) -> Iterator[Broken]:
    """List the rules that the settings break.

    `path`: where the backends' programs must be; None for not checking that.
    """
    root = str(settings.root)
    if settings.pattern.startswith(f"{root}/") and (problem := root_problem(root)):
        yield ("paths", "input_pattern"), problem
        return
    yield from _outputs_outside_inbox(settings)
    yield from _inbox_apart(settings)
    yield from _kept_apart(settings)
    yield from _ledger_is_file(settings)
    if path is not None:
        yield from _backends_installed(settings, path)
    yield from _names_unique(settings)
    yield from _markers_apart(settings)


def _outputs_outside_inbox(settings: Settings) -> Iterator[Broken]:
    """Nothing that ds-flow writes may be an input, or each run would start the next."""
    pattern = _real_pattern(settings.pattern)
    inbox, _ = split(pattern)
    if Path(inbox).is_relative_to(os.path.realpath(settings.work_root)):
        yield ("paths", "input_pattern"), "is in the work directory; use another folder"
    for key, folder, names in _written(settings, pattern):
        real = os.path.realpath(folder)
        met = [name for name in names if matches(pattern, f"{real}/{name}")]
        if met:
            shown = settings.paths.input_pattern
            problem = f"files written there, like {met[0]}, would match input_pattern {shown!r}"
            yield ("paths", key), f"{problem}; use another folder or a narrower pattern"


def _real_pattern(pattern: str) -> str:
    folder, names = split(pattern)
    return "/".join([os.path.realpath(folder).rstrip("/"), *names])


def _written(settings: Settings, pattern: str) -> Iterator[tuple[str, Path, list[str]]]:
    """List each place that ds-flow writes to: its key, its folder, and examples of names."""
    name = example(pattern.rpartition("/")[2])
    stem = stem_of(name)
    outputs = [f"processed_{stem}_{_RUN_ID}.csv", f"processed_x_{_RUN_ID}.csv"]
    others = [f"final_combined_{_RUN_ID}.csv", f"manifest_{_RUN_ID}.json"]
    others += [f"profile_{_RUN_ID}.json", f"final_combined_{_RUN_ID}.parquet"]
    inner = [f".work/0123456789/results/0/{stem}.0.csv"]
    inner.append(f"removed/manifest_{_RUN_ID}.json")
    yield "output_dir", settings.output_dir, [*outputs, *others, *inner]
    yield "log_dir", settings.log_dir, ["ds-flow.log", "ds-flow.log.1"]
    ledger = settings.ledger
    yield "ledger", ledger.parent, [f"{ledger.name}{end}" for end in ("", "-wal", "-shm")]


def _inbox_apart(settings: Settings) -> Iterator[Broken]:
    """None of our own files may be in the inbox: senders can change it, containers can read it."""
    inbox = os.path.realpath(settings.inbox)
    own = {
        "the project with its `.env`": (settings.root, settings.root / ".env"),
        "the settings": (settings.file.parent, settings.file),
        "flows/": (settings.root / "flows",),
        "ds-flow itself": (CHECKOUT, *(CHECKOUT / name for name in ("daemon", "flows", "bash"))),
        "output_dir": (settings.output_dir,),
        "log_dir": (settings.log_dir,),
        "the ledger": (settings.ledger,),
    }
    held = [name for name, places in own.items() if any(_is_in(inbox, place) for place in places)]
    if held:
        problem = f"anyone who can write to {inbox} could change {', '.join(held)}"
        yield ("paths", "input_pattern"), f"{problem}; give the inbox its own folder"


def _kept_apart(settings: Settings) -> Iterator[Broken]:
    """What has left the inbox must not be an input again, nor be what senders can change."""
    inbox = os.path.realpath(settings.inbox)
    places = {"archive_dir": settings.archive_dir, "rejected_dir": settings.rejected_dir}
    is_used = {
        "archive_dir": settings.inbox_rules.after == "archive",
        "rejected_dir": settings.inbox_rules.rejected == "move",
    }
    for key in (key for key in places if is_used[key]):
        real = Path(os.path.realpath(places[key]))
        if real.is_relative_to(inbox) or Path(inbox).is_relative_to(real):
            yield ("inbox", key), f"must be apart from the inbox {inbox}; use another folder"
        elif real.is_relative_to(os.path.realpath(settings.work_root)):
            yield ("inbox", key), "is in the work directory; use another folder"
    if all(is_used.values()) and len(set(map(os.path.realpath, places.values()))) == 1:
        yield ("inbox", "rejected_dir"), "is archive_dir, too; use another folder"


def _is_in(folder: str, place: Path) -> bool:
    return Path(os.path.realpath(place)).is_relative_to(folder)


def _ledger_is_file(settings: Settings) -> Iterator[Broken]:
    if settings.ledger in {settings.output_dir, settings.log_dir, settings.root}:
        yield ("paths", "ledger"), "is a folder; name a file in it, such as ledger.db"
    elif settings.ledger.is_relative_to(settings.work_root):
        yield ("paths", "ledger"), "is in the work directory; use another folder"


def _backends_installed(settings: Settings, path: str) -> Iterator[Broken]:
    """Missing programs are found at start-up, and not when the first batch arrives at night."""
    stages = {name: settings.stages[name].executor for name in STAGES}
    for executor in sorted(CLUSTERS.keys() & stages.values()):
        yield from _cluster_installed(settings, executor, path)
    for name in (name for name in STAGES if stages[name] == "docker"):
        program = settings.compute.docker_command
        if shutil.which(program, path=path) is None:
            advice = "install it, or set compute.docker_command"
            yield _executor_key(settings, name), f"docker: no program {program!r} on PATH; {advice}"
        if not settings.stages[name].image:
            problem = "docker needs an image; set compute.docker_image"
            yield _executor_key(settings, name), problem


def _cluster_installed(settings: Settings, executor: str, path: str) -> Iterator[Broken]:
    name = next(name for name in STAGES if settings.stages[name].executor == executor)
    program, advice = CLUSTERS[executor]
    if shutil.which(program, path=path) is None:
        problem = f"{executor}: no program {program!r} on PATH; {advice}, or use another executor"
        yield _executor_key(settings, name), problem
    if settings.ledger.is_relative_to(settings.output_dir):
        problem = (
            f"with {executor}, output_dir is on a shared file system,"
            " but the ledger needs a local disk"
        )
        yield ("paths", "ledger"), f"{problem}; set another file"


def _executor_key(settings: Settings, stage: str) -> Loc:
    """Return the key that sets a stage's executor: its own, or the common one."""
    own = getattr(settings.compute.stages, stage).executor
    return ("compute", "stages", stage, "executor") if own else ("compute", "executor")


def _markers_apart(settings: Settings) -> Iterator[Broken]:
    """No input is a marker: a file cannot say of itself that it is complete."""
    if not settings.watch.marker:
        return
    name = example(settings.pattern.rpartition("/")[2])
    if Marker.parse(settings.watch.marker).fits(name):
        problem = f"every input, such as {name}, would be a marker; use another ending"
        yield ("watch", "marker"), problem


def _names_unique(settings: Settings) -> Iterator[Broken]:
    names = [one.name for one in settings.schedule]
    for position, name in enumerate(names):
        if name in names[:position]:
            yield (
                ("schedule", str(position), "name"),
                f"another schedule is named {name!r}",
            )
