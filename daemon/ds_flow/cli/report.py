"""Answers about files, runs and outputs, as the JSON documents that the command line promises."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from ds_flow.core import (
    DispatchError,
    DsFlowError,
    LedgerError,
    RunState,
    Sighting,
    Timetable,
    counted,
    unescape,
)
from ds_flow.inbox import Pattern, needed_quiet_s, scan_files
from ds_flow.ledger import FileRow, Ledger, LongRun, RunRow
from ds_flow.runs import admit_commits, rebuild_ledger
from ds_flow.schedules import verify_outputs
from ds_flow.settings import Schedule, Settings
from ds_flow.system import read_json, running_pid, space_lacking, space_shortage
from ds_flow.upkeep import Collected
from ds_flow.work import (
    find_manifest,
    manifest_name,
    published_manifests,
    read_manifest,
    removed_manifests,
)

Document = dict[str, Any]
"""One JSON object. Keys may be added, never changed."""

COUNTED_AGAIN = 3  # a daemon at work may move a file between two counts
NAMED_PATHS = 20  # of those unaccounted for
NAMED_BATCHES = 5  # of those that are due
SCANS = 2  # within which a daemon at work has seen a file: one may be under way when it comes
BACKLOG_SECONDS = 600.0  # within which it has read many or large ones; a stalled one ends sooner


@contextmanager
def opened(chosen: Settings, now: datetime) -> Iterator[Ledger]:
    """Open the ledger, made true by what lies on disk; an empty one where nothing was ever made."""
    with ExitStack() as stack:
        path = chosen.ledger
        is_new = not os.path.exists(path)
        if is_new and (pid := running_pid(chosen)):
            raise LedgerError(
                f"ledger {path}: removed while ds-flow (pid {pid}) works with it; restart that"
            )
        if is_new and not chosen.output_dir.is_dir():
            path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "ledger.db")
        ledger = Ledger(path)
        stack.callback(ledger.close)
        admit_commits(ledger, chosen.output_dir, now)
        if is_new:
            rebuild_ledger(ledger, chosen.output_dir, now)
        yield ledger


# --------------------------------------------------------------------------- status


@dataclass(slots=True)
class Accounts:
    """What a look at the inbox adds to what the ledger knows."""

    arriving: int = 0
    ignored: int = 0
    unaccounted: list[str] = field(default_factory=list)
    reason: str = ""  # why the books cannot be right; "" if they are


def status(chosen: Settings, ledger: Ledger, pid: int | None, now: datetime) -> Document:
    """Everything counted, and whether it adds up. `pid` is the running daemon's."""
    files, discovered = _counted(ledger)
    accounts = _look(chosen, ledger, is_watched=pid is not None, now=now)
    if sum(files.values()) != discovered:
        accounts.reason = f"{sum(files.values())} files are in a state, of {discovered}"
    due_at = ledger.read.next_due()
    return {
        "daemon": {"running": pid is not None, "pid": pid},
        "files": files,
        "batches": ledger.read.counts("batch"),
        "runs": ledger.read.counts("run"),
        "discovered": discovered,
        "accounted": not accounts.reason,
        "reason": accounts.reason,
        "arriving": accounts.arriving,
        "ignored": accounts.ignored,
        "unaccounted": accounts.unaccounted[:NAMED_PATHS],
        "next_due_at": due_at.isoformat() if due_at else None,
        "low_space": space_shortage(chosen),
        "held_back": list(_held_back(chosen, ledger, now)),
    }


def _held_back(chosen: Settings, ledger: Ledger, now: datetime) -> Iterator[str]:
    """Say of the batches that may start next why the disk holds them back."""
    for batch in ledger.read.due(now)[:NAMED_BATCHES]:
        if why := space_lacking(chosen, batch.id, ledger.read.planned(batch.id)):
            yield why


def _counted(ledger: Ledger) -> tuple[dict[str, int], int]:
    for _ in range(COUNTED_AGAIN):
        files, discovered = ledger.read.counts("file"), ledger.read.total()
        if sum(files.values()) == discovered:
            break
    return files, discovered


def _look(chosen: Settings, ledger: Ledger, *, is_watched: bool, now: datetime) -> Accounts:
    try:
        found = scan_files(Pattern.parse(chosen.pattern, chosen.root))
    except DispatchError as error:
        return Accounts(reason=str(error))
    accounts = Accounts(ignored=len(found.ignored))
    limit_s = arriving_s(chosen, is_watched=is_watched)
    for seen in _unknown(ledger, found.sightings):
        raw = os.path.join(chosen.root, unescape(seen.path))
        quiet_s = age_s(seen.stat.ctime_ns, now)
        if quiet_s < limit_s or quiet_s < needed_quiet_s(raw, limit_s):
            accounts.arriving += 1
        else:
            accounts.unaccounted.append(seen.path)
    if accounts.unaccounted:
        number = counted(len(accounts.unaccounted), "file")
        accounts.reason = f"{number} in the inbox that the ledger does not know"
    return accounts


def _unknown(ledger: Ledger, sightings: list[Sighting]) -> Iterator[Sighting]:
    """Keep what is new or changed. An empty stat: known, and yet to be looked at again."""
    known = ledger.read.seen([seen.path for seen in sightings])
    return (seen for seen in sightings if known.get(seen.path) not in {"", str(seen.stat)})


