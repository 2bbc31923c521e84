"""The outside checker. It knows what was dropped and looks at what stands now, no more.

It reads the inbox, `out/`, what `ds-flow ... --json` says, and the ledger's rows past ds-flow's own
code, once everything has come to rest. Whatever should not be is a finding.
"""

import csv
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from chaos.drops import HEADER, Journal, regular_files
from project import KEPT_IN_WORK, Project

AT_REST = {"processed", "quarantined", "superseded"}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should not be. `kind`: one word of what is wrong.

    lost, doubled, partial, removed, untrue, stray, unsound, or vanished (see `chaos.vanished`)
    """

    kind: str
    what: str


@dataclass(slots=True)
class Report:
    """What a check counted and found."""

    files: int = 0
    versions: int = 0
    published: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)  # good tables in quarantine, by reason
    findings: list[Finding] = field(default_factory=list)

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)

    def require_whole(self) -> None:
        assert not self.findings, "\n".join(map(str, self.findings[:20]))


def check(project: Project, journal: Journal, *, pattern: str = "student_*.csv") -> Report:
    """Look at a project that has come to rest."""
    files: list[Row] = json.loads(project.ds_flow("files", "--json").stdout)["files"]
    manifests = [json.loads(path.read_bytes()) for path in project.out.glob("manifest_*.json")]
    looked = _Look(project, journal, files, manifests)
    report = Report(files=len({row["path"] for row in files}), versions=len(files))
    report.published = sum(len(manifest["inputs"]) for manifest in manifests)
    report.findings = [
        *looked.arrivals(pattern, report),
        *looked.publications(),
        *looked.manifests_are_true(),
        *looked.departures(),
        *looked.strays(),
        *looked.accounts(),
        *ledger(looked.ledger_path),
    ]
    return report


@dataclass(slots=True)
class _Look:
    project: Project
    journal: Journal
    files: list[Row]
    manifests: list[Row]

    @property
    def ledger_path(self) -> Path:
        paths = yaml.safe_load(self.project.config.read_bytes())["paths"]
        return Path(self.project.root, paths.get("ledger", "out/ledger.db"))

    # ------------------------------------------------------------------ every version

    def arrivals(self, pattern: str, report: Report) -> Iterator[Finding]:
        """What stands in the inbox is its path's latest version, and at rest."""
        # By path and version. One that never was read, and was followed by nothing, says nothing.
        latest = {
            row["path"]: row
            for row in self.files
            if row["sha256"] is not None or row["state"] != "superseded"
        }
        for path in regular_files(self.project.inbox):
            if fnmatchcase(path.name, pattern):
                yield from self._arrival(path, latest.get(f"data/{escaped(path.name)}"), report)
        for row in self.files:
            if row["state"] not in AT_REST:
                yield Finding("lost", f"{row['path']} v{row['version']}: still {row['state']}")
            elif row["state"] == "quarantined" and not row["reason"]:
                yield Finding("untrue", f"{row['path']} v{row['version']}: no reason given")

    def _arrival(self, path: Path, row: Row | None, report: Report) -> Iterator[Finding]:
        sha256 = sha256_of(path)
        content = self.journal.contents.get(sha256)
        is_good = content is not None and content.is_good
        if row is None:
            yield Finding("lost", f"{path.name!r}: not known at all")
        elif row["sha256"] not in {None, sha256}:
            yield Finding("lost", f"{path.name!r}: its latest version is another content")
        elif is_good and row["state"] == "superseded":
            yield Finding("lost", f"{path.name!r}: superseded, but it stands in the inbox")
        elif is_good and row["state"] == "quarantined":
            report.set_aside[row["reason"].partition(":")[0]] += 1
        elif content and not is_good and row["state"] == "processed":
            yield Finding("untrue", f"{path.name!r}: no table, and yet processed")

    # ------------------------------------------------------------------ every row

    def publications(self) -> Iterator[Finding]:
        """Each processed version's rows stand once in its own output and once in its run's."""
        where = Counter(
            (item["path"], item["version"])
            for manifest in self.manifests
            for item in manifest["inputs"]
        )
        yield from (Finding("doubled", f"{key}: {n} times") for key, n in where.items() if n > 1)
        processed = {
            (row["path"], row["version"]) for row in self.files if row["state"] == "processed"
        }
        yield from (Finding("lost", f"{key}: in no manifest") for key in processed - where.keys())
        yield from (Finding("untrue", f"{key}: not processed") for key in where.keys() - processed)
        for manifest in self.manifests:
            yield from self._rows(manifest)

    def _rows(self, manifest: Row) -> Iterator[Finding]:
        expected: list[str] = []
        by_source = {out["source"]: out["name"] for out in manifest["outputs"]}
        for item in manifest["inputs"]:
            found = tokens_of(self.project.out / by_source[item["path"]])
            expected += found
            yield from self._one_output(item, found)
        wholes = [out["name"] for out in manifest["outputs"] if not out["source"]]
        for name in wholes or [""]:  # the combined file may be there as Parquet, too
            combined = tokens_of(self.project.out / name) if name else []
            for token, times in (Counter(combined) - Counter(expected)).items():
                yield Finding("doubled", f"{token} in {name}: {times} too many")
            for token, times in (Counter(expected) - Counter(combined)).items():
                yield Finding("partial", f"{token} in {name}: {times} too few")

    def _one_output(self, item: Row, found: list[str]) -> Iterator[Finding]:
        content = self.journal.contents.get(item["sha256"])
        if content is not None:
            if found != content.tokens:
                kind = "partial" if len(found) < len(content.tokens) else "doubled"
                yield Finding(kind, f"{item['path']} v{item['version']}: {len(found)} rows")
            return
        # A table that was appended to another one brings its header along.
        numbers = {int(token[1:].partition(".")[0]) for token in found if token != HEADER}
        if not numbers <= self.journal.grown:
            yield Finding("partial", f"{item['path']} v{item['version']}: never dropped like this")

    # ------------------------------------------------------------------ what was promised

    def manifests_are_true(self) -> Iterator[Finding]:
        """Each output is there, whole, and as its manifest says."""
        for manifest in self.manifests:
            for out in manifest["outputs"]:
                path = self.project.out / out["name"]
                if not path.is_file():
                    yield Finding("lost", f"{out['name']}: named by a manifest, not there")
                elif sha256_of(path) != out["sha256"] or path.stat().st_size != out["bytes"]:
                    yield Finding("untrue", f"{out['name']}: not the bytes of its manifest")
                elif len(rows_of(path)) != out["rows"]:
                    yield Finding("untrue", f"{out['name']}: not the rows of its manifest")

    # ------------------------------------------------------------------ what has left the inbox

    def departures(self) -> Iterator[Finding]:
        """What was dropped last under each name is in the inbox, or its run is over and it is kept.

        Nothing is in the archive that no run has published.
        """
        known = {(row["path"], row["sha256"]): row for row in self.files}
        for name, sha256 in self.journal.standing.items():
            path = self.project.inbox / name
            if not name.startswith("student_") or (path.is_file() and sha256_of(path) == sha256):
                continue
            row = known.get((f"data/{escaped(name)}", sha256))
            if row is None or row["state"] not in {"processed", "quarantined"}:
                yield Finding("removed", f"{name!r}: {row and row['state']}")
        root = self.project.root
        found = [*root.glob("archive/**/*"), *root.glob("rejected/**/*")]
        kept = {escaped(str(path.relative_to(root))): path for path in found if path.is_file()}
        for row in self.files:
            yield from self._kept(row, kept)
        published = {item["sha256"] for one in self.manifests for item in one["inputs"]}
        for path in self.project.root.glob("archive/**/*"):
            is_aside = path.name.startswith(".ds-flow-leaving-")
            if path.is_file() and not is_aside and sha256_of(path) not in published:
                yield Finding("removed", f"{path}: not published")

    @staticmethod
    def _kept(row: Row, kept: Mapping[str, Path]) -> Iterator[Finding]:
        if row["away"] == "going":
            yield Finding("unsound", f"{row['path']} v{row['version']}: still on its way")
        elif row["kept_at"]:
            path = kept.get(row["kept_at"])
            if path is None or sha256_of(path) != row["sha256"]:
                yield Finding("removed", f"{row['path']} v{row['version']}: not {row['kept_at']}")

    def strays(self) -> Iterator[Finding]:
        """Nothing unpublished, no work directory of a batch that is over, no process is left."""
        named = {out["name"] for manifest in self.manifests for out in manifest["outputs"]}
        named |= {f"manifest_{manifest['run_id']}.json" for manifest in self.manifests}
        named |= {manifest.get("profile") for manifest in self.manifests}
        for path in self.project.out.iterdir():
            is_ledgers = path.name.startswith("ledger.db")
            if path.name not in named and path.name != ".work" and not is_ledgers:
                yield Finding("stray", f"out/{path.name}")
        dead = self._batches("dead")
        for path in (self.project.out / ".work").iterdir():
            if path.name not in KEPT_IN_WORK | dead:
                yield Finding("stray", f"out/.work/{path.name}")
        yield from (Finding("stray", f"process {pid}") for pid in self.project.marked())

    def _batches(self, state: str) -> set[str]:
        with closing(sqlite3.connect(f"file:{self.ledger_path}?mode=ro", uri=True)) as db:
            return {row[0] for row in db.execute("SELECT id FROM batch WHERE state = ?", (state,))}

    def accounts(self) -> Iterator[Finding]:
        """`status` adds up."""
        status = self.project.status()
        counted = Counter(row["state"] for row in self.files)
        said = {state: n for state, n in status["files"].items() if n}
        if said != dict(counted):
            yield Finding("unsound", f"status says {said}, files says {dict(counted)}")
        if not status["accounted"]:
            yield Finding("unsound", f"not accounted: {status['reason']}")


