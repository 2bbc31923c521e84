"""What the settings may not be together, though each alone is possible."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ds_flow.core import CHECKOUT, STAGES
from ds_flow.settings import globs
from ds_flow.settings.resolved import Settings
from ds_flow.settings.sources import Loc

Broken = tuple[Loc, str]
"""The key to change, and what is wrong."""

_RUN_ID = "1700000000000000"


def broken(settings: Settings, path: str | None) -> Iterator[Broken]:
    """Give every rule that the settings break. `path`: where backends' programs have to be."""
    yield from _inbox_apart(settings)
    yield from _inbox_alone(settings)
    yield from _ledger_apart(settings)
    if path is not None:
        yield from _backends_there(settings, path)
    yield from _names_apart(settings)


def _inbox_apart(settings: Settings) -> Iterator[Broken]:
    """Nothing that ds-flow writes may be an input, or each run would bring the next."""
    pattern = _real_pattern(settings.pattern)
    inbox, _ = globs.split(pattern)
    if Path(inbox).is_relative_to(os.path.realpath(settings.work_root)):
        yield ("paths", "input_pattern"), "lies in the work directory; take a folder of its own"
    for key, folder, names in _written(settings, pattern):
        real = os.path.realpath(folder)
        met = [name for name in names if globs.matches(pattern, f"{real}/{name}")]
        if met:
            shown = settings.paths.input_pattern
            wrong = f"files written there, like {met[0]}, would match input_pattern {shown!r}"
            yield ("paths", key), f"{wrong}; take another folder or a narrower pattern"


def _real_pattern(pattern: str) -> str:
    folder, names = globs.split(pattern)
    return "/".join([os.path.realpath(folder).rstrip("/"), *names])


def _written(settings: Settings, pattern: str) -> Iterator[tuple[str, Path, list[str]]]:
    """Give for each place of our own its key, its folder, and names like those made there."""
    name = globs.example(pattern.rpartition("/")[2])
    stem = name.rpartition(".")[0] or name
    outputs = [f"processed_{stem}_{_RUN_ID}.csv", f"processed_x_{_RUN_ID}.csv"]
    others = [f"final_combined_{_RUN_ID}.csv", f"manifest_{_RUN_ID}.json"]
    inner = [f".work/0123456789/results/0/{stem}.0.csv"]
    inner.append(f"removed/manifest_{_RUN_ID}.json")
    yield "output_dir", settings.output_dir, [*outputs, *others, *inner]
    yield "log_dir", settings.log_dir, ["ds-flow.log", "ds-flow.log.1"]
    ledger = settings.ledger
    yield "ledger", ledger.parent, [f"{ledger.name}{end}" for end in ("", "-wal", "-shm")]


def _inbox_alone(settings: Settings) -> Iterator[Broken]:
    """Nothing of our own may lie in the inbox: droppers can change it, and containers read it."""
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
        wrong = f"whoever may drop files into {inbox} could change {', '.join(held)}"
        yield ("paths", "input_pattern"), f"{wrong}; give the inbox a folder of its own"


def _is_in(folder: str, place: Path) -> bool:
    return Path(os.path.realpath(place)).is_relative_to(folder)


def _ledger_apart(settings: Settings) -> Iterator[Broken]:
    if settings.ledger in {settings.output_dir, settings.log_dir, settings.root}:
        yield ("paths", "ledger"), "is a folder; name a file in it, like ledger.db"
    elif settings.ledger.is_relative_to(settings.work_root):
        yield ("paths", "ledger"), "lies in the work directory; take another folder"


def _backends_there(settings: Settings, path: str) -> Iterator[Broken]:
    """What a stage runs on has to be there when the daemon starts, not at night."""
    stages = {name: settings.stages[name].executor for name in STAGES}
    if "lsf" in stages.values():
        yield from _lsf_there(settings, path)
    for name in (name for name in STAGES if stages[name] == "docker"):
        program = settings.compute.docker_command
        if shutil.which(program, path=path) is None:
            where = "is not on PATH; install it, or set compute.docker_command"
            yield _executor_key(settings, name), f"docker: the program {program!r} {where}"
        if not settings.stages[name].image:
            wrong = "docker needs an image: set compute.docker_image"
            yield _executor_key(settings, name), wrong


def _lsf_there(settings: Settings, path: str) -> Iterator[Broken]:
    name = next(name for name in STAGES if settings.stages[name].executor == "lsf")
    if shutil.which("bsub", path=path) is None:
        where = "source LSF's profile for the daemon, or take another executor"
        yield _executor_key(settings, name), f"lsf: there is no bsub on PATH; {where}"
    if settings.ledger.is_relative_to(settings.output_dir):
        wrong = "with lsf, output_dir is on a shared file system, and the ledger needs a local disk"
        yield ("paths", "ledger"), f"{wrong}; name a file elsewhere"


def _executor_key(settings: Settings, stage: str) -> Loc:
    """Name the key that chose a stage's executor: its own, or the common one."""
    own = getattr(settings.compute.stages, stage).executor
    return ("compute", "stages", stage, "executor") if own else ("compute", "executor")


def _names_apart(settings: Settings) -> Iterator[Broken]:
    names = [one.name for one in settings.schedule]
    for position, name in enumerate(names):
        if name in names[:position]:
            yield (
                ("schedule", str(position), "name"),
                f"{name!r} is another schedule's name already",
            )
