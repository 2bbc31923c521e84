"""`ds-flow explain`: where one file is, and why."""

import argparse
import os
from pathlib import Path

from ds_flow.cli.arguments import JSON, Arguments, argument
from ds_flow.core import Document
from ds_flow.system import (
    DONE,
    FAILED,
    Moment,
    put,
    put_document,
    put_sentence,
    put_table,
    running_pid,
)

HELP = "say where a file is, and why"
ARGUMENTS: Arguments = (
    argument("file", metavar="FILE", help="any file, even one that ds-flow does not know"),
    JSON,
)


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import now, reading
    from ds_flow.views import Question, explanation, find_place

    with reading(args) as (settings, ledger):
        place = find_place(settings, ledger, args.file, str(Path.cwd()))
        has_daemon = running_pid(settings) is not None
        answer = explanation(Question(settings, ledger, place, has_daemon, now()))
    if args.json:
        put_document(answer)
    else:
        _put_answer(answer)
    return DONE if answer["state"] or os.path.lexists(place.raw) else FAILED


def _put_answer(answer: Document) -> None:
    put_sentence(f"{answer['path']}: {answer['verdict']}")
    if answer["next"]:
        put_sentence(f"next: {answer['next']}")
    if answer["events"]:
        put()
        rows = ([Moment(one["at"]), one["kind"], one["detail"]] for one in answer["events"])
        put_table(("at", "kind", "detail"), rows)
