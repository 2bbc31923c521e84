"""`student_flow.py run` by hand: the whole input pattern as one batch, formed here.

The process is then replaced by itself with the attempt's mark in its environment, so that whoever
looks later sees which processes belong to which attempt.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ds_flow import scan, settings, workdir
from ds_flow.errors import DsFlowError, RequestError
from ds_flow.model import Trigger
from ds_flow.names import is_hostile, unescape
from ds_flow.plan import Plan, PlannedFile
from ds_flow.workdir import ATTEMPT_MARK


def begin(argv: Sequence[str]) -> None:
    """Form the batch and run again as its first attempt; return if this is no such command."""
    if "run" not in argv[1:] or "--help" in argv or ATTEMPT_MARK in os.environ:
        return
    if any(word == "--batch" or word.startswith("--batch=") for word in argv):
        return
    try:
        chosen = settings.load(settings.find(None, os.environ), os.environ)
        plan = form(chosen)
    except DsFlowError as error:
        print(f"student_flow.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    work = workdir.create(chosen.output_dir, plan)
    number = workdir.new_attempt(work)
    log = workdir.attempt_log(chosen.log_dir, plan.batch, number)
    log.parent.mkdir(parents=True, exist_ok=True)
    for descriptor in (1, 2):
        _copy_to(log, descriptor)
    mark = f"{plan.batch}/{number}"
    environment = {**chosen.run_environment(os.environ), ATTEMPT_MARK: mark}
    batch = ["--batch", plan.batch, "--output-dir", str(chosen.output_dir)]
    os.execve(  # noqa: S606 - this very process, marked
        sys.executable, [sys.executable, *argv, *batch], environment
    )


def form(chosen: settings.Settings) -> Plan:
    """Make a plan of every file that matches now. Raises RequestError if none does."""
    pattern = scan.Pattern.parse(chosen.pattern, chosen.root)
    seen = sorted(scan.look(pattern).sightings)
    files = [item for item in seen if not is_hostile(unescape(item.path))]
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


def _copy_to(log: Path, descriptor: int) -> None:
    """Send what is written to a descriptor to the log, too."""
    tee = subprocess.Popen(
        ["tee", "--ignore-interrupts", "--append", "--", str(log)],
        stdin=subprocess.PIPE,
        stdout=descriptor,
    )
    if tee.stdin is not None:
        os.dup2(tee.stdin.fileno(), descriptor)
        tee.stdin.close()
