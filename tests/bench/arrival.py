"""From the last close of a drop to its complete combined file, beside what else could do the work.

The candidates take turns, so that whatever else the machine does hits all of them alike, and the
median of all rounds counts. Every one gets the same quiet time and folders of its own.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
DS_FLOW = Path(sys.executable).with_name("ds-flow")
QUIET_S = 0.5
SHAPES = ((1, 100), (10, 100), (100, 100), (1000, 100), (10, 200_000))
FLOW_FILES = 10  # a task a file takes minutes for more
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
POLL_S = 0.005
ROW = "F,18,U,GT3,A,4,teacher,at home,0.25,yes"


@dataclass(frozen=True, slots=True)
class Took:
    """What one drop took."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of one shape, by candidate."""

    files: int
    rows: int
    took: dict[str, Took] = field(default_factory=dict)


# --------------------------------------------------------------------------- candidates


@contextmanager
def folder() -> Iterator[Path]:
    """A project folder with the shipped settings, an inbox and outputs."""
    root = Path(tempfile.mkdtemp(prefix="ds-flow-bench-"))
    try:
        for name in ("data", "out", "staged"):
            (root / name).mkdir()
        shutil.copytree(CHECKOUT / "config", root / "config")
        yield root
    finally:
        shutil.rmtree(root)


def script(root: Path) -> list[str]:
    """The plain watch script."""
    return [sys.executable, str(HERE / "floor.py"), f"{root}/data", f"{root}/out", str(QUIET_S)]


def daemon(root: Path) -> list[str]:
    return [str(DS_FLOW), "--config", str(root / "config" / "settings.yaml"), "serve"]


def is_ready(root: Path) -> bool:
    """Whether the candidate watches: the script says so, the daemon has made its ledger."""
    log = root / "log" / "ds-flow.log"
    return (root / "out" / "ready").exists() or (
        log.exists() and "daemon.ready" in log.read_text(encoding="utf-8")
    )


def dropped(command: Callable[[Path], list[str]], files: int, rows: int) -> Took:
    """Drop all files at once while the candidate watches; the time until all is combined."""
    environ = {
        **os.environ,
        "DS_FLOW_WATCH__QUIET_SECONDS": str(QUIET_S),
        "DS_FLOW_BATCH__QUIET_SECONDS": str(QUIET_S),
    }
    with folder() as root:
        tables(root / "staged", files=files, rows=rows)
        with subprocess.Popen(command(root), env=environ, stderr=subprocess.DEVNULL) as ran:
            while not is_ready(root):
                time.sleep(POLL_S)  # noqa: TID251 - it samples
            time.sleep(2 * QUIET_S)  # noqa: TID251 - the first look is over
            before_s = cpu_s(ran.pid)
            subprocess.run(["cp", "-r", f"{root}/staged/.", f"{root}/data"], check=True)
            start_s = time.monotonic()
            while not is_combined(root / "out", files):
                time.sleep(POLL_S)  # noqa: TID251 - it samples
            wall_s = time.monotonic() - start_s
            time.sleep(2 * QUIET_S)  # noqa: TID251 - its children are reaped and counted
            took = Took(wall_s, cpu_s(ran.pid) - before_s)
            ran.terminate()
        return took


def is_combined(out: Path, files: int) -> bool:
    """Whether every file's output stands there, and the combined file of each of their runs."""
    names = [path.name for path in out.iterdir()]
    processed = [name for name in names if name.startswith("processed_")]
    runs = {name.rpartition("_")[2] for name in processed}
    return len(processed) == files and {f"final_combined_{run}" for run in runs} <= set(names)


def flow(files: int, rows: int) -> Took:
    """The plain Metaflow flow, which has to be started; its quiet time is added."""
    with folder() as root:
        tables(root / "data", files=files, rows=rows)
        command = [sys.executable, str(HERE / "plain_flow.py"), "--quiet", "run"]
        before, start_s = os.times(), time.monotonic()
        subprocess.run(
            [*command, "--inbox", f"{root}/data", "--out", f"{root}/out"],
            cwd=root,
            env={**os.environ, "METAFLOW_USER": "bench"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        wall_s, after = time.monotonic() - start_s, os.times()
        used_s = sum(after[2:4]) - sum(before[2:4])
        return Took(wall_s + QUIET_S, used_s)


def tables(inbox: Path, *, files: int, rows: int) -> None:
    """Fill a folder."""
    for number in range(files):
        with (inbox / f"student_{number:06}.csv").open("w", encoding="utf-8") as file:
            file.write("token," + ",".join(f"c{column}" for column in range(10)) + "\n")
            file.writelines(f"t{number}-{line},{ROW}\n" for line in range(rows))


def cpu_s(pid: int) -> float:
    """The CPU time of a process and of all its children that it has waited for."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) * TICK_S


# --------------------------------------------------------------------------- all of them


def measure(files: int, rows: int, rounds: int) -> Row:
    """The medians of one shape over some rounds."""
    candidates: dict[str, Callable[[], Took]] = {
        "script": lambda: dropped(script, files, rows),
        "ds-flow": lambda: dropped(daemon, files, rows),
    }
    if files <= FLOW_FILES and rows <= 100:
        candidates["flow"] = lambda: flow(files, rows)
    all_took: dict[str, list[Took]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, once in candidates.items():
            all_took[name].append(once())
    row = Row(files, rows)
    for name, took in all_took.items():
        row.took[name] = Took(
            statistics.median(one.wall_s for one in took),
            statistics.median(one.cpu_s for one in took),
        )
    return row


def table(rounds: int) -> Iterator[str]:
    """A Markdown table, a row a shape."""
    yield "| files x rows | script | ds-flow | ratio | beyond the quiet times | CPU | Metaflow |"
    yield "|---|---|---|---|---|---|---|"
    for files, rows in SHAPES:
        took = measure(files, rows, rounds).took
        ours, theirs = took["ds-flow"], took["script"]
        beyond_s = ours.wall_s - 2 * QUIET_S
        plain = f"{took['flow'].wall_s:.1f} s" if "flow" in took else "-"
        yield (
            f"| {files:,} x {rows:,} | {theirs.wall_s:.2f} s | {ours.wall_s:.2f} s"
            f" | {ours.wall_s / theirs.wall_s:.2f} | {beyond_s:.2f} s | {ours.cpu_s:.1f} s"
            f" | {plain} |"
        )


if __name__ == "__main__":
    for line in table(int(os.environ.get("BENCH_ROUNDS", "5"))):
        print(line, flush=True)
