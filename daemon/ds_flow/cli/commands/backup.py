"""`ds-flow backup`: copy the ledger to a file."""

import argparse
from pathlib import Path

from ds_flow.cli.arguments import Arguments, argument
from ds_flow.core import RequestError
from ds_flow.system import DONE, put

HELP = "copy the ledger to a new file, also while ds-flow runs"
ARGUMENTS: Arguments = (argument("file", metavar="FILE", help="where to; nothing may be there"),)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import reading

    file = Path(args.file).absolute()
    with reading(args) as (settings, ledger):
        try:
            ledger.back_up(file)
        except FileExistsError as error:
            raise RequestError(f"{file} exists already: name a new file") from error
    put(f"{settings.ledger} is copied to {file}")
    return DONE
