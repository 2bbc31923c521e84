"""`ds-flow status`: count everything, check that it adds up, and say what needs a person."""

import argparse
import shutil
import sys
from threading import Event
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import JSON, Arguments, UsageError, argument, flag, seconds
from ds_flow.core import Document, DsFlowError
from ds_flow.system import DONE, put, put_document, put_lines, running_pid

if TYPE_CHECKING:
    from ds_flow.settings import Settings

HELP = "say whether all is well, what needs a person, and where files are"
LEAST_SECONDS, MOST_SECONDS = 0.1, 86_400.0


def _pause(typed: str) -> float:
    return min(max(seconds(typed), LEAST_SECONDS), MOST_SECONDS)


ARGUMENTS: Arguments = (
    JSON,
    flag("--check", help="one line; exit code 0: all is well, 3: needs a person, 4: no daemon"),
    flag("--watch", help="show it again and again, until Ctrl-C"),
    argument(
        "--every", type=_pause, default=2.0, metavar="SECONDS", help="how often --watch looks"
    ),
)

NEEDS_PERSON, NO_DAEMON = 3, 4
CODES = {"ok": DONE, "attention": NEEDS_PERSON, "down": NO_DAEMON}
ANSWER_SECONDS = 2.0  # for a backend that no daemon has asked

AGAIN = "\x1b[H\x1b[J"
"""Go to the first line of the terminal, and clear what is below."""


def run(args: argparse.Namespace) -> int:
    if args.check and args.watch:
        raise UsageError("status: --check and --watch do not go together")
    if args.watch:
        _watch(args)
    document = _document(args)
    if args.check:
        put_document(document) if args.json else put(_one_line(document))
        return CODES[document["verdict"]]
    _put(args, document)
    return DONE


def _document(args: argparse.Namespace) -> Document:
    from ds_flow.cli.project import now, reading
    from ds_flow.views import status_document

    with reading(args, is_told=not args.watch) as (settings, ledger):
        pid = running_pid(settings)
        return status_document(settings, ledger, pid, now(), _asked(settings, pid))


def _asked(settings: "Settings", pid: int | None) -> dict[str, str]:
    """Ask the backends, where no daemon has done so. None may hold the answer up for long."""
    from ds_flow.upkeep import read_record

    if all(stage.executor == "local" for stage in settings.stages.values()):
        return {}
    record = read_record(settings.work_root, pid)
    if record and record.heard:
        return {}
    import os

    from ds_flow.doctor import silent_backends

    return silent_backends(settings, os.environ, ANSWER_SECONDS)


def _one_line(document: Document) -> str:
    return f"{document['verdict']}: {document['summary']}"


def _put(args: argparse.Namespace, document: Document) -> None:
    if args.json:
        put_document(document)
        return
    from ds_flow.cli.status_text import status_lines

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in status_lines(document, width, getattr(args, "config", None)):
        put(line)


def _watch(args: argparse.Namespace) -> None:
    """Show it until Ctrl-C: on a terminal in place, else one block after the other."""
    while True:
        try:
            document = _document(args)
        except DsFlowError as error:  # it may pass: a locked ledger, settings that are being edited
            _begin_block()
            put(f"status     unknown: {error}")
        else:
            _begin_block()
            _put(args, document)
        sys.stdout.flush()
        Event().wait(args.every)
        if not sys.stdout.isatty() and not args.json:
            put()


def _begin_block() -> None:
    if sys.stdout.isatty():
        put_lines(AGAIN)
