"""Whether the backends in use answer: what the runs and the daemon know, without asking anew."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from ds_flow.core import Document
from ds_flow.settings import Settings
from ds_flow.upkeep import Heard, Record

ANSWERS, SILENT, UNKNOWN = "answers", "silent", "unknown"


def engine_document(
    settings: Settings,
    record: Record | None,
    jobs: Iterable[Document],
    asked: Mapping[str, str],
    now: datetime,
) -> Document:
    """One entry for each backend in use. `asked`: what a question of our own has brought."""
    stages: dict[str, list[str]] = {}
    for name, stage in settings.stages.items():
        stages.setdefault(stage.executor, []).append(name)
    heard = {one.backend: one for one in record.heard} if record else {}
    at = now.isoformat()
    for name, why in asked.items():
        heard[name] = Heard(backend=name, why=why, since=at, asked_at=at)
    silent = {row["backend"]: why for row in jobs for why in row["silent"]}
    return {
        "backends": [
            _backend(name, used, heard.get(name), silent.get(name, ""))
            for name, used in stages.items()
        ]
    }


def _backend(name: str, stages: list[str], heard: Heard | None, silent: str) -> Document:
    """A run's own word of a silence counts first: it is what holds the run up."""
    why = silent or (heard.why if heard else "")
    state = UNKNOWN
    if why:
        state = SILENT
    elif heard or name == "local":
        state = ANSWERS
    return {
        "backend": name,
        "stages": stages,
        "state": state,
        "why": why,
        "since": heard.since if heard and bool(heard.why) == bool(why) else None,
        "asked_at": heard.asked_at if heard else None,
    }
