"""What the line costs: `make bench` prints it, and writes `docs/benchmarks.md`."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from bench import arrival

from backends import Place, lsf
from ds_flow.core.plan import Site
from ds_flow.dispatch.rounds import open_round
from samples import BATCH

CHECKOUT = Path(__file__).resolve().parents[2]
DS_FLOW = Path(sys.executable).with_name("ds-flow")
KNOWN_FILES = 100_000
PREFACE = """\
# Benchmarks

`make bench` measures all of this on your machine and writes this page. The ratios matter, the
seconds belong to the machine. `BENCH_ROUNDS` (5) says how often each figure of the first table is
measured; the median counts.

"""
ARRIVAL = """\
The *script* (`tests/bench/floor.py`) is the least that gives the same outputs: pandas in a process
that watches. It knows no crash, no second version, no bad file and no record. *Metaflow*
(`tests/bench/plain_flow.py`) is a plain flow with one task a file; it has to be started. All take
turns, with the same quiet time of 0.5 s. ds-flow has two, of a file and of its drop, which run side
by side. "Beyond the quiet time" is what ds-flow adds to it. CPU is that of ds-flow and its runs.

Of a small run, more than half of the CPU time is imports, which happen while its files settle. What
is left are about 25 ms of Metaflow's for each of five steps, and less than that of ours. From some
thousand files on, it is the files: about 1 ms of CPU each. Half of that is the job: it opens a file
without leaving the inbox, reads it strictly, takes three hashes, and writes an output and a
verdict. A quarter are the steps, which read the verdicts and publish, and a fifth is the daemon,
which looks, hashes and keeps the ledger. No single thing takes more than a tenth. For some
minutes after ext4 has removed many files, it may take 0.5 ms more for each new file near them: work
directories are spread over the disk for that. Where the transform only returns what it gets, as the
shipped one does, outputs are written from the text as it was read. Another transform adds about 0.6
ms for each file: pandas makes a frame. Large files are read, hashed and written in blocks on all
cores: 9.5 MB take 64 ms of CPU, a third of it for three hashes.
"""
LSF_JOBS, LSF_SLOTS = 1000, 200


DOCUMENT = CHECKOUT / "docs" / "benchmarks.md"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def main() -> None:
    """Measure everything, and write it down."""
    with DOCUMENT.open("w", encoding="utf-8") as document:
        for line in report():
            print(line, flush=True)
            print(line, file=document)


def report() -> Iterator[str]:
    """The lines of the document."""
    yield from PREFACE.splitlines()
    yield (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, Linux"
        f" {platform.release().partition('-')[0]}, Python {platform.python_version()},"
    )
    yield ", ".join(f"{name} {version(name)}" for name in ("metaflow", "pandas", "pyarrow")) + "."
    yield from ("", "## From a drop to its combined file", "", *ARRIVAL.splitlines(), "")
    yield from arrival.report(ROUNDS)
    yield from ("", "## Memory of all processes", "")
    yield from ("| what | `ds-flow once` | peak |", "|---|---|---|")
    for files, rows in ((1, 100), (1000, 100), (10, 200_000)):
        took_s, peak_mb = once_over(partial(tables, files=files, rows=rows))
        yield f"| {files:,} x {rows:,} | {took_s:.1f} s | {peak_mb} MB |"
    yield from ("", "## Looking and waiting", "")
    empty_s, full_s, scan_s = latencies()
    yield (
        f"- From drop to batch: {empty_s:.2f} s in an empty inbox, {full_s:.2f} s beside"
        f" {KNOWN_FILES:,} known"
    )
    yield f"  files, whose scan takes {scan_s:.2f} s."
    yield from wait_for_lsf()


def wait_for_lsf() -> Iterator[str]:
    """Wait for arrays on an emulated cluster: how long, how busily, by how many questions."""
    with tempfile.TemporaryDirectory(prefix="ds-flow-bench-") as name, lsf_place(name) as place:
        jobs = [place.job(str(n), "sleep", "1", folder=Path(name)) for n in range(LSF_JOBS)]
        start_s = time.monotonic()
        place.run(Path(name, "jobs", "process-1of1"), *jobs)
        took_s, asked = time.monotonic() - start_s, len(place.cluster.calls("bjobs"))
        yield (
            f"- {LSF_JOBS:,} one-second jobs on {LSF_SLOTS} slots of LSF: {took_s:.1f} s"
            f" (ideal {LSF_JOBS / LSF_SLOTS:.0f} s), {asked} `bjobs`."
        )
        looked_s = look_at_lsf(place, Path(name, "jobs", "combine"), Path(name))
        at_first_s, _ = place.backend().poll_seconds
        yield (
            f"- A look at {LSF_JOBS:,} jobs in flight: {looked_s * 1000:.0f} ms of CPU,"
            f" at most {looked_s / at_first_s:.1%} of a core."
        )


@contextmanager
def lsf_place(folder: str) -> Iterator[Place]:
    """LSF as a site has it, but for its size."""
    with lsf(Path(folder, "cluster"), "ibm", slots=LSF_SLOTS, scheduling_delay_s=0.05) as place:
        yield replace(place, site=Site())


def look_at_lsf(place: Place, stage: Path, folder: Path) -> float:
    """Seconds of CPU that one look at a large array takes this process."""
    backend = place.backend()
    jobs = [place.job(str(n), "sleep", "600", folder=folder) for n in range(LSF_JOBS)]
    commands = [backend.command(job) for job in jobs]
    batch_round = open_round(stage, BATCH, "1", "lsf", jobs, commands)
    while not backend.submit(batch_round):
        time.sleep(0.1)  # noqa: TID251 - it measures
    backend.ask(batch_round, batch_round.indices)
    start_s = time.process_time()
    for _ in range(10):
        backend.submit(batch_round)
        backend.ask(batch_round, batch_round.indices)
    return (time.process_time() - start_s) / 10


def memory() -> None:
    """Measure what the largest inputs cost: `make memory`."""
    for kind in BOMBS:
        show(f"256 MB of {kind}", once_over(partial(bomb, kind=kind), code=1))
    show("one file of 4 GB", once_over(lambda inbox: large(inbox, 4096)))
    show("60,000 files at once", once_over(lambda inbox: tables(inbox, files=60_000, rows=1)))


BOMBS = {
    "one line": (b"", b"x" * 2**20),
    "commas": (b"a,b\n", b"," * 2**20),
    "quotes": (b"a,b\n", b'"' * 2**20),
    "one quoted cell": (b'a,b\n"', b'x""' * 2**18),
    "column names": (b"", b"".join(b"c%d," % n for n in range(10**5))),
}


def bomb(inbox: Path, kind: str) -> None:
    """One hostile file."""
    start, rest = BOMBS[kind]
    with (inbox / "student_bomb.csv").open("wb") as file:
        file.write(start)
        file.writelines(rest for _ in range(2**28 // len(rest)))


def large(inbox: Path, size_mb: int) -> None:
    """One file of about so many MB."""
    rows = b"token-0001,F,18,U,GT3,A,4,teacher,at home,0.25\n" * 20_000
    with (inbox / "student_large.csv").open("wb") as file:
        file.write(b"token," + b",".join(b"c%d" % n for n in range(9)) + b"\n")
        file.writelines(rows for _ in range(size_mb * 2**20 // len(rows)))


def show(what: str, figures: tuple[float, int]) -> None:
    """Print one line."""
    print(f"{what}: {figures[0]:.1f} s, peak memory of all processes {figures[1]} MB")


@contextmanager
def project() -> Iterator[Path]:
    """A project in a temporary folder, with the shipped settings."""
    root = Path(tempfile.mkdtemp(prefix="ds-flow-bench-"))
    try:
        (root / "data").mkdir()
        shutil.copytree(CHECKOUT / "config", root / "config")
        yield root
    finally:
        shutil.rmtree(root)


def ds_flow(root: Path, command: str) -> list[str]:
    """The command line of a project."""
    return [str(DS_FLOW), "--config", str(root / "config" / "settings.yaml"), command]


def tables(inbox: Path, *, files: int, rows: int) -> None:
    """Fill the inbox."""
    row = "F,18,U,GT3,A,4,teacher,at home,0.25,yes"
    for number in range(files):
        with (inbox / f"student_{number:06}.csv").open("w") as file:
            file.write("token," + ",".join(f"c{column}" for column in range(10)) + "\n")
            file.writelines(f"t{number}-{line},{row}\n" for line in range(rows))


def once_over(fill: Callable[[Path], None], code: int = 0) -> tuple[float, int]:
    """Work one inbox off: seconds, and the peak proportional set size of the process tree in MB."""
    with project() as root:
        fill(root / "data")
        start_s, peak_kb = time.monotonic(), 0
        command = ds_flow(root, "once")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ran:
            while ran.poll() is None:
                peak_kb = max(peak_kb, sum(map(pss_kb, tree(ran.pid))))
                time.sleep(0.05)  # noqa: TID251 - it samples
        if ran.returncode != code:
            sys.exit(f"ds-flow once exited {ran.returncode}")
        return time.monotonic() - start_s, peak_kb // 1024


def tree(root: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield root
    try:
        lists = [task.read_text() for task in Path(f"/proc/{root}/task").glob("*/children")]
    except OSError:  # it has ended
        return
    for child in " ".join(lists).split():
        yield from tree(int(child))


def pss_kb(pid: int) -> int:
    """A process's share of memory; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def latencies() -> tuple[float, float, float]:
    """Seconds from drop to batch in an empty inbox and beside many known files; one scan's."""
    from ds_flow.inbox import scan
    from ds_flow.inbox.pattern import Pattern
    from ds_flow.settings.load import load_settings

    with project() as root:
        settings = load_settings(root / "config" / "settings.yaml", {})
        os.environ.pop("DS_FLOW_CONFIG", None)
        with serving(root):
            empty_s = drop(root, "student_first.csv")
        known(root, KNOWN_FILES)
        pattern = Pattern.parse(settings.pattern, settings.root)
        start_s = time.monotonic()
        scan.scan_files(pattern)
        scan_s = time.monotonic() - start_s
        with serving(root):
            full_s = drop(root, "student_second.csv")
        return empty_s, full_s, scan_s


