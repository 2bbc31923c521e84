"""Jobs on backends: the local machine, LSF, Docker."""

from ds_flow.dispatch.commands import call
from ds_flow.dispatch.docker import Engine, unobtainable
from ds_flow.dispatch.rounds import JobSpec, Outcome, Report, Round, open_round, rounds_in
from ds_flow.dispatch.stage import (
    LIVE,
    Backend,
    backends,
    cancel_jobs,
    has_jobs_elsewhere,
    log_of,
    run_stage,
)

__all__ = [
    "LIVE",
    "Backend",
    "Engine",
    "JobSpec",
    "Outcome",
    "Report",
    "Round",
    "backends",
    "call",
    "cancel_jobs",
    "has_jobs_elsewhere",
    "log_of",
    "open_round",
    "rounds_in",
    "run_stage",
    "unobtainable",
]
