"""Find the file, the run or the batch that a person has typed."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ds_flow.core import RequestError, escape, unescape
from ds_flow.ledger import Ledger, RunRow
from ds_flow.settings import Settings
from ds_flow.work import Batch, find_log


@dataclass(frozen=True, slots=True)
class Place:
    """One file under the two names it has."""

    path: str  # in the ledger: escaped, relative to the root if below it
    raw: str  # absolute


def find_place(settings: Settings, ledger: Ledger, typed: str, cwd: str) -> Place:
    """Find the file that a path means. It may be absolute, or written as ds-flow prints it.

    A relative path may start at `cwd`, at the root or at the inbox. The first reading that the
    ledger knows wins, then the first that exists, then the one known file whose path begins so,
    then the one from `cwd`. Raises RequestError if several known files begin so.
    """
    places = list(dict.fromkeys(_readings(settings, typed, cwd)))
    known = ledger.read.seen([one.path for one in places])
    existing = (one for one in places if os.path.lexists(one.raw))
    found = next((one for one in places if one.path in known), None) or next(existing, None)
    return found or _begun(settings, ledger, typed, places) or places[0]


def _begun(settings: Settings, ledger: Ledger, typed: str, places: list[Place]) -> Place | None:
    """Find the one known file whose path begins as typed."""
    paths: dict[str, None] = {}
    if len(Path(typed).name) < LEAST_BEGUN:
        return None
    for place in places:
        paths |= dict.fromkeys(ledger.names.paths(place.path, LISTED))
    path = _only(typed, "file", list(paths))
    return Place(path, os.path.join(settings.root, unescape(path))) if path else None


def _readings(settings: Settings, typed: str, cwd: str) -> Iterator[Place]:
    raw = [typed]
    with suppress(ValueError):
        raw.append(unescape(typed))
    for one in dict.fromkeys(raw):
        for folder in (cwd, str(settings.root), str(settings.inbox)):
            absolute = os.path.normpath(os.path.join(folder, one))
            yield _place(settings, absolute)
            yield _place(settings, _through_links(settings, absolute))


def _place(settings: Settings, absolute: str) -> Place:
    below = os.path.relpath(absolute, settings.root)
    return Place(escape(absolute if below.split("/")[0] == ".." else below), absolute)


def _through_links(settings: Settings, absolute: str) -> str:
    """Write a path into the inbox by the inbox's own name, whatever links the person followed."""
    folder, name = os.path.split(absolute)
    below = os.path.relpath(os.path.realpath(folder), os.path.realpath(settings.inbox))
    if below.split("/")[0] == "..":
        return absolute
    return os.path.normpath(os.path.join(settings.inbox, below, name))


# --------------------------------------------------------------------------- runs and batches


LAST = "last"
LEAST_BEGUN = 4  # characters of a name: two or three may be a mistake
LISTED = 6  # names that are read, to tell one from several


def find_run(ledger: Ledger, name: str) -> RunRow:
    """Find a run by Run ID, pathspec, batch/attempt, or batch (its newest run).

    The name may be the beginning of a Run ID or batch, or `last`, the newest run. Raises
    RequestError if there is none, or several begin so.
    """
    before, _, last = name.rpartition("/")
    runs = ledger.read.runs_of(before or _whole(ledger, name))
    if before and runs:
        runs = [run for run in runs if str(run.attempt) == last]
    found = ledger.read.run(last if before else _whole(ledger, name))
    if found is None and not runs:
        raise RequestError(f"no run {name!r}; `ds-flow runs` lists them")
    return found or runs[-1]


def find_batch(ledger: Ledger, name: str) -> str:
    """Find a batch by its id or by the Run ID of one of its runs, or by the beginning of either.

    `last` is that of the newest run. Raises RequestError if there is none, or several begin so.
    """
    whole = _whole(ledger, name)
    if ledger.read.batch(whole):
        return whole
    run = ledger.read.run(whole)
    if run is None:
        raise RequestError(f"no batch {name!r}; `ds-flow runs` lists batches and runs")
    return run.batch


def _whole(ledger: Ledger, name: str) -> str:
    """The Run ID or batch that a person has typed the beginning of; the name itself if none is."""
    if name == LAST:
        newest = ledger.names.last_run()
        if newest is None:
            raise RequestError("there is no run yet")
        return newest
    if ledger.read.run(name) or ledger.read.batch(name):
        return name
    if len(name) < LEAST_BEGUN:
        return name
    begun = [*ledger.names.runs(name, LISTED), *ledger.names.batches(name, LISTED)]
    return _only(name, "run or batch", begun) or name


def _only(typed: str, what: str, found: list[str]) -> str:
    """Return the only one that was found, or "". Raises RequestError if there are several."""
    if len(found) > 1:
        more = ", ..." if len(found) >= LISTED else ""
        listed = ", ".join(found[: LISTED - 1])
        raise RequestError(f"more than one {what} begins with {typed!r}: {listed}{more}")
    return found[0] if found else ""


def log_of(settings: Settings, run: RunRow) -> Path:
    """Return the path of a run's log. The ledger may not know its Run ID yet."""
    run_id = run.run_id or Batch.at(settings.output_dir, run.batch).run_id(run.attempt)
    return find_log(settings.log_dir, run.batch, run.attempt, run_id)
