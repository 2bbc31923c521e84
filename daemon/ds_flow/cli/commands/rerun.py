"""`ds-flow rerun`: process files again, as one new batch."""

import argparse
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import NO_WAIT, Arguments, UsageError, argument, flag
from ds_flow.core import RequestError, RunState, Trigger, counted
from ds_flow.system import DONE, FAILED, put, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ds_flow.ledger import FileRow, Ledger
    from ds_flow.settings import Settings

HELP = "process files again, as one new batch, or only analyze again"
ARGUMENTS: Arguments = (
    argument("runs", nargs="*", metavar="RUN_ID", help="the files of these runs"),
    argument("--file", nargs="+", metavar="PATH", default=(), help="these files"),
    flag("--all", help="every published file"),
    flag("--analyze", help="only the analysis of this one run, over its combined file"),
    flag("--failed", help="files that were rejected or were in a dead batch"),
    NO_WAIT,
)


def run(args: argparse.Namespace) -> int:
    """Form a batch of the newest versions. Files that are gone or claimed are named and left out.

    Raises RequestError if no file is left.
    """
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import carry_out
    from ds_flow.schedules import choose_files

    if args.analyze:
        return _analyze(args)
    if sum(map(bool, (args.runs, args.file, args.all, args.failed))) != 1:
        raise UsageError("rerun: name Run IDs, or give one of --file, --all, --failed")
    settings, at = load(args), now()
    with open_ledger(settings, at) as ledger:
        choice = choose_files(settings, _files(settings, ledger, args))
        for path, why in choice.left_out.items():
            say(f"left out: {path} {why}")
        batch = secrets.token_hex(5)
        ids = [row.id for row in choice.free]
        files = ledger.form(batch, ids, Trigger.RERUN, at, _selection(args))
        if not files:
            raise RequestError(
                "nothing to rerun: no such file is published, still there, and in no other batch"
            )
        put(f"batch {batch}: {counted(files, 'file')}")
    return carry_out(settings, no_wait=args.no_wait)


def _analyze(args: argparse.Namespace) -> int:
    """Do the analysis of one published run again, here, and wait for its end."""
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.runs import analyze_again
    from ds_flow.views import find_run

    if len(args.runs) != 1 or args.file or args.all or args.failed or args.no_wait:
        raise UsageError("rerun --analyze: name one run, and give no other option")
    settings = load(args)
    with open_ledger(settings, now()) as ledger:
        run = find_run(ledger, args.runs[0])
    if run.state != RunState.SUCCEEDED or run.run_id is None:
        raise RequestError(f"run {args.runs[0]} has published nothing: it is {run.state}")
    run_id = run.run_id

    def record(number: int, error: str) -> None:
        with open_ledger(settings, now()) as ledger:
            ledger.record_analysis(run_id, number, error, now())

    done = analyze_again(settings, run_id, record)
    place = os.path.relpath(settings.output_dir / done.name, settings.root)
    failed = f"analysis failed: run {run_id}: {done.error}"
    put(failed if done.error else f"run {run_id}: analysis succeeded")
    put(f"  {place}")
    return FAILED if done.error else DONE


def _selection(args: argparse.Namespace) -> str:
    """Name the selection as schedules do; "" if it has no name."""
    from ds_flow.ledger import RUN_PREFIX

    if args.all or args.failed:
        return "all" if args.all else "failed"
    return f"{RUN_PREFIX}{args.runs[0]}" if len(args.runs) == 1 else ""


def _files(settings: "Settings", ledger: "Ledger", args: argparse.Namespace) -> "Iterator[FileRow]":
    from ds_flow.schedules import selected_files
    from ds_flow.views import find_batch, find_place

    if args.all or args.failed:
        yield from selected_files(settings, ledger.read, _selection(args))
        return
    paths = [find_place(settings, ledger, one, str(Path.cwd())).path for one in args.file]
    for name in args.runs:
        paths += ledger.read.batch_paths(find_batch(ledger, name))
    known = {row.path: row for row in ledger.read.latest(list(dict.fromkeys(paths)))}
    for path in dict.fromkeys(paths):
        if path in known:
            yield known[path]
        else:
            say(f"left out: {path} is not in the ledger")
