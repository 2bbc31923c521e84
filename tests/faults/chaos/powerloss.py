"""The power goes before each durable step: `make power`.

A clean run is recorded step by step (see `hooks/disk.py`). Then the disk is put as a power loss
before a step could have left it, ds-flow starts on it, and the outside checker looks. Of what was
not synced by then, by way of the loss:

    empty    every name stands, the files hold nothing (names are journalled, bytes are not)
    zeros    every name stands, the files have their length and hold zeros
    tables   as zeros, but for tables only: small files are often written out sooner
    mixed    every name stands; some files are whole, some empty, some zeros
    names    no name stands that was not synced with its folder (the strictest reading of POSIX)

The ledger is as SQLite had synced it at its last commit; its own care for power losses is trusted.
"""

import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.checker import check
from chaos.crashpoints import stage, work
from chaos.drops import Journal
from project import Project

WAYS = ("empty", "zeros", "tables", "mixed", "names")

Names = dict[str, int | str | None]


@dataclass(frozen=True, slots=True)
class Loss:
    """What had been synced when the power went, and what stood there."""

    names: Names
    synced: frozenset[int]  # inodes
    synced_names: Names
    ledger: str


class Recording:
    """A clean run's disk at every step."""

    def __init__(self, project: Project, store: Path) -> None:
        self.project, self.store = project, store
        store.mkdir()
        log = store.with_name("steps")
        assert work(project, log, store=store) == 1  # a file was set aside
        lines = log.read_text(encoding="utf-8").splitlines()
        self.steps: list[dict[str, Any]] = [
            json.loads((store / f"step-{number}.json").read_bytes()) for number in range(len(lines))
        ]

    def loss(self, number: int) -> Loss:
        """The state right before a step."""
        synced: set[int] = set()
        synced_names: Names = {}
        places: dict[int, str] = {}
        ledger = ""
        for step in self.steps[:number]:
            if step["synced"]:
                synced.add(int(step["synced"]))
            if step["synced_dir"]:
                _follow_renamed(synced_names, places, step["folders"], step["synced_dir"])
                _sync_names(synced_names, step["names"], step["synced_dir"])
            ledger = step.get("ledger", ledger)
        return Loss(self.steps[number]["names"], frozenset(synced), synced_names, ledger)

    def put(self, loss: Loss, way: str, rng: random.Random) -> None:
        """Make `out/` as the loss could have left it."""
        out = self.project.out
        shutil.rmtree(out)
        out.mkdir()
        made: dict[int, Path] = {}
        for name, kept in (loss.synced_names if way == "names" else loss.names).items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            if kept is None:
                (out / name).mkdir(exist_ok=True)
            elif isinstance(kept, str):
                (out / name).symlink_to(kept)
            elif kept in made:
                (out / name).hardlink_to(made[kept])
            else:
                made[kept] = out / name
                made[kept].write_bytes(self._bytes(out / name, kept, loss, way, rng))
        for end in ("", "-wal") if loss.ledger else ():
            shutil.copyfile(self.store / f"ledger-{loss.ledger}{end}", out / f"ledger.db{end}")

    def _bytes(self, path: Path, inode: int, loss: Loss, way: str, rng: random.Random) -> bytes:
        """What the loss has left of a file."""
        held = (self.store / str(inode)).read_bytes()
        lost = rng.choice(("whole", "empty", "zeros")) if way == "mixed" else way
        if path.name.startswith(".boot-"):
            return b"another\n"  # it names the time before the power went
        is_safe = way == "tables" and path.suffix != ".csv"
        if inode in loss.synced or lost == "whole" or is_safe:
            return held
        return b"" if lost == "empty" else bytes(len(held))


def _sync_names(synced: Names, names: Names, folder: str) -> None:
    """Take over the names of one folder as they stand; what is below one that went, goes."""
    for name in [name for name in synced if str(Path(name).parent) == folder]:
        if name not in names:
            gone = [other for other in synced if other == name or other.startswith(f"{name}/")]
            for each in gone:
                del synced[each]
    synced.update({name: kept for name, kept in names.items() if str(Path(name).parent) == folder})


def _follow_renamed(
    synced: Names, places: dict[int, str], folders: dict[str, int], folder: str
) -> None:
    """Keep what was synced in a folder under the new name that its parent's sync gives it.

    `places` has, by inode, the name that each folder had when it was last synced.
    """
    for name, inode in folders.items():
        old = places.get(inode)
        if old is not None and old != name and str(Path(name).parent) == folder:
            for each in [other for other in synced if other.startswith(f"{old}/")]:
                synced[f"{name}{each.removeprefix(old)}"] = synced[each]
            places[inode] = name
    if folder in folders:
        places[folders[folder]] = folder


def survives(
    recording: Recording, journal: Journal, number: int, way: str, seed: int = 0
) -> list[str]:
    """Lose power right before a step, start again, and look; what is wrong then."""
    recording.put(recording.loss(number), way, random.Random(f"{seed} {number} {way}"))
    ended = recording.project.once()
    report = check(recording.project, journal)
    wrong = [f"{finding.kind}: {finding.what}" for finding in report.findings]
    wrong += [f"exit code {ended.returncode}: {ended.stderr[-500:]}"] * (ended.returncode > 1)
    return wrong + [f"set aside: {reason}" for reason in report.set_aside]


def main(ways: Sequence[str]) -> int:
    """Print every loss with its result; 1 if one of them is not survived."""
    seed, sample = int(os.environ.get("SEED", "0")), int(os.environ.get("CRASH_SAMPLE", "0"))
    results: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="ds-flow-power-") as name,
        stage(Path(name)) as (project, journal),
    ):
        recording = Recording(project, Path(name, "store"))
        chosen = [(number, way) for way in ways for number in range(len(recording.steps))]
        print(f"{len(recording.steps)} steps in a clean run, {len(chosen)} losses", flush=True)
        if sample:
            chosen = sorted(random.Random(seed).sample(chosen, sample))
        for number, way in chosen:
            wrong = survives(recording, journal, number, way, seed)
            results["FAILED" if wrong else "ok"] += 1
            line = (
                f"{'FAILED' if wrong else 'ok':8} before {recording.steps[number]['line']} ({way})"
            )
            print(line, *wrong, sep="\n         ", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in results.items()))
    return 1 if results["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or WAYS))
