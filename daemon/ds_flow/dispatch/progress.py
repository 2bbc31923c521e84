"""What became of a batch's jobs so far, for people. No backend is asked: the rounds' files tell.

Jobs may write to some of these files. So they are read as data: no links, no more than a bound, and
what has another form is left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ds_flow.core import FailureClass, failed_and_done_again, first_of, moment
from ds_flow.dispatch import docker, local
from ds_flow.dispatch.cluster import Handover, array_of
from ds_flow.dispatch.exit_codes import NO_EXIT_CODE, End, of_exit_code
from ds_flow.dispatch.rounds import Outcome, Round, rounds_in

CLUSTERS = ("lsf", "slurm")
UNFINISHED = ("pending", "running")
STATES = (*UNFINISHED, "done", "failed")
TEXT_CHARACTERS = 500  # of a reason, or a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job in one round."""

    stage: str
    backend: str
    key: str
    round: str
    opened_by: str  # the attempt
    index: int
    state: str  # of STATES
    failure: FailureClass | None
    reason: str  # why it failed, or is pending
    silent: str  # why the backend told nothing new of it, if it does not answer
    exit_code: int | None
    host: str
    native_id: str
    submitted_at: str  # "" if the backend does not record it
    started_at: str
    ended_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageJobs:
    """The jobs of one stage, each as its last round has it."""

    stage: str
    backend: str
    pending: int
    running: int
    done: int
    failed: int
    native_ids: list[str]  # of what is pending or running; of an array, the array's
    pending_since: str  # the oldest submission of what is pending
    running_since: str  # the oldest start of what is running
    pending_reasons: list[str]  # in the backend's words
    silent: list[str]  # why the backend does not answer; empty if it does
    done_again: list[str]  # the jobs that failed and were done again, and why


# --------------------------------------------------------------------------- each job


def jobs_in(jobs_dir: Path) -> list[Job]:
    """Every job of a batch, in the order of its rounds."""
    found: list[Job] = []
    with suppress(FileNotFoundError):  # the batch is over by now
        for folder in sorted(jobs_dir.iterdir()):
            for opened in rounds_in(folder):
                found += _jobs_of(stage_of(folder), opened)
    return found


def stage_of(folder: Path) -> str:
    """The stage whose rounds a folder in `jobs/` holds."""
    return "combine" if folder.name == "align" else folder.name.partition("-")[0]


def _jobs_of(stage: str, opened: Round) -> Iterator[Job]:
    handover = Handover.of(opened) if opened.executor in CLUSTERS else None
    silent = docker.Handover(opened).silent if opened.executor == "docker" else ""
    is_dead = _is_dead(opened)  # before the exit codes: a job may end between the two looks
    closed = {outcome.index: outcome for outcome in opened.outcomes() or ()}
    for index, spec in enumerate(opened.jobs, 1):
        outcome = closed.get(index)
        exit_code, ended_at = opened.exit_of(index) or (None, "")
        host, native_id, started_at = opened.claim_of(index) or ("", "", "")
        end = _end_of(outcome, exit_code, is_dead=is_dead)
        job = Job(
            stage=stage,
            backend=opened.executor,
            key=spec.key,
            round=opened.name,
            opened_by=opened.opened_by,
            index=index,
            state=_state(end, is_claimed=bool(host)),
            failure=end[0] if end else None,
            reason=_word(end[1]) if end else "",
            exit_code=exit_code,
            host=_word(outcome.host) if outcome else host,
            native_id=_word(outcome.native_id) if outcome else native_id,
            silent=_word(silent) if end is None else "",
            submitted_at="",
            started_at=started_at,
            ended_at=ended_at,
        )
        yield _as_submitted(job, handover) if handover else job


def _word(text: object) -> str:
    """What a file says, bounded."""
    return str(text)[:TEXT_CHARACTERS]


