"""demo.py FOLDER: make a small project in FOLDER, run it once, and tell what happens as it happens.

FOLDER is made anew each time. The project of this checkout, its data/ and its out/, stay as they
are.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
DS_FLOW = Path(sys.executable).with_name("ds-flow")
ENVIRONMENT = {key: text for key, text in os.environ.items() if not key.startswith("DS_FLOW_")}
MADE_HERE = ".made-by-demo"  # a folder without it is not removed
SETTINGS = """\
project_name: demo
paths:
  input_pattern: data/student_*.csv
  output_dir: out
  log_dir: log
"""
SAMPLES = ("student_algebra.csv", "student_biology.csv", "student_chemistry.csv")
BAD = "student_physics.csv"
BAD_TEXT = """\
student_id,name,course,score,note
001,Ada Okafor,Physics,88.0,
003,Zoë Lindqvist,Physics,74,5,asked twice
004,Chloé Dubois,Physics,91.0,
"""
COLUMNS = ("student_id", "name", "course", "score", "source_file")
ROWS = 5
TASK = re.compile(r"^(\S+ \S+) \[\d+/(\w+)/\d+ .*\] Task (is starting|finished)")
MOVES = {
    "batch.queued": "the files are complete: they are one batch, {batch}",
    "run.running": "Metaflow runs it: its Run ID is {run_id}",
    "run.succeeded": "published, all at once",
}
STAGES = {
    "process": "each file is read, transformed, written",
    "combine": "the processed files are joined into one",
    "analyze": "a program of yours; as shipped: wc -l",
}


def style(code: int, text: str) -> str:
    """Colour on a terminal that wants it, and nothing anywhere else."""
    plain = (
        not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    )
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def say(text: str = "") -> None:
    print(text, flush=True)


def title(text: str) -> None:
    say(f"\n{style(1, text)}")


def shown(path: Path) -> str:
    """A path as a person would type it from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def make_project(folder: Path) -> Path:
    """Make the project anew and return its settings file."""
    if folder.exists():
        if not (folder / MADE_HERE).exists():
            sys.exit(f"demo: {folder} was not made by the demo, so it stays: name another folder")
        shutil.rmtree(folder)
    for name in ("config", "data", "out", "log"):
        (folder / name).mkdir(parents=True)
    (folder / MADE_HERE).touch()
    for name in SAMPLES:
        shutil.copy(CHECKOUT / "data" / name, folder / "data")
    (folder / "data" / BAD).write_text(BAD_TEXT, encoding="utf-8")
    config = folder / "config/settings.yaml"
    config.write_text(SETTINGS, encoding="utf-8")
    return config


def ds_flow(config: Path, *words: str) -> list[str]:
    return [str(DS_FLOW), "--config", str(config), *words]


def events(config: Path) -> Iterator[dict[str, Any]]:
    """Run `ds-flow once`, and give each line of its log at the moment it is written."""
    with subprocess.Popen(
        ds_flow(config, "once"),
        env={**ENVIRONMENT, "DS_FLOW_LOGGING__FORMAT": "json"},
        stdout=subprocess.DEVNULL,  # its summary: the same comes from the manifest
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as once:
        for line in once.stderr or ():
            if line.startswith("{"):
                yield json.loads(line)
            else:
                say(line.rstrip())


def follow(config: Path) -> str:
    """Tell the line's moves with their times, and return the Run ID."""
    run_id, began = "", None
    for event in events(config):
        now = datetime.fromisoformat(event["at"])
        began = began or now
        run_id = event.get("run_id", run_id)
        if event["message"] == "run.succeeded":
            tell_stages(config, run_id)
        if words := MOVES.get(event["message"]):
            after = (now - began).total_seconds()
            say(f"  {after:4.1f} s  {words.format(batch=event['batch'], run_id=run_id)}")
    if not run_id:
        sys.exit("demo: no run was started; the lines above say why")
    return run_id


def tell_stages(config: Path, run_id: str) -> None:
    """How long each stage took, by the run's own log."""
    log = subprocess.run(
        ds_flow(config, "logs", run_id),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    ).stdout
    begun: dict[str, datetime] = {}
    for line in log.splitlines():
        if (found := TASK.match(line)) is None or found[2] not in STAGES:
            continue
        at, stage = datetime.fromisoformat(found[1]), found[2]
        if found[3] == "is starting":
            begun.setdefault(stage, at)
        elif stage in begun:
            took = (at - begun[stage]).total_seconds()
            say(f"          {stage:8} {took:5.2f} s  {STAGES[stage]}")


def tell_the_bad_file(folder: Path, rejected: Sequence[dict[str, Any]]) -> None:
    for file in rejected:
        path = folder / file["path"]
        why = style(33, f"line {file['line']}: {file['reason']}")
        title(f"Set aside: {shown(path)}")
        say(f"  why      {why}")
        lines = path.read_text(encoding="utf-8").splitlines()
        for number in (1, file["line"]):
            say(f"  line {number}   {lines[number - 1]}")
        say("  remedy   somebody wrote 74,5 for 74.5: correct it and drop it again")
        say("  The other files went on without it.")


def tell_rows(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        first = [[row[name] for name in COLUMNS] for row in islice(reader, ROWS)]
        more = [name for name in reader.fieldnames or () if name not in COLUMNS]
    table = [list(COLUMNS), *first]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    title(f"The first rows of {shown(path)}")
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(f"  {'  '.join(cells).rstrip()}")
    say(f"  and the columns {', '.join(more)}")


def tell_what_is_next(config: Path) -> None:
    web = f"{shown(DS_FLOW)} --config {shown(config)} web"
    mine = shown(DS_FLOW)
    title("Next")
    say(f"  see it          {web}")
    say("                  then open http://127.0.0.1:8321/")
    say(f"  your own files  {mine} serve")
    say("                  then, in another terminal: cp YOUR/student_*.csv data/")
    say("  your transform  flows/transforms.py: from DataFrame to DataFrame")
    say("  read on         docs/tutorial/first-ten-minutes.md")


def main(arguments: Sequence[str]) -> None:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit("usage: demo.py FOLDER")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as with `| head`
    folder = Path(arguments[0]).absolute()
    config = make_project(folder)
    title(f"Files arrive in {shown(folder / 'data')}/")
    for path in sorted((folder / "data").iterdir()):
        broken = "   one row of it is broken, on purpose" if path.name == BAD else ""
        say(f"  {path.name:24} {len(path.read_bytes()):5} bytes{broken}")
    title("The line")
    run_id = follow(config)
    manifest = json.loads((folder / f"out/manifest_{run_id}.json").read_text(encoding="utf-8"))
    tell_the_bad_file(folder, manifest["rejected"])
    outputs = [folder / "out" / output["name"] for output in manifest["outputs"]]
    tell_rows(outputs[-1])
    title(f"What came out, in {shown(folder / 'out')}/")
    for name, rows in ((output["name"], output["rows"]) for output in manifest["outputs"]):
        say(f"  {name:52} {rows:4} rows")
    say(f"  {f'manifest_{run_id}.json':52} every fact about the run")
    say(f"  {f'profile_{run_id}.json':52} what the data looks like")
    tell_what_is_next(config)


if __name__ == "__main__":
    main(sys.argv[1:])
