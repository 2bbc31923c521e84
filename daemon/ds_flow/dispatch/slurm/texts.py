"""The arguments of Slurm's commands, and what they print, of version 20.11 and later."""

import math
import re
import shlex
from pathlib import Path

from ds_flow.core import SITES_LIMIT, FailureClass, JobState, SlurmSite
from ds_flow.dispatch.cluster import ENDED, Row, Terms, end_of_term
from ds_flow.dispatch.exit_codes import RUN_LIMIT_REACHED, End, of_exit_code, signal_of
from ds_flow.dispatch.rounds import RUN_JOB, JobSpec

# squeue(1), JOB STATE CODES. A word that is not here is unknown: it may be alive.
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"}
    | {"SPECIAL_EXIT"}
)
SUSPENDED = frozenset({"SUSPENDED", "STOPPED"})
STATES: dict[str, JobState] = {
    **dict.fromkeys(WAITING, JobState.PENDING),
    **dict.fromkeys(("RUNNING", "COMPLETING", "RESIZING"), JobState.RUNNING),
    **dict.fromkeys(("SIGNALING", "STAGE_OUT", *SUSPENDED), JobState.RUNNING),
    "COMPLETED": JobState.SUCCEEDED,
    **dict.fromkeys(("FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"), JobState.FAILED),
    **dict.fromkeys(("PREEMPTED", "CANCELLED", "DEADLINE", "BOOT_FAIL"), JobState.FAILED),
    **dict.fromkeys(("REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL"), JobState.FAILED),
}

OUT_OF_MEMORY = "OUT_OF_MEMORY"
REQUEUED = "REQUEUED"
REASONS: Terms = {
    OUT_OF_MEMORY: (FailureClass.MEMORY, "memory limit reached"),
    "TIMEOUT": (FailureClass.LIMIT, RUN_LIMIT_REACHED),
    "DEADLINE": (FailureClass.LIMIT, f"{SITES_LIMIT}deadline for the job reached"),
    "CANCELLED": (FailureClass.BY_HAND, "ended by its owner or an administrator (scancel)"),
    "PREEMPTED": (FailureClass.INFRASTRUCTURE, "ended in favour of a job of higher priority"),
    REQUEUED: (FailureClass.INFRASTRUCTURE, "ended to be started again (scontrol requeue)"),
    "NODE_FAIL": (FailureClass.INFRASTRUCTURE, "its host failed"),
    "BOOT_FAIL": (FailureClass.INFRASTRUCTURE, "its host did not start"),
    "LAUNCH_FAILED": (FailureClass.INFRASTRUCTURE, "it could not be started on its host"),
    "RECONFIG_FAIL": (FailureClass.INFRASTRUCTURE, "its host could not be set up"),
    "REVOKED": (FailureClass.INFRASTRUCTURE, "taken over by another cluster"),
}
START_EXIT_CODES = frozenset({126, 127})  # not executable; not there: a file system is missing

# What slurmstepd adds to a job's own output. Without cgroups, only this tells of a memory limit.
SAID: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"exceeded (job |step )?memory limit", re.IGNORECASE), OUT_OF_MEMORY),
    (re.compile(r"oom[-_]kill", re.IGNORECASE), OUT_OF_MEMORY),
    (re.compile(r"CANCELLED AT \S+ DUE TO TIME LIMIT"), "TIMEOUT"),
    (re.compile(r"CANCELLED AT \S+ DUE TO PREEMPTION"), "PREEMPTED"),
    (re.compile(r"CANCELLED AT \S+ DUE TO NODE FAILURE"), "NODE_FAIL"),
    (re.compile(r"CANCELLED AT \S+ DUE TO JOB REQUEUE"), REQUEUED),
    (re.compile(r"CANCELLED AT "), "CANCELLED"),
)

