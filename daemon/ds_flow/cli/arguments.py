"""How a command declares its arguments, and the arguments that several commands share."""

import argparse
import math
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ds_flow.core import DsFlowError


class UsageError(DsFlowError):
    """The arguments do not go together."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Argument:
    """What one call of `add_argument` takes."""

    flags: tuple[str, ...]
    options: dict[str, Any]


Arguments = tuple[Argument, ...]


class Command(Protocol):
    """A module in `commands/`.

    Every command imports all of these modules. To keep start-up short, they import only `core`,
    `system`, `arguments` and `report` at the top, and everything else where they use it.
    """

    HELP: str
    ARGUMENTS: Arguments

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return its exit code."""


def argument(*flags: str, **options: Any) -> Argument:
    """Declare an argument in the words of `add_argument`."""
    return Argument(flags, options)


def flag(*flags: str, help: str) -> Argument:  # noqa: A002 - argparse's word
    """Declare an option that takes no value."""
    return argument(*flags, action="store_true", help=help)


def seconds(typed: str) -> float:
    """Read a span of time. Raises ArgumentTypeError for what is none."""
    with suppress(ValueError):
        if not math.isnan(found := float(typed)):
            return found
    raise argparse.ArgumentTypeError(f"{typed!r} is not a number of seconds")


def state_option(states: type[StrEnum], help: str) -> Argument:  # noqa: A002 - argparse's word
    """Declare `--state`. Its choices are plain text: argparse shows each choice by its repr."""
    choices = [state.value for state in states]
    text = f"{help}: {', '.join(choices)}"
    return argument("--state", choices=choices, metavar="STATE", help=text)


CONFIG = argument(
    "--config",
    metavar="FILE",
    default=argparse.SUPPRESS,  # else the command's own default would hide one given before it
    help="settings file of the project (default: $DS_FLOW_CONFIG, else that of the checkout)",
)
PROJECT = argument(
    "--project",
    metavar="NAME",
    default=argparse.SUPPRESS,
    help="an installed service, as `ds-flow services` names it; its own ds-flow does the rest",
)
JSON = flag("--json", help="print one JSON document")
NO_WAIT = flag("--no-wait", help="if no daemon is running, leave the work to the next one")
BATCHES = argument(
    "batches",
    nargs="+",
    metavar="BATCH",
    help="a batch, the Run ID of its run, the beginning of either, or last",
)
RUN = "a Run ID, batch or batch/attempt, the beginning of one, or last for the newest"
