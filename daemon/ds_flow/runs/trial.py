"""Try one file: read and transform it as a run does, in a folder of its own."""

import os
import secrets
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ds_flow.core import (
    ATTEMPT_MARK,
    CHECKOUT,
    HOSTILE_NAME,
    Cause,
    DispatchError,
    Document,
    Options,
    Plan,
    PlannedFile,
    RequestError,
    Trigger,
    escape,
    is_hostile,
)
from ds_flow.runs.launch import kill_marked
from ds_flow.settings import Settings
from ds_flow.system import mask, read_json
from ds_flow.work import Batch

SCRIPT = CHECKOUT / "flows" / "steps" / "try_file.py"
LAST_WORDS_BYTES = 2**14
MOST_BYTES = 2**28  # of what it leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is tried, and for how long at most."""

    file: Path  # absolute
    rows: int
    limit_minutes: float


def try_file(settings: Settings, trial: Trial) -> Document:
    """Say what a run would make of a file. Raises RequestError if there is none.

    Nothing is written into the project. Whatever happens, no process and no file is left.
    """
    if not trial.file.is_file():
        raise RequestError(
            f"{trial.file}: {'no file' if trial.file.exists() else 'it is not there'}"
        )
    size = trial.file.stat().st_size
    facts = {"file": _name(settings, trial.file), "bytes": size}
    if size > settings.watch.max_mb * 2**20:
        why = f"too large: {-(-size // 2**20)} MiB, and watch.max_mb is {settings.watch.max_mb}"
        return {**facts, **_UNREAD, "reason": why}
    if is_hostile(str(trial.file)):
        return {**facts, **_UNREAD, "cause": Cause.NAME, "reason": HOSTILE_NAME}
    with tempfile.TemporaryDirectory(prefix="ds-flow-try-") as folder:
        batch = Batch.create(Path(folder), _plan(settings, trial, folder))
        return {**facts, **_tried(settings, batch, trial)}


_UNREAD: Document = {
    "published": False,
    "cause": "unreadable",
    **dict.fromkeys(("rows_read", "rows", "transform_file", "delimiter", "encoding")),
    **dict.fromkeys(("before", "after")),
    "notes": [],
    "printed": "",
}


def _name(settings: Settings, file: Path) -> str:
    """How the ledger names a file: relative to the project, if it is inside."""
    return escape(str(file).removeprefix(f"{settings.root}/"))


def _plan(settings: Settings, trial: Trial, folder: str) -> Plan:
    size = trial.file.stat().st_size
    planned = PlannedFile(
        path=_name(settings, trial.file), version=None, sha256=None, size_bytes=size
    )
    return Plan(
        batch=secrets.token_hex(5),
        trigger=Trigger.MANUAL,
        formed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        files=(planned,),
        options=_options(settings, trial, folder),
    )


def _options(settings: Settings, trial: Trial, folder: str) -> Options:
    """The settings that decide outputs, for a job on this host. A file elsewhere is in no inbox."""
    options = settings.options()
    stage = options.stages["process"]
    limit_minutes = min(stage.limit_minutes, trial.limit_minutes)
    here = replace(stage, executor="local", limit_minutes=limit_minutes)
    return replace(
        options,
        output_dir=folder,
        log_dir=folder,
        inbox=options.inbox if trial.file.is_relative_to(options.inbox) else "",
        stages={**options.stages, "process": here},
    )


def _tried(settings: Settings, batch: Batch, trial: Trial) -> dict[str, Any]:
    """Let a process of its own do it, with the environment of a run. Its jobs have limits."""
    number = batch.new_attempt()
    mark = f"{batch.id}/{number}"
    own = {ATTEMPT_MARK: mark, "TMPDIR": str(batch.scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, str(SCRIPT), str(batch.folder), str(settings.output_dir)]
    with tempfile.TemporaryFile() as said:
        try:
            code = subprocess.run(
                [*words, str(trial.rows)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=settings.root,
                env={**settings.run_environment(os.environ), **own},
                check=False,
            ).returncode
        finally:
            kill_marked(mark)  # an interrupted one leaves its job, and a transform may leave more
        try:
            found: dict[str, Any] = read_json(batch.folder / "tried.json", MOST_BYTES)
        except FileNotFoundError:
            said.seek(max(0, said.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            words_left = mask(said.read().decode(errors="replace").strip(), settings.secrets)
            raise DispatchError(f"it could not be tried: exit code {code}: {words_left}") from None
    return found
