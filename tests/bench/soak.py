"""What the idle service costs, under systemd, as root: `make soak`, or `soak.py MINUTES`."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from systemd_box import CHECKOUT, Box, booted

ROOT = "/opt/ds-flow"
MINUTES = 10.0
SETTLING_SECONDS = 5.0
CPU_PERCENT, RESIDENT_MB, GROWTH_MB = 0.1, 64.0, 1.0  # at most
HERTZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment."""

    cpu_s: float
    resident_mb: float
    switches: int  # how often any of its threads has gone to sleep, so far

    @classmethod
    def of(cls, process: Path) -> "Sample":
        stat = (process / "stat").read_text().rpartition(")")[2].split()
        resident_kb = _number(process / "status", "VmRSS:")
        switches = (_number(task, "voluntary") for task in process.glob("task/*/status"))
        return cls((int(stat[11]) + int(stat[12])) / HERTZ, resident_kb / 1024, sum(switches))


def _number(file: Path, name: str) -> int:
    """The number in a line of a /proc file."""
    lines = file.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    """Idle, then judge."""
    seconds = float(sys.argv[1] if len(sys.argv) > 1 else MINUTES) * 60
    with booted() as box:
        process = box.path(f"/proc/{started(box)}")
        time.sleep(SETTLING_SECONDS)  # noqa: TID251 - it measures a process that idles
        first = Sample.of(process)
        time.sleep(seconds)  # noqa: TID251 - as above
        last = Sample.of(process)
    cpu_percent = (last.cpu_s - first.cpu_s) / seconds * 100
    growth_mb = last.resident_mb - first.resident_mb
    wakes = (last.switches - first.switches) / seconds * 60
    print(f"idle for {seconds / 60:g} minutes: {cpu_percent:.3f} % of a core,")
    print(f"{wakes:.1f} wakes a minute, {last.resident_mb:.1f} MB resident ({growth_mb:+.2f} MB)")
    if cpu_percent > CPU_PERCENT or last.resident_mb > RESIDENT_MB or growth_mb > GROWTH_MB:
        sys.exit("too much")


def started(box: Box) -> str:
    """Install and start the service, with its shipped settings; its pid."""
    box.run(str(CHECKOUT / "systemd" / "install.sh"), "install", ROOT)
    box.run("systemctl", "start", "ds-flow")
    return box.run("systemctl", "show", "--property=MainPID", "--value", "ds-flow")


if __name__ == "__main__":
    main()
