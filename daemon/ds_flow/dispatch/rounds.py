"""A round on disk: one submission of a stage's open jobs, and the outcome of each."""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ds_flow.core import CHECKOUT, BatchError, DispatchError, FailureClass, JobState, starved
from ds_flow.dispatch.exit_codes import End
from ds_flow.system import NotRegularError, open_regular, read_json, write_word

RUN_JOB = CHECKOUT / "bash" / "run_job.sh"  # runs a job and writes its claim, log and exit code
LOG_BYTES = 2**16  # how much of a job's log is shown, from its end
WORD_BYTES = 2**12  # more than a claim or an exit code has
LIST_BYTES = 2**26  # more than a round's jobs or outcomes have

EXIT = re.compile(r"([0-9]{1,3}) ([0-9]{1,11})\n")
ALLOWED = re.compile(r"(.{1,30})\n")
CLAIM = re.compile(r"(\S+) (\S+) ([0-9]{1,11})\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One command that a stage hands to a backend."""

    key: str  # unique in its stage: a later attempt finds the job's outcome by it
    command: tuple[str, ...]
    stdin: Path | None = None
    cpus: int = 1
    memory_mb: int = 2048
    has_more_memory: bool = False  # than its stage's jobs have: it ran out of that
    limit_minutes: float = 720
    queue: str = ""  # of LSF, or the partition of Slurm
    image: str = ""  # of Docker
    extra: tuple[str, ...] = ()  # arguments of the site's submitting command
    reads: tuple[Path, ...] = ()  # paths that a container must be given
    writes: tuple[Path, ...] = ()

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        paths = {name: tuple(map(Path, row.get(name, ()))) for name in ("reads", "writes")}
        stdin = Path(row["stdin"]) if row["stdin"] else None
        words = {name: tuple(row.get(name, ())) for name in ("command", "extra")}
        return cls(**{**row, **paths, **words, "stdin": stdin})

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        paths = {name: [str(path) for path in getattr(self, name)] for name in ("reads", "writes")}
        return {**asdict(self), **paths, "stdin": str(self.stdin) if self.stdin else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a backend reports of one job now. Failure and reason count once it has ended."""

    state: JobState
    failure: FailureClass | None = None
    reason: str = ""
    native_id: str = ""  # if the backend gave it one before the job began
    image_id: str = ""  # of the image that ran, if any
    image_digest: str = ""  # its name in a registry, if it has one

    @classmethod
    def of_end(cls, end: End, image_id: str = "", image_digest: str = "") -> Self:
        """Report a job that has ended."""
        failure, reason = end
        return cls(
            state=JobState.FAILED if failure else JobState.SUCCEEDED,
            failure=failure,
            reason=reason,
            image_id=image_id,
            image_digest=image_digest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one job ended in one round. It succeeded if `failure` is None."""

    key: str
    index: int
    round: str
    opened_by: str  # the attempt
    failure: FailureClass | None
    reason: str
    exit_code: int | None
    host: str
    native_id: str
    started_at: str
    ended_at: str
    image_id: str = ""
    image_digest: str = ""
    backend: str = ""  # "" in a verdict of an older version

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        failure = FailureClass(row["failure"]) if row["failure"] else None
        return cls(**{**row, "failure": failure})


@dataclass(frozen=True, slots=True)
class Round:
    """One submission: `<batch>/jobs/<stage>/<number>/`. It is open until its outcomes are there."""

    folder: Path
    name: str  # dsf-<batch>-<stage>-<number>: what a backend's queue shows
    opened_by: str  # the attempt
    executor: str
    jobs: tuple[JobSpec, ...]  # job i has the index i + 1

    @property
    def indices(self) -> range:
        """The jobs' indices, from 1 as schedulers count."""
        return range(1, len(self.jobs) + 1)

    @property
    def environment_file(self) -> Path:
        """Where the variables of `.env` are for the jobs: bash/run_job.sh reads it."""
        return self.folder / "env"

    def note_alive(self) -> None:
        """Count this moment as progress of the run, although no job has moved."""
        os.utime(self.folder)

    def ended(self) -> set[int]:
        """The jobs that have an exit code on disk."""
        names = (entry.name for entry in os.scandir(self.folder))
        return {int(name[:-5]) for name in names if name.endswith(".exit")}

    def exit_of(self, index: int) -> tuple[int, str] | None:
        """A job's exit code and the time it ended, once they are on disk."""
        found = _read(self.folder / f"{index}.exit", EXIT)
        return (int(found[1]), _time(found[2])) if found else None

    def claim_of(self, index: int) -> tuple[str, str, str] | None:
        """Host, native id and start time of a job that has begun."""
        found = _read(self.folder / f"{index}.claim", CLAIM)
        return (found[1], found[2], _time(found[3])) if found else None

    def starved(self, index: int) -> str:
        """The reason, if the kernel killed a job because memory ran out; or ""."""
        path = self.folder / f"{index}.starved"
        if not path.exists():
            return ""
        allowed = _read(path, ALLOWED)
        return starved(allowed[1] if allowed else None)

    def log_of(self, index: int) -> str:
        """The last 64 KiB a job printed. If that is not all, the first line says so."""
        try:
            with (self.folder / f"{index}.log").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                left_out = file.seek(max(0, size - LOG_BYTES))
                mark = f"... {left_out} earlier bytes are left out\n" if left_out else ""
                return mark + file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def outcomes(self) -> list[Outcome] | None:
        """How every job ended. None while the round is open, or if a power loss tore the file."""
        try:
            rows = read_json(self.folder / "verdict.json", LIST_BYTES)
            return [Outcome.from_json(row) for row in rows]
        except (FileNotFoundError, BatchError, ValueError, TypeError, KeyError):
            return None

    def close(self, outcomes: Sequence[Outcome]) -> None:
        """Record how every job ended."""
        rows = [asdict(outcome) for outcome in outcomes]
        write_word(self.folder / "verdict.json", json.dumps(rows))

    @property
    def is_released(self) -> bool:
        """Whether its backend holds nothing outside the round's folder any more."""
        return (self.folder / "released").exists()

    def mark_released(self) -> None:
        """Record that its backend holds nothing any more."""
        (self.folder / "released").touch()


def rounds_in(stage_dir: Path) -> Iterator[Round]:
    """A stage's rounds, oldest first. A round that a power loss tore is skipped."""
    for folder in _folders(stage_dir):
        with suppress(FileNotFoundError, BatchError, ValueError, TypeError, KeyError):
            row = read_json(folder / "round.json", LIST_BYTES)
            jobs = tuple(JobSpec.from_json(job) for job in row["jobs"])
            executor = row.get("executor", "local")
            yield Round(folder, row["name"], row["opened_by"], executor, jobs)


def _folders(stage_dir: Path) -> list[Path]:
    found = stage_dir.iterdir() if stage_dir.is_dir() else ()
    return sorted(
        (path for path in found if path.name.isdecimal()), key=lambda path: int(path.name)
    )


def open_round(
    stage_dir: Path,
    batch: str,
    opened_by: str,
    executor: str,
    jobs: Sequence[JobSpec],
    commands: Sequence[Sequence[str]],
) -> Round:
    """Write the next round under its number, whole: it appears by one rename.

    `commands` holds for each job the command line that runs it. Raises DispatchError if another
    process got there first.
    """
    number = 1 + max((int(folder.name) for folder in _folders(stage_dir)), default=0)
    name = f"dsf-{batch}-{stage_dir.name}-{number}"
    part = stage_dir / f".{number}.{secrets.token_hex(4)}"
    part.mkdir(parents=True)
    for index, (job, command) in enumerate(zip(jobs, commands, strict=True), 1):
        (part / f"{index}.args").write_bytes(b"".join(os.fsencode(arg) + b"\0" for arg in command))
        if job.stdin is not None:
            (part / f"{index}.stdin").symlink_to(job.stdin)
    row = {"name": name, "opened_by": opened_by, "executor": executor}
    text = json.dumps({**row, "jobs": [job.to_json() for job in jobs]})
    write_word(part / "round.json", text)
    folder = stage_dir / str(number)
    try:
        part.rename(folder)
    except OSError as error:
        raise DispatchError(f"{folder}: another process opened this round: {error}") from error
    return Round(folder, name, opened_by, executor, tuple(jobs))


def _read(path: Path, form: re.Pattern[str]) -> re.Match[str] | None:
    """Read what run_job.sh wrote. None if it is missing, unfinished or torn by a power loss.

    A job may put something else there, such as a link or a FIFO: that is None, too.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return form.fullmatch(file.read(WORD_BYTES).decode(errors="replace"))
    except (FileNotFoundError, NotRegularError):
        return None


def _time(seconds: str) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()
