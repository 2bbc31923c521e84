"""The command line: one table of commands, and the one place where errors end."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from ds_flow.cli import commands
from ds_flow.cli.arguments import CONFIG, JSON, PROJECT, Argument, Arguments, Command, UsageError
from ds_flow.cli.schemas import SCHEMA
from ds_flow.cli.service import go_to_service
from ds_flow.cli.usage import COMMAND, Parser, whole_help
from ds_flow.core import DsFlowError, SettingsError
from ds_flow.system import (
    FAILED,
    INTERRUPTED,
    Output,
    put_document,
    put_error,
    put_lines,
    say,
    speak_utf8,
)

BUG = 70
CLOSED = 141  # what a shell reports after SIGPIPE: the reader of our output has gone away

GROUPS: dict[str, dict[str, Command]] = {
    "Work": {
        "init": commands.init,
        "check": commands.check,
        "try": commands.try_,
        "once": commands.once,
        "serve": commands.serve,
        "web": commands.web,
    },
    "Look": {
        "status": commands.status,
        "runs": commands.runs,
        "show": commands.show,
        "logs": commands.logs,
        "files": commands.files,
        "explain": commands.explain,
        "manifest": commands.manifest,
        "lineage": commands.lineage,
        "report": commands.report,
        "metrics": commands.metrics,
    },
    "Act": {
        "retry": commands.retry,
        "rerun": commands.rerun,
        "release": commands.release,
        "cancel": commands.cancel,
        "pause": commands.pause,
        "resume": commands.resume,
        "schedule": commands.schedule,
        "deliver": commands.deliver,
        "metaflow": commands.metaflow,
    },
    "Keep in order": {
        "verify": commands.verify,
        "gc": commands.gc,
        "backup": commands.backup,
        "detach": commands.detach,
        "services": commands.services,
    },
    "This command line": {
        "help": commands.command_help,
        "completion": commands.completion,
    },
}
PLAIN = frozenset({"completion", "help", "logs", "metrics", "serve", "web"})
"""Commands whose output has a form of its own, or no end."""

TIDY = frozenset({"check", "try"})
"""Commands that start programs, which must not stay when they are ended."""

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Every error ends here.

    With --json, an error is a JSON document on standard output, too.
    """
    speak_utf8()
    words = sys.argv[1:] if argv is None else argv
    try:
        _refuse_copy(Path(sys.argv[0]))
        go_to_service(words)
        args = parser().parse_args(words)
        code = _carry_out(args)
        sys.stdout.flush()
    except DsFlowError as error:
        return _tell(str(error), error.exit_code, words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return CLOSED
    except OSError as error:  # such as a full disk, or a folder without read permission
        return _tell(str(error), FAILED, words)
    except Exception:  # noqa: BLE001 - a bug: show its traceback, and exit with a code for it
        traceback.print_exc()
        return BUG
    return code


def _carry_out(args: argparse.Namespace) -> int:
    """Run the command. With --json, what one does without an answer of its own is a document."""
    run: Callable[[argparse.Namespace], int] = args.run
    if getattr(args, "command_name", "") in TIDY:
        _end_as_by_ctrl_c()
    if not getattr(args, "json", False):
        return run(args)
    Output.head = {"document": args.command_name, "schema": SCHEMA}
    lines: list[str] = []
    Output.gathered = lines
    code = run(args)
    if not Output.has_begun:
        put_document({"exit_code": code, "lines": lines})
    return code


def _end_as_by_ctrl_c() -> None:
    """Let signals that end this process be exceptions, so that what it started ends first."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _tell(message: str, code: int, words: Sequence[str]) -> int:
    say(message)
    if "--json" in words:
        command = next((word for word in words if word in COMMANDS), "")
        Output.head = {"document": command, "schema": SCHEMA}
        with suppress(OSError):  # standard output is perhaps what failed
            put_error(message, code)
    return code


def _no_command(args: argparse.Namespace) -> int:
    put_lines(args.parsers[""].format_help().rstrip())
    return UsageError.exit_code


def _refuse_copy(command: Path) -> None:
    """Raise SettingsError if the command was copied with its folder: it would run the original."""
    folder = command.resolve().parent.parent
    if (folder / "pyvenv.cfg").exists() and not folder.samefile(sys.prefix):
        raise SettingsError(
            f"{command} was copied from {sys.prefix}, and would work on that project:"
            f" run make setup in {folder.parent}"
        )


def parser() -> Parser:
    """Build the parser from the table."""
    top = Parser(prog="ds-flow", whole=whole_help(GROUPS))
    top.add_argument("-V", "--version", action="version", version=f"ds-flow {version('ds-flow')}")
    top.set_defaults(commands=COMMANDS)
    _add(top, CONFIG)
    _add(top, PROJECT)
    top.set_defaults(run=_no_command)
    names = top.add_subparsers(metavar=COMMAND, parser_class=Parser)
    declared = {
        name: (*_with_json(name, command.ARGUMENTS), CONFIG, PROJECT)
        for name, command in COMMANDS.items()
    }
    for name, command in COMMANDS.items():
        own = names.add_parser(
            name,
            help=command.HELP,
            description=f"{command.HELP[0].upper()}{command.HELP[1:]}.",
            examples=getattr(command, "EXAMPLES", ()),
        )
        for argument in declared[name]:
            _add(own, argument)
        own.set_defaults(run=command.run, parser=own, command_name=name)
    top.set_defaults(parsers={**names.choices, "": top}, arguments=declared)
    return top


def _with_json(name: str, own: Arguments) -> Arguments:
    """A command's arguments, with --json unless it prints a text that is meant as it is."""
    return own if JSON in own or name in PLAIN else (*own, JSON)


def _add(target: argparse.ArgumentParser, argument: Argument) -> None:
    target.add_argument(*argument.flags, **argument.options)
