"""The commands: one function each, from parsed arguments to an exit code."""

import argparse
import itertools
import os
import signal
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files as packaged
from pathlib import Path
from typing import TYPE_CHECKING

from ds_flow.core import (
    BatchState,
    DsFlowError,
    FileState,
    RequestError,
    RunState,
    SettingsError,
    counted,
)
from ds_flow.system import (
    DONE,
    FAILED,
    INTERRUPTED,
    put,
    put_document,
    put_lines,
    put_long_document,
    put_table,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ds_flow.ledger import FileRow, Ledger, Reading
    from ds_flow.settings import Settings

# What only some commands need is imported by them: start-up time is every command's.


class UsageError(DsFlowError):
    """Arguments that do not go together."""

    exit_code = 2


# --------------------------------------------------------------------------- what commands share


def _settings(args: argparse.Namespace, *, to_work: bool = True) -> "Settings":
    from ds_flow.settings import find_settings, load_settings
    from ds_flow.system import set_up_logging

    # Absolute, since runs read it again from another directory.
    file = Path.cwd() / find_settings(getattr(args, "config", None), os.environ)
    chosen = load_settings(file, os.environ, to_work=to_work)
    set_up_logging(level="WARNING", json_lines=False, secrets=chosen.secrets)
    return chosen


def _now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def _reading(args: argparse.Namespace) -> "Iterator[tuple[Settings, Ledger]]":
    from ds_flow.cli.report import opened

    chosen = _settings(args, to_work=False)
    with opened(chosen, _now()) as ledger:
        yield chosen, ledger


# --------------------------------------------------------------------------- working


def serve(args: argparse.Namespace) -> int:
    from ds_flow.service import service

    with service(_settings(args)) as made:
        made.serve()
    return INTERRUPTED if made.stop_signal == signal.SIGINT else DONE


def once(args: argparse.Namespace) -> int:
    from ds_flow.cli.requests import work_off

    return work_off(_settings(args))


def retry(args: argparse.Namespace) -> int:
    from ds_flow.cli import requests

    return requests.retry(_settings(args), args.batches, _now(), no_wait=args.no_wait)


def cancel(args: argparse.Namespace) -> int:
    from ds_flow.cli import requests

    return requests.cancel(_settings(args), args.batches, _now(), no_wait=args.no_wait)


def release(args: argparse.Namespace) -> int:
    from ds_flow.cli import requests

    if bool(args.files) == args.all:
        raise UsageError("release: name files, or give --all")
    typed = None if args.all else args.files
    return requests.release(_settings(args), typed, str(Path.cwd()), _now(), no_wait=args.no_wait)


def rerun(args: argparse.Namespace) -> int:
    from ds_flow.cli import requests
    from ds_flow.cli.requests import Wanted

    wanted = Wanted(runs=args.runs, files=args.file, is_all=args.all, is_failed=args.failed)
    if sum(map(bool, (args.runs, args.file, args.all, args.failed))) != 1:
        raise UsageError("rerun: name Run IDs, or give one of --file, --all, --failed")
    return requests.rerun(_settings(args), wanted, str(Path.cwd()), _now(), no_wait=args.no_wait)


def schedule(args: argparse.Namespace) -> int:
    if (args.action is None) != (args.name is None):
        raise UsageError("schedule: name the one to run: ds-flow schedule run NAME")
    if args.action:
        from ds_flow.cli import requests

        return requests.fire(_settings(args), args.name, _now(), no_wait=args.no_wait)
    from ds_flow.cli import report
    from ds_flow.cli.render import put_schedules

    with _reading(args) as (chosen, ledger):
        documents = report.schedules(chosen, ledger, _now())
        if args.json:
            put_long_document("schedules", documents)
        else:
            put_schedules(documents)
    return DONE


# --------------------------------------------------------------------------- reading


def status(args: argparse.Namespace) -> int:
    from ds_flow.cli import report
    from ds_flow.cli.render import put_status
    from ds_flow.system import running_pid

    with _reading(args) as (chosen, ledger):
        answer = report.status(chosen, ledger, running_pid(chosen), _now())
        dead = [batch.id for batch in ledger.read.batches_in(BatchState.DEAD)]
        dead = [batch for batch in dead if ledger.read.has_dead_files(batch)]  # else retried
    if args.json:
        put_document(answer)
    else:
        put_status(answer, dead)
    return DONE


def files(args: argparse.Namespace) -> int:
    from ds_flow.cli.lookup import find_place
    from ds_flow.cli.render import put_files
    from ds_flow.cli.report import file

    with _reading(args) as (chosen, ledger):
        places = [find_place(chosen, ledger, one, str(Path.cwd())) for one in args.paths]
        paths = list(dict.fromkeys(one.path for one in places))
        rows = _file_rows(ledger.read, paths, args.state)
        documents = (file(row) for row in rows)
        if args.json:
            put_long_document("files", documents)
        else:
            put_files(documents)
        unknown = [path for path in paths if not ledger.read.versions(path)]
    for path in unknown:
        say(f"{path} is not known; `ds-flow explain` says more")
    return FAILED if unknown else DONE


def _file_rows(read: "Reading", paths: list[str], state: str | None) -> "Iterable[FileRow]":
    if paths:
        rows = itertools.chain.from_iterable(map(read.versions, paths))
        return (row for row in rows if state in {None, row.state})
    return read.files_in(FileState(state)) if state else read.files()


def runs(args: argparse.Namespace) -> int:
    from ds_flow.cli import report
    from ds_flow.cli.render import put_runs

    with _reading(args) as (chosen, ledger):
        state = RunState(args.state) if args.state else None
        documents = report.runs(chosen, ledger, state, args.limit)
        if args.json:
            put_long_document("runs", documents)
        else:
            put_runs(documents)
    return DONE


def show(args: argparse.Namespace) -> int:
    from ds_flow.cli import report
    from ds_flow.cli.lookup import find_run
    from ds_flow.cli.render import put_run

    with _reading(args) as (chosen, ledger):
        answer = report.show(chosen, ledger, find_run(ledger, args.run_name))
    (put_document if args.json else put_run)(answer)
    return DONE


def explain(args: argparse.Namespace) -> int:
    from ds_flow.cli.explain import Asked
    from ds_flow.cli.explain import explain as explained
    from ds_flow.cli.lookup import find_place
    from ds_flow.cli.render import put_explanation
    from ds_flow.system import running_pid

    with _reading(args) as (chosen, ledger):
        found = find_place(chosen, ledger, args.file, str(Path.cwd()))
        has_daemon = running_pid(chosen) is not None
        answer = explained(Asked(chosen, ledger, found, has_daemon, _now()))
    (put_document if args.json else put_explanation)(answer)
    return DONE if answer["state"] or os.path.lexists(found.raw) else FAILED


def logs(args: argparse.Namespace) -> int:
    from ds_flow.cli.follow_log import find_log, put_log

    with _reading(args) as (chosen, ledger):
        put_log(find_log(chosen, ledger, args.run_name), follow=args.follow)
    return DONE


def manifest(args: argparse.Namespace) -> int:
    from ds_flow.cli import render
    from ds_flow.cli.report import manifests, missing_manifests

    if args.json and args.csv:
        raise UsageError("manifest: --json or --csv, not both")
    faults: list[str] = []
    with _reading(args) as (chosen, ledger):
        if args.run_id and ledger.read.run(args.run_id) is None:
            raise RequestError(f"no run {args.run_id!r}; `ds-flow runs` lists them")
        faults += (f"run {run}: its manifest is gone" for run in missing_manifests(chosen, ledger))
        documents = manifests(chosen, args.run_id, faults.append)
        if args.json:
            put_long_document("manifests", documents)
        elif args.csv:
            render.put_manifests_csv(documents)
        else:
            render.put_manifests(documents)
    for fault in faults:
        say(fault)
    return FAILED if faults else DONE


def verify(args: argparse.Namespace) -> int:
    from ds_flow.cli import report
    from ds_flow.cli.lookup import find_run

    with _reading(args) as (chosen, ledger):
        runs = [find_run(ledger, args.run_name)] if args.run_name else list(ledger.read.runs())
        published = [run for run in runs if run.state == RunState.SUCCEEDED and not run.removed_at]
        if args.run_name and not published:
            raise RequestError(f"run {args.run_name} published nothing that is still kept")
        answers = [report.verified(chosen, ledger, run) for run in published]
    if args.json:
        put_long_document("runs", answers)
    faults = [f"run {one['run_id']}: {fault}" for one in answers for fault in one["faults"]]
    for fault in [] if args.json else faults:
        put(fault)
    if not (args.json or faults):
        put(f"{counted(len(published), 'run')}: all outputs are as published")
    return FAILED if faults else DONE


def gc(args: argparse.Namespace) -> int:
    from ds_flow.cli.render import put_collected
    from ds_flow.cli.report import collected
    from ds_flow.upkeep import Retention

    with _reading(args) as (chosen, ledger):
        found = Retention(chosen, ledger, _now(), args.dry_run).collect()
    answer = collected(found, is_dry=args.dry_run)
    (put_document if args.json else put_collected)(answer)
    return DONE


def check(args: argparse.Namespace) -> int:
    if args.schema:
        return _put_schema(args.schema)
    from ds_flow.doctor import surroundings
    from ds_flow.settings import effective

    chosen = _settings(args)
    findings = surroundings(chosen, os.environ)
    rows = [(one.level, one.subject, one.text) for one in findings]
    if args.json:
        names = ("level", "subject", "text")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        put_document({"settings": str(chosen.file), "findings": found})
    else:
        put_table(("level", "subject", "finding"), rows)
        put()
        put(f"# {chosen.file}, with every default and where each setting is from")
        put_lines(effective(chosen).rstrip())
    return SettingsError.exit_code if "fault" in {row[0] for row in rows} else DONE


def _put_schema(name: str) -> int:
    if name == "manifest":
        text = packaged("ds_flow.core").joinpath("manifest.schema.json").read_text()
        put_lines(text.rstrip())
    else:
        from ds_flow.settings import settings_schema

        put_document(settings_schema())
    return DONE
