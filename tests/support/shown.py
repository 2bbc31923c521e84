"""The commands that a page of the documentation shows, run in a project as its reader has it.

A block `console` has commands, each after `$ ` (`> ` continues one), and what they print: on
standard output, or else on standard error. A line `...` stands for any lines, and `...` at the end
of a line for any text. A comment before another block says what a reader does with its text:
`<!-- file: PATH -->` writes it, `<!-- append: PATH -->` adds it, `<!-- settings -->` merges it into
config/settings.yaml. A command that does not end (`ds-flow serve`, `ds-flow web`) goes on in the
background until the page ends, and from then on a command is repeated until it prints what the
page says.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ds_flow.core.program import CHECKOUT

BLOCK = re.compile(
    r"(?:^<!-- (?P<verb>file|append|settings)(?:: (?P<path>\S+))? -->\n+)?"
    r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
ENDLESS = re.compile(r"ds-flow (?:serve|web)$")
PAUSE = threading.Event()
PATIENCE = 150  # looks at a command's output while something goes on in the background
SHIPPED = (
    *("config/settings.yaml", "flows/transforms.py", ".env.example"),
    *(f"data/student_{name}.csv" for name in ("algebra", "biology", "chemistry")),
)
OF_THE_MOMENT = [  # what differs from one run to the next
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:[+-]\d\d:\d\d|Z)?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "SHA256"),
    (re.compile(r"(?<!\d)\d{13,19}(?!\d)"), "RUN"),
    (re.compile(r"\b[0-9a-f]{10}\b"), "BATCH"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:s|min|MB|GB)\b"), "AMOUNT"),
    (re.compile(r"[ \t]+"), " "),
]


@dataclass
class Shown:
    """One command, and what the page says it prints."""

    command: str
    output: list[str] = field(default_factory=list)


def commands(text: str) -> list[Shown]:
    """The commands of a block `console`."""
    found: list[Shown] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Shown(line.removeprefix("$ ")))
        elif line.startswith("> ") and not found[-1].output:
            found[-1].command += "\n" + line.removeprefix("> ")
        else:
            found[-1].output.append(line)
    return found


def plain(line: str) -> str:
    for pattern, word in OF_THE_MOMENT:
        line = pattern.sub(word, line)
    return line.strip()


def agrees(said: list[str], printed: list[str]) -> bool:
    """Whether the output is what the page says, where `...` stands for any lines."""
    if not said:
        return not any(line.strip() for line in printed)
    first, *others = said
    if first.strip() == "...":
        return any(agrees(others, printed[start:]) for start in range(len(printed) + 1))
    return bool(printed) and is_line(first, printed[0]) and agrees(others, printed[1:])


def is_line(said: str, printed: str) -> bool:
    """Whether they agree, where `...` at the end stands for any text."""
    start, dots, _ = plain(said).partition("...")
    return plain(printed).startswith(start) if dots else start == plain(printed)


@dataclass
class Reader:
    """Somebody who does what a page says, in a new checkout of their own."""

    root: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in ("config", "data", "flows", "out", "log"):
            (self.root / folder).mkdir()
        for file in SHIPPED:
            shutil.copy(CHECKOUT / file, self.root / file)
        (self.root / ".venv").symlink_to(sys.prefix)
        (self.root / "home").mkdir()

    @property
    def environment(self) -> Mapping[str, str]:
        path = f"{self.root}/.venv/bin:{os.environ['PATH']}"
        mine = {"PATH": path, "HOME": str(self.root / "home"), "COLUMNS": "100", "TZ": "UTC"}
        mine["DS_FLOW_CONFIG"] = str(self.root / "config/settings.yaml")
        return {**{key: text for key, text in os.environ.items() if key == "TMPDIR"}, **mine}

    def run(self, command: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return (done.stdout or done.stderr).splitlines()

    def start(self, command: str) -> None:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self.started.append(process)

    def put(self, verb: str, path: str, text: str) -> None:
        if verb == "settings":
            settings = self.root / "config/settings.yaml"
            known = yaml.safe_load(settings.read_text(encoding="utf-8"))
            known = merged(known, yaml.safe_load(text))
            settings.write_text(yaml.safe_dump(known), encoding="utf-8")
            return
        with (self.root / path).open("a" if verb == "append" else "w", encoding="utf-8") as opened:
            opened.write(text)

    def obey(self, shown: Shown) -> list[str]:
        """Run a command as the page has it, and return what it prints."""
        if ENDLESS.search(shown.command):
            self.start(shown.command)
            return shown.output
        printed = self.run(shown.command)
        for _ in range(PATIENCE if self.started and shown.output else 0):
            if agrees(shown.output, printed):
                break
            PAUSE.wait(0.2)
            printed = self.run(shown.command)
        return printed


def merged(known: Any, news: Any) -> Any:
    if not (isinstance(known, dict) and isinstance(news, dict)):
        return news
    return {**known, **{key: merged(known.get(key), value) for key, value in news.items()}}


@contextmanager
def reader(root: Path) -> Iterator[Reader]:
    made = Reader(root)
    try:
        yield made
    finally:
        for process in made.started:
            process.terminate()
        for process in made.started:
            process.wait()
