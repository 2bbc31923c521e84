"""What a running daemon knows and nobody else can find out: it leaves that for `status`."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ds_flow.core import BatchError
from ds_flow.system import put_file, read_json

RECORD = "daemon.json"
MOST_BYTES = 2**22  # what `status` reads; a daemon's word is shorter
NAMED = 20  # of its problems
PROBLEM_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Whether one backend answered when it was last asked."""

    backend: str
    why: str  # why it does not answer; "" if it does
    since: str  # how long that has been so
    asked_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One daemon's word. It is written anew as long as the daemon turns."""

    pid: int
    at: str
    started_at: str
    refused: str = ""  # why the settings on disk are not those in force
    refused_at: str = ""
    problems: tuple[str, ...] = ()  # why stages and batches cannot work now
    heard: tuple[Heard, ...] = ()
    misnamed: tuple[tuple[Any, ...], ...] = ()  # as the last scan found them
    unmarked: int = 0  # files that wait for their markers
    late: tuple[tuple[Any, ...], ...] = ()  # files and markers that wait too long


def named(problems: Sequence[str]) -> tuple[str, ...]:
    """The first of so many problems, so that the record stays small enough to be read."""
    more = (f"{len(problems) - NAMED} more problems: see the log",) * (len(problems) > NAMED)
    return (*(one[:PROBLEM_CHARACTERS] for one in problems[:NAMED]), *more)


def leave_record(folder: Path, record: Record) -> None:
    """Write it. Nobody depends on it, so a full disk does not matter."""
    with suppress(OSError):
        text = json.dumps(asdict(record)).encode()
        with put_file(folder / RECORD, is_durable=False, mode=0o600) as file:
            file.write(text)


def read_record(folder: Path, pid: int | None) -> Record | None:
    """What the daemon of this pid has left; None without one."""
    if pid is None:
        return None
    try:
        row = read_json(folder / RECORD, MOST_BYTES, is_own=True)
        row["heard"] = tuple(Heard(**one) for one in row["heard"])
        for name in ("misnamed", "late"):
            row[name] = tuple(tuple(one) for one in row.get(name, ()))
        record = Record(**row)
    except (OSError, BatchError, TypeError, KeyError):
        return None
    return record if record.pid == pid else None
