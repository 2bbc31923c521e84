"""From the last close of a drop to its complete combined file, beside what else could do the work.

The candidates take turns, so that whatever else the machine does hits all of them alike, and the
median of all rounds counts. Every one gets the same quiet time and folders of its own.
"""

import ctypes
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
DRIP_SECONDS = 150
FLOW_FILES = 10  # a task a file takes minutes for more
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
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


@contextmanager
def started(
    root: Path, command: Callable[[Path], list[str]] = daemon, **environ: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A candidate that watches, and has looked once."""
    environment = {**os.environ, **environ}
    with subprocess.Popen(command(root), env=environment, stderr=subprocess.DEVNULL) as ran:
        while not is_ready(root):
            time.sleep(POLL_S)  # noqa: TID251 - it samples
        time.sleep(2 * QUIET_S)  # noqa: TID251 - the first look is over
        yield ran
        ran.terminate()


def dropped(command: Callable[[Path], list[str]], files: int, rows: int) -> Took:
    """Drop all files at once while the candidate watches; the time until all is combined."""
    quiet = {f"DS_FLOW_{section}__QUIET_SECONDS": str(QUIET_S) for section in ("WATCH", "BATCH")}
    with folder() as root, started(root, command, **quiet) as ran:
        tables(root / "staged", files=files, rows=rows)
        return deliver(root, files, ran)


def deliver(root: Path, files: int, ran: subprocess.Popen[bytes]) -> Took:
    """Copy what is staged into the inbox, and wait until all is combined."""
    before_s = cpu_s(ran.pid)
    subprocess.run(["cp", "-r", f"{root}/staged/.", f"{root}/data"], check=True)
    start_s = time.monotonic()
    while not is_combined(root / "out", files):
        time.sleep(POLL_S)  # noqa: TID251 - it samples
    wall_s = time.monotonic() - start_s
    while children(ran.pid):  # they are counted once they are reaped
        time.sleep(POLL_S)  # noqa: TID251 - it samples
    return Took(wall_s, cpu_s(ran.pid) - before_s + orphans_cpu_s())


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


def many(files: int, **environ: str) -> Took:
    """What many files of one row take from the last close until all are combined."""
    with folder() as root, started(root, daemon, **environ) as ran:
        tables(root / "staged", files=files, rows=1)
        return deliver(root, files, ran)


def drip(seconds: float, every_s: float = 2.0) -> tuple[float, int]:
    """One small file again and again: the longest time to an output, and how many runs."""
    longest_s, files = 0.0, int(seconds / every_s)
    with folder() as root, started(root):
        out, at_s = root / "out", {}
        for number in range(files):
            path = root / "data" / f"student_{number:06}.csv"
            path.write_text(f"token\nt{number}\n", encoding="utf-8")
            at_s[path.stem] = time.monotonic()
            end_s = at_s[path.stem] + every_s
            while time.monotonic() < end_s or (number == files - 1 and at_s):
                for name in list(at_s):
                    if any(out.glob(f"processed_{name}_*.csv")):
                        longest_s = max(longest_s, time.monotonic() - at_s.pop(name))
                time.sleep(POLL_S)  # noqa: TID251 - it samples
        return longest_s, len(list(out.glob("manifest_*.json")))


def children(pid: int) -> list[str]:
    """The processes that a process has started and not yet waited for."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return " ".join(one.read_text(encoding="ascii") for one in lists).split()


def adopt_orphans() -> None:
    """Become the parent of what candidates leave running: local jobs outlive who starts them."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphans_cpu_s() -> float:
    """The CPU time of those that have ended since the last call."""
    used_s = 0.0
    while True:
        pid, _, used = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            return used_s
        used_s += used.ru_utime + used.ru_stime


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
    yield "| files x rows | script | ds-flow | ratio | beyond the quiet time | CPU | Metaflow |"
    yield "|---|---|---|---|---|---|---|"
    for files, rows in SHAPES:
        took = measure(files, rows, rounds).took
        ours, theirs = took["ds-flow"], took["script"]
        beyond_s = ours.wall_s - QUIET_S
        plain = f"{took['flow'].wall_s:.1f} s" if "flow" in took else "-"
        yield (
            f"| {files:,} x {rows:,} | {theirs.wall_s:.2f} s | {ours.wall_s:.2f} s"
            f" | {ours.wall_s / theirs.wall_s:.2f} | {beyond_s:.2f} s | {ours.cpu_s:.1f} s"
            f" | {plain} |"
        )


def report(rounds: int) -> Iterator[str]:
    """The lines of `docs/benchmarks.md` on arrivals."""
    adopt_orphans()
    yield from table(rounds)
    yield ""
    took = many(20_000)
    yield (
        f"- 20,000 files of one row, with the shipped settings: {took.wall_s:.0f} s,"
        f" {took.cpu_s / 20:.2f} ms of CPU each."
    )
    took = many(50_000, DS_FLOW_BATCH__MAX_FILES="50000")
    yield (
        f"- 50,000 files of one row, which may be one batch: {took.wall_s:.0f} s,"
        f" {took.cpu_s / 50:.2f} ms of CPU each."
    )
    longest_s, runs = drip(DRIP_SECONDS)
    yield (
        f"- One small file every 2 s for {DRIP_SECONDS} s, with the shipped settings: each output"
        f" was there"
    )
    yield f"  within {longest_s:.1f} s, by {runs} runs."
