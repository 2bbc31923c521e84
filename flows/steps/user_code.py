"""Errors of a team's own code: the line of it that failed, and its traceback, once."""

import linecache
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from itertools import pairwise, takewhile
from pathlib import Path

from ds_flow.core import CHECKOUT
from ds_flow.system import masked

MESSAGE_LENGTH = 500  # characters of an exception's message that are kept
LINE_LENGTH = 200  # characters of a line of code that are kept
TRACE_LENGTH = 2**13  # characters of each half of a traceback that are printed

PACKAGES = ("site-packages", "dist-packages")
"""Folders of installed packages. An environment may lie in the project."""

OURS = tuple(f"{CHECKOUT}/{name}/" for name in ("flows/steps", "flows/csv_io", "daemon/ds_flow"))

FRAME = re.compile(r'  File "(?P<file>[^"]+)", line (?P<number>[0-9]+)')
"""How a line of a printed traceback begins that names a place."""

Line = tuple[str, int]
"""A file and the number of a line in it."""


@dataclass(frozen=True, slots=True)
class OwnCode:
    """Which code is a team's: what lies in its project, and the package of its transform."""

    root: Path
    module: str = ""  # the transform's, which may be installed elsewhere
    _printed: set[tuple[str, Line | None]] = field(default_factory=set)

    def told(self, error: BaseException, *, is_private: bool = False) -> str:
        """An exception in one line: the team's line that failed, its text, what the exception says.

        A private one does not say that, since it may quote cells. The text is code, and no data.
        """
        what = kind_of(error) if is_private else said(error)
        line = self.line_of(error)
        return f"{self._shown(*line)}: {what}" if line else what

    def line_of(self, error: BaseException) -> Line | None:
        """Find the last line of the team's code that an exception came through."""
        lines = list(_lines(error))
        own = [line for line in lines if self._has(line[0])]
        # A library of the team that is installed where it is developed is in neither place.
        near = own or [line for line in lines if _is_near(line[0])]
        return near[-1] if near else None

    def print_trace(self, error: BaseException, *, is_private: bool = False) -> None:
        """Print the traceback of the team's code: what a job prints is repeated in the run's log.

        Of many files that fail in one line, the first one has it. The middle of a very long one is
        left out, and of a private one what exceptions say.
        """
        line = self.line_of(error)
        key = (type(error).__name__, line)
        if key in self._printed:
            return
        self._printed.add(key)
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(("<", *OURS)):
            trace = trace.tb_next
        text = "".join(
            [*traceback.format_tb(trace), kind_of(error)]
            if is_private
            else traceback.format_exception(type(error), error, trace)
        )
        text = masked(text, os.environ)
        if len(text) > 2 * TRACE_LENGTH:
            text = f"{text[:TRACE_LENGTH]}\n...\n{text[-TRACE_LENGTH:]}"
        print(text.rstrip(), file=sys.stderr)

    def line_printed(self, lines: Sequence[str]) -> str:
        """What a program printed last; with the team's line, if that ends a Python traceback.

        Its text is what was printed, too: no file is read because some program names it.
        """
        trace = _last_trace(lines)
        shown = ""
        for line, after in pairwise([*trace, ""]):
            match = FRAME.match(line)
            if match and self._has(str(self.root / match["file"])):
                text = after.strip() if after.startswith("    ") else ""
                shown = self._place(str(self.root / match["file"]), match["number"], text)
        return f"{shown}: {lines[-1]}" if shown else lines[-1]

    def _shown(self, file: str, number: int) -> str:
        linecache.checkcache(file)
        return self._place(file, str(number), linecache.getline(file, number).strip())

    def _place(self, file: str, number: str, text: str) -> str:
        path = Path(file)
        name = path.relative_to(self.root) if path.is_relative_to(self.root) else path.name
        return f"{name}:{number}: {text[:LINE_LENGTH]}" if text else f"{name}:{number}"

    def _has(self, file: str) -> bool:
        if file.startswith("<"):
            return False
        inside = Path(file).is_relative_to(self.root) and Path(file).relative_to(self.root).parts
        if inside and not {*inside} & {*PACKAGES} and not file.startswith(OURS):
            return True
        return bool(self.module) and file.startswith(self._package())

    def _package(self) -> str:
        """The folder of the transform's package, or its one file."""
        top = sys.modules.get(self.module.partition(".")[0])
        file = getattr(top, "__file__", None) or "\0"
        return f"{Path(file).parent}/" if Path(file).name == "__init__.py" else file


def said(error: BaseException) -> str:
    """What an exception says, in one line."""
    text = (error.msg or "") if isinstance(error, SyntaxError) else str(error)
    message = " ".join(text.split())[:MESSAGE_LENGTH]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def kind_of(error: BaseException) -> str:
    """An exception without what it says."""
    return f"{type(error).__name__} (what it says is hidden: privacy.hide_columns)"


def _lines(error: BaseException) -> Iterator[Line]:
    """Every line that an exception came through, outermost first; of code that is none, where."""
    for frame in traceback.extract_tb(error.__traceback__):
        yield frame.filename, frame.lineno or 0
    if isinstance(error, SyntaxError) and error.filename:
        yield error.filename, error.lineno or 0


def _is_near(file: str) -> bool:
    return not file.startswith(("<", *_installed(), *OURS))


@cache
def _installed() -> tuple[str, ...]:
    """Python's own folders and its packages'. An image may have pandas in a folder of its own."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    pandas = find_spec("pandas")
    apart = [f"{Path(pandas.origin).parents[1]}/"] if pandas and pandas.origin else []
    return (*(f"{sysconfig.get_path(name)}/" for name in names), *apart)


def _last_trace(lines: Sequence[str]) -> list[str]:
    """The lines of a printed traceback, if one stands right before the last line."""
    return list(takewhile(lambda line: line.startswith("  "), reversed(lines[:-1])))[::-1]