@contextmanager
def serving(root: Path) -> Iterator[None]:
    """A daemon that has looked once and idles."""
    command = ds_flow(root, "serve")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
        time.sleep(12)  # noqa: TID251 - its first scan and the rest after it
        yield
        daemon.terminate()


def drop(root: Path, name: str) -> float:
    """Drop one file; seconds until the log says that a batch was formed."""
    log = root / "log" / "ds-flow.log"
    before = log.read_text().count("batch.queued")
    start_s = time.monotonic()
    (root / "data" / name).write_text("id\n1\n")
    while log.read_text().count("batch.queued") == before:
        time.sleep(0.005)  # noqa: TID251 - it samples
    return time.monotonic() - start_s


def known(root: Path, count: int) -> None:
    """Put files in the inbox and the ledger, as if each had been seen and set aside before."""
    from datetime import UTC, datetime

    from ds_flow.core.states import Cause, Settled
    from ds_flow.inbox import scan
    from ds_flow.inbox.pattern import Pattern
    from ds_flow.ledger.ledger import Ledger
    from ds_flow.settings.load import load_settings

    settings = load_settings(root / "config" / "settings.yaml", {})
    for number in range(count):
        (root / "data" / f"student_{number:06}.csv").write_text(f"id\n{number}\n")
    seen = scan.scan_files(Pattern.parse(settings.pattern, settings.root)).sightings
    ledger = Ledger(settings.ledger)
    for start in range(0, count, 1000):
        ledger.admit(
            [
                Settled(sighting=item, sha256=f"{n:064x}", cause=Cause.REJECTED, reason="bench")
                for n, item in enumerate(seen[start : start + 1000], start)
            ],
            datetime.now(UTC),
        )
    ledger.close()


if __name__ == "__main__":
    memory() if sys.argv[1:] == ["memory"] else main()