ACCEPTED = re.compile(r"^(\d+)(?:;\S+)?\s*$", re.MULTILINE)  # --parsable: the id, and the cluster
ERROR = re.compile(r"^\S*sbatch: (error|fatal|unrecognized|invalid|option)", re.MULTILINE)
# After these, slurmctld may have the job all the same, so it is looked for.
UNSURE = re.compile(
    r"timed? ?out|unable to contact|connect|communicat|transport|zero bytes|standby|transition"
    r"|receive|authenticat|munge|protocol|unexpected message|temporarily|unspecified",
    re.IGNORECASE,
)
TOO_LARGE = re.compile(r"Invalid job array specification", re.IGNORECASE)
TOO_MUCH_MEMORY = re.compile(
    r"Memory (specification|required).{0,40}(not be satisfied|not available)|Max\w*Mem\w*PerJob",
    re.IGNORECASE,
)
TOO_MANY_JOBS = re.compile(r"Max\w*Submit\w*|MaxJobs\w*PerUser", re.IGNORECASE)
POLICY = re.compile(r"violates accounting/QOS policy", re.IGNORECASE)
LIMIT = re.compile(r"\b(QOS|Assoc)\w*(Max|Min|Grp)\w+", re.IGNORECASE)  # the limit that is meant
LATER = re.compile(r"partition.{0,20} not available|maintenance|draining", re.IGNORECASE)
NOT_THERE = re.compile(r"Invalid job id specified", re.IGNORECASE)
NO_ACCOUNTS = re.compile(r"accounting storage is disabled|not running a supported accounting")

# Pending reasons that somebody must do something about.
MEANT: dict[str, str] = {
    "JobHeldUser": "held by its user: scontrol release",
    "JobHeldAdmin": "held by an administrator",
    "launch failed requeued held": "its host could not start it: ask the administrator",
    "PartitionTimeLimit": "limit_minutes is more than the partition allows",
    "PartitionConfig": "it asks for more than the partition has",
    "PartitionNodeLimit": "it asks for more than the partition allows",
    "BadConstraints": "no host can ever run it",
}
REASON_CHARACTERS = 200

# The array's id, the element, the state, why it is pending, the name. A slurmctld that was killed
# may give the id of an array that it has lost to another one, so the name counts, too.
FIELDS = "%F|%K|%T|%r|%j"
ACCOUNT_FIELDS = "JobID,State,ExitCode,JobName"
CELLS = 5


# --------------------------------------------------------------------------- arguments


def sbatch_command(name: str, count: int, job: JobSpec, site: SlurmSite) -> list[str]:
    """The arguments of an sbatch whose script comes on standard input. --time has no seconds.

    The output is relative to the round's folder: slurmstepd adds its own words to it. The job's
    environment is the run's, whatever SBATCH_EXPORT says: with --export=NONE a host would read the
    user's profile, and hold the job where that takes long.
    """
    throttle = f"%{site.throttle}" if site.throttle else ""
    return [
        *("sbatch", "--parsable", "--no-requeue", "--export=ALL"),
        f"--job-name={name}",
        f"--array=1-{count}{throttle}",
        *("--nodes=1", "--ntasks=1", f"--cpus-per-task={job.cpus}"),
        f"--mem={job.memory_mb}M",
        f"--time={math.ceil(job.limit_minutes)}",
        "--output=slurm/%x_%a.out",
        "--open-mode=append",
        *((f"--partition={job.queue}",) if job.queue else ()),
        *((f"--account={site.account}",) if site.account else ()),
        *((f"--qos={site.qos}",) if site.qos else ()),
        *site.extra,
        *job.extra,
    ]


def sbatch_script(folder: Path, offset: int) -> str:
    """The script of a chunk: element i runs job i + offset of the round."""
    words = ("exec", "bash", shlex.quote(str(RUN_JOB)), shlex.quote(str(folder)))
    return f"#!/bin/sh\n{' '.join(words)} $((SLURM_ARRAY_TASK_ID + {offset}))\n"


# --------------------------------------------------------------------------- output


def refusal(text: str) -> str:
    """What sbatch says of a refusal, in one line and without its own name."""
    said = (re.sub(r"^\S*sbatch: (error: )?", "", line).strip() for line in text.splitlines())
    return "; ".join(line for line in said if line)


def rows_in_queue(text: str) -> list[Row]:
    """The rows of squeue with `FIELDS`, for elements of arrays."""
    cells = (line.strip().split("|", CELLS - 1) for line in text.splitlines())
    return [
        _row(found[0], found[1], found[2], found[3], name=found[4])
        for found in cells
        if len(found) == CELLS and found[0].isdecimal() and found[1].isdecimal()
    ]


def rows_of_jobs(text: str) -> list[Row]:
    """The rows of `scontrol -o show job`, for elements of arrays."""
    pattern = re.compile(
        r"ArrayJobId=(\d+) ArrayTaskId=(\d+) JobName=(\S+)\s.*?"
        r"JobState=(\S+) Reason=(\S+) .*?ExitCode=(\d+:\d+)"
    )
    found = (pattern.search(line) for line in text.splitlines())
    return [_row(one[1], one[2], one[4], one[5], one[6], name=one[3]) for one in found if one]


