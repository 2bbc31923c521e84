"""`ds-flow files`: every version of every file, and where it is."""

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import JSON, Arguments, argument, state_option
from ds_flow.core import FileState
from ds_flow.system import DONE, FAILED, put_long_document, put_table, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ds_flow.ledger import FileRow, Reading

HELP = "list file versions and where each is"
ARGUMENTS: Arguments = (
    argument("paths", nargs="*", metavar="PATH", help="only these files"),
    state_option(FileState, "only versions in this state"),
    JSON,
)

COLUMNS = ("path", "version", "state", "size_bytes", "run_id", "reason")


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import reading
    from ds_flow.views import file_document, find_place

    with reading(args) as (settings, ledger):
        places = [find_place(settings, ledger, one, str(Path.cwd())) for one in args.paths]
        paths = list(dict.fromkeys(one.path for one in places))
        files = map(file_document, _rows(ledger.read, paths, args.state))
        if args.json:
            put_long_document("files", files)
        else:
            put_table(COLUMNS, ([file[name] for name in COLUMNS] for file in files))
        unknown = [path for path in paths if not ledger.read.versions(path)]
    for path in unknown:
        say(f"{path} is not in the ledger; `ds-flow explain` says why")
    return FAILED if unknown else DONE


def _rows(read: "Reading", paths: list[str], state: str | None) -> "Iterable[FileRow]":
    if paths:
        rows = itertools.chain.from_iterable(map(read.versions, paths))
        return (row for row in rows if state in {None, row.state})
    return read.files_in(FileState(state)) if state else read.files()
