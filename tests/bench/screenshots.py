"""Pictures of the page, and terminals as text, from a real project: `make screenshots`.

Four weeks of a made-up group of schools are really run, each day by a clock that is set back
(libfaketime). Then the page is photographed, and commands are recorded at two widths.
"""

import json
import os
import pty
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from browser import browser
from ds_flow.core.program import CHECKOUT
from page import free_port
from project import until

PLACE = tempfile.TemporaryDirectory(prefix="flow-")
ROOT = Path(PLACE.name) / "westbrook"
IMAGES = CHECKOUT / "docs/images"
TERMINALS = CHECKOUT / "docs/terminal"
DS_FLOW = Path(sys.executable).with_name("ds-flow")
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
OURS = {**os.environ, "DS_FLOW_CONFIG": str(ROOT / "config/settings.yaml")}
DAYS = 29
SCHOOLS = ("north", "south", "east", "west")
WIDTHS = (80, 120)
MANY = 300
SETTINGS = """\
project_name: Westbrook schools
paths: {input_pattern: data/student_*.csv, output_dir: out, log_dir: log}
run: {attempts: 1, inherit: [LD_PRELOAD, "FAKETIME*"]}
batch: {quiet_seconds: 0.3}
"""
TRANSFORM = '''\
"""Scores as numbers."""

import pandas as pd


def transform(frame: pd.DataFrame) -> pd.DataFrame:
    frame["score"] = pd.to_numeric(frame["score"], errors="coerce").round(1)
    return frame
'''
OF_A_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]")


def main() -> None:
    """Make the project, the pictures and the recordings."""
    for folder in ("config", "data", "flows", "out", "log"):
        (ROOT / folder).mkdir(parents=True)
    (ROOT / "config/settings.yaml").write_text(SETTINGS)
    (ROOT / "flows/transforms.py").write_text(TRANSFORM)
    live_four_weeks()
    with serving() as address:
        photograph(address)
        record_terminals()


# --------------------------------------------------------------------------- four weeks


def live_four_weeks() -> None:
    rng = random.Random(7)
    for ago in range(DAYS, -1, -1):
        day = datetime.now(UTC) - timedelta(days=ago)
        if day.weekday() > 4 and ago:
            continue
        for school in rng.sample(SCHOOLS, rng.randint(1, 4)):
            drop(f"student_{school}_{day:%Y-%m-%d}.csv", rows(rng, school))
        if ago in {9, 4}:
            broken = rows(rng, "west")
            broken[7] += ",late"
            drop(f"student_west_{day:%Y-%m-%d}_b.csv", broken)
        ds_flow("once", ago=ago)
        print(f"{day:%Y-%m-%d}", file=sys.stderr)
    drop("student_guests.csv", ["student_id,mark", "1,70"])  # the transform fails on all of it
    ds_flow("once")


def rows(rng: random.Random, school: str) -> list[str]:
    courses = ("Algebra", "Biology", "Chemistry", "History")
    made = [
        f"{school[0].upper()}{number:04},{rng.choice(courses)},{rng.gauss(70, 12):.1f}"
        for number in range(rng.randint(40, 400))
    ]
    return ["student_id,course,score", *made]


def drop(name: str, lines: list[str]) -> None:
    (ROOT / "data" / name).write_text("\n".join([*lines, ""]))


def ds_flow(*words: str, ago: int = 0) -> None:
    environment = dict(OURS)
    if ago:
        environment |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"-{ago}d"}
        environment |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    subprocess.run(command(*words), env=environment, capture_output=True, check=False)


def command(*words: str) -> list[str]:
    return [str(DS_FLOW), *words]


# --------------------------------------------------------------------------- the page


@contextmanager
def serving() -> Iterator[str]:
    """A daemon, and the page beside it."""
    port = free_port()
    environment = {**OURS, "DS_FLOW_WEB__LISTEN": f"127.0.0.1:{port}"}
    started = [
        subprocess.Popen(
            command(word), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for word in ("serve", "web")
    ]
    try:
        until("the daemon is up", lambda: answer("status")["daemon"]["running"], looks=200)
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def answer(*words: str) -> dict[str, dict[str, object]]:
    done = subprocess.run(
        command(*words, "--json"), env=OURS, capture_output=True, text=True, check=False
    )
    found: dict[str, dict[str, object]] = json.loads(done.stdout)
    return found


def newest_combined() -> str:
    return max((ROOT / "out").glob("final_combined_*.csv")).stem.rpartition("_")[2]


def photograph(address: str) -> None:
    shots = {
        "overview": ("/", 1100),
        "run": (f"/runs/{newest_combined()}", 1100),
        "narrow": ("/", 390),
    }
    with browser() as opened:
        for name, (path, width) in shots.items():
            tab = opened.new_page(viewport={"width": width, "height": 900})
            tab.goto(f"{address}{path}")
            tab.screenshot(path=IMAGES / f"{name}.png", full_page=True)


# --------------------------------------------------------------------------- terminals


def record_terminals() -> None:
    TERMINALS.mkdir(exist_ok=True)
    refused = min((ROOT / "data").glob("*_b.csv")).relative_to(ROOT)
    said = {
        "status": ["status"],
        "runs": ["runs"],
        "explain": ["explain", str(refused)],
        "try": ["try", "data/student_guests.csv"],
    }
    for width in WIDTHS:
        demo = [sys.executable, str(CHECKOUT / ".ci/demo.py"), "build/demo"]
        record("make demo", "demo", width, demo, CHECKOUT)
        for name, words in said.items():
            record(f"ds-flow {' '.join(words)}", name, width, command(*words), ROOT)
        record_many(width)


def record_many(width: int) -> None:
    """`once` with many files, in a project of its own."""
    root = ROOT / f"many_{width}"
    for folder in ("config", "data"):
        (root / folder).mkdir(parents=True)
    (root / "config/settings.yaml").write_text(SETTINGS)
    for number in range(MANY):
        (root / f"data/student_{number}.csv").write_text(f"student_id,score\n{number},70\n")
    record("ds-flow once", "once_300", width, command("once"), root)


def record(title: str, name: str, width: int, words: list[str], folder: Path) -> None:
    """What a terminal of this width has on it at the end."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "DS_FLOW_CONFIG": str(folder / "config/settings.yaml")}
    environment |= {"COLUMNS": str(width), "LINES": "50", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    while part := read(ours):
        seen += part
    process.wait()
    os.close(ours)
    lines = [left(line) for line in seen.decode().replace("\r\n", "\n").split("\n")]
    text = "\n".join([f"$ {title}", *(line for line in lines if line is not None)])
    text = text.replace(f"{CHECKOUT}/", "").replace(f"{PLACE.name}/", "/srv/")
    (TERMINALS / f"{name}_{width}.txt").write_text(text.rstrip() + "\n")


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the program has ended
        return b""


def left(line: str) -> str:
    """What is left of a line that was written over, without colours."""
    return OF_A_TERMINAL.sub("", line).rpartition("\r")[2].rstrip()


if __name__ == "__main__":
    main()