def arriving_s(chosen: Settings, *, is_watched: bool) -> float:
    """How long after its last change a file may still be expected to be arriving."""
    watch = chosen.watch
    quiet_s = max(watch.quiet_seconds, chosen.batch.quiet_seconds)
    scans_s = SCANS * max(watch.rescan_seconds, watch.poll_seconds)
    return quiet_s + (max(scans_s, BACKLOG_SECONDS) if is_watched else 0)


def age_s(changed_ns: int, now: datetime) -> float:
    """Seconds since a file changed, by the wall clock: for people only."""
    return max(0.0, now.timestamp() - changed_ns / 1e9)


# --------------------------------------------------------------------------- files and runs


FILE_KEYS = tuple(key.name for key in fields(FileRow) if key.name != "id")


def file(row: FileRow) -> Document:
    """One version of one file."""
    return {name: getattr(row, name) for name in FILE_KEYS}


def runs(
    chosen: Settings, ledger: Ledger, state: RunState | None, limit: int | None
) -> Iterator[Document]:
    """Answer for the newest runs, oldest first."""
    folder = _output_folder(chosen)
    return (_run(folder, one) for one in ledger.history.newest_runs(state, limit))


def run(chosen: Settings, ledger: Ledger, row: RunRow) -> Document:
    """One run; its paths are relative to the root if below it."""
    names = ledger.read.outputs(row.run_id) if row.run_id else []
    return _run(_output_folder(chosen), LongRun(row, ledger.read.batch_paths(row.batch), names))


def _run(folder: str, long: LongRun) -> Document:
    row = long.row
    return {
        "run_id": row.run_id,
        "batch": row.batch,
        "attempt": row.attempt,
        "state": row.state,
        "trigger": row.trigger,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "inputs": long.inputs,
        "outputs": [folder + name for name in long.outputs],
        "error": row.error,
        "removed_at": row.removed_at,
    }


def _output_folder(chosen: Settings) -> str:
    """Write the output folder as the start of a path, relative to the root if below it."""
    below = os.path.relpath(chosen.output_dir, chosen.root)
    if below == ".":
        return ""
    return f"{chosen.output_dir if below.split('/')[0] == '..' else below}/"


def show(chosen: Settings, ledger: Ledger, row: RunRow) -> Document:
    """One run with its manifest, or None in its place while there is none."""
    path = find_manifest(chosen.output_dir, row.run_id or "")
    manifest = read_json(path) if row.state == RunState.SUCCEEDED and path else None
    return {**run(chosen, ledger, row), "manifest": manifest}


# --------------------------------------------------------------------------- manifests


def manifests(
    chosen: Settings, run_id: str | None, complain: Callable[[str], None]
) -> Iterator[Document]:
    """Every published manifest, or one run's, whole, oldest first.

    What is no manifest is complained of. Those of removed outputs are to be asked for by Run ID.
    """
    one = find_manifest(chosen.output_dir, run_id) if run_id else None
    paths = published_manifests(chosen.output_dir) if run_id is None else iter([one] if one else [])
    for path in paths:
        try:
            yield read_manifest(path).to_json()
        except (DsFlowError, OSError) as error:
            complain(str(error))


def missing_manifests(chosen: Settings, ledger: Ledger) -> list[str]:
    """Name the published runs whose manifest is gone."""
    output_dir = chosen.output_dir
    there = {
        path.name for path in (*published_manifests(output_dir), *removed_manifests(output_dir))
    }
    return sorted(run for run in ledger.read.run_ids() if manifest_name(run) not in there)


def verified(chosen: Settings, ledger: Ledger, row: RunRow) -> Document:
    """One published run, with everything about its outputs that is not as it was published."""
    found = verify_outputs(chosen.output_dir, ledger.read, row.run_id or "")
    return {"run_id": row.run_id, "faults": [fault for fault in found if fault]}


# --------------------------------------------------------------------------- schedules


def schedules(chosen: Settings, ledger: Ledger, now: datetime) -> Iterator[Document]:
    """Every schedule with its next fire, and what the last one did."""
    rows = ledger.schedules.rows()
    for one in chosen.schedule:
        row = rows.get(one.name)
        next_at = Timetable(one.cron, one.timezone).next_after(now)
        yield {
            **one.model_dump(),
            "next_at": next_at.isoformat() if next_at else None,
            "asked_at": row.asked_at.isoformat() if row and row.asked_at else None,
            **_last_fire(ledger, one),
        }


def _last_fire(ledger: Ledger, schedule: Schedule) -> Document:
    last = ledger.schedules.last(schedule.name)
    batch = last.fire.batch if last else None
    runs = ledger.read.runs_of(batch) if batch else []
    return {
        "last_due_at": last.fire.due_at.isoformat() if last else None,
        "last_at": last.at.isoformat() if last else None,
        "outcome": last.fire.outcome if last else None,
        "batch": batch,
        "run_id": runs[-1].run_id if runs else None,
        "detail": last.fire.detail if last else "",
    }


# --------------------------------------------------------------------------- retention


def collected(found: Collected, *, is_dry: bool) -> Document:
    """What `gc` removed or would remove, what it left and why."""
    return {
        "dry_run": is_dry,
        "removed": {
            what: {"count": count, "bytes": found.sizes_bytes[what]}
            for what, count in sorted(found.counts.items())
        },
        "runs": found.runs,
        "left": found.left,
    }
