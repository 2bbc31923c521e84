"""Jobs on backends: the local machine, LSF, Slurm, Docker.

`stage.run_stage` is what a flow step calls. It works in rounds (`rounds`): a round is a folder on
disk, with one submission of the stage's open jobs. `backends.BACKENDS` is the table of backends,
`protocol.Backend` is what each one provides.

To add a backend, write a folder beside `docker/` with the same files:

    client.py    calls the site's commands, each with a time limit
    texts.py     builds their arguments and reads what they print; pure
    handover.py  what the backend keeps in a round's folder, to continue after a crash
    backend.py   the five verbs of `Backend`

A cluster with job arrays needs only the first two: `cluster/` decides for all of them, from what a
`Scheduler` asks and reads; see `lsf/` and `slurm/`.

Then add its line to `BACKENDS`, its name to `Executor` in `settings/types.py`, its section to
`settings/compute.py`, and the same fields to `core/plan.py`. Add a place to
tests/support/backends.py: the tests that all backends share then run on it, too.

What backends share is written once:

    commands.call             one call of a command, with a time limit and without secrets
    commands.put_environment  the variables of `.env`, readable for the user's jobs only
    commands.print_note       a line in the run's log
    exit_codes                what an exit code means
    rounds.Report.of_end      the report of a job that has ended
"""

from ds_flow.dispatch.backends import make_backends
from ds_flow.dispatch.commands import call
from ds_flow.dispatch.docker import DockerClient, unobtainable
from ds_flow.dispatch.local_jobs import fork_program, is_forked_job
from ds_flow.dispatch.progress import StageJobs, jobs_in, stage_of, stages_in, told
from ds_flow.dispatch.protocol import Backend
from ds_flow.dispatch.rounds import JobSpec, Outcome, Report, Round, open_round, rounds_in
from ds_flow.dispatch.slurm import facts_of_slurm
from ds_flow.dispatch.stage import LIVE, cancel_jobs, has_jobs_elsewhere, log_of, run_stage

__all__ = [
    "LIVE",
    "Backend",
    "DockerClient",
    "JobSpec",
    "Outcome",
    "Report",
    "Round",
    "StageJobs",
    "call",
    "cancel_jobs",
    "facts_of_slurm",
    "fork_program",
    "has_jobs_elsewhere",
    "is_forked_job",
    "jobs_in",
    "log_of",
    "make_backends",
    "open_round",
    "rounds_in",
    "run_stage",
    "stage_of",
    "stages_in",
    "told",
    "unobtainable",
]
