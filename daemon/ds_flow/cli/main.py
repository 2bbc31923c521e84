"""The command line: one table of commands, and the one border at which errors end."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from typing import Any

from ds_flow.cli import commands, completion
from ds_flow.core import DsFlowError, FileState, RunState
from ds_flow.system import DONE, FAILED, INTERRUPTED, put_lines, say

BUG = 70
CLOSED = 141  # as of a program that SIGPIPE ended: whoever read the output wanted no more of it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. The one border at which errors end."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        args = parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
    except DsFlowError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return CLOSED
    except OSError as error:  # a disk that is full, a folder that may not be read
        say(str(error))
        return FAILED
    except Exception:  # noqa: BLE001 - a bug: its traceback, and the code that says so
        traceback.print_exc()
        return BUG
    return code


# --------------------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument, as argparse takes it."""

    flags: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its function gets the arguments and gives the exit code."""

    run: Callable[[argparse.Namespace], int]
    help: str
    arguments: tuple[Argument, ...] = ()


def _argument(*flags: str, **options: Any) -> Argument:
    return Argument(flags, options)


def _words(states: Iterable[StrEnum]) -> list[str]:
    """Name states as their words: argparse shows a choice by its repr."""
    return [state.value for state in states]


def _flag(*flags: str, help: str) -> Argument:  # noqa: A002 - argparse's word
    return _argument(*flags, action="store_true", help=help)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


_count.__name__ = "count"  # what argparse calls it in its message


def _completion(args: argparse.Namespace) -> int:
    flags = {
        name: [flag for one in command.arguments for flag in one.flags if flag.startswith("-")]
        for name, command in COMMANDS.items()
    }
    helps = {name: command.help for name, command in COMMANDS.items()}
    put_lines(completion.script(args.shell, flags, helps))
    return DONE


CONFIG = _argument(
    "--config",
    metavar="FILE",
    default=argparse.SUPPRESS,  # given before the command, it must outlast the command's own
    help="settings file of the project (default: $DS_FLOW_CONFIG, else this checkout's)",
)
JSON = _flag("--json", help="print one JSON document")
NO_WAIT = _flag("--no-wait", help="without a daemon: only record it, for the next one")
RUN = "Run ID, batch, or batch/attempt"

COMMANDS: dict[str, Command] = {
    "serve": Command(commands.serve, "work until told to stop (the daemon, in the foreground)"),
    "once": Command(commands.once, "work off everything that is there, then end"),
    "status": Command(
        commands.status, "count files, batches and runs, and say if it adds up", (JSON,)
    ),
    "files": Command(
        commands.files,
        "list file versions and where each is",
        (
            _argument("paths", nargs="*", metavar="PATH", help="only these"),
            _argument("--state", choices=_words(FileState), help="only in this state"),
            JSON,
        ),
    ),
    "runs": Command(
        commands.runs,
        "list runs, oldest first",
        (
            _argument("--state", choices=_words(RunState), help="only in this state"),
            _argument("--limit", type=_count, metavar="N", help="only the newest N"),
            JSON,
        ),
    ),
    "show": Command(
        commands.show,
        "show one run, with its manifest once published",
        (_argument("run_name", metavar="RUN", help=RUN), JSON),
    ),
    "explain": Command(
        commands.explain,
        "say where a file is, and why",
        (_argument("file", metavar="FILE", help="known to ds-flow or not"), JSON),
    ),
    "logs": Command(
        commands.logs,
        "print the log of a run",
        (
            _argument("run_name", metavar="RUN", nargs="?", help=f"{RUN} (default: the newest)"),
            _flag("-f", "--follow", help="go on until the run has ended"),
        ),
    ),
    "retry": Command(
        commands.retry,
        "try batches again at once that are dead or wait for their next attempt",
        (_argument("batches", nargs="+", metavar="BATCH", help="or a Run ID of it"), NO_WAIT),
    ),
    "rerun": Command(
        commands.rerun,
        "process files again, as one new batch",
        (
            _argument("runs", nargs="*", metavar="RUN_ID", help="the files of these runs"),
            _argument("--file", nargs="+", metavar="PATH", default=(), help="these files"),
            _flag("--all", help="every published file"),
            _flag("--failed", help="files set aside as rejected or with a dead batch"),
            NO_WAIT,
        ),
    ),
    "schedule": Command(
        commands.schedule,
        "list schedules, with their next and last fires; or fire one now",
        (
            _argument("action", nargs="?", choices=("run",), help="fire one now"),
            _argument("name", nargs="?", metavar="NAME", help="the one to fire"),
            JSON,
            NO_WAIT,
        ),
    ),
    "release": Command(
        commands.release,
        "let quarantined files wait again",
        (
            _argument("files", nargs="*", metavar="FILE", help="these files"),
            _flag("--all", help="all of them"),
            NO_WAIT,
        ),
    ),
    "cancel": Command(
        commands.cancel,
        "cancel batches, and end their runs",
        (_argument("batches", nargs="+", metavar="BATCH", help="or a Run ID of it"), NO_WAIT),
    ),
    "manifest": Command(
        commands.manifest,
        "list what runs published",
        (
            _argument("--run", dest="run_id", metavar="RUN_ID", help="only this run"),
            JSON,
            _flag("--csv", help="print one line an output"),
        ),
    ),
    "verify": Command(
        commands.verify,
        "read outputs again, and say which are not as they were published",
        (_argument("run_name", metavar="RUN", nargs="?", help=f"only this one: {RUN}"), JSON),
    ),
    "gc": Command(
        commands.gc,
        "remove what the retention settings keep no longer",
        (_flag("--dry-run", help="only say what would be removed"), JSON),
    ),
    "check": Command(
        commands.check,
        "judge the settings and the machine, and print the settings in force",
        (
            _argument(
                "--schema",
                nargs="?",
                choices=("settings", "manifest"),
                const="settings",
                help="print the JSON Schema of the settings file, or of a manifest",
            ),
            JSON,
        ),
    ),
    "completion": Command(
        _completion,
        "print a completion script for a shell",
        (_argument("shell", choices=[*completion.SHELLS]),),
    ),
}


def parser() -> argparse.ArgumentParser:
    """Build the parser of the table."""
    top = argparse.ArgumentParser(
        prog="ds-flow", description="Runs newly arrived files through Metaflow.", allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=f"ds-flow {version('ds-flow')}")
    _add(top, CONFIG)
    names = top.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        own = names.add_parser(
            name, help=command.help, description=command.help, allow_abbrev=False
        )
        for argument in (*command.arguments, CONFIG):
            _add(own, argument)
        own.set_defaults(run=command.run)
    return top


def _add(target: argparse.ArgumentParser, argument: Argument) -> None:
    target.add_argument(*argument.flags, **argument.options)
