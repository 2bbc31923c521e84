"""`student_flow.py run` by hand: the whole input pattern as one batch, formed here.

The process then replaces itself, with the attempt's mark in its environment. The mark shows which
processes belong to which attempt.
"""

import math
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from ds_flow.core import (
    ATTEMPT_MARK,
    DsFlowError,
    Plan,
    PlannedFile,
    RequestError,
    Sighting,
    Trigger,
    is_hostile,
    printable,
    unescape,
)
from ds_flow.inbox import Pattern, needed_quiet_s, scan_files
from ds_flow.settings import Settings, find_settings, load_settings
from ds_flow.system import open_log
from ds_flow.work import Batch, attempt_log, refuse_root, require_own, settle
from steps.command_line import batch_options, command_of
from steps.start import open_batch


def begin(argv: Sequence[str]) -> None:
    """Form the batch and run again as its first attempt; for `run` and `resume` by a person.

    A batch that is named must have a plan. Without --output-dir, the settings say where it is.
    `resume` goes on where it was; neither is for a copy of a project, or for root in another's.
    """
    named = batch_options(argv)
    try:
        chosen = load_settings(find_settings(None, os.environ), os.environ)
        output_dir = chosen.options().portable().output_dir
        refuse_root(chosen.output_dir, chosen.root)
        require_own(chosen.output_dir, chosen.root)
        if command_of(argv) != "run":
            return
        if named.batch is None:
            _run_formed(argv, chosen, form(chosen))
        open_batch(named.output_dir or output_dir, named.batch)
    except DsFlowError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    if not named.output_dir:
        _run_again([*argv, "--output-dir", output_dir], os.environ)


def _run_formed(argv: Sequence[str], chosen: Settings, plan: Plan) -> NoReturn:
    """Run a batch that was just formed, marked as its first attempt."""
    batch = Batch.create(chosen.output_dir, plan)
    settle(chosen.output_dir, chosen.root)
    number = batch.new_attempt()
    log = attempt_log(chosen.log_dir, batch.id, number)
    log.parent.mkdir(parents=True, exist_ok=True)
    output = open_log(log, 0o640)
    for descriptor in (1, 2):
        _copy_to(output, descriptor)
    own = {ATTEMPT_MARK: f"{batch.id}/{number}", "TMPDIR": str(batch.scratch)}
    environment = {**chosen.run_environment(os.environ), **own}
    named = ["--batch", batch.id, "--output-dir", plan.options.portable().output_dir]
    _run_again([*argv, *named], environment)


def _run_again(argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become the same program with other arguments or another environment."""
    os.execve(sys.executable, [sys.executable, *argv], environment)  # noqa: S606 - this very process


def form(chosen: Settings) -> Plan:
    """Plan a batch of every file that matches and is complete. Raises RequestError if none is."""
    files = settled(chosen)
    if not files:
        raise RequestError(f"no file matches {chosen.pattern}: nothing to do")
    return Plan(
        batch=secrets.token_hex(5),
        trigger=Trigger.MANUAL,
        formed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        files=tuple(
            PlannedFile(path=path, version=None, sha256=None, size_bytes=stat.size_bytes)
            for path, stat in files
        ),
        options=chosen.options(),
    )


def settled(chosen: Settings) -> list[Sighting]:
    """The files that two looks found unchanged, and that nobody has open for writing.

    A file that is still being written is left out, and named on standard error.
    """
    pattern = Pattern.of(chosen)
    before = set(scan_files(pattern).sightings)
    quiet_s = max(filter(math.isfinite, (_needed_s(chosen, item) for item in before)), default=0)
    time.sleep(quiet_s)  # noqa: TID251 - nothing tells that a file is complete
    files, found = [], scan_files(pattern)
    for held in found.held:
        _say(f"left out: {held.sighting.path} {held.why}")
    for item in sorted(found.sightings):
        if is_hostile(unescape(item.path)):
            continue
        if item in before and _needed_s(chosen, item) <= quiet_s:
            files.append(item)
        else:
            _say(f"left out, still arriving: {item.path}")
    return files


def _say(text: str) -> None:
    print(f"student_flow.py: {printable(text)}", file=sys.stderr)


def _needed_s(chosen: Settings, item: Sighting) -> float:
    raw = str(Path(chosen.root, unescape(item.path)))
    base = str(Pattern.of(chosen).base)
    return needed_quiet_s(raw, base, chosen.watch.quiet_seconds)


def _copy_to(log: int, descriptor: int) -> None:
    """Copy what is written to a descriptor to the log."""
    tee = subprocess.Popen(
        ["tee", "--ignore-interrupts", "--append", "--", f"/dev/fd/{log}"],
        stdin=subprocess.PIPE,
        stdout=descriptor,
        pass_fds=[log],
    )
    if tee.stdin is not None:
        os.dup2(tee.stdin.fileno(), descriptor)
        tee.stdin.close()
