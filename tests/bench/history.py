"""A long history in a project of its own, and what it costs: `make history`."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from ds_flow.cli.main import main as ds_flow
from ds_flow.core.states import Settled
from ds_flow.inbox import scan
from ds_flow.inbox.pattern import Pattern
from ds_flow.inbox.watcher import Inbox
from ds_flow.ledger.ledger import Ledger
from ds_flow.runs.launch import Runs
from ds_flow.service.engine import Engine
from ds_flow.service.process import SystemClock
from ds_flow.settings.load import Settings, load_settings
from ds_flow.system import metaflow_store
from ds_flow.system.wake import Wake
from samples import manifest, read

RUNS = 10_000
FILES = 5  # that each run publishes
AGAIN = 5  # so many runs publish the same files, one after the other
DAYS = 400  # over which the runs are spread
SETTINGS = """\
project_name: history
paths: {input_pattern: data/student_*.csv, output_dir: out, log_dir: log}
retention: {output_days: 90}
"""


def main() -> None:
    """Make the history, and print what each thing costs with it, and what `gc` gives back."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    root = Path(tempfile.mkdtemp(prefix="ds-flow-history-"))
    try:
        start_s = time.perf_counter()
        chosen = make(root, runs)
        print(f"made in {time.perf_counter() - start_s:.0f} s", file=sys.stderr)
        print(f"{runs:,} runs, {runs * FILES:,} outputs, {runs * FILES // AGAIN:,} files")
        measure(chosen)
        collect(chosen)
    finally:
        shutil.rmtree(root)


# --------------------------------------------------------------------------- the history


def make(root: Path, runs: int) -> Settings:
    """Fill a project: inbox, ledger, outputs, manifests, logs, Metaflow's datastore."""
    for folder in ("config", "data", "out", "log"):
        (root / folder).mkdir(parents=True)
    (root / "config" / "settings.yaml").write_text(SETTINGS)
    chosen = load_settings(root / "config" / "settings.yaml", {})
    ledger = Ledger(chosen.ledger)
    admit(chosen, ledger, runs * FILES // AGAIN)
    now = datetime.now(UTC)
    with ledger._store.transaction():  # one for all: 10,000 would cost a minute of fsync
        for number in range(runs):
            publish(chosen, ledger, number, now - timedelta(days=DAYS) * (1 - number / runs))
    ledger.close()
    return chosen


def admit(chosen: Settings, ledger: Ledger, files: int) -> None:
    for number in range(files):
        (chosen.inbox / f"student_{number:06}.csv").write_text(f"{number}")
    seen = sorted(scan.scan_files(Pattern.parse(chosen.pattern, chosen.root)).sightings)
    numbered = iter(enumerate(seen))
    while some := list(islice(numbered, 1000)):
        new = [Settled(sighting=one, sha256=sha256(f"{number}")) for number, one in some]
        ledger.admit(new, datetime.now(UTC))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def publish(chosen: Settings, ledger: Ledger, number: int, at: datetime) -> None:
    """One run, as if it had been long ago."""
    run_id = str(int(at.timestamp() * 1e6))
    first = number // AGAIN * FILES
    inputs = [read(f"data/student_{n:06}.csv", f"{n}") for n in range(first, first + FILES)]
    made = manifest(run_id, batch=f"{number:010x}", inputs=inputs)
    ledger._commits.record(made, at)
    for output in made.outputs:
        put(chosen.output_dir / output.name, "x" * 1000, at)
    put(chosen.output_dir / f"manifest_{run_id}.json", json.dumps(made.to_json()), at)
    put(chosen.log_dir / f"run_{run_id}.log", "said\n", at)
    flow = metaflow_store.store_folder(chosen.root) / metaflow_store.FLOW_NAME
    own, shared = sha256(run_id)[:40], "5" * 40
    task = flow / run_id / "start" / "1"
    put(task / "0.data.json", json.dumps({"objects": {"own": own, "shared": shared}}), at)
    put(flow / "data" / own[:2] / own, "x" * 1000, at)
    put(flow / "data" / "55" / shared, "x" * 1000, at)
    for path in (task, task.parent, task.parent.parent):
        os.utime(path, (at.timestamp(), at.timestamp()))


def put(path: Path, text: str, at: datetime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (at.timestamp(), at.timestamp()))


# --------------------------------------------------------------------------- what it costs


def measure(chosen: Settings) -> None:
    pattern = Pattern.parse(chosen.pattern, chosen.root)
    scan_s = timed(lambda: scan.scan_files(pattern))
    print(f"the scan alone: {scan_s * 1000:.0f} ms; beyond it:")
    config = ["--config", str(chosen.file)]
    print(f"  status: {(timed(lambda: quiet([*config, 'status'])) - scan_s) * 1000:.0f} ms")
    for words in (["runs"], ["runs", "--json"], ["runs", "--limit", "20"]):
        took_s = timed(lambda words=words: quiet([*config, *words]))  # type: ignore[misc]
        print(f"  {' '.join(words)}: {took_s * 1000:.0f} ms")
    ledger, wake = Ledger(chosen.ledger), Wake()
    inbox = Inbox(pattern, wake, "poll")
    engine = Engine(chosen, ledger, inbox, Runs(), SystemClock())
    print(f"  start-up: {timed(engine.open, 1) * 1000:.0f} ms")
    print(f"  first tick: {(timed(engine.tick, 1) - scan_s) * 1000:.0f} ms")
    print(f"  tick without a look: {timed(engine.tick) * 1000:.1f} ms")
    ledger.close()


def timed(work: Callable[[], object], times: int = 5) -> float:
    """The least of some tries, in seconds."""
    return min(_once(work) for _ in range(times))


def _once(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def quiet(words: list[str]) -> None:
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        ds_flow(words)


def collect(chosen: Settings) -> None:
    before = dict(used(chosen.root))
    start_s = time.perf_counter()
    ds_flow(["--config", str(chosen.file), "gc"])
    print(f"gc took {time.perf_counter() - start_s:.1f} s")
    for name, size in used(chosen.root):
        print(f"  {name}: {before[name] / 2**20:.0f} MB before, {size / 2**20:.0f} MB after")


def used(root: Path) -> Iterator[tuple[str, int]]:
    """How much disk each folder of a project takes, in bytes."""
    for folder in ("out", "log", ".metaflow"):
        files = (Path(where, name) for where, _, names in os.walk(root / folder) for name in names)
        yield folder, sum(path.lstat().st_blocks * 512 for path in files)


if __name__ == "__main__":
    main()
