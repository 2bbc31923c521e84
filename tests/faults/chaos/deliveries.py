"""The ways sites deliver, with CHAOS_WAYS=1: files with markers, files that belong together.

Markers come late, early or not at all until the end. Sets are completed, or left until their time
has come, which is soon after the end of the plan (and whenever the clock jumps). What is missing
then comes late.
"""

import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from chaos.checker import Finding
from chaos.droppers import Dropper
from chaos.drops import regular_files
from chaos.world import World

IS_ON = bool(os.environ.get("CHAOS_WAYS"))
MEMBERS = 4  # of each set
MARKED_SHARE = 0.6  # of the files without a fresh marker, after each drop
SETS_A_DROP = 0.3  # each is a run of its own
ENDING = ".done"
PATIENCE_SECONDS = 600.0
SOON_SECONDS = 80.0  # a time of day has no seconds


def settings(seconds: float) -> dict[str, dict[str, Any]]:
    """What is set besides; the time of sets is soon after the end of a plan so long."""
    at = datetime.now().astimezone() + timedelta(seconds=seconds + SOON_SECONDS)
    by = r"student_set(?P<number>\d+)_"
    return {
        "watch": {"marker": f"{{name}}{ENDING}", "marker_minutes": 0.1},
        "batch": {
            "set": {"by": by, "key": "number", "expect": MEMBERS, "at_latest": f"{at:%H:%M}"}
        },
    }


@dataclass(slots=True)
class Sender:
    """Marks what the droppers have dropped, and drops sets in parts."""

    dropper: Dropper
    seconds: float
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    sets: int = 0
    marks: int = 0
    due_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.due_s = time.monotonic() + self.seconds + SOON_SECONDS

    def mark(self, share: float = MARKED_SHARE) -> None:
        """Give some of the files without a fresh marker one."""
        for path in regular_files(self.dropper.inbox):
            if path.name.endswith(ENDING) or not path.name.startswith("student_"):
                continue
            if not _is_marked(path) and self.rng.random() < share:
                self._mark(path)

    def _mark(self, path: Path) -> None:
        try:
            path.with_name(f"{path.name}{ENDING}").touch()
            self.marks += 1
        except OSError:  # no marker can have so long a name
            path.unlink(missing_ok=True)

    def send(self) -> None:
        """Now and then some files of a new set, the rest of some that were begun, and markers."""
        if self.rng.random() < SETS_A_DROP:
            self.sets += 1
            self._complete(self.sets, self.rng.sample(range(MEMBERS), self.rng.randint(1, MEMBERS)))
        for number in self.rng.sample(range(1, self.sets + 1), self.sets // 8):
            self._complete(number, range(MEMBERS))
        self.mark()

    def _complete(self, number: int, members: Iterable[int]) -> None:
        inbox, journal = self.dropper.inbox, self.dropper.journal
        for member in members:
            path = inbox / f"student_set{number}_{member}.csv"
            if not path.exists():
                path.write_bytes(journal.good(2).text)
                journal.versions += 1

    def finish(self, world: World) -> None:
        """Bring what is missing: every marker, then, after their time, the rest of all sets."""
        self._mark_all()
        end_s = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end_s and not self._is_only_sets(world):
            world.keep()
            threading.Event().wait(1.0)
        for number in range(1, self.sets + 1):
            self._complete(number, range(MEMBERS))
        self._mark_all()

    def _is_only_sets(self, world: World) -> bool:
        """Whether nothing is left but sets that wait, whatever the daemon's clock was."""
        try:
            status = world.status()
        except ValueError:
            return False
        busy = sum(status["batches"].get(state, 0) for state in ("queued", "running", "retrying"))
        of_sets = sum(one["came"] for one in status["sets"])
        is_quiet = not (busy or status["arriving"]) and status["files"]["waiting"] <= of_sets
        return is_quiet and time.monotonic() > self.due_s

    def _mark_all(self) -> None:
        while not all(map(_is_marked, self._files())):
            self.mark(1.0)
        for marker in self.dropper.inbox.glob(f"*{ENDING}"):
            if not marker.with_name(marker.name.removesuffix(ENDING)).exists():
                marker.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        return (
            path
            for path in regular_files(self.dropper.inbox)
            if path.name.startswith("student_") and not path.name.endswith(ENDING)
        )


def _is_marked(path: Path) -> bool:
    with suppress(OSError):
        marker = path.with_name(f"{path.name}{ENDING}")
        return marker.lstat().st_ctime_ns >= path.stat().st_ctime_ns
    return False


FORMED = """
    SELECT selection, batch.id, trigger, batch.state, queued.detail,
        EXISTS (SELECT 1 FROM event WHERE batch_id = batch.id AND kind = 'set.incomplete')
    FROM batch JOIN event AS queued ON queued.batch_id = batch.id AND queued.kind = 'batch.queued'
    WHERE selection LIKE 'set:%' AND trigger = 'arrival'
"""


def sets_are_whole(ledger: Path) -> Iterator[Finding]:
    """Each set formed once, whole, or said what it lacked; all else of it came late."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        rows = db.execute(FORMED).fetchall()
    formed: dict[str, int] = {}
    for selection, batch, _, state, detail, is_incomplete in rows:
        if "late for the set" in detail:
            continue
        formed[selection] = formed.get(selection, 0) + (state != "cancelled")
        is_whole = detail.startswith(f"{MEMBERS} files")
        if is_whole == is_incomplete:
            yield Finding("untrue", f"batch {batch} of {selection}: {detail}")
    yield from (Finding("doubled", f"{one}: {n} times") for one, n in formed.items() if n > 1)


def formed_sets(ledger: Path) -> tuple[int, int, int]:
    """How many sets formed whole, how many without some files, and how many batches came late."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        rows = db.execute(FORMED).fetchall()
    late = sum("late for the set" in row[4] for row in rows)
    incomplete = sum(row[5] for row in rows)
    return len(rows) - late - incomplete, incomplete, late
