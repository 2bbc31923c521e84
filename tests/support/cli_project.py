"""A project with real files and a real ledger, for tests of what people are told of it."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from clock import NOON
from ds_flow.core.manifest import Input, Manifest, Output, Rejected
from ds_flow.core.paths import escape
from ds_flow.core.states import Cause, Settled, Sighting, Trigger
from ds_flow.inbox.scan import stat_of
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.rows import FileRow
from ds_flow.settings.load import Settings, load_settings

SETTINGS = """
project_name: x
paths: {input_pattern: data/student_*.csv, output_dir: out, log_dir: log}
"""


@dataclass
class Project:
    root: Path
    settings: Settings = field(init=False)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        for name in ("config", "data", "out", "log"):
            (self.root / name).mkdir()
        self.config.write_text(SETTINGS)
        self.settings = load_settings(self.config, {})

    @property
    def config(self) -> Path:
        return self.root / "config" / "settings.yaml"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close()

    def open(self) -> Ledger:
        self.ledger = Ledger(self.settings.ledger)
        return self.ledger

    def drop(self, name: str, text: str = "a,b\n1,2\n") -> Path:
        path = self.root / "data" / name
        path.write_text(text)
        return path

    def admit(self, *names: str, cause: Cause | None = None, reason: str = "") -> list[FileRow]:
        """Drop files and enter them, as the daemon does."""
        settled = []
        for name in names:
            path = self.drop(name)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            seen = Sighting(escape(f"data/{name}"), stat_of(os.stat(path)))
            settled.append(Settled(sighting=seen, sha256=sha256, cause=cause, reason=reason))
        self.ledger.admit(settled, NOON)
        return self.ledger.read.latest([item.sighting.path for item in settled])

    def form(self, batch: str, rows: Sequence[FileRow], trigger: Trigger = Trigger.ARRIVAL) -> str:
        self.ledger.form(batch, [row.id for row in rows], trigger, NOON)
        return batch

    def start(self, batch: str, run_id: str | None = None) -> int:
        attempt = self.ledger.start_run(batch, NOON)
        if run_id:
            self.ledger.name_run(batch, attempt, run_id, NOON)
        return attempt

    def publish(
        self, batch: str, run_id: str, rows: Sequence[FileRow], rejected: Sequence[FileRow] = ()
    ) -> dict[str, Any]:
        """Enter a published run and leave its manifest; the manifest as JSON."""
        manifest = manifest_of(batch, run_id, rows, rejected)
        self.ledger.record(manifest, NOON)
        text = json.dumps(manifest.to_json())
        (self.root / "out" / f"manifest_{run_id}.json").write_text(text)
        read: dict[str, Any] = json.loads(text)
        return read

    def published(self, batch: str, run_id: str, *names: str) -> list[FileRow]:
        """Admit, batch, run and publish files; their rows then."""
        rows = self.admit(*names)
        self.start(self.form(batch, rows), run_id)
        self.publish(batch, run_id, rows)
        return self.ledger.read.latest([row.path for row in rows])


def input_of(row: FileRow) -> Input:
    return Input(
        path=row.path,
        version=row.version,
        sha256=str(row.sha256),
        bytes=row.size_bytes,
        rows=3,
        columns=2,
    )


def rejected_of(row: FileRow) -> Rejected:
    return Rejected(
        path=row.path,
        version=row.version,
        sha256=row.sha256,
        cause="rejected",
        reason="cells: 1 in this row, 2 in the header",
        line=2,
    )


def manifest_of(
    batch: str, run_id: str, rows: Sequence[FileRow], rejected: Sequence[FileRow] = ()
) -> Manifest:
    sha256 = "0" * 64
    names = [(f"processed_{Path(row.path).stem}_{run_id}.csv", row.path) for row in rows]
    return Manifest(
        schema=1,
        project="x",
        run_id=run_id,
        pathspec=f"StudentDataFlow/{run_id}",
        flow="StudentDataFlow",
        batch=batch,
        trigger="arrival",
        attempt=1,
        attempts=({"attempt": 1, "run_id": run_id, "exit_code": None, "error": None},),
        tag="spring",
        host="here",
        user="ds-flow",
        started_at=NOON.isoformat(),
        published_at=NOON.isoformat(),
        code_fingerprint=sha256,
        git_commit="",
        settings_fingerprint=sha256,
        inputs=tuple(map(input_of, rows)),
        outputs=tuple(
            Output(name=name, source=source, sha256=sha256, bytes=9, rows=3)
            for name, source in [*names, (f"final_combined_{run_id}.csv", "")]
        ),
        rejected=tuple(map(rejected_of, rejected)),
        jobs=(),
        analysis={"command": ["wc", "-l"], "stdout": "4 final.csv\n"},
    )