# --------------------------------------------------------------------------- the ledger's rows

# `run.starting` also says that the batch runs; the other words are no states.
LAST_EVENTS = {
    "file": "SELECT kind FROM event WHERE file_id = ? AND kind LIKE 'file.%'"
    " AND kind NOT IN ('file.published', 'file.released') ORDER BY id DESC LIMIT 1",
    "batch": "SELECT replace(kind, 'run.starting', 'batch.running') FROM event WHERE batch_id = ?"
    " AND (kind LIKE 'batch.%' OR kind = 'run.starting') ORDER BY id DESC LIMIT 1",
    "run": "SELECT kind FROM event WHERE run = ? AND kind LIKE 'run.%'"
    " AND kind <> 'run.ending' ORDER BY id DESC LIMIT 1",
}


def ledger(path: Path) -> Iterator[Finding]:
    """The ledger is sound, and its events replay to its states."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        (verdict,) = db.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            yield Finding("unsound", f"integrity_check: {verdict}")
        for row in db.execute("PRAGMA foreign_key_check"):
            yield Finding("unsound", f"foreign key: {row}")
        for thing, sql in LAST_EVENTS.items():
            for key, state in db.execute(f"SELECT id, state FROM {thing}").fetchall():  # noqa: S608
                last = db.execute(sql, (key,)).fetchone()
                if last != (f"{thing}.{state}",):
                    yield Finding("unsound", f"{thing} {key} is {state}, its events say {last}")
        live = db.execute("SELECT count(*) FROM run WHERE ended_at IS NULL").fetchone()[0]
        if live:
            yield Finding("unsound", f"{live} runs are live, and everything is at rest")


# --------------------------------------------------------------------------- files


def escaped(name: str) -> str:
    """The name as ds-flow's answers have it (README, `explain`): told here once more."""
    return "".join(
        "\\\\"
        if char == "\\"
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        if not char.isprintable() and (ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000)
        else char
        for char in name
    )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows_of(path: Path) -> list[Row]:
    if path.suffix == ".parquet":
        found: list[Row] = pq.read_table(path).to_pylist()
        return found
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def tokens_of(path: Path) -> list[str]:
    """The tokens of an output, in order; a row without one has not been made by us."""
    return [row["token"] for row in rows_of(path)] if path.is_file() else []


def summary(findings: Iterable[Finding]) -> str:
    counts = Counter(finding.kind for finding in findings)
    return ", ".join(f"{counts[kind]} {kind}" for kind in ("lost", "doubled", "partial", "removed"))
