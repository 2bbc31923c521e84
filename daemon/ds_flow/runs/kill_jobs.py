"""End a batch's jobs on a cluster or Docker: `python -m ds_flow.runs.kill_jobs WORK_DIR`.

This is a process of its own, because a cluster may take minutes to answer.
"""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ds_flow.core import DsFlowError
from ds_flow.dispatch import cancel_jobs, make_backends
from ds_flow.work import Batch

LIMIT_SECONDS = 600.0
POLL_SECONDS = 1.0


def cancel_batch_jobs(batch: Batch, environ: Mapping[str, str], limit_s: float) -> list[str]:
    """End all jobs of a batch and wait until they have ended; return the rounds still alive.

    `environ` is the environment of a run: its variables say where the jobs are.
    """
    on = make_backends(batch.plan.options.site, environ)
    end_s = time.monotonic() + limit_s
    while (live := cancel_jobs(batch.jobs, on)) and time.monotonic() < end_s:
        time.sleep(POLL_SECONDS)  # noqa: TID251 - nothing else to do
    return live


def main(argv: list[str]) -> int:
    """Return 0 once no job is left, 1 if some could not be ended; those are printed."""
    try:
        live = cancel_batch_jobs(Batch(Path(argv[0])), os.environ, LIMIT_SECONDS)
    except DsFlowError as error:
        print(f"kill_jobs: {error}", file=sys.stderr)  # noqa: T201 - to the attempt's log
        return 1
    for name in live:
        print(f"{name}: its jobs may be alive; end them by hand", file=sys.stderr)  # noqa: T201
    return 1 if live else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