def rows_in_accounts(text: str) -> list[Row]:
    """The rows of `sacct -P` with `ACCOUNT_FIELDS`, for elements of arrays."""
    pattern = re.compile(r"(\d+)_(\d+)\|(\w+)[^|]*\|(\d+:\d+)\|(.*)")
    found = (pattern.match(line) for line in text.splitlines())
    return [_row(one[1], one[2], one[3], "", one[4], name=one[5]) for one in found if one]


def _row(
    job_id: str, index: str, status: str, reason: str, code: str = "", *, name: str = ""
) -> Row:
    state = STATES.get(status, JobState.UNKNOWN)
    return Row(
        job_id=job_id,
        index=int(index),
        state=state,
        status=status,
        name=name,
        is_idle=status in WAITING or status in SUSPENDED,
        waits=_pending_reason(reason) if state == JobState.PENDING else "",
        exit_code=_exit_code(code) if code and state in ENDED else None,
        term=status if status in REASONS else "",
    )


def _pending_reason(word: str) -> str:
    if word in {"None", "(null)", ""}:
        return ""
    meant = f" ({MEANT[word]})" if word in MEANT else ""
    return f"{word[:REASON_CHARACTERS]}{meant}"


def _exit_code(text: str) -> int:
    """An exit code as a shell has it, of `code:signal`."""
    code, _, number = text.partition(":")
    return 128 + int(number) if int(number) else int(code)


def arrays_in(text: str) -> set[str]:
    """The ids of arrays in the output of `squeue -o %F`, or of `sacct -o JobID`."""
    return set(re.findall(r"^\s*(\d+)(?=[_\s]|$)", text, re.MULTILINE))


def largest_host_mb(text: str) -> int | None:
    """The memory of the largest host in the output of `sinfo -N -o %m`. None if it names none."""
    sizes = re.findall(r"^\s*(\d+)\+?\s*$", text, re.MULTILINE)
    return max(map(int, sizes), default=None)


def row_said(native_id: str, term: str) -> Row:
    """The row of an element that only its own output tells of."""
    job_id, _, index = native_id.partition("_")
    return _row(job_id, index, term, "")


def term_in_output(text: str) -> str:
    """Slurm's word for an end, from what slurmstepd added to a job's output; or ""."""
    return next((term for pattern, term in SAID if pattern.search(text)), "")


def facts_of_slurm(text: str) -> str:
    """What `scontrol show config` says that matters for jobs, in words."""
    found = dict(re.findall(r"^(\w+)\s*=\s*(\S+)", text, re.MULTILINE))
    has_accounts = found.get("AccountingStorageType", "").endswith("slurmdbd")
    memory_s = found.get("MinJobAge", "?")
    accounts = "keeps accounts" if has_accounts else f"no accounts: ends are known for {memory_s} s"
    return f"version {found.get('SLURM_VERSION', '?')}, {accounts}"


# --------------------------------------------------------------------------- ends


def end_with_code(code: int, row: Row | None, said: str) -> End:
    """Why a job with an exit code ended. Slurm's word distinguishes kinds of kills."""
    term = row.term if row and row.term else said
    known = end_of_term(term, REASONS) if code else None
    return known or of_exit_code(code)


def end_without_code(row: Row | None, said: str, *, is_claimed: bool) -> End:
    """Why a job without an exit code ended. It has not succeeded, whatever Slurm says."""
    if known := end_of_term(row.term if row and row.term else said, REASONS):
        return known
    if row is None:
        return FailureClass.INFRASTRUCTURE, "Slurm no longer knows it, and it left no exit code"
    if row.state == JobState.SUCCEEDED:
        cause = "was it started twice, or the disk full" if is_claimed else NOT_SEEN
        why = f"Slurm says {row.status}, but it left no exit code: {cause}?"
        return FailureClass.INFRASTRUCTURE, why
    if row.exit_code in START_EXIT_CODES:
        why = f"it could not be started on its host (exit code {row.exit_code}): is bash there?"
        return FailureClass.INFRASTRUCTURE, why
    if row.exit_code is not None and signal_of(row.exit_code):
        return of_exit_code(row.exit_code)
    why = f"Slurm says {row.status}, exit code {row.exit_code}, and none was left on disk"
    return FailureClass.INFRASTRUCTURE, why


NOT_SEEN = "is the work directory seen from its host"
