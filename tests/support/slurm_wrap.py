"""Slurm's commands behind wrappers on PATH: calls are noted, and may be answered falsely."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo")
SCRIPT = """#!/bin/bash
printf '%s\\t' {name} "$@" >>{folder}/calls
echo >>{folder}/calls
for instead in {folder}/{name}.instead {folder}/{name}.once; do
    [[ -e $instead ]] || continue
    [[ $instead == *.once ]] && mv "$instead" "$instead.done" && instead+=.done
    REAL={real} exec bash "$instead" "$@"
done
exec {real} "$@"
"""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """The wrappers of a test."""

    folder: Path

    def calls(self, command: str = "") -> list[list[str]]:
        """The calls so far, of one command or of all."""
        noted = self.folder / "calls"
        lines = noted.read_text().splitlines() if noted.exists() else []
        rows = [line.split("\t")[:-1] for line in lines]
        return [row for row in rows if not command or row[:1] == [command]]

    def instead(self, command: str, script: str) -> None:
        """Run this script in the command's place, until `mend`; `$REAL` is the command."""
        (self.folder / f"{command}.instead").write_text(script)

    def once(self, command: str, script: str) -> None:
        """Run this script in the place of the command's next call."""
        (self.folder / f"{command}.once").write_text(script)

    def mend(self, command: str) -> None:
        """Run the command itself again."""
        (self.folder / f"{command}.instead").unlink()


@contextmanager
def wrapped(folder: Path) -> Iterator[Wrapped]:
    """Put a wrapper before each command of Slurm, for this process and what it starts."""
    folder.mkdir()
    for name in COMMANDS:
        real = shutil.which(name)
        path = folder / name
        path.write_text(SCRIPT.format(name=name, folder=folder, real=real))
        path.chmod(0o755)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield Wrapped(folder)
