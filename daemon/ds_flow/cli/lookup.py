"""What a person typed, in the ledger's terms: the path of a file, a run, a batch."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ds_flow.core import RequestError, escape, unescape
from ds_flow.ledger import Ledger, RunRow
from ds_flow.settings import Settings
from ds_flow.system import read_word
from ds_flow.work import attempt_dir, attempt_log, work_root


@dataclass(frozen=True, slots=True)
class Place:
    """A file that a person means."""

    path: str  # as the ledger has it: escaped, relative to the root if below it
    raw: str  # absolute


def find_place(chosen: Settings, ledger: Ledger, typed: str, cwd: str) -> Place:
    """Take a path from `cwd`, the root or the inbox, absolute, or as ds-flow prints it.

    Of these the first that the ledger knows, else the first that is there, else as seen from `cwd`.
    """
    places = list(dict.fromkeys(_meanings(chosen, typed, cwd)))
    known = ledger.read.seen([one.path for one in places])
    there = (one for one in places if os.path.lexists(one.raw))
    return next((one for one in places if one.path in known), None) or next(there, places[0])


def _meanings(chosen: Settings, typed: str, cwd: str) -> Iterator[Place]:
    raw = [typed]
    with suppress(ValueError):
        raw.append(unescape(typed))
    for one in dict.fromkeys(raw):
        for folder in (cwd, str(chosen.root), str(chosen.inbox)):
            absolute = os.path.normpath(os.path.join(folder, one))
            yield _place(chosen, absolute)
            yield _place(chosen, _through_links(chosen, absolute))


def _place(chosen: Settings, absolute: str) -> Place:
    below = os.path.relpath(absolute, chosen.root)
    return Place(escape(absolute if below.split("/")[0] == ".." else below), absolute)


def _through_links(chosen: Settings, absolute: str) -> str:
    """Write a path below the inbox as the inbox is named, however the person came there."""
    folder, name = os.path.split(absolute)
    below = os.path.relpath(os.path.realpath(folder), os.path.realpath(chosen.inbox))
    if below.split("/")[0] == "..":
        return absolute
    return os.path.normpath(os.path.join(chosen.inbox, below, name))


# --------------------------------------------------------------------------- runs and batches


def find_run(ledger: Ledger, name: str) -> RunRow:
    """Find a run by Run ID, pathspec, batch/attempt, or batch: its newest. Raises RequestError."""
    before, _, last = name.rpartition("/")
    runs = ledger.read.runs_of(before or name)
    if before and runs:
        runs = [run for run in runs if str(run.attempt) == last]
    found = ledger.read.run(last) or (runs[-1] if runs else None)
    if found is None:
        raise RequestError(f"no run {name!r}; `ds-flow runs` lists them")
    return found


def find_batch(ledger: Ledger, name: str) -> str:
    """Find a batch by its id or by a Run ID of it. Raises RequestError."""
    if ledger.read.batch(name):
        return name
    run = ledger.read.run(name)
    if run is None:
        raise RequestError(f"no batch {name!r}; `ds-flow runs` lists batches and runs")
    return run.batch


def run_log(chosen: Settings, run: RunRow) -> Path:
    """Name a run's log file, which is renamed once the Run ID is known."""
    attempt = attempt_dir(work_root(chosen.output_dir) / run.batch, run.attempt)
    named = chosen.log_dir / f"run_{run.run_id or read_word(attempt / 'run_id')}.log"
    if named.exists():
        return named
    return attempt_log(chosen.log_dir, run.batch, run.attempt)
