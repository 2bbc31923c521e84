"""Where this program is on disk, and the interpreter that runs it."""

import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
"""The folder of flows/, bash/ and config/."""

FLOW = CHECKOUT / "flows" / "student_flow.py"

PYTHON = (sys.executable, "-P")
"""This interpreter for `-m` and `-c`. With -P it imports nothing from the current folder."""

PYTHON_NAMES = frozenset({"python", "python3"})


def python_on(executor: str) -> str:
    """The Python interpreter of jobs on a backend: this environment's, or an image's."""
    return "python3" if executor == "docker" else sys.executable


def program_of(command: Sequence[str], executor: str) -> tuple[str, ...]:
    """A team's command as a backend runs it: a bare `python3` means the same as for our jobs."""
    if command and command[0] in PYTHON_NAMES and executor != "docker":
        return python_on(executor), *command[1:]
    return tuple(command)


def attempt_command(folder: Path, *words: str) -> list[str]:
    """Start the flow with these words; its exit code is left in the folder."""
    script = CHECKOUT / "bash" / "run_attempt.sh"
    return ["bash", str(script), str(folder), sys.executable, str(FLOW), "--no-pylint", *words]
