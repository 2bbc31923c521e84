"""The command line: one table of commands, and the one place where errors end."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ds_flow.cli import commands
from ds_flow.cli.arguments import CONFIG, Argument, Command
from ds_flow.core import DsFlowError, SettingsError
from ds_flow.system import FAILED, INTERRUPTED, say, speak_utf8

BUG = 70
CLOSED = 141  # what a shell reports after SIGPIPE: the reader of our output has gone away

COMMANDS: dict[str, Command] = {
    "serve": commands.serve,
    "once": commands.once,
    "status": commands.status,
    "files": commands.files,
    "runs": commands.runs,
    "show": commands.show,
    "explain": commands.explain,
    "lineage": commands.lineage,
    "logs": commands.logs,
    "retry": commands.retry,
    "rerun": commands.rerun,
    "schedule": commands.schedule,
    "release": commands.release,
    "cancel": commands.cancel,
    "manifest": commands.manifest,
    "verify": commands.verify,
    "report": commands.report,
    "metrics": commands.metrics,
    "gc": commands.gc,
    "backup": commands.backup,
    "detach": commands.detach,
    "check": commands.check,
    "web": commands.web,
    "completion": commands.completion,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Every error ends here."""
    speak_utf8()
    try:
        _refuse_copy(Path(sys.argv[0]))
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
    except OSError as error:  # such as a full disk, or a folder without read permission
        say(str(error))
        return FAILED
    except Exception:  # noqa: BLE001 - a bug: show its traceback, and exit with a code for it
        traceback.print_exc()
        return BUG
    return code


def _refuse_copy(command: Path) -> None:
    """Raise SettingsError if the command was copied with its folder: it would run the original."""
    folder = command.resolve().parent.parent
    if (folder / "pyvenv.cfg").exists() and not folder.samefile(sys.prefix):
        raise SettingsError(
            f"{command} was copied from {sys.prefix}, and would work on that project:"
            f" run make setup in {folder.parent}"
        )


def parser() -> argparse.ArgumentParser:
    """Build the parser from the table."""
    top = argparse.ArgumentParser(
        prog="ds-flow",
        description="Watches a folder and runs new files through Metaflow.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"ds-flow {version('ds-flow')}")
    top.set_defaults(commands=COMMANDS)
    _add(top, CONFIG)
    names = top.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        own = names.add_parser(
            name, help=command.HELP, description=command.HELP, allow_abbrev=False
        )
        for argument in (*command.ARGUMENTS, CONFIG):
            _add(own, argument)
        own.set_defaults(run=command.run)
    return top


def _add(target: argparse.ArgumentParser, argument: Argument) -> None:
    target.add_argument(*argument.flags, **argument.options)
