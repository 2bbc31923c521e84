"""Families: what their files had, added up as commits are recorded; and files that differ."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from ds_flow.core import (
    Drifted,
    Family,
    Input,
    Look,
    Manifest,
    compared,
    family_of,
    first_of,
    sentence,
)
from ds_flow.ledger.store import BATCH_ROWS, Store, text

FILE_DRIFTED = "file.drifted"  # its columns, rows or empty cells are not those of its family
BATCH_DRIFTED = "batch.drifted"  # one for all files of a batch, if the change is new

MOST_COUNTED = 1000  # marked files; whoever has so many needs no number

_CORRECTED = """EXISTS (SELECT 1 FROM file AS newer WHERE newer.path = file.path
    AND newer.version > file.version AND newer.state = 'processed')"""
_DRIFTED = f"""
    FROM event JOIN file ON file.id = file_id JOIN run ON run.id = event.run
    WHERE event.kind = '{FILE_DRIFTED}' AND event.at > ? AND NOT {_CORRECTED}
"""


@dataclass(frozen=True, slots=True)
class DriftRow:
    """A file that was marked."""

    path: str
    version: int
    run_id: str
    at: str
    text: str


class Families:
    """What each family had, and which files were marked."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, paths: Iterable[str]) -> dict[str, Family]:
        """What the families of some files had so far, as far as they are compared."""
        names = compared(paths)
        found: dict[str, Family] = {}
        for start in range(0, len(names), BATCH_ROWS):
            some = names[start : start + BATCH_ROWS]
            marks = ", ".join("?" * len(some))
            for name, known in self._store.each(
                f"SELECT name, known FROM family WHERE name IN ({marks}) ORDER BY name", some
            ):
                found[name] = Family.from_json(json.loads(known))
        return found

    def newest_drifted(self, since: datetime, limit: int) -> tuple[int, list[DriftRow]]:
        """How many files were marked since a time and not corrected, and the newest of them."""
        row = self._store.row(
            f"SELECT count(*) FROM (SELECT 1 {_DRIFTED} ORDER BY event.id DESC LIMIT ?)",
            (text(since), MOST_COUNTED),
        )
        rows = self._store.rows(
            f"SELECT path, version, run_id, event.at, event.detail {_DRIFTED}"
            " ORDER BY event.id DESC LIMIT ?",
            (text(since), limit),
        )
        return (row[0] if row else 0), [DriftRow(*one) for one in rows]

    # ------------------------------------------------------------------ in a commit's transaction

    def add(self, manifest: Manifest, inputs: Sequence[Input]) -> None:
        """Add files that were published for the first time, each to its family."""
        families = self.of(item.path for item in inputs)
        looks: dict[str, list[Look]] = {name: [] for name in compared(item.path for item in inputs)}
        for item in inputs:
            look = manifest.look(item)
            if look is not None and (family := family_of(item.path)) in looks:
                looks[family].append(look)
        day = manifest.published_at[:10]
        changed = {
            name: families.get(name, Family()).with_files(found, day)
            for name, found in looks.items()
            if found
        }
        self._store.change_many(
            "INSERT INTO family (name, known) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET known = excluded.known",
            ((name, json.dumps(family.to_json())) for name, family in changed.items()),
        )

    def note(self, manifest: Manifest, run: int, files: Mapping[str, int], now: datetime) -> None:
        """Note which of these files were marked, and once for the batch if a change is new.

        A change that lasts is told of once. The files of its next days are marked all the same. A
        file was marked when it was published: in a ledger that is built again, long ago.
        """
        marked_at = _published(manifest, now)
        marks: dict[str, list[Drifted]] = {}
        for mark in manifest.drift:
            if mark.path in files:
                marks.setdefault(mark.path, []).append(mark)
        texts = {path: sentence([one.text for one in found]) for path, found in marks.items()}
        for path, detail in texts.items():
            self._store.note(
                marked_at,
                FILE_DRIFTED,
                file_id=files[path],
                batch_id=manifest.batch,
                run=run,
                detail=detail,
            )
        new = [path for path, found in marks.items() if not all(one.since for one in found)]
        if new:
            why = first_of([f"{path}: {texts[path]}" for path in new], "; ")
            self._store.note(now, BATCH_DRIFTED, batch_id=manifest.batch, run=run, detail=why)


def _published(manifest: Manifest, now: datetime) -> datetime:
    """When a run was published, as far as its manifest says that."""
    with suppress(ValueError, TypeError):  # not a time, or in no time zone
        return min(now, datetime.fromisoformat(manifest.published_at))
    return now