def _is_dead(opened: Round) -> bool:
    """Whether no process of a local round is left.

    Before the handover its lock is the submitter's, and is not touched.
    """
    if opened.executor == "local" and (opened.folder / "handed_over").exists():
        with suppress(OSError):  # another user's
            return not local.is_alive(opened)
    return False


def _end_of(outcome: Outcome | None, exit_code: int | None, *, is_dead: bool) -> End | None:
    if outcome is not None:
        return outcome.failure, outcome.reason
    if exit_code is not None:
        return of_exit_code(exit_code)
    return NO_EXIT_CODE if is_dead else None


def _state(end: End | None, *, is_claimed: bool) -> str:
    if end is None:
        return "running" if is_claimed else "pending"
    return "failed" if end[0] else "done"


def _as_submitted(job: Job, handover: Handover) -> Job:
    """The job with what is known of its array: its id and age, and why it waits."""
    with suppress(StopIteration, TypeError, ValueError, LookupError, OverflowError, OSError):
        chunk = handover.chunk_of(job.index)
        asked_at = datetime.fromtimestamp(chunk.asked_at, UTC) if chunk.asked_at else None
        job = replace(job, submitted_at=asked_at.isoformat(timespec="seconds") if asked_at else "")
        if not job.native_id and chunk.job_ids:
            job = replace(job, native_id=handover.native_id(job.index))
        if job.state in UNFINISHED:
            job = replace(job, silent=_word(handover.silent))
        if job.state == "pending":
            job = replace(job, reason=_word(chunk.held or "; ".join(map(str, handover.pending))))
    return job


# --------------------------------------------------------------------------- each stage


def stages_in(jobs_dir: Path) -> list[StageJobs]:
    """The jobs of a batch by stage, in the order in which the stages began."""
    jobs = jobs_in(jobs_dir)
    latest = {(job.stage, job.key): job for job in jobs}.values()
    stages = dict.fromkeys(job.stage for job in jobs)
    again = {
        stage: failed_and_done_again([asdict(job) for job in jobs if job.stage == stage])
        for stage in stages
    }
    return [_stage([job for job in latest if job.stage == stage], again[stage]) for stage in stages]


def _stage(jobs: Sequence[Job], done_again: list[str]) -> StageJobs:
    counts = Counter(job.state for job in jobs)
    pending = [job for job in jobs if job.state == "pending"]
    running = [job for job in jobs if job.state == "running"]
    return StageJobs(
        stage=jobs[-1].stage,
        backend=jobs[-1].backend,
        pending=counts["pending"],
        running=counts["running"],
        done=counts["done"],
        failed=counts["failed"],
        native_ids=_distinct(array_of(job.native_id) for job in (*running, *pending)),
        pending_since=min((job.submitted_at for job in pending if job.submitted_at), default=""),
        running_since=min((job.started_at for job in running), default=""),
        pending_reasons=_distinct(job.reason for job in pending),
        silent=_distinct(job.silent for job in jobs),
        done_again=done_again,
    )


def _distinct(words: Iterable[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word]


def told(stage: StageJobs) -> str:
    """The jobs of a stage in words: how many are in each state, since when and why."""
    since = {"pending": stage.pending_since, "running": stage.running_since}
    why = {"pending": "; ".join(stage.pending_reasons)}
    counts = [
        f"{getattr(stage, state)} {state}{_since(since.get(state, ''))}{_why(why.get(state, ''))}"
        for state in STATES
        if getattr(stage, state)
    ]
    parts = [f"{stage.stage} on {stage.backend}: {', '.join(counts)}"]
    parts += [f"no answer from {stage.backend}: {why}" for why in stage.silent]
    if stage.native_ids:
        parts.append(f"ids {first_of(stage.native_ids, ', ')}")
    if stage.done_again:
        parts.append(f"failed and done again: {first_of(stage.done_again, '; ')}")
    return "; ".join(parts)


def _since(at: str) -> str:
    return f" since {moment(at)}" if at else ""


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""
