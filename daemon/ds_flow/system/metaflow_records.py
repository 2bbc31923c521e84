"""What Metaflow has recorded of a run in the project's store: its steps, tasks and artifacts.

Metaflow's local records are the documents that it would send to a service, one in each file.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ds_flow.core import BatchError, Document
from ds_flow.system.durable import read_json
from ds_flow.system.metaflow_store import FLOW_NAME, store_folder

META = "_meta"
MOST_BYTES = 2**20  # of one document


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task: its own document, what is known of it, and what it has stored."""

    step: str
    name: str
    document: Document
    metadata: tuple[Document, ...]
    artifacts: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run, as far as it has come."""

    document: Document
    steps: dict[str, Document]
    tasks: tuple[TaskRecord, ...]


def run_record(root: Path, run_id: str) -> RunRecord | None:
    """Read the record of a run; None if there is none, or none any more."""
    folder = store_folder(root) / FLOW_NAME / run_id
    document = _document(folder / META / "_self.json")
    if Path(run_id).name != run_id or document is None:
        return None
    steps = {
        step.name: found
        for step in _folders(folder)
        if (found := _document(step / META / "_self.json")) is not None
    }
    steps = dict(sorted(steps.items(), key=lambda one: _time(one[1])))
    tasks = [task for step in steps for task in _tasks(folder / step)]
    return RunRecord(document, steps, tuple(sorted(tasks, key=lambda one: _time(one.document))))


def _tasks(step: Path) -> Iterator[TaskRecord]:
    for task in _folders(step):
        document = _document(task / META / "_self.json")
        if document is not None:
            metadata = [_as_text(one) for one in _documents(task / META, "sysmeta_")]
            artifacts = [
                one for n in range(10) for one in _documents(task / META, f"{n}_artifact_")
            ]
            yield TaskRecord(step.name, task.name, document, tuple(metadata), tuple(artifacts))


def _documents(folder: Path, start: str) -> list[Document]:
    found = (_document(path) for path in folder.glob(f"{start}*.json"))
    return sorted((one for one in found if one is not None), key=_time)


def _document(path: Path) -> Document | None:
    """Read a document; None if it is gone, or of another kind."""
    with suppress(BatchError, OSError):
        found: Any = read_json(path, MOST_BYTES)
        return found if isinstance(found, dict) else None
    return None


def _as_text(document: Document) -> Document:
    """A value of metadata is text in a service; Metaflow records some as lists."""
    value = document.get("value")
    return document if isinstance(value, str) else {**document, "value": json.dumps(value)}


def _time(document: Document) -> float:
    at = document.get("ts_epoch")
    return at if isinstance(at, int | float) else 0.0


def _folders(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        return [
            Path(one.path)
            for one in entries
            if one.name != META and one.is_dir(follow_symlinks=False)
        ]
    return []
