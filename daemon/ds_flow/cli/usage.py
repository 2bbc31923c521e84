"""How the command line is told to people: help in groups, and what was perhaps meant."""

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from ds_flow.cli.arguments import Command, UsageError

Groups = Mapping[str, Mapping[str, Command]]
"""The commands by name, under the heading of each group."""

WHOLE = """\
usage: ds-flow [--config FILE] COMMAND [ARGUMENT ...]

Watches a folder and runs the files that arrive there through Metaflow.
{groups}

Examples:
  ds-flow once                        process what is in the inbox now
  ds-flow status                      say whether all is well
  ds-flow explain data/student_a.csv  say where this file is, and why
  ds-flow show last                   show the newest run

Options:
  --config FILE  the project's settings file, before or behind the command
                 (default: $DS_FLOW_CONFIG, else this checkout's)
  -V, --version  print the version
  -h, --help     print this text; `ds-flow help COMMAND` explains one command"""


def whole_help(groups: Groups) -> str:
    """The help of the whole command line."""
    width = max(len(name) for commands in groups.values() for name in commands)
    lines: list[str] = []
    for heading, commands in groups.items():
        lines += ["", f"{heading}:"]
        lines += [f"  {name:<{width}}  {command.HELP}" for name, command in commands.items()]
    return WHOLE.format(groups="\n".join(lines))


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the process, and says what was meant."""

    def __init__(self, *, whole: str = "", examples: Sequence[str] = (), **options: Any) -> None:
        self._whole = whole
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="\n  ".join(["examples:", *examples]) if examples else None,
            allow_abbrev=False,
            **options,
        )

    def format_help(self) -> str:
        """The text that was given as a whole, or argparse's."""
        return f"{self._whole}\n" if self._whole else super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, with where to read more."""
        _, _, command = self.prog.partition(" ")
        raise UsageError(f"{message}\n`ds-flow help{command and f' {command}'}` explains it.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is no choice of an argument: argparse's own words name all, but no guess."""
        if action.choices is None or value in action.choices:
            return
        name = "/".join(action.option_strings) or action.metavar or action.dest
        words = [str(one) for one in action.choices]
        if name == COMMAND:
            text = f"there is no command {str(value)!r}{_guess(value, words)}"
        else:
            text = f"{name}: {str(value)!r} is not one of {', '.join(words)}{_guess(value, words)}"
        self.error(text)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and name unknown options together with those that were perhaps meant."""
        found, unknown = super().parse_known_args(args, namespace)
        for one in unknown:
            flag = str(one).partition("=")[0]
            if flag.startswith("-"):
                known = [text for action in self._actions for text in action.option_strings]
                self.error(f"unknown option {flag}{_guess(flag, known)}")
        return found, unknown


COMMAND = "COMMAND"


def _guess(word: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
