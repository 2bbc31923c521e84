"""`ds-flow release`: let quarantined files wait for a batch again."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import NO_WAIT, Arguments, UsageError, argument, flag
from ds_flow.core import Cause, FileState, counted
from ds_flow.system import DONE, FAILED, put, say

if TYPE_CHECKING:
    from ds_flow.ledger import Ledger
    from ds_flow.settings import Settings

HELP = "let quarantined files wait for a batch again"
ARGUMENTS: Arguments = (
    argument("files", nargs="*", metavar="FILE", help="these files"),
    flag("--all", help="all quarantined files"),
    NO_WAIT,
)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import carry_out, record_each
    from ds_flow.service import release

    if bool(args.files) == args.all:
        raise UsageError("release: name files, or give --all")
    settings, at = load(args), now()
    released: list[int] = []
    with open_ledger(settings, at) as ledger:
        paths = _all(ledger) if args.all else _named(settings, ledger, args.files)

        def record(path: str) -> str:
            file, words = release(ledger, path, at)
            released.append(file)
            return words

        recorded, refused = record_each(dict.fromkeys(paths), record)
    if not recorded and not refused:
        put("no quarantined file can be released")
    code = carry_out(settings, no_wait=args.no_wait, released=released) if recorded else DONE
    return code or min(refused, FAILED)


def _all(ledger: "Ledger") -> list[str]:
    rows = list(ledger.read.files_in(FileState.QUARANTINED))
    paths = [row.path for row in rows if row.cause != Cause.NAME]
    if len(paths) < len(rows):
        say(f"{counted(len(rows) - len(paths), 'file')} must be renamed first")
    return paths


def _named(settings: "Settings", ledger: "Ledger", typed: Iterable[str]) -> list[str]:
    from ds_flow.views import find_place

    return [find_place(settings, ledger, one, str(Path.cwd())).path for one in typed]
