"""A daemon in a folder of its own, for tests of schedules and pauses: its clock and runs move."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clock import MovedClock
from ds_flow.core.manifest import Manifest
from ds_flow.inbox.pattern import Pattern
from ds_flow.inbox.watcher import Inbox
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.schedules import Fire
from ds_flow.service.engine import Engine
from ds_flow.settings.load import load_settings
from ds_flow.system.wake import Wake
from ds_flow.work.published import manifest_name, read_manifest
from pretended import PretendedRuns

SETTINGS = """\
project_name: line
paths: {{input_pattern: "data/*.csv", output_dir: out, log_dir: log}}
watch: {{observer: poll, quiet_seconds: 0.5, poll_seconds: 5}}
batch: {{quiet_seconds: 1, max_files: 2}}
schedule: {schedule}
"""
HOURLY = '[{name: all, cron: "0 * * * *", timezone: UTC, skip_unchanged: true}]'
BLIND = '[{name: all, cron: "0 * * * *", timezone: UTC}]'
MINUTE, HOUR = 60.0, 3600.0


@dataclass
class Line:
    """A daemon in a folder of its own, whose clock and runs are the test's."""

    root: Path
    schedule: str = HOURLY
    clock: MovedClock = field(default_factory=MovedClock)
    keeps_time: bool = True

    def __post_init__(self) -> None:
        for name in ("config", "data"):
            (self.root / name).mkdir()
        self.runs = PretendedRuns(self.root)
        self.open()

    def open(self, schedule: str | None = None, **environ: str) -> None:
        self.schedule = schedule or self.schedule
        file = self.root / "config" / "settings.yaml"
        file.write_text(SETTINGS.format(schedule=self.schedule))
        self.settings = load_settings(file, environ)
        self.ledger, self.wake = Ledger(self.settings.ledger), Wake()
        inbox = Inbox(Pattern.parse(self.settings.pattern, self.root), self.wake, "poll")
        self.engine = Engine(self.settings, self.ledger, inbox, self.runs, self.clock)
        self.engine.fires.keeps_time = self.keeps_time
        self.engine.open()
        self.tick()

    def close(self) -> None:
        self.ledger.close()
        self.wake.close()

    def reopen(self, schedule: str | None = None, **environ: str) -> None:
        """The daemon ends and starts again."""
        self.close()
        self.open(schedule, **environ)

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.engine.hint()
            self.engine.tick()
        assert self.engine._bugs_in_a_row == 0

    def work(self) -> None:
        """Let everything that is there be done."""
        for _ in range(100):
            self.tick()
            for mark in list(self.runs.alive):
                self.runs.publish(mark)
                self.runs.end(mark, "0")
            self.tick()
            if self.engine.is_idle and not self.engine.fires._verifications:
                return
            self.clock.elapsed_s += 1
        pytest.fail("it never comes to rest")

    def drop(self, **files: str) -> None:
        """Let files arrive, and be published."""
        for name, content in files.items():
            (self.root / "data" / f"{name}.csv").write_text(content)
        self.work()

    def wait(self, seconds: float) -> None:
        self.clock.elapsed_s += seconds

    def next_hour(self) -> None:
        """Wait until just after the next full hour, and let what is due then be done."""
        self.wait(HOUR - self.clock.now().timestamp() % HOUR + 1)
        self.work()

    def last(self, name: str = "all") -> Fire:
        found = self.ledger.schedules.last(name)
        assert found is not None
        return found.fire

    def fired(self, name: str = "all") -> list[tuple[str, str, str]]:
        """Every fire: when it was due, its outcome and detail."""
        rows = self.ledger._store.rows(
            "SELECT due_at, outcome, detail FROM fire WHERE schedule = ? ORDER BY id", (name,)
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def outcomes(self, name: str = "all") -> list[str]:
        return [outcome for _, outcome, _ in self.fired(name)]

    def manifest(self) -> Manifest:
        """What the last fire's batch published."""
        runs = self.ledger.read.runs_of(self.last().batch or "")
        return read_manifest(self.root / "out" / manifest_name(runs[-1].run_id or ""))
